"""Whole blobs as streams: read ahead in ranges where that helps, and held against their digest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing

from regstore.digest import Digest, Verifier
from regstore.errors import (
    AuthenticationFailed,
    IntegrityError,
    NoConnection,
    NoSuchBucket,
    NotFound,
    Outage,
    StorageError,
    StorageFull,
)
from regstore.storage.base import PutOptions, ReadHandle, Repeatable, Storage, Whole
from regstore.storage.sizes import AHEAD, HASHED, RANGE, RANGED, WHOLE


class SourceGone(NotFound):
    """The blob is absent where it is read from: nothing that a write to elsewhere can raise."""


async def copy_blob(
    source: Storage,
    key: str,
    target: Storage,
    target_key: str,
    *,
    digest: Digest,
    size: int,
    put: PutOptions | None,
) -> None:
    """Store what the source has, hashed on its way. SourceGone when it is absent there; IntegrityError, and nothing
    visible at the target, when its bytes are not those of the digest."""
    if size <= WHOLE:
        try:
            data = await source.get(key)
        except NotFound as error:
            raise SourceGone(str(error)) from error
        await target.put_stream(target_key, Whole(data), size=size, digest=digest, options=put)
        return
    async with aclosing(BlobReader(source, key, size)) as chunks:
        await target.put_stream(target_key, chunks, size=size, digest=digest, options=put)


class BlobReader(Repeatable):
    """An object's chunks, as `read_blob` gives them, as often as wanted. To be closed."""

    def __init__(
        self, storage: Storage, key: str, size: int, *, on_read: Callable[[int], None] = lambda size: None
    ) -> None:
        """on_read: told of the bytes that the latest reading has given so far."""
        self._storage = storage
        self._key = key
        self._size = size
        self._on_read = on_read
        self._reading: list[AsyncGenerator[bytes, None]] = []

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._reading.append(self._read(ranged=True))
        return self._reading[-1]

    def again(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        # What takes it again sends it over one connection: more than one to read would only hold memory.
        return aclosing(self._read(ranged=False))

    async def _read(self, *, ranged: bool) -> AsyncGenerator[bytes, None]:
        done = 0
        async with aclosing(read_blob(self._storage, self._key, self._size, ranged=ranged)) as chunks:
            async for chunk in chunks:
                yield chunk
                done += len(chunk)
                self._on_read(done)

    async def aclose(self) -> None:
        for reading in self._reading:
            await reading.aclose()


async def read_blob(storage: Storage, key: str, size: int, *, ranged: bool = True) -> AsyncGenerator[bytes, None]:
    """The object's chunks, in order; to be closed (`contextlib.aclosing`). size: its bytes, as far as known.

    One request, or one stream, or where `ranged`, ranges of which `AHEAD` are fetched at a time: one connection to S3
    rarely brings more than 100 MB/s. SourceGone when it is absent. IntegrityError when it changed while it was read.
    """
    try:
        if size <= WHOLE:
            yield await storage.get(key)
        elif size <= RANGED or not (ranged and storage.serves_in_parallel):
            async with storage.open_read(key) as handle:
                async for chunk in handle:
                    yield chunk
        else:
            async with storage.open_read(key, length=RANGE) as first:
                ranges = ranges_of(RANGE, first.info.size, RANGE)
                async with aclosing(read_ahead(storage, first, ranges)) as chunks:
                    async for chunk in chunks:
                        yield chunk
    except NotFound as error:
        raise SourceGone(str(error)) from error


async def read_ahead(
    storage: Storage, first: ReadHandle, ranges: Iterator[range], *, ahead: int = AHEAD
) -> AsyncGenerator[bytes, None]:
    """The chunks of an open object, and then those of further ranges of it, in order, of which so many are fetched
    while what stands before them is taken; to be closed. IntegrityError when the object changed meanwhile."""
    key, known = first.info.key, (first.info.etag, first.info.size)
    running: deque[asyncio.Task[list[bytes]]] = deque()

    async def fetch(part: range) -> list[bytes]:
        async with storage.open_read(key, start=part.start, length=len(part)) as handle:
            if (handle.info.etag, handle.info.size) != known:
                raise IntegrityError(f"{storage.url}/{key} changed while it was read; start again")
            return [chunk async for chunk in handle]

    def fetch_more(most: int) -> None:
        while len(running) < most and (part := next(ranges, None)) is not None:
            running.append(asyncio.create_task(fetch(part)))

    try:
        fetch_more(ahead - 1)  # the first is being fetched too
        async for chunk in first:
            yield chunk
        fetch_more(ahead)
        while running:
            chunks = await running[0]
            running.popleft()
            fetch_more(ahead)
            for chunk in chunks:
                yield chunk
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def ranges_of(start: int, end: int, part: int) -> Iterator[range]:
    """The bytes from start to end in parts of at most so many."""
    for begin in range(start, end, part):
        yield range(begin, min(begin + part, end))


async def verified_size(storage: Storage, key: str, digest: Digest, size: int = 0) -> int | None:
    """The size in bytes of what is there, once it is read and has this digest; None where it is absent or has not.
    size: the bytes to be expected; it decides only how they are read."""
    verifier = Verifier(digest)
    chunks = read_blob(storage, key, max(size, WHOLE + 1))
    try:
        async for chunk in chunks:
            if len(chunk) >= HASHED:
                await asyncio.to_thread(verifier.update, chunk)
            else:
                verifier.update(chunk)
    except NotFound:
        return None
    finally:
        await chunks.aclose()
    return verifier.size if verifier.matched else None


def is_fatal(error: StorageError) -> bool:
    """Whether every other blob would fail alike."""
    return isinstance(error, AuthenticationFailed | NoSuchBucket | NoConnection | Outage | StorageFull)
