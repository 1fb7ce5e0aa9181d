"""One road for blobs: how many are under way at a time, what they may hold of memory, and whose fault it is when one
does not arrive.

Who moves or reads many blobs picks the `Road` for what is done with them, lets `each_blob` send workers along it, and
where bytes pass through here has a `Carrier` copy them, or asks `Room` before each. `Attempts` tells a blob that can't
be had from a store that gives, or takes, nothing any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeVar

from regstore.concurrency import for_each, task_group
from regstore.digest import Digest
from regstore.errors import IntegrityError, StorageError
from regstore.storage.base import PutOptions, Storage
from regstore.storage.outage import OutageWatch, Sample, error_of_source
from regstore.storage.sizes import COPIED_WHOLE, LARGE_AT_ONCE, ONE_REQUEST, RANGED, MiB
from regstore.storage.streams import SourceGone, copy_blob, is_fatal

Item = TypeVar("Item")

#: So many in a row that the target would not take, and it is not the blobs that are at fault.
FAILURES_IN_A_ROW: Final = 20
_LARGEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Blobs of more than `over` and at most `most` bytes. at_once: so many at a time, None: as many as the user makes
    requests at once. memory: bytes that they may hold all together, on their way through here."""

    over: int = -1
    most: int = _LARGEST
    at_once: int | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """Its lanes, which begin where the one before ends. Each has workers of its own, so that small blobs need not wait
    for large ones."""

    lanes: Sequence[Lane]

    def __post_init__(self) -> None:
        ends = [-1, *(lane.most for lane in self.lanes)]
        assert [*(lane.over for lane in self.lanes), _LARGEST] == ends, "every size has one lane"


#: What is sent to a store that serves several requests at a time. A small blob is held twice at the most. A middling
#: one goes in one request, as it is read: a connection, and 4 MiB. A large one has several connections, and 60 MiB.
TO_MANY: Final = Road(
    lanes=(
        Lane(most=8 * MiB, memory=64 * MiB),
        Lane(over=8 * MiB, most=ONE_REQUEST, at_once=12),
        Lane(over=ONE_REQUEST, at_once=LARGE_AT_ONCE),
    )
)
#: What is written to a disk, which gains little from more.
TO_DISK: Final = Road(
    lanes=(
        Lane(most=8 * MiB, memory=64 * MiB),
        Lane(over=8 * MiB, most=16 * MiB, at_once=6),
        Lane(over=16 * MiB, at_once=LARGE_AT_ONCE),
    )
)
#: What a server copies by itself: nothing of it is here.
BY_SERVER: Final = Road(lanes=(Lane(most=COPIED_WHOLE), Lane(over=COPIED_WHOLE, at_once=16)))
#: What is read and hashed. Few of the large ones, so that some are through when the time is over; each of them is read
#: in several ranges at a time.
READ: Final = Road(
    lanes=(
        Lane(most=MiB, at_once=128),
        Lane(over=MiB, most=RANGED, at_once=16),
        Lane(over=RANGED, at_once=LARGE_AT_ONCE),
    )
)


def read_by(processes: int) -> Road:
    """As `READ`, of batches of small blobs and single others, each of which one of so many processes reads."""
    return Road(
        lanes=(
            Lane(most=MiB, at_once=2 * processes),
            Lane(over=MiB, most=RANGED, at_once=max(16, 2 * processes)),
            Lane(over=RANGED, at_once=max(LARGE_AT_ONCE, processes)),
        )
    )


def road_to(target: Storage) -> Road:
    """For bytes that pass through here."""
    return TO_MANY if target.serves_in_parallel else TO_DISK


async def each_blob(
    road: Road,
    blobs: Callable[[Lane], Iterable[Item]],
    work: Callable[[Item], Awaitable[object]],
    *,
    concurrency: int,
) -> None:
    """Await work(blob) for all blobs of every lane, each lane beside the others; the first error cancels the rest and
    is raised. blobs: gives those of a lane, in the order wanted; asked for the next one only when a worker is free."""
    async with task_group() as group:
        for lane in road.lanes:
            at_once = concurrency if lane.at_once is None else min(lane.at_once, concurrency)
            group.create_task(for_each(blobs(lane), work, concurrency=at_once))


def largest_first(blobs: Iterable[tuple[Digest, int]]) -> Callable[[Lane], Iterable[tuple[Digest, int]]]:
    """For `each_blob`, of (digest, size) that are in memory anyhow."""
    return in_order(sorted(blobs, key=lambda blob: -blob[1]), lambda blob: blob[1])


def in_order(blobs: Sequence[Item], size: Callable[[Item], int]) -> Callable[[Lane], Iterable[Item]]:
    """For `each_blob`, of what is in memory anyhow. size: of one, in bytes."""
    return lambda lane: [blob for blob in blobs if lane.over < size(blob) <= lane.most]


class Room:
    """What the blobs that are on a road may take of memory and connections, whoever sends them along it."""

    def __init__(self, road: Road, *, share: int = 1) -> None:
        """share: of so many that are on it at the same time, each with an equal part."""
        self._lanes = [(lane.most, _bound(lane, share)) for lane in road.lanes]

    def of(self, size: int) -> AbstractAsyncContextManager[object]:
        """Waits until there is room for a blob of this size, and keeps it until it is left."""
        bound = next(bound for most, bound in self._lanes if size <= most)
        # A small one is held as it was read, and as it is sent.
        return bound.hold(2 * size) if isinstance(bound, Budget) else bound


def _bound(lane: Lane, share: int) -> Budget | AbstractAsyncContextManager[object]:
    if lane.memory is not None:
        return Budget(lane.memory // share)
    return asyncio.Semaphore(max(1, lane.at_once // share)) if lane.at_once is not None else nullcontext()


class Carrier:
    """Copies blobs from one store to another through here, each hashed on its way, with room for each."""

    def __init__(self, source: Storage, target: Storage, *, put: PutOptions | None) -> None:
        """put: how they are stored."""
        self._source = source
        self._target = target
        self._put = put
        self.road = road_to(target)
        self._room = Room(self.road)

    async def copy(self, key: str, target_key: str, *, digest: Digest, size: int) -> None:
        """As `copy_blob`."""
        async with self._room.of(size):
            await copy_blob(self._source, key, self._target, target_key, digest=digest, size=size, put=self._put)


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


class Breaker:
    """Counts failures in a row."""

    def __init__(self, most: int) -> None:
        """most: so many, and it is broken."""
        self._most = most
        self._in_a_row = 0

    def good(self) -> None:
        self._in_a_row = 0

    def is_broken_by_one_more(self) -> bool:
        """One more has failed: whether that is one too many."""
        self._in_a_row += 1
        return self._in_a_row >= self._most


class Fault(Enum):
    """Why a blob did not arrive: the source has it no more, has other bytes, or does not give it though it has it; or
    the target did not take it."""

    GONE = auto()
    WRONG = auto()
    UNREAD = auto()
    UNWRITTEN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """error: of the copy. of_source: for `UNREAD`, what the source says when it is read once more."""

    fault: Fault
    error: StorageError
    of_source: StorageError | None = None


class Attempts:
    """Copies from one source, and how they went. Raises what is no single blob's fault: what every request would meet,
    an outage of the source (`storage.outage`), and so many in a row that the target would not take."""

    def __init__(self, source: Storage, others: Sample, *, most: int = FAILURES_IN_A_ROW) -> None:
        """others: of the source's objects. most: so many that the target did not take, without one that passed between
        them, and the last one's error is raised."""
        self._source = source
        self._watch = OutageWatch(source, others)
        self._refused = Breaker(most)

    async def of(self, key: str, digest: Digest, size: int, copying: Awaitable[object]) -> Failure | None:
        """Await the copy of a blob, which lies at `key`; why it failed, None where it did not."""
        try:
            await copying
        except SourceGone as error:
            self._watch.good()
            return Failure(fault=Fault.GONE, error=error)
        except IntegrityError as error:
            self._watch.good()
            return Failure(fault=Fault.WRONG, error=error)
        except StorageError as error:
            if is_fatal(error):
                raise
            of_source = await error_of_source(self._source, key, digest, size, error)
            if of_source is not None:
                await self._watch.bad(key, of_source)
                return Failure(fault=Fault.UNREAD, error=error, of_source=of_source)
            if self._refused.is_broken_by_one_more():
                raise
            return Failure(fault=Fault.UNWRITTEN, error=error)
        self.arrived()
        return None

    def arrived(self, count: int = 1) -> None:
        """So many blobs that nobody awaits here, one after the other."""
        if count:
            self._watch.good(count)
            self._refused.good()

    async def end(self) -> None:
        """All is over for now. Raises where that was an outage."""
        await self._watch.end()
