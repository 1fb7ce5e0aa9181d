"""The ID that is left in a folder, as `storage.identity` says. Blocking."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regstore.errors import AlreadyExists, StorageError, Unsupported
from regstore.layout import PREFIX, STORE_ID
from regstore.storage.disk.folders import Tree
from regstore.storage.disk.newfile import NewFile
from regstore.storage.identity import computer, on_this_computer

#: Bytes of an ID's file that are read.
_LONGEST: Final = 4096


def place_of_folder(root: Path) -> str:
    path, here = os.path.realpath(root), computer()
    where = on_this_computer(path)
    try:
        descriptor = os.open(root / STORE_ID, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            known = _Id.parse(file.read(_LONGEST))
            inode = os.fstat(descriptor).st_ino
    except (OSError, ValueError):
        return where
    if known.computer and here and known.computer != here:
        return f"folder {known.id}, copied to {where}"
    if known.inode == inode:
        return f"folder {known.id}"
    return f"folder {known.id}, copied to {where if here else f'{path} as inode {inode}'}"


def write_id(root: Path) -> None:
    """Where the folder is a registry's, has no ID, and may be written."""
    if (root / PREFIX).is_dir() and not os.path.lexists(root / STORE_ID):
        with suppress(StorageError):
            _write_id(root)


def _write_id(root: Path) -> None:
    for if_absent in (True, False):  # not every file system has hard links
        file = NewFile(Tree(root), STORE_ID)
        try:
            body = {"id": secrets.token_hex(16), "inode": file.inode, "computer": computer()}
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
