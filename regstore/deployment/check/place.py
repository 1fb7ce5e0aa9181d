"""Where a registry is: its address as clients write it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

from regstore.errors import InputError
from regstore.hosts import bracketed
from regstore.words import printable

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Place:
    """host: a name in lower case (IDNA), or an address without brackets."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str, *, with_path: bool = False) -> Place:
        """Of a URL; one without a scheme is of HTTPS. with_path: it may have a path. InputError where it has more."""
        try:
            parts = urlsplit(url if "//" in url else f"https://{url}")
        except ValueError as error:
            raise InputError(f"{printable(url[:80])!r} is no address: {error}") from error
        host, port = _host(parts.netloc, url)
        if parts.scheme not in _PORTS:
            raise InputError(f"{url!r} is neither https:// nor http://")
        if not with_path and (parts.path not in ("", "/") or parts.query or parts.fragment):
            raise InputError(f"{url!r} has more than a host and a port: a registry is at the root of its address")
        return cls(parts.scheme, host, port or _PORTS[parts.scheme])

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """`host[:port]`, as the Host header and an image's name have it."""
        shown = bracketed(self.host)
        return shown if self.port == _PORTS[self.scheme] else f"{shown}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    def join(self, path: str, location: str) -> str:
        """The whole URL of a Location in the answer to a request for the path. InputError where it is none."""
        try:
            url = urljoin(f"{self.origin}{path}", location)
            Place.of(url, with_path=True)
        except ValueError as error:  # InputError is one
            raise InputError(f"{printable(location[:80])!r} is no address") from error
        return url


def split_address(text: str) -> tuple[str, int]:
    """`HOST[:PORT]`; 0 for no port. InputError."""
    return _host(text, text)


def _host(netloc: str, text: str) -> tuple[str, int]:
    if "@" in netloc:
        raise InputError("an address has no user and no password in it: they are said apart")
    try:
        parts = urlsplit(f"//{netloc}")
        host, port = parts.hostname or "", parts.port or 0
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError:
        host, port = "", 0
    if not host or any(character in host for character in "/ \t\\"):
        raise InputError(f"{text!r} names no host: give HOST or HOST:PORT, an IPv6 address in brackets")
    return host.lower(), port
