"""Photos in HEIF (.heic): FFmpeg decodes those that are one picture, `pillow-heif` those in tiles."""

from typing import Any

import numpy as np
from PIL import Image

from .containers import is_cover_art, open_container
from .errors import MediaError
from .pixels import FrameConverter
from .sources import MediaFile


__all__ = ["heif_image", "is_heif"]

# Brands of a still, in the header of a file. AVIF is Pillow's, and sequences ("hevc", "msf1") are videos
STILL_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1"}


def is_heif(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(32)
    return head[4:8] == b"ftyp" and head[8:12] in STILL_BRANDS and b"avif" not in head[16:]


def heif_image(file: MediaFile) -> Image.Image:
    """
    A photo, upright.

    Raises:
        MediaError: for a damaged one, or one in tiles if `pillow-heif` is not installed.
    """
    with open_container(file) as container:
        streams = [stream for stream in container.streams.video if not is_cover_art(stream)]
        if len(streams) == 1:
            return Image.fromarray(_decode(container, streams[0]))
    raise MediaError("tiles")


def _decode(container: Any, stream: Any) -> np.ndarray:
    for frame in container.decode(stream):
        return FrameConverter(None)(frame)
    raise MediaError("is a photo that cannot be decoded: it is cut or damaged")
