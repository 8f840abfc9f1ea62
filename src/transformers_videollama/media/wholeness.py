"""Whether a file is as long as it says itself; decoders take what is there of one that is cut, and say nothing."""

import os
import struct
from typing import Any, BinaryIO

from .errors import MediaError
from .sources import MediaFile


__all__ = ["check_whole"]

SLACK = 16  # bytes: some writers count the 8 bytes of the first header, or a byte that fills up, and some do not
STREAMED = 0xFFFFFF00  # lengths from here on stand for an unknown one, as that of a file that was written to a pipe
FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # ASF: the object with the length of the file
BROADCAST = 1  # ASF: its flag of files whose lengths are not known


def check_whole(file: MediaFile, container: Any) -> None:
    """
    Args:
        file ([`MediaFile`])
        container: PyAV's, of `file`.

    Raises:
        MediaError: if the file ends before the end that its header declares. Formats that declare none are not looked
            at, nor are those whose frames or samples are counted when they are read.
    """
    name = container.format.name
    if "mp4" in name:
        _check_length(file, _end_in_mp4(container))
    elif name in _ENDS:
        with file.reader() as reader:
            _check_length(file, _ENDS[name](reader))


def _check_length(file: MediaFile, expected: int) -> None:
    if expected > file.size:
        raise MediaError(f"is cut: it should have {expected} bytes and has {file.size}; fetch it again")


def _end_in_mp4(container: Any) -> int:
    """The end of the last frame or packet that the index names."""
    entries = [stream.index_entries[-1] for stream in container.streams if len(stream.index_entries)]
    return max((entry.pos + entry.size for entry in entries), default=0)


def _end_in_riff(reader: BinaryIO) -> int:
    """WAV and AVI. Longer AVI files go on in further chunks, which are not looked at."""
    return _end_of_chunk(reader.read(12), "<4sI")


def _end_in_aiff(reader: BinaryIO) -> int:
    return _end_of_chunk(reader.read(12), ">4sI")


def _end_of_chunk(head: bytes, form: str) -> int:
    if len(head) < 12:
        return 0
    _, length = struct.unpack_from(form, head)
    return length + 8 - SLACK if length < STREAMED else 0


def _end_in_asf(reader: BinaryIO) -> int:
    head = reader.read(1 << 16)
    place = head.find(FILE_PROPERTIES)
    if place < 0 or len(head) < place + 92:
        return 0
    # After the object's name and length: a name of the file (16), its length (8), and 40 bytes on, flags
    (length,), (flags,) = struct.unpack_from("<Q", head, place + 40), struct.unpack_from("<I", head, place + 88)
    return 0 if flags & BROADCAST else length


def _end_in_gif(reader: BinaryIO) -> int:
    """
    GIF declares no length, but its blocks do. A last byte that only says that there are no more blocks may be missing.
    """
    end = reader.seek(0, os.SEEK_END)
    reader.seek(10)
    place = 13 + _bytes_of_colours(reader.read(3)[:1])
    while place < end:
        reader.seek(place)
        head = reader.read(10)
        if head[:1] == b"!":  # an extension
            place = _after_blocks(reader, place + 2, end)
        elif head[:1] == b"," and len(head) == 10:  # a picture
            place = _after_blocks(reader, place + 11 + _bytes_of_colours(head[9:]), end)
        else:
            return end + 1 if head[:1] == b"," else end
    return place


def _bytes_of_colours(flags: bytes) -> int:
    """Of a table of colours, from the byte that says whether there is one."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _after_blocks(reader: BinaryIO, place: int, end: int) -> int:
    """Where a row of blocks ends, each of which begins with its length; behind `end` if that is in the row."""
    while place < end:
        reader.seek(place)
        length = reader.read(1)[0]
        place += 1 + length
        if not length:
            return place
    return end + 1


_ENDS = {"wav": _end_in_riff, "avi": _end_in_riff, "aiff": _end_in_aiff, "asf": _end_in_asf, "gif": _end_in_gif}
