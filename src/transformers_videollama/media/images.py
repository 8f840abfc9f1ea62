"""Images, and arrays of pixels, as 8-bit RGB. Pillow decodes, and FFmpeg what is HEIF."""

import contextlib
import functools
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from .access import MediaAccess, access_for
from .errors import MediaError, about
from .heif import heif_image, is_heif
from .pixels import over_white
from .sources import MediaFile, local_file
from .workers import in_worker


if TYPE_CHECKING:
    import torch

__all__ = [
    "ARRAYS",
    "as_numpy",
    "image_of",
    "is_still",
    "load_image",
    "open_picture",
    "picture_errors",
    "rgb_image",
    "rgb_pixels",
]


@runtime_checkable
class Tensor(Protocol):
    """What is used of `torch.Tensor`. A worker has no other use for torch, whose import takes long."""

    def detach(self) -> "torch.Tensor": ...

    def is_floating_point(self) -> bool: ...


ARRAYS: Any = (np.ndarray, Tensor)
MAX_KEPT_PIXELS = 1 << 26  # larger pictures are reduced while they are converted; photos of 50 million are not
MAX_BAND_PIXELS = 1 << 22
# Those that Pillow reads by itself, and that hold all of their picture. EPS, which is a program, and what only names
# another library's format (WMF, GRIB) or another file are not among them
_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO"),
    *("DIB", "TGA", "DDS", "PSD", "ICNS", "QOI", "SGI", "PCX"),
)
_ANIMATED_FORMATS = {"AVIF", "GIF", "PNG", "WEBP"}  # not MPO and TIFF, which hold several stills
# What Pillow's plugins raise for damaged files: what they say themselves, and what reading numbers and tables out of
# bytes that mean something else runs into
PICTURE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, RuntimeError, MemoryError, Image.DecompressionBombError),
    *(struct.error, zlib.error, LookupError, ArithmeticError, TypeError, AttributeError, AssertionError),
)
_ORIENTATION = 0x0112  # tag of EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(source: Any, *, timeout: float | None = None, access: MediaAccess | None = None) -> Image.Image:
    """Load one image as 8-bit RGB.

    Args:
        source: a path, http(s) URL, `file:` or base64 `data:` URI, address of fsspec (`s3://`, `hf://`), bytes, an
            object with `read`, which is read from its beginning and whose position is put back, a cell of `datasets`
            (`{"bytes", "path"}`), a PIL image, or an array or tensor of shape (H, W), (H, W, C) or (C, H, W) with 1, 3
            or 4 channels, uint8 or float in 0..1.
        timeout (`float`, *optional*): seconds for a download; `download_timeout` of `access`, 60, by default.
        access (`MediaAccess`, *optional*): what may be opened, and how much work it may be; what
            `restrict_media_access` has set for the process by default.

    Returns:
        `PIL.Image.Image`: a new image, turned as its EXIF orientation says, over white where it is transparent.

        Grey of more than 8 bits is scaled to 8: the range is the smallest of 0..255, 0..65535 and 0..2**31 - 1 that
        holds the picture's largest value; of float grey, the smallest of 0..1, 0..255 and 0..65535. What is below 0
        is black. An image of more than 67 million pixels (2**26) is reduced by a whole factor until it has fewer.

    Raises:
        MediaError: no image, a damaged one, or one beyond the limits of `access`.
    """
    if isinstance(source, ARRAYS):
        return Image.fromarray(rgb_pixels(source[None])[0])
    if isinstance(source, Image.Image):
        with about("image"):
            return rgb_image(source)
    file = local_file(source, access_for(access, timeout))
    with about(file.name):
        return in_worker(file, image_of, file)


def image_of(file: MediaFile) -> Image.Image:
    if is_heif(file):
        return heif_image(file)
    with open_picture(file) as image:
        factor = _factor_of(image)
        file.access.take_bytes(1, image.height // factor, image.width // factor)
        image.draft(None, (image.width // factor, image.height // factor))  # JPEG is reduced by its decoder
        return rgb_image(image)


@contextlib.contextmanager
def open_picture(file: MediaFile) -> Iterator[Image.Image]:
    """A picture file, of which only the header is read.

    Raises:
        MediaError: for no picture, or one of more pixels than `max_frame_pixels` of the file's access.
    """
    with picture_errors():
        image = Image.open(file.open(), formats=_formats())
    with image:
        file.access.check_pixels(image.height, image.width)
        yield image


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of the formats that this Pillow can open."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextlib.contextmanager
def picture_errors() -> Iterator[None]:
    """Around calls of Pillow alone: its errors become a `MediaError`."""
    try:
        yield
    except MediaError:  # of the file, which could not be read
        raise
    except PICTURE_ERRORS as error:
        raise MediaError(f"cannot be read as an image: {str(error) or type(error).__name__}") from error


def rgb_image(image: Image.Image) -> Image.Image:
    """A new image: 8-bit RGB, upright, over white, and of at most `MAX_KEPT_PIXELS`. Of animations, one frame."""
    with picture_errors():
        image.load()
    convert = _conversion_of(image)
    factor = _factor_of(image)
    rgb = convert(image) if factor == 1 else _reduced(image, convert, factor)
    rgb.info.clear()  # or it would be turned again where it is opened again
    turn = _TURNS.get(_orientation_of(image))
    return rgb if turn is None else rgb.transpose(turn)


def _factor_of(image: Image.Image) -> int:
    return math.ceil(math.sqrt(math.prod(image.size) / MAX_KEPT_PIXELS))


def _reduced(image: Image.Image, convert: Callable[[Image.Image], Image.Image], factor: int) -> Image.Image:
    """Converted and reduced in bands, as the whole in RGB would take several times the memory."""
    result = Image.new("RGB", (math.ceil(image.width / factor), math.ceil(image.height / factor)))
    for top, band in _bands(image, factor):
        result.paste(convert(band).reduce(factor), (0, top // factor))
    return result


def _bands(image: Image.Image, factor: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """(first row, band) of the whole width, of a multiple of `factor` rows."""
    rows = max(MAX_BAND_PIXELS // image.width // factor, 1) * factor
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _orientation_of(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except PICTURE_ERRORS:  # a damaged EXIF says nothing, and is no reason to refuse an intact picture
        return 1
    return orientation if isinstance(orientation, int) else 1


def _conversion_of(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """How the image, or a band of it, becomes RGB."""
    if image.mode == "F" or image.mode.startswith("I"):
        return functools.partial(_from_grey, top=_top_of_range(image))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        return _from_transparent
    return functools.partial(_converted, mode="RGB")


def _converted(image: Image.Image, mode: str) -> Image.Image:
    with picture_errors():
        return image.convert(mode)


def _from_transparent(image: Image.Image) -> Image.Image:
    rgba = _converted(_converted(image, "LA") if image.mode == "La" else image, "RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _from_grey(image: Image.Image, top: int) -> Image.Image:
    grey = (np.asarray(image).clip(0, top) * (255 / top)).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _top_of_range(image: Image.Image) -> int:
    bands = [np.asarray(band) for _, band in _bands(image)]
    low, high = min(band.min() for band in bands), max(band.max() for band in bands)
    if image.mode != "F":
        return next(top for top in (255, 65535, 2**31 - 1) if high <= top)
    if low > -1e-3:  # false for NaN
        for top, slack in ((1, 1e-3), (255, 0), (65535, 0)):
            if high <= top + slack:
                return top
    raise MediaError(f"got float pixels from {low} to {high}, expected 0 to 1, to 255 or to 65535")


def rgb_pixels(array: "np.ndarray | torch.Tensor") -> np.ndarray:
    """uint8 RGB of shape (N, H, W, 3) of N images, over white; grey ones may lack the channel axis."""
    axes = (-3, -1) if isinstance(array, Tensor) else (-1, -3)  # the more usual place of channels first
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
    if pixels.shape[-1] == 4:
        return over_white(pixels)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))


def is_still(file: MediaFile) -> bool:
    """Whether a file is a picture that does not move; also one that is too large to be opened."""
    with about(file.name):
        if is_heif(file):
            return True
    try:
        with Image.open(file.open(), formats=_formats()) as image:
            return not (image.format in _ANIMATED_FORMATS and getattr(image, "is_animated", False))
    except PICTURE_ERRORS as error:
        return isinstance(error, Image.DecompressionBombError)


def as_numpy(array: "np.ndarray | torch.Tensor") -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    array = array.detach().cpu()
    return (array.float() if array.is_floating_point() else array).numpy()  # NumPy has no bfloat16
