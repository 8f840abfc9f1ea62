"""Opens files, addresses, bytes and arrays: pixels, times, sound. No other part of the package decodes media."""

import warnings
from typing import Any

from .access import MediaAccess, media_access, restrict_media_access
from .errors import MediaError
from .images import load_image
from .options import Decoder, OnDamage
from .sampling import DEFAULT_NUM_FRAMES, Sampling, sample_indices
from .sound import Sound, load_sound
from .video import Video, load_video, media_kind
from .workers import opening_in_workers


__all__ = [
    "DEFAULT_NUM_FRAMES",
    "Decoder",
    "MediaAccess",
    "MediaError",
    "OnDamage",
    "Sampling",
    "Sound",
    "Video",
    "load_image",
    "load_sound",
    "load_video",
    "media_access",
    "media_kind",
    "opening_in_workers",
    "restrict_media_access",
    "sample_indices",
]


def __getattr__(name: str) -> Any:
    if name != "MAX_FRAME_BYTES":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        "MAX_FRAME_BYTES goes with version 0.2: it is max_request_bytes of MediaAccess now, which is passed as access",
        DeprecationWarning,
        stacklevel=2,
    )
    return media_access().max_request_bytes
