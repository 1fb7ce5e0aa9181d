"""The lock against a machine that sleeps and a store that is slow: of two runs never do both change anything."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import pytest
from aiohttp import web

from regstore.errors import LockLost, NotFound
from regstore.runs import LOCKS
from regstore.runs import lock as lock_module
from regstore.runs.lock import LEASE, Lock, hold_lock
from regstore.storage.base import Page, PutOptions
from regstore.storage.disk import DiskStorage
from regstore.storage.limit import check_limit, limited
from tests.gc.actors import World
from tests.gc.stepping import WorldStorage
from tests.storage.fake_s3 import Answering, answer, error, fake_s3, listing
from tests.storage.faulty import FaultyStorage

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
    lock = Lock(storage, lock_module.Holder.this("20260101T000000Z-00000000", "gc", LEASE))  # type: ignore[arg-type]
    await lock.write()
    return lock


class _LockStands(WorldStorage):
    """Whatever is asked for is listed."""

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        yield Page([prefix], [1], [""], [0], True)


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
