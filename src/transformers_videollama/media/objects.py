"""Objects with `read`, such as open files: several readers share one, and its own position stays where it was."""

import contextlib
import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from .errors import MediaError


__all__ = ["Allowance", "SharedReader", "copy_all", "is_readable", "lock_of", "size_of"]

_CHUNK = 1 << 20
# One object has one lock in whatever hands it is. It may neither be hashed nor referred to weakly, so that locks are
# found by its identity; that two objects sometimes share one does no harm.
_LOCKS = tuple(threading.Lock() for _ in range(64))


def is_readable(source: Any) -> bool:
    """Whether `source` is an object that can be read from."""
    return callable(getattr(source, "read", None)) and not isinstance(source, type)


def size_of(source: Any) -> int | None:
    """
    Bytes of an object, whose position is put back; `None` if it cannot seek.

    Raises:
        MediaError: for an object that gives text, and for a closed one.
    """
    if isinstance(source, io.TextIOBase):
        raise MediaError("is open as text; open it in binary mode, open(path, 'rb')")
    with _object_errors():
        seekable = getattr(source, "seekable", None)
        if not callable(getattr(source, "seek", None)) or (seekable is not None and not seekable()):
            return None
        with lock_of(source):
            try:
                before = _seek(source, 0, os.SEEK_CUR)
                size = _seek(source, 0, os.SEEK_END)
            except io.UnsupportedOperation:
                return None
            source.seek(before)
            return size


def copy_all(source: Any, target: BinaryIO, max_bytes: int, advance: Callable[[int], Any]) -> int:
    """
    Copy what is left of an object that cannot seek; `advance` is told of each piece.

    Returns:
        `int`: bytes that were copied.

    Raises:
        MediaError: if there are more than `max_bytes`, or if it cannot be read.
    """
    copied = 0
    while piece := _read(source, _CHUNK):
        copied += target.write(piece)
        advance(len(piece))
        if copied > max_bytes:
            raise MediaError(
                f"has more than {max_bytes} bytes, and would be copied: it cannot seek, or is for another process "
                "(max_download_bytes of MediaAccess); give a file, or allow more"
            )
    return copied


class SharedReader(io.RawIOBase):
    """
    A reader of an object that others read, too. It has a position of its own, which begins at 0, and puts that of the
    object back.

    Args:
        source: an object that can seek.
        size (`int`): its bytes.
        name (`str`): its name, whose suffix tells decoders what to try first.
        allowance (`Allowance`, *optional*): counts what is read.
    """

    def __init__(self, source: Any, size: int, name: str, allowance: "Allowance | None" = None):
        self.source, self.size, self.allowance = source, size, allowance
        suffix = re.search(r"\.\w{1,8}$", name, re.ASCII)
        self.name = f"medium{suffix[0] if suffix else ''}"
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = max(0, {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence] + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self.size - self.position))
        if self.allowance is not None:
            self.allowance.take(wanted)
        with _object_errors(), lock_of(self.source):
            read = self._fill(memoryview(buffer)[:wanted])
        self.position += read
        return read

    def _fill(self, buffer: memoryview) -> int:
        before = _seek(self.source, 0, os.SEEK_CUR)
        try:
            self.source.seek(self.position)
            read = 0
            while read < len(buffer) and (piece := _read(self.source, len(buffer) - read)):
                buffer[read : read + len(piece)] = piece
                read += len(piece)
            return read
        finally:
            self.source.seek(before)


class Allowance:
    """Bytes that may be fetched of one remote file, by all its readers."""

    def __init__(self, max_bytes: int):
        self.max_bytes, self.taken = max_bytes, 0

    def take(self, num_bytes: int) -> None:
        self.taken += num_bytes
        if self.taken > self.max_bytes:
            raise MediaError(f"more than {self.max_bytes} bytes of it are needed (max_download_bytes of MediaAccess)")


def lock_of(source: Any) -> threading.Lock:
    """The lock under which an object is used."""
    return _LOCKS[id(source) // 16 % len(_LOCKS)]


@contextlib.contextmanager
def _object_errors() -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise MediaError(f"cannot be read: {error}") from error


def _seek(source: Any, offset: int, whence: int) -> int:
    """The position then; not all objects return it."""
    position = source.seek(offset, whence)
    return source.tell() if position is None else position


def _read(source: Any, num_bytes: int) -> bytes | bytearray | memoryview:
    with _object_errors():
        piece = source.read(num_bytes)
    if piece is None:  # nothing there yet, where reading does not wait
        return b""
    if not isinstance(piece, (bytes, bytearray, memoryview)) or len(piece) > num_bytes:
        got = f"{len(piece)} bytes" if isinstance(piece, (bytes, bytearray)) else type(piece).__name__
        raise MediaError(f"its read({num_bytes}) gives {got}, expected bytes; open it in binary mode")
    return piece
