"""Bounded concurrency: a fixed number of workers on one iterator, and errors that come out as they went in."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

from regstore.errors import RegstoreError
from regstore.events import OnEvent, Progress

Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """An asyncio.TaskGroup that raises the first error itself, not a group of them; and RegstoreError where a task was
    cancelled by nobody, but what it waited for was. To a TaskGroup such an end is as good as any, and what was not done
    would count as done."""
    group = _Group()
    try:
        async with group:
            yield group
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors
    if group.lost:
        raise RegstoreError("a part of the work was cancelled by what it waited for: run the command again")


class _Group(asyncio.TaskGroup):
    """lost: a task ended cancelled, and nobody had cancelled it."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = False

    def create_task(self, *arguments: Any, **more: Any) -> asyncio.Task[Any]:
        task = super().create_task(*arguments, **more)
        task.add_done_callback(self._look)
        return task

    def _look(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() and not task.cancelling():
            self.lost = True


def was_cancelled() -> bool:
    """Whether somebody has cancelled this task; a CancelledError says only that something was that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def wait(seconds: float, phase: str, on_event: OnEvent) -> None:
    """Sleep, and tell how far that is: about twice a second, in whole seconds."""
    loop, total = asyncio.get_running_loop(), math.ceil(seconds)
    end = loop.time() + seconds
    while (left := end - loop.time()) > 0:
        on_event(Progress(phase=phase, done=total - math.ceil(left), total=total, unit="s"))
        await asyncio.sleep(min(left, 0.5))
    on_event(Progress(phase=phase, done=total, total=total, unit="s"))
    await asyncio.sleep(0)


async def for_each(
    items: Iterable[Item], function: Callable[[Item], Awaitable[object]], *, concurrency: int
) -> None:
    """Await function(item) for every item, at most `concurrency` at a time.

    Items are taken from the iterator only when a worker is free. The first error cancels the rest and is raised.
    """
    iterator = iter(items)

    async def work() -> None:
        for item in iterator:
            await function(item)

    async with task_group() as group:
        for _ in range(max(1, concurrency)):
            group.create_task(work())


async def in_thread(
    function: Callable[[*Arguments], Result], *arguments: *Arguments, pool: Executor | None = None
) -> Result:
    """asyncio.to_thread, but when this ends its thread has ended too, even if this is cancelled: what the thread
    works on can then be closed. pool: whose threads, where not those that all share."""
    call = partial(copy_context().run, function, *arguments)
    work = asyncio.get_running_loop().run_in_executor(pool, call)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                continue
        if not work.cancelled():
            work.exception()  # seen: the cancellation is what counts
        raise


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
