"""A process that works by another's lock: it changes nothing when that is lost, and never writes one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from regstore.errors import LockHeld, LockLost
from regstore.state import LOCKS
from regstore.state import holder as holder_module
from regstore.state import lock as lock_module
from regstore.state import lock_view as view_module
from regstore.state.holder import LEASE, Holder
from regstore.state.lock import Lock, break_locks, hold_lock
from regstore.state.lock_view import LockView
from regstore.storage.base import Page
from regstore.storage.limit import check_limit
from tests.gc.actors import World
from tests.gc.stepping import Toolkit, WorldStorage
from tests.gc.test_lock import _Mistaken, every_order

SECOND = 1_000_000
RUN = "20260101T000000Z-00000000"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    watch(world, monkeypatch)
    return world


def watch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lock_module, view_module):
        monkeypatch.setattr(module, "clock", lambda: world.now / SECOND)


async def held(world: World) -> Lock:
    lock = Lock(WorldStorage(world), Holder.this(RUN, "gc", LEASE))
    await lock.write()
    return lock


async def test_it_goes_on_while_the_lock_is_young(world: World) -> None:
    lock = await held(world)
    storage = WorldStorage(world)
    view = LockView(storage, RUN, LEASE)
    for _ in range(8):
        await view.guard()
        world.now += int(LEASE / 4) * SECOND
        await view.guard()
        await lock._renew_if_young()
    assert storage.counters.requests.keys() <= {"list", "get", "stat"}
    world.now += int(LEASE / 2 + 2) * SECOND
    with pytest.raises(LockLost, match="whoever holds it may be gone"):
        await view.guard()
    await lock._renew_if_young()
    with pytest.raises(LockLost):  # for good
        await view.guard()
    await LockView(storage, RUN, LEASE).guard()


async def test_a_lock_that_was_broken(world: World) -> None:
    lock = await held(world)
    view = LockView(WorldStorage(world), RUN, LEASE)
    await view.guard()
    await break_locks(WorldStorage(world))
    with pytest.raises(LockLost, match="its lock is gone"):
        await view.guard()
    await lock.write()
    with pytest.raises(LockLost):
        async with view.batch():
            pytest.fail("for good")


async def test_a_machine_that_slept_sends_no_more_of_a_batch(world: World) -> None:
    await held(world)
    storage = WorldStorage(world)
    keys = [f"docker/{number}" for number in range(10)]
    for key in keys:
        await storage.put(key, b"")
    view = LockView(storage, RUN, LEASE)
    with pytest.raises(LockLost, match="its lease ended"):
        async with view.batch():
            await storage.delete_many(keys[:5])
            world.now += int(LEASE * 0.9 + 1) * SECOND
            await storage.delete_many(keys[5:])
    assert [key for key in world.store if key.startswith("docker/")] == keys[5:]


async def test_a_machine_that_slept_while_it_looked(world: World) -> None:
    """The answer was on its way, and was true when it was sent."""
    await held(world)

    class Sleeps(WorldStorage):
        async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
            async for page in super().list(prefix, start_after=start_after):
                yield page
                world.now += int(LEASE) * SECOND

    with pytest.raises(LockLost):
        await LockView(Sleeps(world), RUN, LEASE).guard()

    class Asks(WorldStorage):
        async def now(self) -> int:
            found = await super().now()
            world.now += int(LEASE) * SECOND
            return found

    world.now = 10**15
    await held(world)
    with pytest.raises(LockLost):
        await LockView(Asks(world), RUN, LEASE).guard()


class _Bounded(WorldStorage):
    """Knows the time only within some seconds."""

    off = 0

    async def latest(self) -> int:
        return self.world.now + self.off * SECOND


async def test_it_goes_by_the_latest_time_that_it_may_be(world: World) -> None:
    await held(world)
    storage = _Bounded(world)
    storage.off = int(LEASE / 2 - 2)
    await LockView(storage, RUN, LEASE).guard()
    storage.off = int(LEASE / 2 + 2)
    with pytest.raises(LockLost):
        await LockView(storage, RUN, LEASE).guard()


class _Three:
    """A run that holds the lock, whose renewal may be on its way; a process of it that looks on; and one that comes.
    Any request may come between any two of the others'."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, other: str, world: World, *, renews: bool, looked: bool
    ) -> None:
        self.world = world
        self.said: list[tuple[str, str]] = []
        make = _Mistaken if other == "mistaken" else Toolkit
        holder = Toolkit(world, loop, page=1000)
        self._looked = asyncio.Event()
        self.viewer, other_run = Toolkit(world, loop, page=1000), make(world, loop, page=1000)
        lock = Lock(WorldStorage(world), Holder.this(RUN, "first", LEASE))
        loop.run_until_complete(lock.write())
        lock._storage = holder
        self.viewer.start(self._look_on())
        while looked and ("view", "goes on") not in self.said:
            self.viewer.step()
        if renews:
            world.now += 150 * SECOND
            holder.start(self._renew(lock))
        other_run.start(self._come(other_run, breaks=other == "breaks"))
        self.runs = [self.viewer, other_run, holder]

    async def _renew(self, lock: Lock) -> None:
        await lock._put()
        try:
            await lock.guard()
        except LockLost:
            await lock.release()

    async def _look_on(self) -> None:
        view = LockView(self.viewer, RUN, LEASE)
        try:
            for _ in range(3):
                await view.guard()
                self.said.append(("view", "goes on"))
            self.said.append(("view", "is done"))
        except LockLost:
            self.said.append(("view", "has lost it"))

    async def _come(self, storage: Toolkit, *, breaks: bool) -> None:
        try:
            if breaks:
                await break_locks(storage)
            async with hold_lock(storage, command="other") as lock:
                for _ in range(2):
                    await lock.guard()
                    self.said.append(("other", "goes on"))
        except LockHeld:
            self.said.append(("other", "withdraws"))
        except LockLost:
            self.said.append(("other", "has lost it"))
        self.said.append(("other", "is gone"))


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[_Three]]]:
    monkeypatch.setattr(lock_module, "_LOOK_AGAIN", 0)
    monkeypatch.setattr(holder_module, "this_process", lambda: "")
    loop = asyncio.new_event_loop()

    def run(other: str, *, renews: bool, looked: bool) -> list[_Three]:
        def begin() -> _Three:
            world = World()
            watch(world, monkeypatch)
            return _Three(loop, other, world, renews=renews, looked=looked)

        return every_order(loop, 5 if renews else 8, begin)  # type: ignore[arg-type, return-value]

    yield run
    loop.close()


@pytest.mark.parametrize("looked", [True, False], ids=["begun", "new"])
def test_a_newcomer_that_withdraws_ends_no_work(three: Callable[..., list[_Three]], looked: bool) -> None:
    found = three("waits", renews=False, looked=looked)
    done = sum(("view", "is done") in one.said for one in found)
    assert done == len(found) if looked else done > 10
    assert sum(("other", "withdraws") in one.said for one in found) == len(found)


@pytest.mark.parametrize("renews", [False, True], ids=["standing", "renewing"])
@pytest.mark.parametrize("other", ["mistaken", "breaks"])
def test_where_the_lock_was_cleared_no_work_goes_on(
    three: Callable[..., list[_Three]], other: str, renews: bool
) -> None:
    lost = 0
    for looked in (True, False):
        for one in three(other, renews=renews, looked=looked):
            if ("other", "goes on") in one.said:
                since = one.said[one.said.index(("other", "goes on")) :]
                # A renewal may be on its way from before the other came until after it is gone: nothing can tell.
                until = since.index(("other", "is gone")) if renews else len(since)
                assert ("view", "goes on") not in since[:until], one.said
            lost += ("view", "has lost it") in one.said
    assert lost > 10


async def test_beside_anothers_it_waits_unless_the_own_was_written_since(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the own may have been cleared away, and be there again by a renewal that was on its way."""
    monkeypatch.setattr(lock_module, "_LOOK_AGAIN", 0)
    lock = await held(world)
    storage = WorldStorage(world)
    first, second = LockView(storage, RUN, LEASE), LockView(storage, RUN, LEASE)
    for view in (first, second):
        await view.guard()
    other = Lock(WorldStorage(world), Holder.this("20260101T000001Z-00000000", "gc", LEASE))
    await other.write()
    waiting = asyncio.create_task(first.guard())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not waiting.done()
    await other.release()
    await waiting
    world.now += 10 * SECOND
    await other.write()
    await lock.write()
    with pytest.raises(LockLost, match="holds a lock beside its own"):
        await second.guard()


async def test_a_delete_is_asked_for_at_each_key(world: World) -> None:
    await held(world)
    storage = WorldStorage(world)
    await storage.put("docker/a", b"")
    view = LockView(storage, RUN, LEASE)
    assert await view.delete_many(["docker/a"]) == {"docker/a": None}
    assert LOCKS + RUN in world.store
    async with view.batch():
        check_limit()
