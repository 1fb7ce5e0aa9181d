"""One blob from store to store: copied by the server where it can, else streamed through and hashed on the way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final

from regstore import layout
from regstore.digest import Digest
from regstore.errors import AccessDenied, IntegrityError, NotFound, StorageError, Unreachable, Unsupported
from regstore.events import Notice, OnEvent
from regstore.migrate.options import MigrateOptions
from regstore.migrate.take_back import take_back
from regstore.state.unfinished_uploads import Unfinished
from regstore.storage.base import Storage
from regstore.storage.optional import CopiesBetween, ResumesUploads, ServerCopies
from regstore.storage.streams import (
    LARGE_STREAMS,
    ONE_REQUEST,
    STREAMS,
    BlobReader,
    SourceGone,
    is_fatal,
    verified_size,
)

MiB: Final = 1024 * 1024
#: Bytes that streams of small blobs may hold at a time, all together.
MEMORY: Final = 64 * MiB
#: Blobs above this many bytes are large.
LARGE: Final = 8 * MiB
#: More bytes than this go in parts, or may come to it: such uploads are written down, so that a later run can take
#: them up again.
IN_PARTS: Final = 16 * MiB
#: So many copies refused by the server without one done between them, and no more are tried.
_REFUSALS_IN_A_ROW: Final = 3


class Transfer:
    """Copies of blobs between two stores. Safe to use from many tasks.

    server_side: whether the server is still asked to copy. size_only: copies made by the server of which it keeps no
    checksum, so that nothing but their size was compared. own_runs: those in the target's journals that are ours.
    """

    def __init__(self, source: Storage, target: Storage, options: MigrateOptions, on_event: OnEvent) -> None:
        self._source = source
        self._target = target
        self._options = options
        self._on_event = on_event
        self._budget = Budget(MEMORY)
        self._streams = asyncio.Semaphore(STREAMS)
        self._large_streams = asyncio.Semaphore(LARGE_STREAMS)
        self._unfinished: Unfinished | None = None
        self._copies = server_copies(source, target, options)
        self._refusals = 0
        self._taking_back = asyncio.Lock()
        self.size_only = 0
        self.own_runs: set[str] = set()
        self.server_side = self._copies is not None

    async def find_unfinished(self, is_wanted: Callable[[Digest], bool]) -> None:
        """Look for uploads of blobs that runs have left, and be ready to take them up. is_wanted: whether a blob is
        still to be copied; what is left of others is aborted."""
        if isinstance(self._target, ResumesUploads):

            def wanted(key: str) -> bool:
                blob = layout.decode(key)
                return isinstance(blob, layout.BlobKey) and is_wanted(blob.digest)

            unfinished = Unfinished(self._target, self._options.put)
            await unfinished.load(wanted)
            self._unfinished = unfinished

    async def copy(
        self, digest: Digest, size: int, *, suspect: bool, on_bytes: Callable[[int], None] = lambda size: None
    ) -> None:
        """SourceGone when it is absent there; IntegrityError, and nothing visible at the target, when its bytes do
        not match. suspect: never let the server copy it unseen. on_bytes: told how many of its bytes are done."""
        key = layout.encode(layout.BlobKey(digest))
        if self.server_side and not suspect:
            sound = await self._copy_on_server(digest, size, on_bytes)
            if sound:
                return
            if sound is False:
                try:
                    await self._pass_through(key, digest, size, on_bytes)
                except (IntegrityError, SourceGone):
                    await self.take_back(digest, size)  # nothing may pass for the blob that is not
                    raise
                return
        await self._pass_through(key, digest, size, on_bytes)

    async def _pass_through(self, key: str, digest: Digest, size: int, on_bytes: Callable[[int], None]) -> None:
        def reader() -> BlobReader:
            return BlobReader(self._source, key, size, on_read=on_bytes)

        try:
            await self._stream(key, digest, size, reader)
        except IntegrityError as error:
            # What was refused is what the source gave: there it is to be looked at.
            text = str(error).replace(f"{self._target.url}/{key}", f"{self._source.url}/{key}")
            raise IntegrityError(text) from error

    async def _stream(self, key: str, digest: Digest, size: int, reader: Callable[[], BlobReader]) -> None:
        # A large one is sent as it is read, or in parts, of which few are under way.
        async with self._room_for(size):
            if self._unfinished is not None and size > IN_PARTS:
                await self._unfinished.put(key, reader, size=size, digest=digest)
            else:
                async with aclosing(reader()) as chunks:
                    await self._target.put_stream(key, chunks, size=size, digest=digest, options=self._options.put)

    def _room_for(self, size: int) -> AbstractAsyncContextManager[object]:
        if size <= LARGE:
            return self._budget.hold(2 * size)
        return self._streams if size <= ONE_REQUEST else self._large_streams

    async def _copy_on_server(self, digest: Digest, size: int, on_bytes: Callable[[int], None]) -> bool | None:
        """None when it was not copied; False when the copy can't be relied on: the checksum that the server keeps of
        it is not the blob's digest, or it did not come in time, and may come yet."""
        assert self._copies is not None and self._unfinished is not None and isinstance(self._target, CopiesBetween)
        key = layout.encode(layout.BlobKey(digest))
        done = 0

        def copied(part: int) -> None:
            nonlocal done
            done += part
            on_bytes(done)

        try:
            await self._copies.copy(key, size=size, under_way=self._unfinished.under_way, on_bytes=copied)
        except NotFound:
            return None  # gone, or the target's credentials see other buckets: passing through tells
        except Unreachable as error:
            if not isinstance(error.__cause__, OSError):
                raise
            self._refused(error)
            return False
        except StorageError as error:
            if is_fatal(error) or isinstance(error, IntegrityError):
                raise
            self._refused(error)
            return None
        self._refusals = 0
        try:
            found, kept = await self._target.stat_kept(key)
        except AccessDenied:  # an encrypted object's checksum asks for more than its size does
            found, kept = await self._target.stat(key), None
        if found.size != size:
            raise IntegrityError(f"{self._target.url}/{key} has {found.size:,} bytes after the copy, not {size:,}")
        if kept is None or digest.algorithm != "sha256":
            self.size_only += 1
            return True
        # Where the server says that these are other bytes, they are looked at on their way through.
        return kept == digest.raw

    def _refused(self, error: StorageError) -> None:
        self._refusals += 1
        hopeless = isinstance(error, Unsupported) or self._refusals >= _REFUSALS_IN_A_ROW
        if self.server_side and hopeless:
            self.server_side = False
            self._on_event(
                Notice(
                    message=f"blobs pass through here from now on: the server does not copy them from"
                    f" {self._source.url} to {self._target.url} ({error})"
                )
            )

    async def read_back(self, digest: Digest, size: int) -> bool:
        """Whether the target has the blob with the bytes that its digest says. size: to be expected."""
        key = layout.encode(layout.BlobKey(digest))
        return await verified_size(self._target, key, digest, size) is not None

    async def take_back(self, digest: Digest, size: int) -> None:
        """Remove a copy just made whose bytes are wrong; what somebody has put there by now, and is right, stays."""
        async with self._taking_back:  # one lock of the store at a time
            await take_back(self._target, digest, size, source=self._source.url, own=self.own_runs)


def server_copies(source: Storage, target: Storage, options: MigrateOptions) -> ServerCopies | None:
    """Where both are on one server, and it may be asked. What the credentials may do shows when it is tried."""
    if not (options.server_side and isinstance(target, CopiesBetween)):
        return None
    return target.copies_from(source, options.put)


async def clean_up(target: Storage, options: MigrateOptions) -> None:
    """Where nothing is to be copied: abort the uploads that runs have left."""
    if isinstance(target, ResumesUploads):
        await Unfinished(target, options.put).load(lambda key: False)


class Budget:
    """Bytes of memory that tasks share, given out in the order of asking; one that wants more than there is gets all of
    it, alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def hold(self, size: int) -> _Held:
        return _Held(self, min(size, self._size))

    async def take(self, size: int) -> None:
        if size <= self._free and not self._waiting:
            self._free -= size
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            self.give(0 if turn.cancelled() else size)  # else its turn had just come
            raise

    def give(self, size: int) -> None:
        self._free += size
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.cancelled():
                if wanted > self._free:
                    return
                self._free -= wanted
                turn.set_result(None)
            self._waiting.popleft()


class _Held:
    __slots__ = ("_budget", "_size")

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget = budget
        self._size = size

    async def __aenter__(self) -> None:
        await self._budget.take(self._size)

    async def __aexit__(self, *exc: object) -> None:
        self._budget.give(self._size)
