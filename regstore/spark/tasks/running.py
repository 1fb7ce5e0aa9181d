"""A task of `regstore.tasks` in an executor: as it came from the driver, and its answer."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from regstore.errors import Refused, RegstoreError
from regstore.spark.tasks.executing import StoreWork, forget_archives, version
from regstore.storage.base import Counters
from regstore.tasks.packing import PackedError, pack
from regstore.tasks.runner import Context, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWork:
    """work: what the task is given."""

    task: Task[Any, Any]
    work: Any
    stores: tuple[StoreWork, ...]
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A result, or an error of regstore's. counters: of each store, as far as they were opened."""

    result: Any = None
    error: PackedError | None = None
    counters: tuple[Counters, ...] = ()


def packed_work(work: TaskWork) -> bytes:
    return pickle.dumps((version(), pickle.dumps(work)))


def run_packed(packed: bytes, *, attempt: int) -> bytes:
    """The answer, packed. attempt: how often the engine has begun it before. Raises only what is no error of
    regstore's: a mistake, or want of memory."""
    told, work = pickle.loads(packed)
    if told != version():  # before anything of it is loaded
        refused = Refused(f"the driver is {told}, and an executor {version()}: both must be the same")
        return pickle.dumps(Answer(error=pack(refused)))
    answer = asyncio.run(_run(pickle.loads(work), attempt))
    forget_archives()
    return pickle.dumps(answer)


async def do_nothing(context: Context, work: None) -> None:
    """That the stores were opened is all."""


async def _run(asked: TaskWork, attempt: int) -> Answer:
    counters: list[Counters] = []
    try:
        async with AsyncExitStack() as stack:
            stores = []
            for work in asked.stores:
                stores.append(await stack.enter_async_context(work.open()))
                counters.append(stores[-1].counters)
            context = Context(stores=tuple(stores), concurrency=asked.concurrency, attempt=attempt)
            return Answer(result=await asked.task(context, asked.work), counters=tuple(counters))
    except RegstoreError as error:
        return Answer(error=pack(error), counters=tuple(counters))
