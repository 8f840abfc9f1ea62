"""vLLM's loader for the videos of requests, which opens them as the processor does."""

import sys
from typing import Any

import numpy as np
from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader

from ...media import OnDamage, Sampling, load_video


__all__ = ["VIDEO_LOADER", "VideoLlamaVideoLoader"]

VIDEO_LOADER = "video_llama"


@VIDEO_LOADER_REGISTRY.register(VIDEO_LOADER, video_processor="VideoLlamaVideoProcessor")
class VideoLlamaVideoLoader(VideoLoader):
    """Decodes with this package's [`load_video`], so that served answers are those of `generate`."""

    @classmethod
    def load_bytes(
        cls,
        data: bytes,
        num_frames: int = -1,
        *,
        fps: float | None = None,
        sampling: Sampling = "uniform",
        start: float | None = None,
        end: float | None = None,
        video_stream: int | str | None = None,
        on_damage: OnDamage = "raise",
        size: dict[str, int] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """
        Args:
            data (`bytes`): a file's content.
            num_frames (`int`): frames wanted; -1 is vLLM's word for all. Not read if `fps` is given.
            fps, sampling, start, end, video_stream, on_damage (*optional*): as [`load_video`] takes them.
            size (`dict`, *optional*): "height" and "width" that the decoder scales frames to.

        Returns:
            frames (T, height, width, 3), uint8, and vLLM's metadata of the video.

        Raises:
            MediaError (a `ValueError`, which the server answers with 400): a file that cannot be read.
        """
        video = load_video(
            data,
            num_frames=None if fps is not None else (sys.maxsize if num_frames == -1 else num_frames),
            fps=fps,
            sampling=sampling,
            start=start,
            end=end,
            video_stream=video_stream,
            on_damage=on_damage,
            size=(size["height"], size["width"]) if size else None,
        )
        return np.asarray(video.frames), {
            "total_num_frames": video.total_num_frames,
            "fps": video.fps,
            "duration": video.total_num_frames / video.fps if video.fps else None,
            "video_backend": VIDEO_LOADER,
            "frames_indices": list(video.indices),
            "do_sample_frames": False,  # they are sampled
        }
