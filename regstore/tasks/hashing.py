"""Read blobs and hash them.

Streams are hashed in threads, for hashlib lets go of the interpreter while it works: the next chunks arrive while a
thread hashes the last.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from regstore.concurrency import for_each
from regstore.errors import Archived, NotFound, StorageError
from regstore.events import Progress
from regstore.storage.base import Storage
from regstore.storage.outage import IN_A_ROW
from regstore.storage.sizes import HASHED, WHOLE
from regstore.storage.streams import is_fatal, read_blob
from regstore.storage.transfer import Breaker
from regstore.tasks.packing import PackedError, pack
from regstore.tasks.runner import Context

PHASE: Final = "reading blobs"
#: What is smaller in all is hashed in place.
_SMALL: Final = 64 << 10
#: Seconds between two words on how far it is.
_TELL: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class HashBlobs:
    """blobs: key, algorithm, and the bytes to be expected, which decide only how it is read. seconds: until the time is
    over; None: there is enough."""

    blobs: Sequence[tuple[str, str, int]]
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    """outcomes: by key, the bytes of a blob and their hash in hex, or why there is none. What the end of the time cut
    short has none. left: not asked for, since so many in a row were not given that this may be no matter of single
    ones. bytes: that came, of those cut short too."""

    outcomes: dict[str, tuple[int, str] | PackedError]
    left: list[str]
    bytes: int


async def hash_blobs(context: Context, work: HashBlobs) -> Hashed:
    """All at once, as far as requests go: who asks keeps a batch so small that its blobs find room in memory. Raises
    what every request would meet."""
    loop = asyncio.get_running_loop()
    end = float("inf") if work.seconds is None else loop.time() + work.seconds
    outcomes: dict[str, tuple[int, str] | PackedError] = {}
    left: list[str] = []
    watch = Breaker(IN_A_ROW)
    broken = False
    read = 0
    told = loop.time()

    def count(size: int) -> None:
        nonlocal read
        read += size

    def tell() -> None:
        nonlocal told
        if loop.time() >= told + _TELL:
            told = loop.time()
            context.on_event(Progress(phase=PHASE, done=read, unit="bytes"))

    def over() -> bool:
        return loop.time() >= end

    async def hash_one(blob: tuple[str, str, int]) -> None:
        nonlocal broken
        key, algorithm, size = blob
        if over():
            return
        if broken:
            left.append(key)
            return
        outcome = await hasher.hash(key, algorithm, size)
        if outcome is None:
            return
        if not isinstance(outcome, StorageError):
            outcomes[key] = outcome
        elif is_fatal(outcome):
            raise outcome
        else:
            outcomes[key] = pack(outcome)
            if not isinstance(outcome, NotFound | Archived):
                broken = watch.is_broken_by_one_more()
                return
        watch.good()

    hasher = Hasher(context.store, on_bytes=count, on_step=tell, stopped=over)
    await for_each(work.blobs, hash_one, concurrency=context.concurrency)
    return Hashed(outcomes=outcomes, left=left, bytes=read)


class Hasher:
    """Hashes objects of one store."""

    def __init__(
        self,
        storage: Storage,
        *,
        on_bytes: Callable[[int], None],
        on_step: Callable[[], None],
        stopped: Callable[[], bool],
    ) -> None:
        """on_bytes: told of the bytes that came. stopped: asked, and on_step called, every MiB."""
        self._storage = storage
        self._on_bytes = on_bytes
        self._on_step = on_step
        self._stopped = stopped

    async def hash(self, key: str, algorithm: str, expected: int) -> tuple[int, str] | StorageError | None:
        """Bytes of an object and their hash in hex, or why there is none; None when it was stopped. expected: bytes."""
        running = hashlib.new(algorithm)
        loop = asyncio.get_running_loop()
        pending: asyncio.Future[None] | None = None
        chunks: list[bytes] = []
        gathered = size = 0

        def update(pieces: list[bytes]) -> None:
            for piece in pieces:
                running.update(piece)

        try:
            # As a stream, whatever its size: `get` is for what is wanted whole.
            async with aclosing(read_blob(self._storage, key, max(expected, WHOLE + 1))) as stream:
                async for chunk in stream:
                    chunks.append(chunk)
                    gathered += len(chunk)
                    size += len(chunk)
                    self._on_bytes(len(chunk))
                    if gathered >= HASHED:
                        if pending is not None:
                            await pending
                        pending = loop.run_in_executor(None, update, chunks)
                        chunks, gathered = [], 0
                        if self._stopped():
                            return None
                        self._on_step()
        except StorageError as error:
            return error
        finally:
            if pending is not None:
                await asyncio.wait([pending])
        if gathered > _SMALL:
            await loop.run_in_executor(None, update, chunks)
        else:
            update(chunks)
        return size, running.hexdigest()
