"""How frames are to be turned and mirrored before they are shown: one of eight ways, or an angle between them."""

import math
import struct
from collections.abc import Iterator
from typing import Any

from .containers import rewind
from .errors import import_or_explain


__all__ = ["Matrix", "filters_of", "is_quarter_turn", "matrix_of", "orientation_at_start"]

Matrix = tuple[float, float, float, float]  # a, b, c, d: the pixel (x, y) is shown at (a x + c y, b x + d y)
SAME_ANGLE = math.radians(1)
# Where the axes change places: signs of c and b -> direction of the filter "transpose"
TRANSPOSITIONS = {(1, 1): "cclock_flip", (-1, 1): "clock", (1, -1): "cclock", (-1, -1): "clock_flip"}
SEI_UNITS = {"h264": (6, 0, 0x1F, 1), "hevc": (39, 1, 0x3F, 2)}  # type of the unit, how it is coded, bytes of a header
SEI_DISPLAY_ORIENTATION = 47  # H.264 D.2.27, H.265 D.2.17


def matrix_of(frame: Any) -> Matrix | None:
    """What a decoded frame, or the header of its file, says; `None` if neither says anything."""
    av = import_or_explain("av.sidedata.sidedata", "av")
    try:
        # Not frame.side_data: the frame would hold what holds it, and a film would lie in memory until they are found
        data = av.SideDataContainer(frame).get("DISPLAYMATRIX")
    except ValueError:  # PyAV fails at kinds of side data that are newer than it; the angle it says even so
        angle = -math.radians(frame.rotation)
        return (math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle)) if angle else None
    if data is None:
        return None
    a, b, _, c, d, *_ = (value / (1 << 16) for value in struct.unpack("=9i", bytes(data)))
    return a, b, c, d


def filters_of(matrix: Matrix | None) -> list[str]:
    """The filters of FFmpeg that do what a matrix says; one that would make the picture vanish says nothing."""
    a, b, c, d = matrix or (1.0, 0.0, 0.0, 1.0)
    if not (math.hypot(a, b) and math.hypot(c, d)):
        return []
    angle = math.atan2(b, a)
    quarters = round(angle / (math.pi / 2))
    if abs(angle - quarters * math.pi / 2) > SAME_ANGLE:
        return [f"rotate={angle}"]
    if quarters % 2:
        return [f"transpose={TRANSPOSITIONS[int(math.copysign(1, c)), int(math.copysign(1, b))]}"]
    return ["hflip"] * (a < 0) + ["vflip"] * (d < 0)


def is_quarter_turn(matrix: Matrix | None) -> bool:
    """Whether a matrix turns by 0, 90, 180 or 270 degrees and does nothing else."""
    filters = filters_of(matrix)
    return filters in ([], ["hflip", "vflip"]) or filters[0] in ("transpose=clock", "transpose=cclock")


def orientation_at_start(container: Any, stream: Any) -> Matrix | None:
    """
    What the first frame of a stream says to hold from there on; frames behind it do not repeat it.

    Args:
        container (`av.container.InputContainer`): Is left behind its first packets.
        stream (`av.VideoStream`): Its decoder is not used. A frame of it is decoded only if it says something.
    """
    if stream.codec_context.name not in SEI_UNITS:
        return None
    rewind(container, stream)
    packet = next(container.demux(stream))
    if not _says_orientation(bytes(packet), stream.codec_context):
        return None
    av = import_or_explain("av", "av")
    decoder = av.CodecContext.create(stream.codec_context.name, "r")
    decoder.extradata = stream.codec_context.extradata
    frames = [*decoder.decode(packet), *decoder.decode(None)]
    return matrix_of(frames[0]) if frames else None


def _says_orientation(packet: bytes, codec: Any) -> bool:
    wanted, shift, mask, header = SEI_UNITS[codec.name]
    return any(
        SEI_DISPLAY_ORIENTATION in _message_types(unit[header:])
        for unit in _units(packet, codec.extradata or b"", codec.name)
        if unit and unit[0] >> shift & mask == wanted
    )


def _units(packet: bytes, extradata: bytes, codec: str) -> Iterator[bytes]:
    """The units of a packet; each begins with a start code, or, if the file's header is of that kind, a length."""
    place = 4 if codec == "h264" else 21  # of the byte with the size of lengths
    if len(extradata) <= place or extradata[0] != 1:
        yield from packet.split(b"\0\0\1")
        return
    size, start = (extradata[place] & 3) + 1, 0
    while start + size < len(packet):
        end = start + size + int.from_bytes(packet[start : start + size], "big")
        yield packet[start + size : end]
        start = end


def _message_types(unit: bytes) -> Iterator[int]:
    """The types of the messages in a unit of supplemental enhancement information."""
    unit = unit.replace(b"\0\0\3", b"\0\0")
    place = 0

    def number() -> int:
        nonlocal place
        total = 0
        while place < len(unit):
            total, place = total + unit[place], place + 1
            if unit[place - 1] != 0xFF:
                break
        return total

    while place + 2 < len(unit):
        yield number()
        place += number()
