"""Finds what a source names or is: a file, an address, bytes, an object. A slow server is an error: no long wait."""

import base64
import concurrent.futures
import functools
import http.client
import io
import os
import re
import tempfile
import threading
import urllib.parse
import urllib.request
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .access import MediaAccess, access_for
from .errors import MediaError, about, import_or_explain
from .objects import Allowance, SharedReader, copy_all, is_readable, size_of
from .progress import progress_bar


__all__ = ["MediaFile", "folder_of", "is_address", "local_file"]

_DOWNLOAD_ERRORS = (OSError, ValueError, http.client.HTTPException)
_LONGEST_TIMEOUT = 1e6  # seconds that threads and sockets can wait for, on every system
_BUFFER = 1 << 15  # bytes, of one look at an object; decoders ask for as many
# Two letters or more: "C://clip.mp4" is a path. Chains such as "simplecache::s3://bucket/clip.mp4" are fsspec's.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)(://|::.*://)", re.IGNORECASE | re.DOTALL)
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "abfs": "adlfs", "az": "adlfs"}


class MediaFile:
    """
    A local file, its name in messages, and the limits of its users.

    Args:
        name (`str`)
        access ([`MediaAccess`])
        path (`str`, *optional*): by default that of a temporary file, which is removed with its last user.
    """

    def __init__(self, name: str, access: MediaAccess, path: str | None = None):
        self.name, self.access, self.path = name, access, path or ""
        if path is None:
            descriptor, self.path = tempfile.mkstemp(prefix="videollama-")
            os.close(descriptor)
            weakref.finalize(self, Path(self.path).unlink, missing_ok=True)
            _temporary[self.path] = self

    def __deepcopy__(self, memo: dict) -> "MediaFile":
        return self  # a copy would not keep a temporary file

    def __reduce__(self):
        return _file_at, (self.name, self.access, self.path)

    @property
    def size(self) -> int:
        """Bytes of it."""
        return os.path.getsize(self.path)

    def open(self) -> str | io.BufferedReader:
        """What decoders open: its path, or a reader with a position of its own."""
        return self.path

    def reader(self) -> io.BufferedReader:
        """A reader of its bytes, to be used by `with`."""
        return open(self.path, "rb")


class _ObjectFile(MediaFile):
    """An object that can seek, which is not copied; it has no path. `keep` is what it needs as long as it is used."""

    def __init__(
        self,
        name: str,
        access: MediaAccess,
        source: Any,
        size: int,
        allowance: Allowance | None = None,
        keep: Any = None,
    ):
        super().__init__(name, access, path="")
        self.source, self.allowance, self.keep, self._size = source, allowance, keep, size

    @property
    def size(self) -> int:
        return self._size

    def open(self) -> io.BufferedReader:
        return io.BufferedReader(SharedReader(self.source, self._size, self.name, self.allowance), _BUFFER)

    def reader(self) -> io.BufferedReader:
        return self.open()

    def __reduce__(self):
        return self._copy.__reduce__()

    @functools.cached_property
    def _copy(self) -> MediaFile:
        """A file for other processes, which do not have the object."""
        file = MediaFile(self.name, self.access)
        with open(file.path, "wb") as target:
            copy_all(self.reader(), target, self.access.max_download_bytes, lambda _: None)
        return file


_temporary: "weakref.WeakValueDictionary[str, MediaFile]" = weakref.WeakValueDictionary()


def _file_at(name: str, access: MediaAccess, path: str) -> MediaFile:
    """A file that comes from another process; a temporary one of this process is kept by what a worker says of it."""
    return _temporary.get(path) or MediaFile(name, access, path)


def local_file(source: Any, access: MediaAccess | None = None) -> MediaFile:
    """What `source` names or is, to be read; a temporary file where it has to be fetched or copied as a whole.

    Args:
        source: a path, http(s) URL, address of fsspec, `file:` or base64 `data:` URI, bytes, an object with `read`, a
            cell of `datasets` (`{"bytes", "path"}`), or a [`MediaFile`], which is returned as it is.
        access ([`MediaAccess`], *optional*): what may be opened, by default what the process may.

    Raises:
        MediaError: it is not there, not allowed, too large, or nothing of these.
    """
    access = access_for(access)
    if isinstance(source, MediaFile):
        return source
    if isinstance(source, Mapping):
        return _file_of_cell(source, access)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _file_of_bytes(source, f"<{len(source)} bytes>", access)
    if isinstance(source, (str, os.PathLike)):
        return _file_of_text(os.fsdecode(source), access)
    if is_readable(source):
        return _file_of_object(source, access)
    raise MediaError(
        f"got {type(source).__name__}, expected a path, a URL, bytes, an object with read(), an array or decoded media"
    )


def is_address(text: str) -> bool:
    """Whether it is a URL or another address, and no path."""
    return _scheme(text) != ""


def folder_of(source: Any, access: MediaAccess | None = None) -> Path | None:
    """The folder that `source` names, such as one of frames; `None` if it names none.

    Raises:
        MediaError: for a folder that is not allowed.
    """
    if not isinstance(source, (str, os.PathLike)):
        return None
    text, access = os.fsdecode(source), access_for(access)
    if len(text) > access.max_path_length or _scheme(text) not in ("", "file"):
        return None
    path = _local_path(text)
    if not os.path.isdir(path):
        return None
    with about(text[:200]):
        _check_access(path, access)
    return Path(path)


def _file_of_text(text: str, access: MediaAccess) -> MediaFile:
    scheme = _scheme(text)
    if scheme == "data":
        return _file_of_data_uri(text, access)
    if len(text) > access.max_path_length:
        raise MediaError(
            f"{text[:80]}...: has {len(text)} characters, more than {access.max_path_length} (max_path_length of "
            "MediaAccess)"
        )
    if scheme in ("http", "https"):
        return _download(text, access)
    if scheme not in ("", "file"):
        return _file_of_address(text, scheme, access)
    path = _local_path(text)
    file = MediaFile(text[:200], access, os.path.abspath(path))  # absolute: FFmpeg takes "a:b.mp4" for a protocol
    with about(file.name):
        _check_access(path, access)
        if os.path.isdir(path):
            raise MediaError("is a folder, expected a file; only a video can be a folder, of frames")
        if not os.path.isfile(path):
            raise MediaError("does not exist, or is not a regular file")
        if os.path.getsize(path) == 0:
            raise MediaError("is empty (0 bytes)")
    return file


def _scheme(text: str) -> str:
    """That of an address, in small letters; "" for a path."""
    scheme = text[:6].partition(":")[0].lower()
    if ":" in text[:6] and scheme in ("data", "file", "http", "https"):
        return scheme
    address = _ADDRESS.match(text)
    return address[1].lower() if address else ""


def _local_path(text: str) -> str:
    """The path of a `file:` URI, or a path as it is; with "~" for the home folder."""
    if _scheme(text) == "file":
        return urllib.request.url2pathname(urllib.parse.urlsplit(text).path)
    return os.path.expanduser(text)


def _check_access(path: str, access: MediaAccess) -> None:
    if not access.allows_file(path):
        raise MediaError("local files are not allowed here, or not of this folder; send the content, or an address")


def _file_of_bytes(data: bytes | bytearray | memoryview, name: str, access: MediaAccess) -> MediaFile:
    if not data:
        raise MediaError(f"{name}: holds no bytes")
    file = MediaFile(name, access)
    Path(file.path).write_bytes(data)
    return file


def _file_of_cell(cell: Mapping, access: MediaAccess) -> MediaFile:
    """A cell of a column of images, videos or sound of the library `datasets`, as it is stored."""
    data, path = cell.get("bytes"), cell.get("path")
    if data is not None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise MediaError(f"got a dict whose 'bytes' are {type(data).__name__}, expected bytes")
        name = os.path.basename(os.fsdecode(path))[:200] if path else f"<{len(data)} bytes>"
        return _file_of_bytes(data, name, access)
    if path is None:
        raise MediaError(
            f"got a dict with {sorted(map(str, cell))}, expected one with 'bytes' or 'path', which is set"
        )
    return local_file(path, access)


def _file_of_object(source: Any, access: MediaAccess) -> MediaFile:
    named = getattr(source, "name", None)  # a number, for a file that was opened by its descriptor
    name = named[:200] if isinstance(named, str) and named else f"<{type(source).__name__}>"
    with about(name):
        return _shared_or_copied(source, name, access)


def _shared_or_copied(
    source: Any, name: str, access: MediaAccess, allowance: Allowance | None = None, keep: Any = None
) -> MediaFile:
    size = size_of(source)
    if size == 0:
        raise MediaError("is empty (0 bytes)")
    if size is not None:
        return _ObjectFile(name, access, source, size, allowance, keep)
    file = MediaFile(name, access)
    with open(file.path, "wb") as target, progress_bar(f"copying {name}", None) as bar:
        copied = copy_all(source, target, access.max_download_bytes, bar.update)
    if not copied:
        raise MediaError("gives no bytes; it cannot seek, and may have been read before")
    return file


def _file_of_address(url: str, scheme: str, access: MediaAccess) -> MediaFile:
    """A file of any storage that fsspec knows: what is read of it is fetched, and no more."""
    name = url.partition("?")[0][:200]  # a query often holds a signature
    with about(name):
        if not access.allows_other_schemes:
            raise MediaError(f"the scheme {scheme}:// is not allowed here; send the content, or an http(s) address")
        try:
            filesystem, path = import_or_explain("fsspec", "fsspec").core.url_to_fs(url)
            source = filesystem.open(path, "rb")
        except (ImportError, ValueError) as error:  # ValueError: a scheme that fsspec does not know
            packages = " ".join(["fsspec", *filter(None, [_PACKAGES.get(scheme)])])
            raise MediaError(
                f"the scheme {scheme}:// is not supported here: {error}; pip install {packages}, or download the file"
            ) from error
        except OSError as error:
            raise MediaError(f"cannot be opened: {error or type(error).__name__}") from error
        # A file system of an archive closes it when it goes
        return _shared_or_copied(source, name, access, Allowance(access.max_download_bytes), keep=filesystem)


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
    path = file.path  # the thread may outlive the file
    timeout = min(access.download_timeout, _LONGEST_TIMEOUT)
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
    timeout = min(access.download_timeout, _LONGEST_TIMEOUT) + 1  # the deadline of the whole is the first to pass
    with open(path, "wb") as target, access.opener().open(request, timeout=timeout) as response:
        expected, received = response.length or 1, 0
        with progress_bar(f"fetching {url.partition('?')[0]}", response.length) as bar:
            while max(received, expected) <= access.max_download_bytes and not given_up.is_set():
                if not (chunk := response.read1(1 << 16)):
                    break
                received += target.write(chunk)
                bar.update(len(chunk))
    if max(received, expected) > access.max_download_bytes:
        raise ValueError(f"it has more than {access.max_download_bytes} bytes (max_download_bytes of MediaAccess)")
    if received < expected:
        raise ValueError(f"the connection ended after {received} of {expected} bytes")
