"""Finds the file behind a path, an address or bytes, and opens containers; what is the same for pictures and sound.

Every fault of a medium is one exception, `MediaError`, which names the item. A slow server, a cut file or a damaged
one is an error: never an endless wait. Needs PyAV 17, which shows a container's index.
"""

import base64
import concurrent.futures
import contextlib
import functools
import http.client
import importlib
import os
import re
import tempfile
import threading
import urllib.parse
import urllib.request
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .media_access import media_access


__all__ = [
    "ARRAYS",
    "DOWNLOAD_TIMEOUT",
    "MAX_DOWNLOAD_BYTES",
    "SLACK",
    "MediaError",
    "MediaFile",
    "about",
    "as_numpy",
    "declared_seconds",
    "ffmpeg_errors",
    "import_or_explain",
    "in_parallel",
    "is_cover_art",
    "is_folder",
    "local_file",
    "open_container",
    "open_unguarded",
    "span_within",
]

DOWNLOAD_TIMEOUT = 60.0  # seconds for a whole download, from looking up the name to the last byte
MAX_DOWNLOAD_BYTES = 2 << 30

ARRAYS = (np.ndarray, torch.Tensor)
SLACK = 0.25  # seconds by which a container may be wrong about a time
_LEADING_ELSEWHERE = {"avisynth", "concat", "dash", "hls", "image2", "imf", "lavfi", "vapoursynth", "vobsub"}
_LEADING_ELSEWHERE |= {"rtp", "rtsp", "sap", "sdp", "webm_dash_manifest"}
_DOWNLOAD_ERRORS = (OSError, ValueError, http.client.HTTPException)


class MediaError(ValueError):
    """A video, an image or a sound that cannot be used; the message names it, the reason and the way out."""


@contextlib.contextmanager
def about(name: str) -> Iterator[None]:
    """Put the name of the item before the message of a `MediaError`."""
    try:
        yield
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error


def import_or_explain(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is needed to decode this: pip install {package}") from error


def in_parallel(call: Callable[[Any], Any], items: Iterable[Any]) -> list:
    """
    What `call` returns for each item, in their order; where several fail, the first one's exception is raised.

    Decoders and downloads leave Python's lock alone. There are as many threads as torch computes with, of which a
    worker process of a `DataLoader` has one.
    """
    items = list(items)
    workers = min(len(items), torch.get_num_threads())
    if workers < 2:
        return [call(item) for item in items]
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(call, items))


class MediaFile:
    """A local file and what messages call it; a temporary one is removed with its last user."""

    def __init__(self, name: str, path: str | None = None):
        self.name, self.path = name, path or ""
        if path is None:
            descriptor, self.path = tempfile.mkstemp(prefix="videollama-")
            os.close(descriptor)
            weakref.finalize(self, Path(self.path).unlink, missing_ok=True)

    def __deepcopy__(self, memo: dict) -> "MediaFile":
        return self  # a copy would not keep a temporary file


def local_file(source: Any, timeout: float | None = None) -> MediaFile:
    """The file that `source` names, or a temporary one with what it holds; one that was found before is returned."""
    if isinstance(source, MediaFile):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _file_of_bytes(source, f"<{len(source)} bytes>")
    if not isinstance(source, (str, os.PathLike)):
        raise MediaError(f"got {type(source).__name__}, expected a path, a URL, bytes, an array or decoded media")
    text = os.fsdecode(source)
    scheme = text.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return _download(text, DOWNLOAD_TIMEOUT if timeout is None else timeout)
    if scheme == "data":
        return _file_of_data_uri(text)
    path = urllib.request.url2pathname(urllib.parse.urlsplit(text).path) if scheme == "file" else text
    file = MediaFile(text[:200], os.path.abspath(path))  # absolute: FFmpeg would take "a:b.mp4" for a protocol
    with about(file.name):
        _check_access(path)
        if os.path.isdir(path):
            raise MediaError("is a folder, expected a file; only a video can be a folder, of frames")
        if not os.path.isfile(path):
            raise MediaError("does not exist, or is not a regular file")
        if os.path.getsize(path) == 0:
            raise MediaError("is empty (0 bytes)")
    return file


def is_folder(source: Any) -> bool:
    """Whether `source` names a folder, such as one of frames."""
    if not isinstance(source, (str, os.PathLike)) or not os.path.isdir(source):
        return False
    with about(os.fsdecode(source)[:200]):
        _check_access(source)
    return True


def _check_access(path: str | os.PathLike) -> None:
    if not media_access().allows_file(path):
        raise MediaError("local files are not allowed here, or not of this folder; send the content, or an address")


def _file_of_bytes(data: bytes | bytearray | memoryview, name: str) -> MediaFile:
    if not data:
        raise MediaError(f"{name}: holds no bytes")
    file = MediaFile(name)
    Path(file.path).write_bytes(data)
    return file


def _file_of_data_uri(uri: str) -> MediaFile:
    header, _, payload = uri.partition(",")
    try:
        if not header.endswith(";base64"):
            raise ValueError("expected 'data:<type>;base64,<data>'")
        return _file_of_bytes(base64.b64decode(payload, validate=True), header[:40])
    except ValueError as error:
        raise MediaError(f"the data URI {header[:40]!r} cannot be decoded: {error}") from error


def _download(url: str, timeout: float) -> MediaFile:
    """Fetch `url` within `timeout` seconds.

    A thread fetches, so that the deadline also holds while the name is looked up and while headers drip in, where
    sockets know no deadline.
    """
    file = MediaFile(url.partition("?")[0])  # a query often holds a signature
    path = file.path  # the thread may outlive the file
    done: concurrent.futures.Future = concurrent.futures.Future()
    given_up = threading.Event()

    def fetch() -> None:
        try:
            _fetch(url, path, timeout + 1, given_up)  # + 1: the deadline below is the first to pass
            done.set_result(None)
        except _DOWNLOAD_ERRORS as error:
            done.set_exception(error)

    threading.Thread(target=fetch, daemon=True).start()
    try:
        done.result(timeout)
    except (TimeoutError, concurrent.futures.TimeoutError) as error:
        raise MediaError(f"{file.name}: not here after {timeout} s; download it first, or raise timeout") from error
    except _DOWNLOAD_ERRORS as error:
        raise MediaError(f"{file.name}: cannot be downloaded: {error}") from error
    finally:
        given_up.set()
    return file


def _fetch(url: str, path: str, timeout: float, given_up: threading.Event) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "transformers-videollama"})
    with open(path, "wb") as target, media_access().opener().open(request, timeout=timeout) as response:
        expected, received = response.length or 1, 0
        while max(received, expected) <= MAX_DOWNLOAD_BYTES and not given_up.is_set():
            if not (chunk := response.read1(1 << 16)):
                break
            received += target.write(chunk)
    if max(received, expected) > MAX_DOWNLOAD_BYTES:
        raise ValueError(f"it has more than {MAX_DOWNLOAD_BYTES} bytes (MAX_DOWNLOAD_BYTES)")
    if received < expected:
        raise ValueError(f"the connection ended after {received} of {expected} bytes")


@contextlib.contextmanager
def open_container(file: MediaFile) -> Iterator[Any]:
    with ffmpeg_errors(), open_unguarded(file) as container:
        yield container


@contextlib.contextmanager
def ffmpeg_errors() -> Iterator[None]:
    av = import_or_explain("av", "av")
    try:
        yield
    except av.FFmpegError as error:
        raise MediaError(f"is damaged, cut, or no video or sound: {error.strerror}") from error


def open_unguarded(file: MediaFile) -> Any:
    av = import_or_explain("av", "av")
    try:
        options = {"format_whitelist": _self_contained_formats()}
        container = av.open(file.path, metadata_errors="ignore", options=options)
    except av.ArgumentError as error:  # of the format alone: nothing else is given
        raise MediaError("is a playlist or the like, which names other files; give the file that it names") from error
    if "mp4" in container.format.name:
        _check_index(container, os.path.getsize(file.path))
    return container


@functools.cache
def _self_contained_formats() -> str:
    """FFmpeg's formats, without those whose files lead to other files or addresses, which nobody has checked."""
    av = import_or_explain("av", "av")
    formats = set()
    for name in av.formats_available:
        with contextlib.suppress(ValueError):  # one that FFmpeg only writes
            formats.add(av.ContainerFormat(name, "r").name)
    return ",".join(sorted(name for name in formats if _LEADING_ELSEWHERE.isdisjoint(name.split(","))))


def _check_index(container: Any, size: int) -> None:
    """Whether an MP4 file has the bytes that its index names; FFmpeg would give those that are there."""
    for stream in container.streams:
        last = stream.index_entries[-1] if len(stream.index_entries) else None
        if last is not None and last.pos + last.size > size:
            raise MediaError(f"is cut: it should have {last.pos + last.size} bytes and has {size}; fetch it again")


def is_cover_art(stream: Any) -> bool:
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def declared_seconds(container: Any, stream: Any) -> float | None:
    """How long a stream is by the container; for MP3 and raw AAC that is only FFmpeg's guess from the bit rate."""
    if container.format.name in ("mp3", "aac"):
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if tag := re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", "")):  # Matroska
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else None


def span_within(start: float | None, end: float | None, duration: float) -> tuple[float, float]:
    """The part of `[start, end)` that a medium of `duration` seconds has."""
    start, end = 0.0 if start is None else start, duration if end is None else end
    if not (0 <= start < duration and start < end):
        raise MediaError(f"got the span from {start} to {end} s, expected one within 0 to {duration:.3f} s")
    return start, min(end, duration)


def as_numpy(array: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    array = array.detach().cpu()
    return (array.float() if array.is_floating_point() else array).numpy()  # NumPy has no bfloat16
