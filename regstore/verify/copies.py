"""Where good bytes come from: another store, a backup, or this store's own trash."""

from __future__ import annotations

from typing import Protocol

from regstore import layout
from regstore.digest import Digest
from regstore.errors import NotFound
from regstore.layout import BlobKey
from regstore.state import TRASH
from regstore.storage.base import ObjectInfo, Storage


def backup_key(digest: Digest) -> str:
    """Where a backup keeps a blob: `blobs/sha256/ab/<hex>` below its root."""
    return f"blobs/{digest.algorithm}/{digest.encoded[:2]}/{digest.encoded}"


class Links(Protocol):
    """Links of another copy that keeps them in a way of its own."""

    async def link(self, key: str) -> bytes | None:
        """What the link with this key of a registry's storage holds there, or None where it is not there."""
        ...


class Copies:
    """Copies of blobs, by digest, and of links, by key. `own` is the store under repair; `other` a registry's store,
    or a backup, whose links `links` has."""

    def __init__(self, own: Storage, other: Storage | None, links: Links | None = None) -> None:
        self._own = own
        self.other = other
        self._links = links
        self._trash: dict[Digest, list[str]] | None = None

    async def find(self, digest: Digest) -> list[tuple[Storage, ObjectInfo]]:
        """Every place that has something under the digest, the other store first; what it has must be checked."""
        found: list[tuple[Storage, ObjectInfo]] = []
        if self.other is not None:
            for key in (layout.blob_key(digest), backup_key(digest)):
                try:
                    found.append((self.other, await self.other.stat(key)))
                except NotFound:
                    continue
        for key in (await self._trashed()).get(digest, ()):
            try:
                found.append((self._own, await self._own.stat(key)))
            except NotFound:
                continue
        return found

    async def link(self, key: str) -> bytes | None:
        """What the link holds in the other copy, or None where that does not have it."""
        if self._links is not None:
            return await self._links.link(key)
        if self.other is None:
            return None
        try:
            return await self.other.get(key)
        except NotFound:
            return None

    async def _trashed(self) -> dict[Digest, list[str]]:
        """Blobs in the trash of earlier runs, newest first."""
        if self._trash is None:
            self._trash = {}
            async for page in self._own.list(TRASH):
                for key in page.keys:
                    original = layout.decode(key[len(TRASH) :].partition("/")[2])
                    if isinstance(original, BlobKey):
                        self._trash.setdefault(original.digest, []).insert(0, key)
        return self._trash
