"""What a registry's storage is used for: bytes of blobs, by repository. Pure SQL over an inventory.

A repository uses a blob that it links, or that its tags and revisions reach (`reachability`). Bytes are those that
are stored: a blob that many repositories use is stored once, and is shared by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from regstore.inventory.inventory import Inventory
from regstore.inventory.reachability import Reachability
from regstore.inventory.statements import Statements

_SQL: Final = Statements("regstore.inventory", "usage.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryUsage:
    """unique: bytes that only this repository uses; shared: that others use too; uploads: of its open uploads."""

    name: str
    tags: int
    revisions: int
    blobs: int
    unique: int
    shared: int
    uploads: int

    @property
    def total(self) -> int:
        return self.unique + self.shared


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Of the whole store; sizes in bytes. unreferenced: blobs that no repository uses, as far as could be read; unread:
    what could not."""

    repositories: tuple[RepositoryUsage, ...]
    blobs: int
    blob_bytes: int
    shared_blobs: int
    shared_bytes: int
    unreferenced_blobs: int
    unreferenced_bytes: int
    upload_bytes: int
    unread: tuple[str, ...] = ()


def plan_usage(inventory: Inventory) -> Usage:
    """Makes used_blob(repository, digest, size, users) in the inventory."""
    Reachability(inventory, "used").add(_SQL.text("roots"))
    _SQL.run(inventory, "used_blobs")
    usages = [
        RepositoryUsage(
            name=name, tags=tags, revisions=revisions, blobs=blobs, unique=own, shared=shared, uploads=open_
        )
        for name, tags, revisions, blobs, own, shared, open_ in _SQL.run(inventory, "repositories").fetchall()
    ]
    [(blobs, size, shared_blobs, shared_size, unused_blobs, unused_size)] = _SQL.run(inventory, "store").fetchall()
    return Usage(
        repositories=tuple(sorted(usages, key=lambda usage: (-usage.total, usage.name))),
        blobs=blobs,
        blob_bytes=size,
        shared_blobs=shared_blobs,
        shared_bytes=shared_size,
        unreferenced_blobs=unused_blobs,
        unreferenced_bytes=unused_size,
        upload_bytes=sum(usage.uploads for usage in usages),
        unread=_name_unread(inventory),
    )


def _name_unread(inventory: Inventory, *, most: int = 1000) -> tuple[str, ...]:
    """A line for each manifest and link that the store has and did not give; so many at most."""
    return tuple(line for (line,) in _SQL.run(inventory, "unread", {"most": most}).fetchall())
