"""Copy blobs through here from one store to another, each hashed on its way.

A blob is there whole or not at all, so a batch that is begun again copies again what was there, and no harm is done.
An upload in parts is written down by who sends it (`state.unfinished_uploads`), as its record tells whether that
process is still there; a batch whose worker died takes up what that one has left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, TypeVar

from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import IntegrityError, NotFound, StorageError
from regstore.events import Progress
from regstore.state.unfinished_uploads import Unfinished
from regstore.storage.base import PutOptions, Whole
from regstore.storage.optional import ReadsMany, ResumesUploads
from regstore.storage.outage import IN_A_ROW
from regstore.storage.sizes import SINGLE_PUT, WHOLE
from regstore.storage.streams import BlobReader, SourceGone, copy_blob, is_fatal, verified_size
from regstore.storage.transfer import Breaker, Room, road_to
from regstore.tasks.packing import PackedError, pack
from regstore.tasks.runner import Context
from regstore.tasks.under_lock import HeldLock, UnderLock

PHASE: Final = "copying blobs"
#: Between two words on how far it is.
_TELL_SECONDS: Final = 0.1
#: So many that are no larger than this are read at once, where a store can do that.
_AHEAD: Final = 8
_AHEAD_BYTES: Final = 64 * 1024

Blob = TypeVar("Blob")

#: Where a blob stands in a store. A function of a module, so that it can be pickled.
KeyOf = Callable[[Digest], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyBlobs:
    """blobs: the hash's own bytes, the size in bytes, and whether it is at the target already. put: how they are
    stored. share: tasks like this that are under way at a time, and share memory and connections. in_parts_again:
    uploads in parts are written down, and taken up again. prove: each is read back. in_a_row: so many that failed with
    none copied between them, and the rest is left. under: the lock of the target that who asks holds, where it holds
    one."""

    blobs: Sequence[tuple[bytes, int, bool]]
    source_key: KeyOf
    target_key: KeyOf
    put: PutOptions | None
    share: int
    in_parts_again: bool = False
    prove: bool = False
    in_a_row: int = IN_A_ROW
    under: HeldLock | None = None


@dataclass(frozen=True, slots=True)
class FailedCopy:
    """copied_before: blobs that were copied since the failure before. None as error: what was written is not given
    back as it should be."""

    number: int
    error: PackedError | None
    copied_before: int


async def raised(error: StorageError) -> None:
    """What came of a copy in another process, as `Attempts.of` awaits it."""
    raise error


@dataclass(frozen=True, slots=True)
class CopyResult:
    """Numbers are places in `CopyBlobs.blobs`. done: those that were copied, and proven where that was asked for;
    copied_last: so many of them since the last failure. What is not named was not begun, for too many failed in a
    row: nothing counts as copied that nobody says is."""

    done: list[int] = field(default_factory=list)
    failed: list[FailedCopy] = field(default_factory=list)
    copied_last: int = 0

    def copied(self, blobs: Sequence[Blob]) -> list[Blob]:
        """Those that were, of what the numbers are of."""
        return [blobs[number] for number in sorted(self.done)]

    def left(self, blobs: Sequence[Blob]) -> list[Blob]:
        """Those that were not begun."""
        return without(blobs, {*self.done, *(one.number for one in self.failed)})


def without(rows: Sequence[Blob], numbers: Collection[int]) -> list[Blob]:
    """Those that are not at these places."""
    return [row for number, row in enumerate(rows) if number not in numbers]


async def copy_blobs(context: Context, work: CopyBlobs) -> CopyResult:
    """Of the stores, the source is first. Raises what every blob would meet. Tells the bytes that are done."""
    return await _Copying(context, work).run()


class _Copying:
    def __init__(self, context: Context, work: CopyBlobs) -> None:
        self._context = context
        self._work = work
        self._source, self._target = context.stores
        self._room = Room(road_to(self._target), share=work.share)
        self._watch = Breaker(work.in_a_row)
        self._unfinished: Unfinished | None = None
        if work.in_parts_again and isinstance(self._target, ResumesUploads):
            self._unfinished = Unfinished(self._target, work.put)
        self._lock = None if work.under is None else UnderLock(self._target, work.under)
        self._ahead = _Ahead(self._source, work) if isinstance(self._source, ReadsMany) else None
        self._failed: list[FailedCopy] = []
        self._done: list[int] = []
        self._copied = 0
        self._stopped = False
        self._way = _Way(context)

    async def run(self) -> CopyResult:
        large = any(size > SINGLE_PUT for _, size, _ in self._work.blobs)
        if self._context.attempt and large and self._unfinished is not None:
            await self._unfinished.load(lambda key: True)
        blobs = enumerate(self._work.blobs)
        copying = for_each(blobs, self._one, concurrency=self._context.concurrency)
        await (copying if self._lock is None else self._lock.run(copying))
        return CopyResult(self._done, self._failed, self._copied)

    async def _one(self, numbered: tuple[int, tuple[bytes, int, bool]]) -> None:
        number, (raw, size, is_there) = numbered
        if self._stopped:
            return
        digest = Digest.from_raw(raw)
        try:
            if not is_there:
                await self._copy(number, digest, size)
        except StorageError as error:
            if is_fatal(error):
                raise
            self._fail(number, error)
        else:
            if self._work.prove and not await self._is_right(digest, size):
                self._fail(number, None)
            else:
                self._done.append(number)
                self._copied += 1
                self._watch.good()
        self._way.done(digest, size)

    def _fail(self, number: int, error: StorageError | None) -> None:
        self._failed.append(FailedCopy(number, None if error is None else pack(error), self._copied))
        self._copied = 0
        if error is None or isinstance(error, SourceGone | IntegrityError):
            self._watch.good()  # it says something of this one blob
        else:
            self._stopped = self._stopped or self._watch.is_broken_by_one_more()

    async def _copy(self, number: int, digest: Digest, size: int) -> None:
        key, target_key, put = self._work.source_key(digest), self._work.target_key(digest), self._work.put

        def reader() -> BlobReader:
            return BlobReader(self._source, key, size, on_read=lambda done: self._way.advance(digest, done))

        async with self._room.of(size):
            if self._lock is not None:
                await self._lock.check()
            if self._ahead is not None and self._ahead.has(number):
                await self._target.put_stream(
                    target_key, Whole(await self._ahead.take(number)), size=size, digest=digest, options=put
                )
            elif size <= WHOLE:
                await copy_blob(self._source, key, self._target, target_key, digest=digest, size=size, put=put)
            elif self._unfinished is not None and size > SINGLE_PUT:
                await self._unfinished.put(target_key, reader, size=size, digest=digest)
            else:
                async with aclosing(reader()) as chunks:
                    await self._target.put_stream(target_key, chunks, size=size, digest=digest, options=put)

    async def _is_right(self, digest: Digest, size: int) -> bool:
        """Whether the target gives it back. Where it does not answer, who asked finds that out."""
        try:
            return await verified_size(self._target, self._work.target_key(digest), digest, size) is not None
        except StorageError as error:
            if is_fatal(error):
                raise
            return False


class _Ahead:
    """Small blobs, read several at a time when the first of them is wanted."""

    def __init__(self, source: ReadsMany, work: CopyBlobs) -> None:
        self._source = source
        self._work = work
        small = [number for number, (_, size, there) in enumerate(work.blobs) if size <= _AHEAD_BYTES and not there]
        groups = [small[start : start + _AHEAD] for start in range(0, len(small), _AHEAD)]
        self._groups = {number: group for group in groups for number in group}
        self._found: dict[int, asyncio.Future[bytes]] = {}

    def has(self, number: int) -> bool:
        return number in self._groups

    async def take(self, number: int) -> bytes:
        """Once. SourceGone where it is absent."""
        if number not in self._found:
            await self._read(self._groups[number])
        return await self._found.pop(number)

    async def _read(self, group: Sequence[int]) -> None:
        loop = asyncio.get_running_loop()
        coming = {number: loop.create_future() for number in group}
        self._found.update(coming)
        keys = [self._work.source_key(Digest.from_raw(self._work.blobs[number][0])) for number in group]
        try:
            found = await self._source.get_many(keys)
        except StorageError as error:
            found = [error] * len(group)
        except BaseException:
            for future in coming.values():
                future.cancel()  # what is raised here ends all
            raise
        for future, one in zip(coming.values(), found, strict=True):
            if isinstance(one, bytes):
                future.set_result(one)
            else:
                future.set_exception(SourceGone(str(one)) if isinstance(one, NotFound) else one)
                future.exception()  # seen, should nobody take it any more


class _Way:
    """The bytes that are done, told now and then."""

    def __init__(self, context: Context) -> None:
        self._on_event = context.on_event
        self._under_way: dict[Digest, int] = {}
        self._done = 0
        self._told = time.monotonic()

    def advance(self, digest: Digest, done: int) -> None:
        self._under_way[digest] = done
        self._tell()

    def done(self, digest: Digest, size: int) -> None:
        self._under_way.pop(digest, None)
        self._done += size
        self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= _TELL_SECONDS:
            self._told = now
            done = self._done + sum(self._under_way.values())
            self._on_event(Progress(phase=PHASE, done=done, unit="B"))
