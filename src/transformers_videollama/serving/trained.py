"""The library's server loads a model by its name; here the name gives the model with what was trained on top of it."""

from collections.abc import Sequence

from transformers import AutoModelForMultimodalLM, AutoProcessor

from .. import processing_video_llama
from ..adapters import load_trained
from ..configuration_video_llama import VideoLlamaConfig
from ..modeling_video_llama import VideoLlamaForConditionalGeneration


__all__ = ["register_trained"]


def register_trained(adapter: str | None, branches: Sequence[str], processor_source: str) -> None:
    """
    Makes the Auto classes of this process load every Video-LLaMA with what was trained in it.

    Args:
        adapter, branches: as in [`~transformers_videollama.adapters.load_trained`].
        processor_source (`str`): the folder whose processor is loaded.
    """

    class TrainedModel(VideoLlamaForConditionalGeneration):
        @classmethod
        def from_pretrained(cls, *args, **kwargs):
            model = VideoLlamaForConditionalGeneration.from_pretrained(*args, **kwargs)
            load_trained(model, adapter, branches)
            return model

    class VideoLlamaProcessor(processing_video_llama.VideoLlamaProcessor):  # it is looked up by this name
        @classmethod
        def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
            return processing_video_llama.VideoLlamaProcessor.from_pretrained(processor_source, **kwargs)

    AutoModelForMultimodalLM.register(VideoLlamaConfig, TrainedModel, exist_ok=True)
    AutoProcessor.register(VideoLlamaConfig, VideoLlamaProcessor, exist_ok=True)
