"""The state of a run outside the store, where the store is full: what frees space must not need any first.

`StateElsewhere` is the store, but for what is put under `regstore/`: that goes to another storage, at once or when the
store first says that it is full. What is read, listed or deleted there is both together: the locks and journals that
stand in the store count as ever, and removing them takes no space. A lock that is elsewhere keeps nobody out of the
store; so only a run for which the operator has said that nothing else is at work may be given this.

At the end `publish` puts what was kept elsewhere where it belongs, now that there is room.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager

from regstore.digest import Digest
from regstore.errors import NotFound, StorageError, StorageFull
from regstore.events import Notice, OnEvent, ignore
from regstore.layout import STATE
from regstore.state import LOCKS
from regstore.storage.base import (
    Capabilities,
    Counters,
    MultipartUpload,
    ObjectInfo,
    Page,
    PutOptions,
    ReadHandle,
    Storage,
)


class StateElsewhere:
    """name: of `other`, for people. at_once: not only when the store is full."""

    def __init__(
        self, store: Storage, other: Storage, *, name: str, at_once: bool = False, on_event: OnEvent = ignore
    ) -> None:
        self._store = store
        self._other = other
        self._on_event = on_event
        self.name = name
        self.url = store.url
        self.counters: Counters = store.counters
        self.serves_in_parallel = store.serves_in_parallel
        self.bills_requests = store.bills_requests
        #: Whether anything is, or was, kept elsewhere.
        self.is_used = False
        if at_once:
            self._begin()

    def _begin(self) -> None:
        self.is_used = True
        self._on_event(
            Notice(
                message=f"the lock and the journal of this run are kept in {self.name}, not in {self.url}: nobody else "
                "is kept out meanwhile; nothing else may change the store, as --offline says"
            )
        )

    async def publish(self) -> int:
        """Put what is elsewhere into the store; returns how many objects. Those are elsewhere no more. An error leaves
        the rest there."""
        keys = [key async for page in self._other.list(STATE) for key in page.keys if not key.startswith(LOCKS)]
        for key in keys:
            await self._store.put(key, await self._other.get(key))
            await self._other.delete_many([key])
        return len(keys)

    # -- the protocol

    @property
    def stands_for(self) -> Storage:
        return self._store

    def identity(self) -> str:
        return self._store.identity()

    @property
    def symlinks(self) -> Collection[str]:
        return self._store.symlinks

    async def capabilities(self) -> Capabilities:
        return await self._store.capabilities()

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        kept: list[ObjectInfo] = []
        if self.is_used and (prefix.startswith(STATE) or STATE.startswith(prefix)):
            async for page in self._other.list(prefix, start_after=start_after):
                kept += (info for info in page.objects() if info.key.startswith(STATE))
        async for page in self._store.list(prefix, start_after=start_after):
            last = page.keys[-1].encode() if page.keys else b""
            now = [info for info in kept if page.complete or info.key.encode() <= last]
            kept = kept[len(now) :]
            yield _merged(page, now) if now else page

    async def stat(self, key: str) -> ObjectInfo:
        if self.is_used and key.startswith(STATE):
            try:
                return await self._other.stat(key)
            except NotFound:
                pass
        return await self._store.stat(key)

    async def get(self, key: str) -> bytes:
        if self.is_used and key.startswith(STATE):
            try:
                return await self._other.get(key)
            except NotFound:
                pass
        return await self._store.get(key)

    def open_read(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[ReadHandle]:
        return self._store.open_read(key, start=start, length=length)

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        if not key.startswith(STATE):
            await self._store.put(key, data, if_absent=if_absent, options=options)
            return
        if not self.is_used:
            try:
                await self._store.put(key, data, if_absent=if_absent, options=options)
                return
            except StorageFull:
                self._begin()
        await self._other.put(key, data, if_absent=if_absent)

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        digest: Digest | None = None,
        options: PutOptions | None = None,
    ) -> int:
        return await self._store.put_stream(key, chunks, size=size, digest=digest, options=options)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        ours = [key for key in keys if key.startswith(STATE)] if self.is_used else []
        if ours:
            await self._other.delete_many(ours)
        return await self._store.delete_many(keys)

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        await self._store.copy(source, target, size=size)

    async def move(self, source: str, target: str, *, size: int) -> None:
        await self._store.move(source, target, size=size)

    def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        return self._store.list_multipart_uploads(prefix)

    async def abort_multipart_upload(self, upload: MultipartUpload) -> None:
        await self._store.abort_multipart_upload(upload)

    async def remove_empty_folders(
        self, prefix: str, *, older_than: int, keep: frozenset[str] = frozenset()
    ) -> int:
        return await self._store.remove_empty_folders(prefix, older_than=older_than, keep=keep)

    async def remove_folders(self, folders: Sequence[str]) -> int:
        return await self._store.remove_folders(folders)

    async def now(self) -> int:
        return await self._store.now()

    async def close(self) -> None:
        await self._store.close()
        await self._other.close()

    async def __aenter__(self) -> StateElsewhere:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _merged(page: Page, more: Iterable[ObjectInfo]) -> Page:
    """What is elsewhere is the newer, where a key is in both."""
    infos = {info.key: info for info in page.objects()} | {info.key: info for info in more}
    shown = [infos[key] for key in sorted(infos, key=str.encode)]
    return Page(
        [info.key for info in shown],
        [info.size for info in shown],
        [info.etag for info in shown],
        [info.mtime for info in shown],
        page.complete,
    )
