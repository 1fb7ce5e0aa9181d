"""The road of blobs: lanes by size, memory that is shared, and whose fault it is when one does not arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.errors import AccessDenied, IntegrityError, Outage, StorageError, StorageFull
from regstore.storage.sizes import MiB
from regstore.storage.streams import SourceGone
from regstore.storage.transfer import (
    BY_SERVER,
    READ,
    TO_DISK,
    TO_MANY,
    Attempts,
    Fault,
    Lane,
    Road,
    Room,
    each_blob,
    largest_first,
)
from tests.model.memory import ModelStorage
from tests.model.store import ModelStore

BODY = b"a blob"
DIGEST = Digest.of(BODY)


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_every_size_has_one_lane(size: int) -> None:
    for road in (BY_SERVER, READ, TO_DISK, TO_MANY):
        assert sum(lane.over < size <= lane.most for lane in road.lanes) == 1


def test_a_road_with_a_gap_is_none() -> None:
    with pytest.raises(AssertionError):
        Road(lanes=(Lane(most=1), Lane(over=2)))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_large_blobs_do_not_keep_small_ones_waiting() -> None:
    road = Road(lanes=(Lane(most=10), Lane(over=10, at_once=2)))
    under_way: set[int] = set()
    seen: list[int] = []
    go_on = asyncio.Event()

    async def work(blob: tuple[Digest, int]) -> None:
        _, size = blob
        seen.append(size)
        if size > 10:
            under_way.add(size)
            await go_on.wait()

    blobs = [(DIGEST, size) for size in (1, 50, 2, 30, 40, 3)]
    running = asyncio.create_task(each_blob(road, largest_first(blobs), work, concurrency=8))
    await settle()
    assert under_way == {50, 40}
    assert {1, 2, 3} <= set(seen)
    go_on.set()
    await running
    assert sorted(seen) == [1, 2, 3, 30, 40, 50]


async def test_no_lane_has_more_workers_than_are_asked_for() -> None:
    most = running = 0

    async def work(blob: tuple[Digest, int]) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    blobs = [(DIGEST, 20)] * 9
    road = Road(lanes=(Lane(most=10), Lane(over=10, at_once=5)))
    await each_blob(road, largest_first(blobs), work, concurrency=2)
    assert most == 2


async def test_room_is_kept_until_it_is_left() -> None:
    room = Room(TO_MANY)
    small = [room.of(8 * MiB) for _ in range(5)]
    for held in small[:4]:
        await held.__aenter__()
    fifth = asyncio.create_task(small[4].__aenter__())
    large = room.of(200 * MiB)
    await asyncio.wait_for(large.__aenter__(), 5)  # has room of its own
    await settle()
    assert not fifth.done(), "four of 8 MiB, held twice, are all there is"
    await small[0].__aexit__(None, None, None)
    await asyncio.wait_for(fifth, 5)


class Stubborn(ModelStorage):
    """Has the blob, and gives it only while it is not `closed`."""

    def __init__(self) -> None:
        store = ModelStore()
        store.objects["blob"] = (BODY, 0)
        super().__init__(store, now=0)
        self.closed = False

    def open_read(self, key, *, start=0, length=None):  # type: ignore[no-untyped-def]
        if self.closed:
            raise AccessDenied(f"{key} is not given")
        return super().open_read(key, start=start, length=length)


def none(most: int, failed: Sequence[str]) -> list[str]:
    return []


async def fails(error: StorageError) -> None:
    raise error


async def succeeds() -> None:
    pass


async def test_whose_fault_it_is() -> None:
    source = Stubborn()
    attempts = Attempts(source, none)

    async def fault(error: StorageError) -> Fault:
        failure = await attempts.of("blob", DIGEST, len(BODY), fails(error))
        assert failure is not None
        assert failure.error is error
        return failure.fault

    assert await attempts.of("blob", DIGEST, len(BODY), succeeds()) is None
    assert await fault(SourceGone("blob")) is Fault.GONE
    assert await fault(IntegrityError("other bytes")) is Fault.WRONG
    assert await fault(StorageError("the target says no")) is Fault.UNWRITTEN
    source.closed = True
    assert await fault(StorageError("a line that broke")) is Fault.UNREAD
    with pytest.raises(StorageFull):
        await fault(StorageFull("every other one would fail too"))


async def test_a_target_that_takes_nothing_ends_the_work() -> None:
    attempts = Attempts(Stubborn(), none, most=3)

    async def refused() -> None:
        failure = await attempts.of("blob", DIGEST, len(BODY), fails(StorageError("no")))
        assert failure is not None and failure.fault is Fault.UNWRITTEN

    await refused()
    await refused()
    assert await attempts.of("blob", DIGEST, len(BODY), succeeds()) is None
    await refused()
    await refused()
    # What the source has not, or has wrong, says nothing of the target.
    await attempts.of("blob", DIGEST, len(BODY), fails(SourceGone("blob")))
    with pytest.raises(StorageError, match="no"):
        await refused()


async def test_a_source_that_gives_nothing_is_an_outage() -> None:
    source = Stubborn()
    source.closed = True
    attempts = Attempts(source, lambda most, failed: ["others"])
    for _ in range(2):
        await attempts.of("blob", DIGEST, len(BODY), fails(StorageError("no")))
    with pytest.raises(Outage):
        await attempts.end()
