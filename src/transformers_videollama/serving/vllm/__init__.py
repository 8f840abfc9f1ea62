"""vLLM's plugin: makes vLLM serve Video-LLaMA with its Transformers backend. vLLM finds and loads it by itself."""

from ...modeling_video_llama import VideoLlamaForConditionalGeneration


__all__ = ["register"]


def register() -> None:
    """
    Makes the architecture, its defaults and its video loader known to vLLM; doing it again changes nothing. vLLM calls
    it in every process, by the entry point `vllm.general_plugins`; importing this package has registered the classes.
    """
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from .config import VideoLlamaServingConfig  # which registers the video loader, too

    architecture = VideoLlamaForConditionalGeneration.__name__
    # By name: vLLM imports what computes in the processes that compute alone
    ModelRegistry.register_model(architecture, f"{__name__}.model:VideoLlamaForCausalLM")
    MODELS_CONFIG_MAP[architecture] = VideoLlamaServingConfig
