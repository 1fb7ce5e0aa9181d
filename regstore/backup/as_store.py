"""A snapshot as a store: what a registry's storage would hold, had the snapshot been restored into it.

Whatever looks at a store looks at a snapshot too: `Registry`, a scan, the registry API. Nothing can be changed through
it. Links come from the packs, which are read when a repository is first asked for and kept while there is room; blobs
come from the backup. Times of tags are those that the packs give; everything else is as old as the snapshot.
"""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.backup.format import Pack, Snapshot, blob_key
from regstore.backup.opening import read_pack
from regstore.digest import Digest
from regstore.errors import NotFound, Unsupported
from regstore.storage.base import (
    Counters,
    InFile,
    ObjectInfo,
    Page,
    ReadHandle,
    Storage,
)
from regstore.storage.optional import Presigns
from regstore.storage.read_only import ReadOnly

#: Links of packs that are kept in memory at a time, at some 500 bytes each.
LINKS_KEPT: Final = 200_000
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Tree:
    """A repository's links: every key in byte order, the digest in each, and when it was written, in microseconds."""

    keys: Sequence[str]
    links: dict[str, tuple[Digest, int]]
    blobs: dict[Digest, int]


@dataclass(slots=True)
class _Read:
    """A blob under its key in the registry's layout."""

    info: ObjectInfo
    handle: ReadHandle

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.handle.__aiter__()


class SnapshotStorage(ReadOnly):
    """The Storage that a snapshot would be restored to. It does not close the backup that it reads from."""

    reason = "a snapshot never changes"

    def __init__(self, backup: Storage, snapshot: Snapshot, *, links_kept: int = LINKS_KEPT) -> None:
        self.url = f"{backup.url} (snapshot {snapshot.run})"
        self.counters: Counters = backup.counters
        self.serves_in_parallel = backup.serves_in_parallel
        self.bills_requests = backup.bills_requests
        self.snapshot = snapshot
        self._backup = backup
        self._trees = _Trees(backup, snapshot, links_kept)
        #: In the order of their own keys, which begin with `<name>/_`: those of a repository nested in it do not.
        self._names = sorted(snapshot.repositories, key=_own)

    def identity(self) -> str:
        return f"{self._backup.identity()} (snapshot {self.snapshot.run})"

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        keys: list[str] = []
        facts: list[tuple[int, str, int]] = []
        async for key, fact in self._keys(prefix, start_after):
            if len(keys) == _PAGE:
                yield _page(keys, facts, complete=False)
                keys, facts = [], []
            keys.append(key)
            facts.append(fact)
        yield _page(keys, facts, complete=True)

    async def _keys(self, prefix: str, start_after: str) -> AsyncIterator[tuple[str, tuple[int, str, int]]]:
        if _meet(layout.BLOBS, prefix) and start_after < layout.BLOBS[:-1] + "0":
            for digest, size in await self._blobs():
                key = layout.blob_key(digest)
                if key.startswith(prefix) and key > start_after:
                    yield key, (size, "", self.snapshot.begun)
        for name in self._names:
            own = _own(name)
            if not _meet(own, prefix) or (start_after > own and not start_after.startswith(own)):
                continue
            tree = await self._trees.get(name)
            for key in _between(tree.keys, prefix, start_after):
                target, mtime = tree.links[key]
                body = layout.link_body(target)
                yield key, (len(body), hashlib.md5(body, usedforsecurity=False).hexdigest(), mtime)

    async def _blobs(self) -> Sequence[tuple[Digest, int]]:
        """Each blob once, in the order of their keys. Reads every pack."""
        found: dict[Digest, int] = {}
        for name in self._names:
            found |= (await self._trees.get(name)).blobs
        return sorted(found.items(), key=lambda pair: layout.blob_key(pair[0]))

    async def presigned_url(self, key: str, *, seconds: int) -> str:
        """As `Presigns`; Unsupported where the backup's storage has no such addresses."""
        decoded = layout.decode(key)
        if not isinstance(self._backup, Presigns) or not isinstance(decoded, layout.BlobKey):
            raise Unsupported(f"{self.url} has no addresses of objects")
        return await self._backup.presigned_url(blob_key(decoded.digest), seconds=seconds)

    async def stat(self, key: str) -> ObjectInfo:
        decoded = layout.decode(key)
        if isinstance(decoded, layout.BlobKey):
            try:
                found = await self._backup.stat(blob_key(decoded.digest))
            except NotFound as error:
                raise NotFound(key, self.url) from error
            return ObjectInfo(key, found.size, "", self.snapshot.begun)
        target, mtime = await self._link(key, decoded)
        body = layout.link_body(target)
        return ObjectInfo(key, len(body), hashlib.md5(body, usedforsecurity=False).hexdigest(), mtime)

    async def get(self, key: str) -> bytes:
        decoded = layout.decode(key)
        if isinstance(decoded, layout.BlobKey):
            try:
                return await self._backup.get(blob_key(decoded.digest))
            except NotFound as error:
                raise NotFound(key, self.url) from error
        return layout.link_body((await self._link(key, decoded))[0])

    @asynccontextmanager
    async def open_read(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[ReadHandle]:
        decoded = layout.decode(key)
        if not isinstance(decoded, layout.BlobKey):
            body = await self.get(key)
            info = await self.stat(key)
            yield _Read(info, _Bytes(info, body[start : None if length is None else start + length]))
            return
        try:
            async with self._backup.open_read(blob_key(decoded.digest), start=start, length=length) as handle:
                kind = _ReadFile if isinstance(handle, InFile) else _Read
                yield kind(ObjectInfo(key, handle.info.size, "", self.snapshot.begun), handle)
        except NotFound as error:
            raise NotFound(key, self.url) from error

    async def _link(self, key: str, decoded: layout.Key) -> tuple[Digest, int]:
        if not isinstance(decoded, layout.NOBODYS) and decoded.name in self.snapshot.repositories:
            tree = await self._trees.get(decoded.name)
            if key in tree.links:
                return tree.links[key]
        raise NotFound(key, self.url)

    async def now(self) -> int:
        return await self._backup.now()

    async def close(self) -> None:
        self._trees.clear()

    async def __aenter__(self) -> SnapshotStorage:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


@dataclass(slots=True)
class _ReadFile(_Read):
    def fileno(self) -> int:
        assert isinstance(self.handle, InFile)
        return self.handle.fileno()


@dataclass(slots=True)
class _Bytes:
    info: ObjectInfo
    data: bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data


class _Trees:
    """The links of repositories, read when first asked for; those that were asked for last are kept."""

    def __init__(self, backup: Storage, snapshot: Snapshot, links_kept: int) -> None:
        self._backup = backup
        self._snapshot = snapshot
        self._most = links_kept
        self._kept: OrderedDict[str, Tree] = OrderedDict()
        self._reading: dict[str, asyncio.Lock] = {}

    async def get(self, name: str) -> Tree:
        """IntegrityError where its pack is damaged, or gone."""
        lock = self._reading.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                tree = self._kept.get(name)
                if tree is None:
                    pack = await read_pack(self._backup, self._snapshot.repositories[name].pack)
                    tree = await asyncio.to_thread(tree_of, pack, name, self._snapshot.begun)
                    self._kept[name] = tree
                self._kept.move_to_end(name)
        finally:
            if not lock.locked():
                self._reading.pop(name, None)
        while len(self._kept) > 1 and sum(len(each.links) for each in self._kept.values()) > self._most:
            self._kept.popitem(last=False)
        return tree

    def clear(self) -> None:
        self._kept.clear()


def tree_of(pack: Pack, name: str, begun: int) -> Tree:
    """The links that a restore of the pack would write. begun: their time, in microseconds; tags have their own."""
    links: dict[str, tuple[Digest, int]] = {}
    for digest, target in pack.layers.items():
        links[layout.encode(layout.LayerLinkKey(name, digest))] = target, begun
    for digest, known in pack.manifests.items():
        if known.linked:
            links[layout.encode(layout.RevisionLinkKey(name, digest))] = digest, begun
    for revision, digest in pack.signatures:
        links[layout.encode(layout.SignatureLinkKey(name, revision, digest))] = digest, begun
    for tag, digest in pack.history:
        links[layout.encode(layout.TagIndexKey(name, tag, digest))] = digest, begun
    for tag, packed in pack.tags.items():
        links[layout.encode(layout.TagCurrentKey(name, tag))] = packed.digest, packed.time
    return Tree(sorted(links), links, dict(pack.blobs))


def _own(name: str) -> str:
    """What the repository's own keys begin with, and nobody else's."""
    return f"{layout.repository_prefix(name)}_"


def _meet(own: str, prefix: str) -> bool:
    return own.startswith(prefix) or prefix.startswith(own)


def _between(keys: Sequence[str], prefix: str, start_after: str) -> Iterator[str]:
    for key in keys[max(bisect_left(keys, prefix), bisect_right(keys, start_after)) :]:
        if not key.startswith(prefix):
            return
        yield key


def _page(keys: list[str], facts: list[tuple[int, str, int]], *, complete: bool) -> Page:
    sizes, etags, mtimes = zip(*facts, strict=True) if facts else ((), (), ())
    return Page(keys, list(sizes), list(etags), list(mtimes), complete)
