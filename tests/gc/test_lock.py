"""The lock against a machine that sleeps and a store that is slow: of two runs never do both change anything."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import pytest
from aiohttp import web

from regstore.errors import InputError, LockHeld, LockLost, NotFound
from regstore.state import LOCKS, started_at
from regstore.state import holder as holder_module
from regstore.state import lock as lock_module
from regstore.state.holder import LEASE, LONGEST_LEASE, Holder
from regstore.state.lock import Lock, break_locks, find_locks, hold_lock
from regstore.storage.base import ObjectInfo, Page, PutOptions
from regstore.storage.disk import DiskStorage
from regstore.storage.limit import check_limit, limited
from regstore.testing.faulty import FaultyStorage
from tests.gc.actors import World
from tests.gc.stepping import Toolkit, WorldStorage
from tests.storage.fake_s3 import Answering, answer, error, fake_s3, listing

SECOND = 1_000_000


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(lock_module, "clock", lambda: world.now / SECOND)
    return world


class _Slow(WorldStorage):
    """Sleeps once while it lists the locks (the answer was received), or before it writes one; others go on."""

    def __init__(
        self,
        world: World,
        where: Literal["list", "put"],
        seconds: int,
        meanwhile: Callable[[], Coroutine[None, None, None]],
    ) -> None:
        super().__init__(world)
        self._where = where
        self._seconds = seconds
        self._meanwhile = meanwhile
        self.armed = False

    async def _sleep(self, where: str, key: str) -> None:
        if self.armed and where == self._where and key.startswith(LOCKS):
            self.armed = False
            self.world.now += self._seconds * SECOND
            # In a process of its own: no limit of this one's.
            await asyncio.create_task(self._meanwhile(), context=contextvars.Context())

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        async for page in super().list(prefix, start_after=start_after):
            await self._sleep("list", prefix)
            yield page

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        # A server that lets the request wait: nothing asks for the limit any more once it has been sent.
        check_limit()
        await self._sleep("put", key)
        with limited(lambda: None):
            await super().put(key, data, if_absent=if_absent)


@pytest.mark.parametrize(("where", "age", "seconds"), [("list", 310, 700), ("put", 470, 200)])
async def test_a_lock_that_expired_while_it_was_renewed_is_not_written_again(
    world: World, where: Literal["list", "put"], age: int, seconds: int
) -> None:
    async with AsyncExitStack() as stack:
        others: list[Lock] = []

        async def another_begins() -> None:
            others.append(await stack.enter_async_context(hold_lock(WorldStorage(world), command="trash empty")))

        storage = _Slow(world, where, seconds, another_begins)
        async with hold_lock(storage, command="gc") as lock:
            world.now += age * SECOND
            storage.armed = True
            with pytest.raises(LockLost):
                await lock.guard()
            (other,) = others
            assert [key for key in world.store if key.startswith(LOCKS)] == [LOCKS + other.run]
            await other.guard()


async def test_a_renewal_is_not_repeated_after_the_lease(world: World) -> None:
    """What is sent again and again for minutes would make the lock once more after another run cleared it away."""
    async with fake_s3() as fake, fake.storage() as storage:

        async def long(request: web.Request) -> web.StreamResponse:
            world.now += int(LEASE / 3) * SECOND
            return await error(500, "InternalError")(request)

        lock = await _lock_of(world, storage, fake.answers)
        world.now += int(LEASE * 0.6) * SECOND
        fake.answers = [answer(body=listing(LOCKS + lock.run))]
        fake.otherwise = long
        with pytest.raises(LockLost):
            await lock.guard()
        assert [asked.method for asked in fake.asked] == ["PUT", "GET", "PUT"]


async def _lock_of(world: World, storage: object, answers: list[Answering]) -> Lock:
    """A lock just written."""
    answers.append(answer())
    lock = Lock(storage, Holder.this("20260101T000000Z-00000000", "gc", LEASE))  # type: ignore[arg-type]
    await lock.write()
    return lock


class _LockStands(WorldStorage):
    """Whatever is asked for is listed."""

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        yield Page(["regstore/locks/20260101T000000Z-00000000"], [1], [""], [0], True)


async def test_a_machine_that_slept_past_its_lease_sends_no_more_of_a_batch(world: World) -> None:
    """No timeout notices: the loop's clock stands still in a suspended machine, and every try is signed anew."""
    lock = await _lock_of(world, _LockStands(world), [])
    async with fake_s3() as fake, fake.storage() as storage:

        async def sleep(request: web.Request) -> web.StreamResponse:
            world.now += 3 * 86_400 * SECOND
            return await error(503, "SlowDown")(request)

        fake.otherwise = sleep
        with pytest.raises(LockLost):
            async with lock.batch():
                await storage.delete_many([f"docker/{number}" for number in range(10)])
        assert len(fake.asked) == 1
        fake.otherwise = answer(200, "<DeleteResult/>")
        await storage.delete_many(["no limit", "outside of it"])
        assert len(fake.asked) == 2


async def test_a_machine_that_slept_deletes_no_more_on_a_disk(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = await _lock_of(world, _LockStands(world), [])
    storage = DiskStorage(tmp_path)
    keys = [f"docker/{number}" for number in range(5)]
    for key in keys:
        await storage.put(key, b"x")
    tree = storage._tree
    delete = tree.delete

    def sleep(key: str) -> bool:
        world.now += int(LEASE / 2) * SECOND
        return delete(key)

    monkeypatch.setattr(tree, "delete", sleep)
    with pytest.raises(LockLost):
        async with lock.batch():
            await storage.delete_many(keys)
    left = [key async for page in storage.list("docker/") for key in page.keys]
    assert left == keys[2:]
    with pytest.raises(LockLost):
        async with lock.batch():
            pytest.fail("it has lost its lock for good")
    for change in (storage.put("docker/new", b""), storage.move(keys[3], "docker/moved", size=1)):
        with pytest.raises(LockLost):
            with limited(lock._check_age):
                await change
    with pytest.raises(NotFound):
        await storage.stat("docker/new")
    await storage.close()


async def test_the_lock_is_looked_at_every_thousand_keys(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "_BATCH", 10)
    asked: list[str] = []

    def note(operation: str, key: str) -> None:
        if operation in ("list", "delete"):
            asked.append("guard" if key.startswith(LOCKS) else operation)

    storage = FaultyStorage(WorldStorage(world), before=note)
    async with hold_lock(storage, command="gc") as lock:
        asked.clear()
        keys = [f"docker/{number}" for number in range(25)]
        assert await lock.delete_many(keys) == dict.fromkeys(keys)
        assert asked == ["guard", *["delete"] * 10, "guard", *["delete"] * 10, "guard", *["delete"] * 5]


class _Mistaken(Toolkit):
    """Its clock is eleven minutes ahead of the store's."""

    async def now(self) -> int:
        return await super().now() + 660 * SECOND


class _Two:
    """A run that holds the lock, or is about to, and one that comes: every request of the one may come between any two
    of the other's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, other: str, *, holds: bool, age: float = 0.0) -> None:
        self.world = World()
        self.said: list[tuple[str, str]] = []
        make = _Mistaken if other == "mistaken" else Toolkit
        self.runs = [Toolkit(self.world, loop, page=1000), make(self.world, loop, page=1000)]
        self.runs[0].start(self._run("first", self.runs[0], age=age))
        while holds and ("first", "holds") not in self.said:
            self.runs[0].step()
        self.runs[1].start(self._run("other", self.runs[1], breaks=other == "breaks"))

    async def _run(self, name: str, storage: Toolkit, *, breaks: bool = False, age: float = 0.0) -> None:
        try:
            if breaks:
                await break_locks(storage)
            async with hold_lock(storage, command=name) as lock:
                self.said.append((name, "holds"))
                lock._written -= age
                for _ in range(2):
                    await lock.guard()
                    self.said.append((name, "goes on"))
                self.said.append((name, "is done"))
        except LockHeld:
            self.said.append((name, "withdraws"))
        except LockLost:
            self.said.append((name, "has lost it"))
        self.said.append((name, "is gone"))


def every_order(loop: asyncio.AbstractEventLoop, depth: int, begin: Callable[[], _Two]) -> list[_Two]:
    """What came of each order in which the first `depth` requests can be made; then they take turns."""
    found: list[_Two] = []
    orders: list[list[int]] = [[]]
    while orders:
        order = orders.pop()
        two = begin()
        for at in range(200):
            able = [number for number, run in enumerate(two.runs) if not run.done]
            if not able:
                break
            if at < depth and at >= len(order):
                orders += [[*order, number] for number in able[1:]]
                order = [*order, able[0]]
            chosen = order[at] if at < len(order) else able[at % len(able)]
            two.runs[chosen].step()
        else:
            raise AssertionError("they wait for each other for ever")
        found.append(two)
    return found


@pytest.fixture
def loop(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.AbstractEventLoop]:
    monkeypatch.setattr(lock_module, "_LOOK_AGAIN", 0)
    monkeypatch.setattr(holder_module, "this_process", lambda: "")
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_a_newcomer_that_withdraws_ends_no_run(loop: asyncio.AbstractEventLoop) -> None:
    found = every_order(loop, 10, lambda: _Two(loop, "waits", holds=True))
    withdrawn = 0
    for two in found:
        assert ("first", "is done") in two.said, two.said
        withdrawn += ("other", "withdraws") in two.said
        if ("other", "goes on") in two.said:
            assert two.said.index(("first", "is gone")) < two.said.index(("other", "goes on"))
    assert withdrawn > 10


def test_of_two_that_begin_at_once_not_both_go_on(loop: asyncio.AbstractEventLoop) -> None:
    went = 0
    for two in every_order(loop, 10, lambda: _Two(loop, "waits", holds=False)):
        for name, other in (("first", "other"), ("other", "first")):
            if (name, "goes on") in two.said:
                went += 1
                begun = two.said.index((name, "goes on"))
                assert (other, "goes on") not in two.said[begun : two.said.index((name, "is gone"))], two.said
    assert went > 10


@pytest.mark.parametrize("age", [0.0, LEASE * 0.6], ids=["listing", "renewing"])
@pytest.mark.parametrize("other", ["mistaken", "breaks"])
def test_a_run_whose_lock_was_cleared_goes_on_no_more(
    loop: asyncio.AbstractEventLoop, other: str, age: float
) -> None:
    """Whatever it was about to do: also when its renewal was on its way, and its lock stands again."""
    found = every_order(loop, 10, lambda: _Two(loop, other, holds=True, age=age))
    lost = 0
    for two in found:
        if ("other", "goes on") in two.said:
            since = two.said[two.said.index(("other", "goes on")) :]
            # One renewal may be on its way from before the other came until after it is gone: nothing can tell.
            until = since.index(("other", "is gone")) if age else len(since)
            assert ("first", "goes on") not in since[:until], two.said
        lost += ("first", "has lost it") in two.said
    assert lost > 10


@pytest.mark.parametrize(
    ("lease", "counts"),
    [
        ("Infinity", LEASE),
        ("-Infinity", LEASE),
        ("NaN", LEASE),
        ("-1", LEASE),
        ("0", LEASE),
        ('"600"', LEASE),
        ("true", LEASE),
        ("null", LEASE),
        ("1e300", LONGEST_LEASE),
        ("9" * 400, LONGEST_LEASE),
        ("30", 30.0),
    ],
)
async def test_a_lock_says_a_lease_that_is_none(world: World, lease: str, counts: float) -> None:
    """It is a lock all the same, is shown, and ends."""
    storage = WorldStorage(world)
    run = "20260101T000000Z-00000000"
    body = f'{{"command": "gc", "user": "u", "host": "h", "pid": Infinity, "process": "", "lease": {lease}}}'
    await storage.put(LOCKS + run, body.encode())
    (found,) = await find_locks(storage)
    assert (found.holder.command, found.holder.pid, found.holder.lease) == ("gc", 0, counts)
    assert found.expires == found.written + int(counts) * SECOND
    with pytest.raises(LockHeld, match="locked by `gc` of u on h"):
        async with hold_lock(storage, command="heal"):
            pass
    world.now += int(counts + 2) * SECOND
    async with hold_lock(storage, command="heal") as lock:
        assert [key for key in world.store if key.startswith(LOCKS)] == [LOCKS + lock.run]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"\xff", b"[" * 20_000, b'{"command": 1, "user": "\\ud800", "lease": {}}', b"{" + b" " * 100_000],
    ids=["empty", "no object", "no text", "deep", "odd values", "long"],
)
async def test_a_lock_that_can_t_be_read_is_a_lock(world: World, body: bytes) -> None:
    storage = WorldStorage(world)
    await storage.put(LOCKS + "20260101T000000Z-00000000", body)
    (found,) = await find_locks(storage)
    assert (found.holder.command, found.holder.lease) == ("?", LEASE)
    found.holder.user.encode()
    with pytest.raises(LockHeld):
        async with hold_lock(storage, command="heal"):
            pass


class _Dated(WorldStorage):
    """What is between here and the store has a clock of its own, until the store itself has told the time."""

    async def now(self) -> int:
        return await super().now() + (0 if self.counters.requests.get("put") else 25 * 3600 * SECOND)


async def test_a_run_is_named_by_the_store_s_clock(world: World) -> None:
    async with hold_lock(_Dated(world), command="gc") as lock:
        assert abs(started_at(lock.run) - world.now) < 2 * SECOND
        assert [key for key in world.store if key.startswith(LOCKS)] == [LOCKS + lock.run]
        await lock.guard()
    assert not [key for key in world.store if key.startswith(LOCKS)]


@pytest.mark.parametrize("lease", [0.0, -1.0, math.nan, math.inf, LONGEST_LEASE + 1])
async def test_a_lease_that_nobody_would_believe_is_not_asked_for(world: World, lease: float) -> None:
    with pytest.raises(InputError, match="at most 86400 s"):
        async with hold_lock(WorldStorage(world), command="gc", lease=lease):
            pass
    assert not [key for key in world.store if key.startswith(LOCKS)]


class _Phantom(WorldStorage):
    """Its listings still show a lock that was deleted."""

    listings = 0

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        self.listings += 1
        async for page in super().list(prefix, start_after=start_after):
            shown = [*page.objects(), ObjectInfo(LOCKS + "20991231T000000Z-00000000", 1, "", self.world.now)]
            columns = zip(*((info.key, info.size, info.etag, info.mtime) for info in shown), strict=True)
            keys, sizes, etags, mtimes = map(list, columns)
            yield Page(keys, sizes, etags, mtimes, page.complete)


async def test_a_lock_that_is_listed_and_not_there_counts_until_it_expires(world: World) -> None:
    storage = _Phantom(world)
    with pytest.raises(LockHeld):
        async with hold_lock(storage, command="gc"):
            pass
    assert storage.listings <= 5
    assert not storage.store.objects
