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
import json
import os
import platform
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regstore.errors import AlreadyExists, StorageError, Unsupported
from regstore.layout import PREFIX, STORE_ID
from regstore.storage.base import Storage
from regstore.storage.folders import Tree
from regstore.storage.newfile import NewFile
from regstore.storage.optional import KeepsId, ReachedByMany

#: Bytes of an ID's file that are read.
_LONGEST: Final = 4096
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
    return f"{place} on computer {_computer() or platform.node()}"


def is_of_this_computer(host: str) -> bool:
    """Whether the name or number of a server means another one on each computer."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").rpartition(".")[2].lower() == "localhost"


def place_of_folder(root: Path) -> str:
    path, computer = os.path.realpath(root), _computer()
    where = on_this_computer(path)
    try:
        descriptor = os.open(root / STORE_ID, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            known = _Id.parse(file.read(_LONGEST))
            inode = os.fstat(descriptor).st_ino
    except (OSError, ValueError):
        return where
    if known.computer and computer and known.computer != computer:
        return f"folder {known.id}, copied to {where}"
    if known.inode == inode:
        return f"folder {known.id}"
    return f"folder {known.id}, copied to {where if computer else f'{path} as inode {inode}'}"


def write_id(root: Path) -> None:
    """Where the folder is a registry's, has no ID, and may be written."""
    if (root / PREFIX).is_dir() and not os.path.lexists(root / STORE_ID):
        with suppress(StorageError):
            _write_id(root)


def _write_id(root: Path) -> None:
    for if_absent in (True, False):  # not every file system has hard links
        file = NewFile(Tree(root), STORE_ID)
        try:
            body = {"id": secrets.token_hex(16), "inode": file.inode, "computer": _computer()}
            file.write(json.dumps(body).encode() + b"\n")
            file.publish(if_absent=if_absent)
            return
        except AlreadyExists:
            return
        except Unsupported:
            continue
        finally:
            file.discard()


@dataclass(frozen=True, kw_only=True)
class _Id:
    id: str
    inode: int
    computer: str

    @classmethod
    def parse(cls, body: bytes) -> _Id:
        """ValueError where it can't be read."""
        try:
            known = json.loads(body)
            found = cls(id=known["id"], inode=known["inode"], computer=known["computer"])
            if (
                len(bytes.fromhex(found.id)) != 16
                or type(found.inode) is not int
                or type(found.computer) is not str
            ):
                raise ValueError(known)
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(body) from error
        return found


def _computer() -> str:
    """ "" where it can't be told."""
    try:
        known = _MACHINE_ID.read_bytes().strip()
        return hashlib.sha256(b"regstore " + bytes.fromhex(known.decode())).hexdigest()[:16] if known else ""
    except (OSError, ValueError):
        return ""
