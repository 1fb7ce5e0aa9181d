"""The name resolves, and something listens at the port."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

from regstore.deployment.check.options import CheckOptions
from regstore.deployment.check.place import Place, split_address
from regstore.deployment.check.result import CheckLine, Red, ok, warn
from regstore.hosts import bracketed

_FIREWALL: Final = "see that it is up, and that no firewall drops what is sent to the port"


@dataclass(frozen=True, slots=True)
class Reached:
    """host: an address that took a connection."""

    host: str
    port: int


async def resolve(options: CheckOptions, place: Place) -> tuple[CheckLine, list[str], int]:
    """The line, and addresses and the port to connect to. Red."""
    host, port = place.host, place.port
    if options.address:
        host, other = split_address(options.address)
        port = other or port
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        said = "asked there, whatever the name resolves to" if options.address else "nothing to resolve"
        return ok("name", f"{host} is an address: {said}"), [host], port
    try:
        async with asyncio.timeout(options.timeout):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise Red(
            f"no name server said within {options.timeout:g} s what {host} is",
            "see to this computer's name servers",
        ) from None
    except (OSError, UnicodeError) as error:
        raise Red(
            f"{host} resolves to no address: {getattr(error, 'strerror', None) or error}",
            "enter it in the DNS (or in /etc/hosts of each client), or see that it is spelled right",
        ) from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    return ok("name", f"{host} is {' and '.join(addresses)}"), addresses, port


async def connect(addresses: list[str], port: int, timeout: float) -> tuple[CheckLine, Reached]:
    """Try all addresses at the same time, as clients may take any. Red where none takes a connection."""
    said = await asyncio.gather(*(_try(address, port, timeout) for address in addresses))
    answered = [address for address, problem in zip(addresses, said, strict=True) if not problem]
    problems = [
        f"{bracketed(address)}:{port} {problem}"
        for address, problem in zip(addresses, said, strict=True)
        if problem
    ]
    if not answered:
        silent = any("did not answer" in problem for problem in problems)
        raise Red(
            "; ".join(problems),
            _FIREWALL
            if silent
            else "start the registry, and see in `addr` of its config.yml and in its log where it listens",
        )
    detail = f"{' and '.join(bracketed(each) for each in answered)} takes connections at {port}"
    reached = Reached(answered[0], port)
    if any("did not answer" in problem for problem in problems):
        cure = "take the address out of the DNS, or let the port through: clients that try it first wait"
        return warn("port", f"{detail}, but {'; '.join(problems)}", cure), reached
    return ok("port", detail), reached


def is_here(address: str) -> bool:
    """Whether an address is one of this computer's: then it can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


async def _try(address: str, port: int, timeout: float) -> str:
    """Why it can't be connected to, or ""."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return f"did not answer within {timeout:g} s"
    except ConnectionRefusedError:
        return "refuses connections: nothing listens there"
    except OSError as error:
        return f"can't be reached: {error.strerror or error}"
    writer.transport.abort()
    return ""
