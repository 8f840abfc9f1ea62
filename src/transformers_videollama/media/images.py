"""Images, and arrays of pixels, as 8-bit RGB. Pillow decodes."""

import contextlib
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from .access import MediaAccess, access_for
from .errors import MediaError, about
from .sources import MediaFile, local_file


__all__ = ["ARRAYS", "as_numpy", "image_of", "is_still", "load_image", "rgb_pixels"]

ARRAYS = (np.ndarray, torch.Tensor)
_ANIMATED_FORMATS = {"AVIF", "GIF", "PNG", "WEBP"}  # not MPO and TIFF, which hold several stills
_IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def load_image(source: Any, *, timeout: float | None = None, access: MediaAccess | None = None) -> Image.Image:
    """Load one image as 8-bit RGB.

    Args:
        source: a path, http(s) URL, `file:` or base64 `data:` URI, bytes, a PIL image, or an array or tensor of shape
            (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, uint8 or float in 0..1.
        timeout (`float`, *optional*): seconds for a download; `download_timeout` of `access`, 60, by default.
        access (`MediaAccess`, *optional*): what may be opened, and how much work it may be; what
            `restrict_media_access` has set for the process by default.

    Returns:
        `PIL.Image.Image`: a new image. Alpha is dropped and the EXIF orientation not applied, as in the original;
        16-bit grey is scaled to 8 bits.

    Raises:
        MediaError: no image, a damaged one, or one beyond the limits of `access`.
    """
    if isinstance(source, ARRAYS):
        return Image.fromarray(rgb_pixels(source[None])[0])
    if isinstance(source, Image.Image):
        with about("image"), _image_errors():
            return _rgb(source)
    return image_of(local_file(source, access_for(access, timeout)))


def image_of(file: MediaFile) -> Image.Image:
    with about(file.name), _image_errors(), Image.open(file.path) as image:
        file.access.check_pixels(image.height, image.width)
        file.access.take_bytes(1, image.height, image.width)
        return _rgb(image)


@contextlib.contextmanager
def _image_errors() -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except _IMAGE_ERRORS as error:
        raise MediaError(f"cannot be read as an image: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which convert("RGB") would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(rgb_pixels(np.asarray(image)[None])[0])
    return image.convert("RGB")


def rgb_pixels(array: np.ndarray | torch.Tensor) -> np.ndarray:
    """uint8 RGB of shape (N, H, W, 3) of N images; grey ones may lack the channel axis."""
    axes = (-3, -1) if isinstance(array, torch.Tensor) else (-1, -3)  # the more usual place of channels first
    pixels = as_numpy(array)
    got = f"got {pixels.dtype} images of shape {pixels.shape[1:]}"
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    found = [axis for size in (3, 4, 1) for axis in axes if pixels.ndim == 4 and pixels.shape[axis] == size]
    if not found or not pixels.size:
        raise MediaError(f"{got}, expected (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels")
    pixels = np.moveaxis(pixels, found[0], -1)
    if pixels.dtype.kind == "f" and pixels.min() > -1e-3 and pixels.max() < 1.001:  # false for NaN
        pixels = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise MediaError(f"{got}, expected uint8, or float from 0 to 1")
    return np.ascontiguousarray(np.broadcast_to(pixels[..., :3], (*pixels.shape[:3], 3)))


def is_still(file: MediaFile) -> bool:
    try:
        with Image.open(file.path) as image:
            return not (image.format in _ANIMATED_FORMATS and getattr(image, "is_animated", False))
    except _IMAGE_ERRORS as error:
        return isinstance(error, Image.DecompressionBombError)


def as_numpy(array: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    array = array.detach().cpu()
    return (array.float() if array.is_floating_point() else array).numpy()  # NumPy has no bfloat16
