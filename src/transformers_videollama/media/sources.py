"""Finds the file behind a path, an address or bytes. A slow server is an error: never an endless wait."""

import base64
import concurrent.futures
import http.client
import os
import tempfile
import threading
import urllib.parse
import urllib.request
import weakref
from pathlib import Path
from typing import Any

from .access import MediaAccess, access_for
from .errors import MediaError, about


__all__ = ["MediaFile", "is_folder", "local_file"]

_DOWNLOAD_ERRORS = (OSError, ValueError, http.client.HTTPException)


class MediaFile:
    """
    A local file, its name in messages, and the limits of its user; a temporary one is removed with its last user.
    """

    def __init__(self, name: str, access: MediaAccess, path: str | None = None):
        self.name, self.access, self.path = name, access, path or ""
        if path is None:
            descriptor, self.path = tempfile.mkstemp(prefix="videollama-")
            os.close(descriptor)
            weakref.finalize(self, Path(self.path).unlink, missing_ok=True)

    def __deepcopy__(self, memo: dict) -> "MediaFile":
        return self  # a copy would not keep a temporary file


def local_file(source: Any, access: MediaAccess | None = None) -> MediaFile:
    """The file that `source` names, or a temporary one with what it holds; one that was found before is returned."""
    access = access_for(access)
    if isinstance(source, MediaFile):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _file_of_bytes(source, f"<{len(source)} bytes>", access)
    if not isinstance(source, (str, os.PathLike)):
        raise MediaError(f"got {type(source).__name__}, expected a path, a URL, bytes, an array or decoded media")
    text = os.fsdecode(source)
    scheme = text.partition(":")[0].lower()
    if scheme == "data":
        return _file_of_data_uri(text, access)
    if scheme in ("http", "https"):
        return _download(text, access)
    path = urllib.request.url2pathname(urllib.parse.urlsplit(text).path) if scheme == "file" else text
    file = MediaFile(text[:200], access, os.path.abspath(path))  # absolute: FFmpeg would take "a:b.mp4" for a protocol
    with about(file.name):
        _check_access(path, access)
        if os.path.isdir(path):
            raise MediaError("is a folder, expected a file; only a video can be a folder, of frames")
        if not os.path.isfile(path):
            raise MediaError("does not exist, or is not a regular file")
        if os.path.getsize(path) == 0:
            raise MediaError("is empty (0 bytes)")
    return file


def is_folder(source: Any, access: MediaAccess | None = None) -> bool:
    """Whether `source` names a folder, such as one of frames."""
    if not isinstance(source, (str, os.PathLike)) or not os.path.isdir(source):
        return False
    with about(os.fsdecode(source)[:200]):
        _check_access(source, access_for(access))
    return True


def _check_access(path: str | os.PathLike, access: MediaAccess) -> None:
    if not access.allows_file(path):
        raise MediaError("local files are not allowed here, or not of this folder; send the content, or an address")


def _file_of_bytes(data: bytes | bytearray | memoryview, name: str, access: MediaAccess) -> MediaFile:
    if not data:
        raise MediaError(f"{name}: holds no bytes")
    file = MediaFile(name, access)
    Path(file.path).write_bytes(data)
    return file


def _file_of_data_uri(uri: str, access: MediaAccess) -> MediaFile:
    header, _, payload = uri.partition(",")
    try:
        if not header.endswith(";base64"):
            raise ValueError("expected 'data:<type>;base64,<data>'")
        return _file_of_bytes(base64.b64decode(payload, validate=True), header[:40], access)
    except ValueError as error:
        raise MediaError(f"the data URI {header[:40]!r} cannot be decoded: {error}") from error


def _download(url: str, access: MediaAccess) -> MediaFile:
    """Fetch `url` within the time that `access` gives it.

    A thread fetches, so that the deadline also holds while the name is looked up and while headers drip in, where
    sockets know no deadline.
    """
    file = MediaFile(url.partition("?")[0], access)  # a query often holds a signature
    path, timeout = file.path, access.download_timeout  # the thread may outlive the file
    done: concurrent.futures.Future = concurrent.futures.Future()
    given_up = threading.Event()

    def fetch() -> None:
        try:
            _fetch(url, path, access, given_up)
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


def _fetch(url: str, path: str, access: MediaAccess, given_up: threading.Event) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "transformers-videollama"})
    timeout = access.download_timeout + 1  # the deadline of the whole is the first to pass
    with open(path, "wb") as target, access.opener().open(request, timeout=timeout) as response:
        expected, received = response.length or 1, 0
        while max(received, expected) <= access.max_download_bytes and not given_up.is_set():
            if not (chunk := response.read1(1 << 16)):
                break
            received += target.write(chunk)
    if max(received, expected) > access.max_download_bytes:
        raise ValueError(f"it has more than {access.max_download_bytes} bytes (max_download_bytes of MediaAccess)")
    if received < expected:
        raise ValueError(f"the connection ended after {received} of {expected} bytes")
