"""The library's tests of processors of images, videos and sound."""

import unittest

import numpy as np
from tests.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin
from tests.test_sequence_feature_extraction_common import SequenceFeatureExtractionTestMixin
from tests.test_video_processing_common import VideoProcessingTestMixin, prepare_video_inputs

from transformers_videollama import VideoLlamaFeatureExtractor, VideoLlamaImageProcessor, VideoLlamaVideoProcessor


SIZE = {"height": 20, "width": 24}


class VideoLlamaImageProcessingTester(ImageProcessingTester):
    def __init__(self, parent):
        super().__init__(parent, size=SIZE, do_resize=True, do_normalize=True)

    def _get_image_processing_classes(self) -> dict[str, type]:
        return {"pil": VideoLlamaImageProcessor}


class VideoLlamaImageProcessingTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = VideoLlamaImageProcessingTester


class VideoProcessingTester:
    """Videos of random frames, and the shape that they become."""

    batch_size, num_frames, num_channels = 5, 8, 3

    def prepare_video_inputs(self, equal_resolution: bool = False, return_tensors: str = "pil") -> list:
        return prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=30,
            max_resolution=60,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )

    def expected_output_video_shape(self, videos: list) -> tuple[int, ...]:
        return self.num_frames, 3, SIZE["height"], SIZE["width"]


class VideoLlamaVideoProcessingTest(VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = VideoLlamaVideoProcessor
    video_processor_dict = {"size": SIZE, "do_resize": True}

    def setUp(self):
        super().setUp()
        self.video_processor_tester = VideoProcessingTester()

    def test_video_processor_from_dict_with_kwargs(self):
        assert VideoLlamaVideoProcessor.from_dict(self.video_processor_dict).size == SIZE
        changed = VideoLlamaVideoProcessor.from_dict(self.video_processor_dict, size={"height": 42, "width": 36})
        assert changed.size == {"height": 42, "width": 36}


class FeatureExtractionTester:
    """Spectrograms of several lengths, as if they were to be padded."""

    batch_size, feature_size = 7, 128
    min_seq_length, max_seq_length = 400, 2000
    seq_length_diff = (max_seq_length - min_seq_length) // (batch_size - 1)
    padding_value = 0.0

    def prepare_feat_extract_dict(self) -> dict:
        return {
            "feature_size": self.feature_size,
            "sampling_rate": 16000,
            "padding_value": self.padding_value,
            "padding_side": "right",
        }

    def prepare_inputs_for_common(self, equal_length: bool = False, numpify: bool = False) -> list:
        lengths = [self.max_seq_length] * self.batch_size
        if not equal_length:
            lengths = range(self.min_seq_length, self.max_seq_length, self.seq_length_diff)
        rng = np.random.default_rng(0)
        inputs = [rng.random((length, self.feature_size)) for length in lengths]
        return inputs if numpify else [array.tolist() for array in inputs]


class VideoLlamaFeatureExtractionTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = VideoLlamaFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = FeatureExtractionTester()
