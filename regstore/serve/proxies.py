"""Who asks, where a proxy stands between: what it says of the client counts only if the proxy is one that was named.

Anybody can send an `X-Forwarded-For`. So it is read from its end, where the nearest proxy has added what it saw, and no
further than through addresses that are trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from aiohttp import hdrs, web

from regstore.errors import InputError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_HOST: Final = re.compile(r"(?:[A-Za-z0-9_.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)
#: Entries of one header that are looked at.
_HOPS: Final = 20
#: Of an IPv6 address: what one customer has is a network, in which addresses cost nothing.
_CUSTOMER: Final = 64


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxies whose word counts; none at first."""

    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Proxies:
        """Addresses and networks: `127.0.0.1`, `10.0.0.0/8`, `fd00::/8`. InputError."""
        networks = []
        for text in texts:
            try:
                networks.append(ip_network(text))
            except ValueError:
                raise InputError(
                    f"--trusted-proxy {text!r} is no address or network: give 127.0.0.1 or 10.0.0.0/8, no name"
                ) from None
        return cls(tuple(networks))

    def client(self, request: web.Request) -> str:
        """The address that asks, as far as it is known: an IPv4 address, or the network that an IPv6 one is of."""
        nearest = _address(request.remote or "")
        if nearest is None:
            return request.remote or ""
        if self._trusts(nearest):
            for text in _entries(request, hdrs.X_FORWARDED_FOR):
                told = _address(text)
                if told is None:
                    break
                nearest = told
                if not self._trusts(told):
                    break
        if isinstance(nearest, IPv6Address):
            return str(ip_network((nearest, _CUSTOMER), strict=False))
        return str(nearest)

    def host(self, request: web.Request) -> str:
        """Host and port by which the client asks for this server, "" where it does not say a good one."""
        host = request.headers.get(hdrs.HOST, "")
        nearest = _address(request.remote or "")
        if nearest is not None and self._trusts(nearest):
            host = next(_entries(request, hdrs.X_FORWARDED_HOST), host)
        return host if _HOST.fullmatch(host) else ""

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def _entries(request: web.Request, name: str) -> Iterator[str]:
    """Of a list in headers, from its end."""
    given = ",".join(request.headers.getall(name, ())).split(",")
    for entry in given[: -_HOPS - 1 : -1]:
        if text := entry.strip():
            yield text


def _address(text: str) -> Address | None:
    """With a port or without; an IPv4 address in IPv6's clothes is one."""
    if match := re.fullmatch(r"\[(.*)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+", text, re.ASCII):
        text = match[1] or match[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


NO_PROXIES: Final = Proxies()
