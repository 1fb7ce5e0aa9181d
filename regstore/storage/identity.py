"""What tells a store from every other one, however it was written.

A bucket is told by its endpoint, and where that is `localhost`, by the computer too. A folder's path tells nothing: two
computers, or two containers, have one of the same name. So `keep_id` leaves an ID in the store, `regstore/id`, where it
may be written:

    {"id": 32 HEX, "inode": N, "computer": HEX or ""}

A copy of the folder has that file too, and must not be taken for the folder: there the file has another inode
number than it says (no two files of a file system have one), or the computer is known to be another. Where only
blocks were copied, and the computer can't be told (in a container), nothing tells the two apart.

The computer is told by /etc/machine-id, hashed, as machine-id(5) asks for. An image of a container has none, or an
empty one; the host's name changes with every container, so it tells only where nothing else does.
"""

from __future__ import annotations

import hashlib
import ipaddress
import platform
from pathlib import Path
from typing import Final

from regstore.storage.base import Storage
from regstore.storage.optional import KeepsId, ReachedByMany

_MACHINE_ID: Final = Path("/etc/machine-id")


async def place_of(storage: Storage) -> str:
    """As `Storage.identity`, among all computers. Only reads."""
    return await storage.identity_everywhere() if isinstance(storage, ReachedByMany) else storage.identity()


async def keep_id(storage: Storage) -> None:
    """Where the storage knows such things."""
    if isinstance(storage, KeepsId):
        await storage.keep_id()


def on_this_computer(place: str) -> str:
    """A place that every computer has one of."""
    return f"{place} on computer {computer() or platform.node()}"


def is_of_this_computer(host: str) -> bool:
    """Whether the name or number of a server means another one on each computer."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").rpartition(".")[2].lower() == "localhost"


def computer() -> str:
    """ "" where it can't be told."""
    try:
        known = _MACHINE_ID.read_bytes().strip()
        return hashlib.sha256(b"regstore " + bytes.fromhex(known.decode())).hexdigest()[:16] if known else ""
    except (OSError, ValueError):
        return ""
