"""The library's model tests: the whole model, and each of ImageBind's trunks by itself."""

import unittest

from tests.generation.test_utils import GenerationTesterMixin
from tests.test_configuration_common import ConfigTester
from tests.test_fsdp_mixin import FSDPTesterMixin
from tests.test_modeling_common import ModelTesterMixin
from tests.test_pipeline_mixin import PipelineTesterMixin
from tests.test_training_mixin import TrainingTesterMixin
from torch import nn

from tests import test_tensor_parallel_mixin
from transformers_videollama import (
    VideoLlamaAudioModel,
    VideoLlamaAudioVisionModel,
    VideoLlamaForConditionalGeneration,
    VideoLlamaModel,
)

from .model_tester import (
    AnyTextTester,
    AudioModelTester,
    AudioVisionModelTester,
    SeededTextTester,
    TrainingTester,
    VideoLlamaModelTester,
    WholeBatchTester,
)


# The library runs these for a few of its models alone
test_tensor_parallel_mixin.TP_DISTRIBUTED_TEST_MODEL_TYPES = None


# A placeholder without its item is an error, and these tests draw texts without items, or leave items out
TESTERS = {
    "test_eager_matches_sdpa_inference": WholeBatchTester,
    "test_model_rope_scaling_from_config": AnyTextTester,
    "test_tp_forward": SeededTextTester,
    "test_tp_backward": SeededTextTester,
}


class ConfigTestMixin:
    def test_config(self):
        config_class = self.all_model_classes[0].config_class
        ConfigTester(self, config_class=config_class, has_text_modality=False).run_common_tests()


class VideoLlamaModelTest(
    ConfigTestMixin,
    ModelTesterMixin,
    GenerationTesterMixin,
    PipelineTesterMixin,
    test_tensor_parallel_mixin.TensorParallelTesterMixin,
    FSDPTesterMixin,
    unittest.TestCase,
):
    all_model_classes = (VideoLlamaModel, VideoLlamaForConditionalGeneration)
    pipeline_model_mapping = {
        "image-text-to-text": VideoLlamaForConditionalGeneration,
        "any-to-any": VideoLlamaForConditionalGeneration,
    }
    additional_model_inputs = ("pixel_values", "pixel_values_videos", "input_features")  # beside the ids
    _is_composite = True

    def setUp(self):
        test = self.id().rpartition(".")[2]
        testers = [tester for name, tester in TESTERS.items() if test.startswith(name)]
        (tester,) = testers or [VideoLlamaModelTester]
        self.model_tester = tester()


class VideoLlamaTrainingTest(TrainingTesterMixin, unittest.TestCase):
    def setUp(self):
        self.model_tester = TrainingTester()


class TrunkTestMixin(ConfigTestMixin, ModelTesterMixin):
    """A trunk of ImageBind, whose input embeddings are a convolution."""

    test_resize_embeddings = False

    def test_model_get_set_embeddings(self):
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            assert isinstance(model_class(config).get_input_embeddings(), nn.Conv2d)


class VideoLlamaAudioModelTest(TrunkTestMixin, unittest.TestCase):
    all_model_classes = (VideoLlamaAudioModel,)

    def setUp(self):
        self.model_tester = AudioModelTester()


class VideoLlamaAudioVisionModelTest(TrunkTestMixin, unittest.TestCase):
    all_model_classes = (VideoLlamaAudioVisionModel,)

    def setUp(self):
        self.model_tester = AudioVisionModelTester()
