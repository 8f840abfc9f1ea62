"""Limits on the files and addresses that media are opened from, for services that open what strangers name."""

import http.client
import ipaddress
import os
import socket
import urllib.request
from dataclasses import dataclass
from pathlib import Path


__all__ = ["MediaAccess", "media_access", "restrict_media_access"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


@dataclass(frozen=True)
class MediaAccess:
    """
    The files and addresses that sources of media may name.

    Attributes:
        local_folders (`tuple[Path, ...]`, *optional*): Folders that files may lie in, links followed; `None` is
            everywhere, and `()` nowhere.
        private_addresses (`bool`, defaults to `True`): Whether an `http(s)` address, or what it redirects to, may lead
            to a host that is not on the public internet. If it may not, proxies are not used: they would have to be
            trusted to check.
    """

    local_folders: tuple[Path, ...] | None = None
    private_addresses: bool = True

    def allows_file(self, path: str | os.PathLike) -> bool:
        if self.local_folders is None:
            return True
        real = Path(path).resolve()
        return any(real.is_relative_to(folder.resolve()) for folder in self.local_folders)

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


_access = MediaAccess()


def media_access() -> MediaAccess:
    """The files and addresses that this process may open."""
    return _access


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
