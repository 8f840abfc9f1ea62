"""vLLM's defaults for the media of this model."""

from typing import TYPE_CHECKING

from transformers import AutoVideoProcessor
from vllm.model_executor.models.config import VerifyAndUpdateConfig

from .video import VIDEO_LOADER


if TYPE_CHECKING:
    from vllm.config import ModelConfig


class VideoLlamaServingConfig(VerifyAndUpdateConfig):
    """vLLM takes 32 frames of a video for any model; this gives it the checkpoint's own sampling and size."""

    @staticmethod
    def verify_and_update_model_config(model_config: "ModelConfig") -> None:
        processor = AutoVideoProcessor.from_pretrained(model_config.model, revision=model_config.revision)
        defaults = {
            "video_backend": VIDEO_LOADER,
            "size": {name: processor.size[name] for name in ("height", "width")},
        }
        video = model_config.multimodal_config.media_io_kwargs.setdefault("video", {})
        if "num_frames" not in video and "fps" not in video:
            defaults |= {"num_frames": processor.num_frames} if processor.fps is None else {"fps": processor.fps}
        for name, value in defaults.items():
            video.setdefault(name, value)
