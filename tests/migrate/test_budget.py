"""Memory that copies share."""

from __future__ import annotations

import asyncio

import pytest

from regstore.storage.transfer import Budget


class Users:
    """Each takes so much, and keeps it until it is told."""

    def __init__(self, size: int) -> None:
        self.budget = Budget(size)
        self.inside: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    async def come(self, name: str, size: int) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._use(name, size))
        await settle()

    async def _use(self, name: str, size: int) -> None:
        async with self.budget.hold(size):
            self.inside.add(name)
            try:
                await self._ends[name].wait()
            finally:
                self.inside.remove(name)

    async def leave(self, name: str) -> None:
        self._ends[name].set()
        await settle()

    def cancel(self, name: str) -> None:
        self._tasks[name].cancel()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_in_the_order_of_asking() -> None:
    users = Users(10)
    await users.come("a", 6)
    await users.come("b", 6)
    await users.come("c", 2)
    assert users.inside == {"a"}, "c would fit, and would keep b waiting for ever"
    await users.leave("a")
    assert users.inside == {"b", "c"}


async def test_more_than_there_is_comes_alone() -> None:
    users = Users(10)
    await users.come("a", 1)
    await users.come("huge", 99)
    await users.come("b", 1)
    assert users.inside == {"a"}
    await users.leave("a")
    assert users.inside == {"huge"}
    await users.leave("huge")
    assert users.inside == {"b"}


async def test_who_is_cancelled_while_waiting_holds_nothing_up() -> None:
    users = Users(10)
    await users.come("a", 10)
    for name in ("b", "c", "d"):
        await users.come(name, 10)
    users.cancel("c")
    await settle()
    users.cancel("b")
    await users.leave("a")  # before b has noticed
    assert users.inside == {"d"}
    await users.leave("d")
    await users.come("e", 10)
    assert users.inside == {"e"}


async def test_who_is_cancelled_as_its_turn_comes_gives_it_on() -> None:
    budget = Budget(10)
    await budget.take(10)
    waiting = asyncio.create_task(budget.take(10))
    after = asyncio.create_task(budget.take(10))
    await settle()
    budget.give(10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(after, 5)
