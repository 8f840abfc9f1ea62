"""Moved to [`transformers_videollama.media`]; this path goes with version 0.2."""

import warnings

from .media.access import MediaAccess, media_access, restrict_media_access


__all__ = ["MediaAccess", "media_access", "restrict_media_access"]

warnings.warn(
    "transformers_videollama.media_access has moved: import from transformers_videollama.media",
    DeprecationWarning,
    stacklevel=2,
)
