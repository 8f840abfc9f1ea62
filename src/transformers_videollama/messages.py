"""What a block of a message may look like: the one form that conversations, datasets and servers go by."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch


__all__ = ["SOURCE_KEYS", "EncodedMedia", "block_kind", "block_source", "check_block"]

# Where a block of a conversation holds its medium, in the order of preference. The library's own names, and OpenAI's.
SOURCE_KEYS = {
    "image": ("image", "url", "path", "base64", "image_url"),
    "video": ("video", "url", "path", "video_url"),
    "audio": ("audio", "url", "path", "audio_url", "input_audio"),
}


@dataclass(frozen=True, eq=False)
class EncodedMedia:
    """
    What the frozen encoders see in an item, computed before. It can stand wherever an image, a video or a sound can.

    Attributes:
        features (`torch.Tensor`, float): `(T, Q, D)` from [`~VideoLlamaModel.get_frame_features`] for the frames of a
            video or an image (T = 1), or `(T, D)`, the `pooler_output` of one of ImageBind's trunks for the clips of
            a sound, or for frames in the stead of a sound.
    """

    features: torch.Tensor


def check_block(block: Any) -> None:
    """Whether a block has the form that is read below; what its source is, those who open it say."""
    if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
        raise ValueError(f"got the block {str(block)[:80]}, expected a dict with 'type'")
    if block["type"] == "text" and not isinstance(block.get("text"), str):
        raise ValueError(f"got the block {str(block)[:80]}, expected a string as its 'text'")
    for name in ("num_frames", "fps", "start", "end", "sampling_rate"):
        value = block.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise ValueError(f"got a block with {name}={str(value)[:40]!r}, expected a number")


def block_kind(block: Mapping) -> str:
    """OpenAI's names of blocks are taken too: image_url, video_url, audio_url, input_audio."""
    return {"input_audio": "audio"}.get(block["type"], block["type"].removesuffix("_url"))


def block_source(block: Mapping) -> Any:
    """What the block's item is read from; `None` for a bare placeholder."""
    for key in SOURCE_KEYS[block_kind(block)]:
        if key in block:
            value = block[key]
            if isinstance(value, Mapping):
                value = _openai_address(value)
            elif key == "base64" and not value.startswith("data:"):
                value = f"data:image/*;base64,{value}"
            return value
    return None


def _openai_address(value: Mapping) -> Any:
    """`{"url": ...}`, or of sound `{"data": base64, "format": ...}`, -> address"""
    if "url" in value:
        return value["url"]
    if not {"data", "format"} <= value.keys():
        raise ValueError(f"got {str(value)[:80]} as an item, expected a dict with 'url', or with 'data' and 'format'")
    return f"data:audio/{value['format']};base64,{value['data']}"
