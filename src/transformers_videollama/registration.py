"""Makes the Auto classes, the pipelines and the engines that look classes up by name know Video-LLaMA."""

import gc
import sys
from types import ModuleType

import transformers
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoVideoProcessor,
)
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

from .configuration_video_llama import (
    VideoLlamaAudioConfig,
    VideoLlamaAudioVisionConfig,
    VideoLlamaConfig,
    VideoLlamaResamplerConfig,
)
from .feature_extraction_video_llama import VideoLlamaFeatureExtractor
from .image_processing_video_llama import VideoLlamaImageProcessor
from .modeling_video_llama import (
    VideoLlamaAudioModel,
    VideoLlamaAudioVisionModel,
    VideoLlamaForConditionalGeneration,
    VideoLlamaModel,
)
from .processing_video_llama import VideoLlamaProcessor
from .video_processing_video_llama import VideoLlamaVideoProcessor


__all__ = ["register"]


def register() -> None:
    """
    Registers the classes with every Auto class; importing the package does it, and doing it again changes nothing.

    Raises:
        ValueError: if another class holds the model type "video_llama" already.
    """
    for config_class in (
        VideoLlamaConfig,
        VideoLlamaAudioConfig,
        VideoLlamaAudioVisionConfig,
        VideoLlamaResamplerConfig,
    ):
        _register_config(config_class)
    AutoModel.register(VideoLlamaConfig, VideoLlamaModel, exist_ok=True)
    AutoModel.register(VideoLlamaAudioConfig, VideoLlamaAudioModel, exist_ok=True)
    AutoModel.register(VideoLlamaAudioVisionConfig, VideoLlamaAudioVisionModel, exist_ok=True)
    for auto_class in (AutoModelForMultimodalLM, AutoModelForImageTextToText, AutoModelForCausalLM):
        auto_class.register(VideoLlamaConfig, VideoLlamaForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(VideoLlamaConfig, VideoLlamaProcessor, exist_ok=True)
    AutoVideoProcessor.register(VideoLlamaConfig, VideoLlamaVideoProcessor, exist_ok=True)
    AutoFeatureExtractor.register(VideoLlamaConfig, VideoLlamaFeatureExtractor, exist_ok=True)
    AutoImageProcessor.register(
        VideoLlamaConfig,
        image_processor_classes={"pil": VideoLlamaImageProcessor, "torchvision": VideoLlamaImageProcessor},
        exist_ok=True,
    )
    # `transformers serve` asks for the modality by these names
    modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES["video_llama"] = "VideoLlamaForConditionalGeneration"
    # the Trainer shifts labels under label smoothing only for classes that stand here
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["video_llama"] = "VideoLlamaForConditionalGeneration"
    # engines look the architecture up in the library by its name
    for module in _library_modules():
        setattr(module, VideoLlamaForConditionalGeneration.__name__, VideoLlamaForConditionalGeneration)


def _library_modules() -> list[ModuleType]:
    """
    The library's top module, as often as it was made: `transformers.processing_utils` executes `__init__` anew, and
    who imported the library before keeps the former object, which `sys.modules` does not have any more.
    """
    kind = type(transformers)
    made = [module for module in gc.get_referrers(kind) if type(module) is kind and module.__name__ == "transformers"]
    return [*made, transformers, sys.modules["transformers"]]


def _register_config(config_class: type[PreTrainedConfig]) -> None:
    model_type = config_class.model_type
    if model_type in CONFIG_MAPPING and model_type not in CONFIG_MAPPING_NAMES:  # one that was registered
        known = CONFIG_MAPPING[model_type]
        if known is config_class:
            return
        # the library itself would put ours in its place without a word
        raise ValueError(f"the model type {model_type!r} is already used by {known}; import one of the two packages")
    AutoConfig.register(model_type, config_class)  # raises where the library has come to know a model of this name
