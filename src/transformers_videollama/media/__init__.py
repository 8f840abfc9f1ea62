"""Opens files, addresses, bytes and arrays: pixels, times, sound. No other part of the package decodes media."""

from .access import MediaAccess, restrict_media_access
from .errors import MediaError
from .frames import MAX_FRAME_BYTES, OnDamage
from .images import load_image
from .sampling import DEFAULT_NUM_FRAMES, Sampling, sample_indices
from .sound import Sound, load_sound
from .video import Video, load_video, media_kind


__all__ = [
    "DEFAULT_NUM_FRAMES",
    "MAX_FRAME_BYTES",
    "MediaAccess",
    "MediaError",
    "OnDamage",
    "Sampling",
    "Sound",
    "Video",
    "load_image",
    "load_sound",
    "load_video",
    "media_kind",
    "restrict_media_access",
    "sample_indices",
]
