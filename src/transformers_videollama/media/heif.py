"""Photos in HEIF (.heic). FFmpeg decodes them, those that cameras cut into tiles as one picture for each tile."""

import math
from typing import Any

import numpy as np
from PIL import Image

from .access import MediaAccess
from .containers import open_container
from .errors import MediaError
from .heif_grid import Grid, grid_of
from .pixels import FrameConverter
from .sources import MediaFile


__all__ = ["heif_image", "is_heif"]

# Brands of a still, in the header of a file. AVIF is Pillow's, and sequences ("hevc", "msf1") are videos
STILL_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1"}


def is_heif(file: MediaFile) -> bool:
    with file.reader() as opened:
        head = opened.read(64)
    brands = head[16 : int.from_bytes(head[:4], "big")]
    return head[4:8] == b"ftyp" and head[8:12] in STILL_BRANDS and b"avif" not in brands


def heif_image(file: MediaFile) -> Image.Image:
    """
    The photo of a file with one or more, upright. Its EXIF orientation is not looked at: HEIF has its own.

    Raises:
        MediaError: for a damaged photo, or one that is made of others in another way than as tiles.
    """
    with open_container(file) as container:
        for stream in container.streams.video:
            if stream.disposition & type(stream.disposition).default:
                file.access.take_bytes(1, stream.height, stream.width)
                return Image.fromarray(_decode(container, [stream], file.access)[stream.id])
        with file.reader() as opened:
            grid = grid_of(opened)
        if grid is None:
            raise MediaError("is a photo made of several pictures, but not of tiles; save it as JPEG")
        file.access.check_pixels(grid.height, grid.width)
        tiles = [stream for stream in container.streams.video if stream.id in grid.tiles]
        file.access.take_bytes(1, sum(tile.height for tile in tiles), max(tile.width for tile in tiles))
        return _assemble(grid, _decode(container, tiles, file.access))


def _decode(container: Any, streams: list[Any], access: MediaAccess) -> dict[int, np.ndarray]:
    """Number of a picture in the file -> its pixels."""
    for stream in streams:
        stream.codec_context.options = {"max_pixels": str(access.max_frame_pixels)}
    pixels = {}
    for packet in container.demux(streams):
        for frame in packet.decode():
            pixels[packet.stream.id] = FrameConverter(None)(frame)
    if missing := {stream.id for stream in streams} - set(pixels):
        raise MediaError(f"is cut or damaged: pictures {sorted(missing)[:5]} of it cannot be decoded")
    return pixels


def _assemble(grid: Grid, pixels: dict[int, np.ndarray]) -> Image.Image:
    if missing := set(grid.tiles) - set(pixels):
        raise MediaError(f"is cut or damaged: tiles {sorted(missing)[:5]} of its {len(grid.tiles)} are missing")
    height, width = pixels[grid.tiles[0]].shape[:2]
    if math.ceil(grid.width / width) > grid.columns or math.ceil(grid.height / height) > grid.rows:
        raise MediaError(f"is damaged: {grid.rows} x {grid.columns} tiles do not cover {grid.height} x {grid.width}")
    picture = Image.new("RGB", (grid.width, grid.height))
    for number, tile in enumerate(grid.tiles):
        row, column = divmod(number, grid.columns)
        picture.paste(Image.fromarray(pixels[tile]), (column * width, row * height))
    for turn in grid.turns:
        picture = picture.transpose(turn)
    return picture
