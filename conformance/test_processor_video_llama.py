"""The library's processor tests. They read the model type from the name of this file."""

import unittest

from tests.test_processing_common import ProcessorTesterMixin

from transformers_videollama import TINY_CHECKPOINT, VideoLlamaProcessor


class VideoLlamaProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = VideoLlamaProcessor
    model_id = TINY_CHECKPOINT

    @staticmethod
    def prepare_processor_dict() -> dict:
        """Settings of the checkpoint, for a processor that is built from its parts."""
        loaded = VideoLlamaProcessor.from_pretrained(TINY_CHECKPOINT)
        return {name: getattr(loaded, name) for name in ("num_video_tokens", "num_audio_tokens")}
