"""Tasks for tests of the pool."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regstore.errors import NotFound, StorageError
from regstore.events import Notice
from regstore.tasks import Context
from regstore.tasks.runner import Task

RowTask = Callable[[Iterable[Any]], Iterable[Any]]


async def process_id(context: Context, work: float) -> int:
    await asyncio.sleep(work)
    return os.getpid()


async def read_key(context: Context, work: str) -> bytes:
    return await context.store.get(work)


async def tell(context: Context, work: str) -> int:
    context.on_event(Notice(message=work))
    return context.concurrency


async def fail(context: Context, work: str) -> None:
    raise StorageError("it failed") from NotFound(work, "there")


async def be_wrong(context: Context, work: str) -> None:
    raise ZeroDivisionError(work)


async def die(context: Context, work: int) -> int:
    """As often as `work` says."""
    if context.attempt < work:
        os.kill(os.getpid(), signal.SIGKILL)
    return context.attempt


async def wait_and_tidy_up(context: Context, work: Path) -> None:
    work.with_name("begun").touch()
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.05)
        work.touch()


async def give_what_cannot_travel(context: Context, work: str) -> object:
    return lambda: work


async def end_with_words(context: Context, work: str) -> None:
    os.write(2, f"first\n{work}\n".encode())
    os._exit(7)


@dataclass(frozen=True)
class Dying:
    """Another task, whose worker is killed -9 when all of it is done and nothing told; as often as `deaths` says."""

    task: Task[Any, Any]
    deaths: int

    @property
    def __name__(self) -> str:
        return self.task.__name__

    async def __call__(self, context: Context, work: Any) -> Any:
        result = await self.task(context, work)
        if context.attempt < self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


@dataclass(frozen=True)
class Waiting:
    """Instead of another task. Its process's number is in the file that `begun` names."""

    begun: str

    async def __call__(self, context: Context, work: Any) -> Any:
        Path(self.begun).write_text(f"{os.getpid()}\n")
        await asyncio.sleep(60)


async def map_rows(context: Context, work: tuple[RowTask, list[Any]]) -> list[Any]:
    """A task of a cluster (`regstore.spark.tasks`), of batches of Arrow."""
    task, batches = work
    return await asyncio.to_thread(lambda: list(task(batches)))


async def be_cancelled_by_nobody(context: Context, work: None) -> None:
    waited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waited.cancel()
    await waited
