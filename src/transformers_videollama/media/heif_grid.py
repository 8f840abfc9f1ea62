"""How a HEIF photo is made of tiles (ISO/IEC 23008-12, 6.6.2.3), which FFmpeg knows, and PyAV does not show."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from .errors import MediaError


__all__ = ["Grid", "grid_of"]

MAX_HEADER_BYTES = 1 << 24
ROTATIONS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
MIRRORS = {0: Image.Transpose.FLIP_TOP_BOTTOM, 1: Image.Transpose.FLIP_LEFT_RIGHT}


@dataclass(frozen=True)
class Grid:
    """
    A photo in tiles, row by row.

    Attributes:
        rows, columns (`int`)
        height, width (`int`): Of the photo before it is turned; tiles may reach over its right and lower edge.
        tiles (`tuple[int, ...]`): Numbers of the tiles in the file.
        turns (`tuple[Image.Transpose, ...]`): What is done to the photo, in this order.
    """

    rows: int
    columns: int
    height: int
    width: int
    tiles: tuple[int, ...]
    turns: tuple[Image.Transpose, ...]


def grid_of(file: BinaryIO) -> Grid | None:
    """
    Returns:
        [`Grid`], *optional*: `None` if the main photo of the file is not one in tiles.

    Raises:
        MediaError: for a damaged header.
    """
    try:
        header = _header(file)
        if header is None:
            return None
        boxes = dict(_boxes(header[4:]))
        primary = _number(boxes[b"pitm"], 4, 4 if boxes[b"pitm"][0] else 2)
        tiles = _tiles_of(primary, boxes.get(b"iref", b""))
        if not tiles:
            return None
        content = _content_of(primary, boxes[b"iloc"], boxes.get(b"idat", b""), file)
        rows, columns = content[2] + 1, content[3] + 1
        width, height = struct.unpack_from(">2I" if content[1] & 1 else ">2H", content, 4)
        turns = tuple(_turns_of(primary, boxes[b"iprp"]))
    except (LookupError, struct.error) as error:
        raise MediaError("is cut or damaged: its header does not say how its tiles make a photo") from error
    if rows * columns != len(tiles) or not width * height:
        raise MediaError(f"is damaged: it has {len(tiles)} tiles for {rows} x {columns} places")
    return Grid(rows, columns, height, width, tiles, turns)


def _header(file: BinaryIO) -> bytes | None:
    """What the box "meta" holds."""
    while len(start := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", start)
        length = 8
        if size == 1:
            (size,), length = struct.unpack(">Q", file.read(8)), 16
        if kind == b"meta" and size <= MAX_HEADER_BYTES:
            return file.read(max(size - length, 0))
        if size < length:  # 0: to the end of the file
            return None
        file.seek(size - length, 1)
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if size < 8:
            return
        yield kind, data[place + 8 : place + size]
        place += size


def _number(data: bytes, place: int, size: int) -> int:
    if place + size > len(data):
        raise IndexError(place)
    return int.from_bytes(data[place : place + size], "big")


def _tiles_of(item: int, iref: bytes) -> tuple[int, ...]:
    """The items that an item is derived from."""
    size = 4 if iref[:1] > b"\0" else 2
    for kind, data in _boxes(iref[4:]):
        if kind == b"dimg" and _number(data, 0, size) == item:
            count = _number(data, size, 2)
            return tuple(_number(data, size + 2 + size * number, size) for number in range(count))
    return ()


def _content_of(item: int, iloc: bytes, idat: bytes, file: BinaryIO) -> bytes:
    """What an item of one piece holds, be it in the header or elsewhere in the file."""
    version = iloc[0]
    offset_size, length_size = iloc[4] >> 4, iloc[4] & 15
    base_size, index_size = iloc[5] >> 4, iloc[5] & 15 if version else 0
    id_size = 4 if version == 2 else 2
    place = 6 + id_size
    for _ in range(_number(iloc, 6, id_size)):
        number, place = _number(iloc, place, id_size), place + id_size
        in_header, place = (_number(iloc, place, 2) & 15, place + 2) if version else (0, place)
        base, place = _number(iloc, place + 2, base_size), place + 2 + base_size
        pieces, place = _number(iloc, place, 2), place + 2
        if number == item:
            start = base + _number(iloc, place + index_size, offset_size)
            length = _number(iloc, place + index_size + offset_size, length_size)
            if in_header:
                return idat[start : start + length]
            file.seek(start)
            return file.read(min(length, MAX_HEADER_BYTES))
        place += pieces * (index_size + offset_size + length_size)
    raise LookupError(item)


def _turns_of(item: int, iprp: bytes) -> Iterator[Image.Transpose]:
    boxes = dict(_boxes(iprp))
    properties, ipma = list(_boxes(boxes[b"ipco"])), boxes[b"ipma"]
    id_size, wide = 4 if ipma[0] else 2, ipma[3] & 1
    place = 8
    for _ in range(_number(ipma, 4, 4)):
        number, count = _number(ipma, place, id_size), _number(ipma, place + id_size, 1)
        place += id_size + 1
        for _ in range(count):
            index = _number(ipma, place, 1 + wide) & (0x7FFF if wide else 0x7F)
            place += 1 + wide
            kind, data = properties[index - 1]
            if number == item and kind in (b"irot", b"imir"):
                turn = ROTATIONS.get(data[0] & 3) if kind == b"irot" else MIRRORS[data[0] & 1]
                yield from [] if turn is None else [turn]
