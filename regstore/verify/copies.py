"""Where good bytes come from: another store, a backup, or this store's own trash."""

from __future__ import annotations

from regstore import layout
from regstore.digest import Digest
from regstore.errors import NotFound
from regstore.layout import BlobKey
from regstore.runs import TRASH
from regstore.storage.base import ObjectInfo, Storage


def backup_key(digest: Digest) -> str:
    """Where a backup keeps a blob: `blobs/sha256/ab/<hex>` below its root."""
    return f"blobs/{digest.algorithm}/{digest.encoded[:2]}/{digest.encoded}"


class Copies:
    """Copies of blobs, by digest. `own` is the store under repair; `other` a registry's store, or a backup."""

    def __init__(self, own: Storage, other: Storage | None) -> None:
        self._own = own
        self.other = other
        self._trash: dict[Digest, list[str]] | None = None

    async def find(self, digest: Digest) -> list[tuple[Storage, ObjectInfo]]:
        """Every place that has something under the digest, the other store first; what it has must be checked."""
        found: list[tuple[Storage, ObjectInfo]] = []
        if self.other is not None:
            for key in (layout.encode(BlobKey(digest)), backup_key(digest)):
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
