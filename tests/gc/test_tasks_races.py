"""gc by tasks while clients push: at any point of a task, and with a process that dies around it."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from regstore.gc.restore import RestoreOptions, apply_restore, plan_restore
from regstore.state.lock import hold_lock
from regstore.storage.base import Storage
from regstore.tasks import Context
from tests.examples import points
from tests.gc.actors import World
from tests.gc.by_tasks import Dying, collect_by_tasks
from tests.gc.scenes import model_storage, options, registry, small_registry
from tests.gc.stepping import Toolkit
from tests.gc.test_races import POLICY, pushed, stands
from tests.gc.test_races import options as racing

SECOND = 1_000_000


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Tried:
    """A `Runner` on the storage as it is. twice: each task is done, its result is lost, and another process tries it
    again, as an engine does that has lost an executor."""

    def __init__(self, *, twice: bool) -> None:
        self._tries = 2 if twice else 1
        self.begun = 0

    async def run(self, task: Any, work: Any, storage: Storage) -> Any:
        result: Any = None
        for attempt in range(self._tries):
            self.begun += 1
            context = Context(stores=(storage,), concurrency=1, attempt=attempt)
            result = await task(context, pickle.loads(pickle.dumps(work)))
        return result


def world_to_collect() -> World:
    world = World()
    pushed(world, "a", 0, "old")
    pushed(world, "a", 1, "kept")
    pushed(world, "b", 0, "old")
    pushed(world, "b", 2, "kept")
    world.now += 1000 * SECOND
    return world


def begin(world: World, loop: asyncio.AbstractEventLoop, runner: Tried) -> Toolkit:
    toolkit = Toolkit(world, loop, page=1000)
    toolkit.start(collect_by_tasks(toolkit, racing(policy=POLICY), runner))
    return toolkit


@pytest.mark.long
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_a_push_at_any_point_stands(loop: asyncio.AbstractEventLoop, twice: bool) -> None:
    runner = Tried(twice=twice)
    counted = begin(world_to_collect(), loop, runner)
    steps = first = 0
    while not counted.done:
        counted.step()
        steps += 1
        first = first or (steps if runner.begun else 0)
    counted.result()
    for number in points(steps - first, 3 if twice else 2, 60):
        world = world_to_collect()
        toolkit = begin(world, loop, Tried(twice=twice))
        for _ in range(first + number - 1):
            toolkit.step()
        push = pushed(world, "a", 0, "old" if number % 2 else "new")
        while not toolkit.done:
            toolkit.step()
        toolkit.result()
        stands(world, push)


async def test_a_run_of_attempts_is_undone() -> None:
    before, run = small_registry(), options(offline=False, concurrency=1)
    counted = Dying()
    await collect_by_tasks(model_storage(before), run, counted)
    storage, runner = model_storage(before), Dying(len(counted.mutations) // 2)
    await collect_by_tasks(storage, run, runner)
    assert runner.deaths == 1
    async with hold_lock(storage, command="trash restore") as lock:
        plan = await plan_restore(storage, RestoreOptions(concurrency=4))
        restored = await apply_restore(storage, plan, lock, concurrency=4)
    assert not restored.conflicts
    uploads = {key for key in before if "/_uploads/" in key}
    assert registry(storage.store).bodies() == before.without(uploads).bodies()
