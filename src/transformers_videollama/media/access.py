"""What media may be opened from, and how much work each may be; for services that open what strangers name."""

import http.client
import ipaddress
import os
import socket
import time
import urllib.request
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import MediaError


__all__ = ["Deadline", "MediaAccess", "access_for", "media_access", "restrict_media_access"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


@dataclass(frozen=True)
class MediaAccess:
    """
    The files and addresses that sources of media may name, and the work that one of them may make.

    Attributes:
        local_folders (`tuple[Path, ...]`, *optional*): Folders that files may lie in, links followed; `None` is
            everywhere, and `()` nowhere.
        private_addresses (`bool`, defaults to `True`): Whether an `http(s)` address, or what it redirects to, may lead
            to a host that is not on the public internet. If it may not, proxies are not used: they would have to be
            trusted to check.
        max_path_length (`int`, defaults to 8192): Characters of a path or an address.
        max_download_bytes (`int`, defaults to 2 GiB): Bytes that are fetched for one source.
        download_timeout (`float`, defaults to 60.0): Seconds for a whole download, from looking up the name to the
            last byte.
        max_frame_pixels (`int`, defaults to 2**27): Pixels of an image, or of a frame as it is stored; 16K video has
            fewer.
        max_request_bytes (`int`, defaults to 4 GiB): Bytes of the decoded frames and images of one request, three for
            each pixel; 32 frames of 8K are 3 GiB. A request is one call: of `apply_chat_template`, or of `load_video`.
        max_decoding_seconds (`float`, defaults to 600.0): Seconds for reading the frames of one video, its index, or a
            window of its sound. They are looked at between packets.

    Raises:
        ValueError: for a limit that is not positive.
    """

    local_folders: tuple[Path, ...] | None = None
    private_addresses: bool = True
    max_path_length: int = 8192
    max_download_bytes: int = 2 << 30
    download_timeout: float = 60.0
    max_frame_pixels: int = 1 << 27
    max_request_bytes: int = 4 << 30
    max_decoding_seconds: float = 600.0
    # Bytes that the items of a request have taken so far; a list, whose `append` is safe among threads
    _taken: list[int] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        for name in ("max_path_length", "max_download_bytes", "download_timeout", "max_frame_pixels"):
            _check_positive(name, getattr(self, name))
        for name in ("max_request_bytes", "max_decoding_seconds"):
            _check_positive(name, getattr(self, name))

    def for_request(self) -> "MediaAccess":
        """The same, for the items of one request, whose bytes are added up; itself, if it is of one already."""
        return replace(self, _taken=[]) if self._taken is None else self

    @property
    def taken(self) -> list[int]:
        """Bytes of each item of the request so far; of no request, a list that nobody has."""
        return [] if self._taken is None else self._taken

    def deadline(self) -> "Deadline":
        """The end of a reading that begins now."""
        return Deadline(self.max_decoding_seconds)

    def check_pixels(self, height: int, width: int) -> None:
        """
        Raises:
            MediaError: for a frame of more than `max_frame_pixels`.
        """
        if height * width > self.max_frame_pixels:
            raise MediaError(
                f"is {width} x {height}, {height * width} pixels, more than {self.max_frame_pixels} "
                "(max_frame_pixels of MediaAccess); scale it down, or allow more"
            )

    def take_bytes(self, num_frames: int, height: int, width: int) -> None:
        """
        Count frames before they are decoded.

        Raises:
            MediaError: if the request would have more than `max_request_bytes`.
        """
        num_bytes = 3 * num_frames * height * width
        taken = self.taken
        taken.append(num_bytes)
        if sum(taken) > self.max_request_bytes:
            before = sum(taken) - num_bytes
            raise MediaError(
                f"{num_frames} frames of {(height, width)} are {num_bytes} bytes, after {before} of the same request: "
                f"more than {self.max_request_bytes} (max_request_bytes of MediaAccess); ask for fewer frames or a "
                "smaller size, or allow more"
            )

    def allows_file(self, path: str) -> bool:
        if self.local_folders is None:
            return True
        try:
            real = Path(os.path.realpath(path))  # unlike `resolve`, for a circle of links, too
        except ValueError:  # a name that no file can have
            return False
        return any(real.is_relative_to(folder.resolve()) for folder in self.local_folders)

    @property
    def allows_other_schemes(self) -> bool:
        """Whether fsspec may open addresses: it reads local files and private addresses by many names, and chains."""
        return self.local_folders is None and self.private_addresses

    def opener(self) -> urllib.request.OpenerDirector:
        """The opener of `http(s)` addresses; it raises an `OSError` for those that are not allowed."""
        if self.private_addresses:
            return urllib.request.build_opener()
        opener = urllib.request.OpenerDirector()  # without what reads files, FTP and data that a redirect could name
        for handler in (
            _PublicHTTPHandler(),
            _PublicHTTPSHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.UnknownHandler(),
        ):
            opener.add_handler(handler)
        return opener


class Deadline:
    """The end of a reading, `seconds` after it began."""

    def __init__(self, seconds: float):
        self.seconds, self.end = seconds, time.monotonic() + seconds

    def check(self) -> None:
        """
        Raises:
            MediaError: once it has passed.
        """
        if time.monotonic() > self.end:
            raise MediaError(
                f"is not read after {self.seconds} s (max_decoding_seconds of MediaAccess); cut or re-encode it, or "
                "allow more"
            )


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"got {name}={value}, expected a positive number")


_access = MediaAccess()


def media_access() -> MediaAccess:
    """What this process may open."""
    return _access


def access_for(access: MediaAccess | None, timeout: float | None = None) -> MediaAccess:
    """What a call may open: `access`, or what the process may; with the call's own `timeout` of downloads."""
    access = media_access() if access is None else access
    return access if timeout is None else replace(access, download_timeout=timeout)


def restrict_media_access(access: MediaAccess) -> MediaAccess:
    """
    Set what this process may open from now on; for services, before they answer.

    Returns:
        [`MediaAccess`]: the setting before.
    """
    global _access  # engines load processors in threads of their own, to which nothing could be passed on
    before, _access = _access, access
    return before


class _PublicHTTPConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        # Resolved once, so that what was checked is what is connected to
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        addresses = [str(address[0]) for *_, address in found]
        for address in addresses:
            _check_public(self.host, address)
        self.sock = _connect_to_any(addresses, self.port, self.timeout)


class _PublicHTTPSConnection(http.client.HTTPSConnection, _PublicHTTPConnection):
    """`HTTPSConnection` wraps the socket that the next class connects."""


class _PublicHTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, request):
        return self.do_open(_PublicHTTPConnection, request)


class _PublicHTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, request):
        return self.do_open(_PublicHTTPSConnection, request)


def _check_public(host: str, address: str) -> None:
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found in _NAT64:
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        else:
            found = found.ipv4_mapped or found.sixtofour or found
    if not found.is_global or found.is_multicast:
        raise PermissionError(f"{host} is not on the public internet (private addresses are not allowed here)")


def _connect_to_any(addresses: list[str], port: int, timeout: float | None) -> socket.socket:
    error = OSError("the name has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout)
        except OSError as failed:
            error = failed
    raise error
