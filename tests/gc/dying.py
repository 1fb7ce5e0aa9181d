"""Tasks of gc in worker processes, of which the first to come to a certain change is killed."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

from regstore.gc.apply.sweep_range import sweep_range
from regstore.gc.apply.unlink_repositories import unlink_repositories
from regstore.storage.base import Storage
from regstore.tasks import Context, Pool
from regstore.testing.faulty import FaultyStorage

_TASKS: dict[str, Any] = {"sweep": sweep_range, "unlink": unlink_repositories}


@dataclass(frozen=True)
class Fatal:
    """Of the task's first attempt, after so many deletes, moves and copies."""

    task: str
    after: int
    work: Any


async def run_and_die(context: Context, work: Fatal) -> Any:
    changes = 0

    def count(operation: str, key: str) -> None:
        nonlocal changes
        if operation in ("delete", "copy", "move"):
            changes += 1
            if changes > work.after:
                os.kill(os.getpid(), signal.SIGKILL)

    store: Storage = context.store
    if context.attempt == 0:
        store = FaultyStorage(store, before=count)
    context = Context(stores=(store,), concurrency=1, attempt=context.attempt)
    return await _TASKS[work.task](context, work.work)


class DyingPool:
    """A `Runner` over a pool: of the tasks of one kind, each is killed once, after so many changes."""

    def __init__(self, pool: Pool, kind: str, after: int) -> None:
        self._pool = pool
        self._kind = kind
        self._after = after

    async def run(self, task: Any, work: Any, storage: Storage) -> Any:
        kind = "sweep" if task is sweep_range else "unlink"
        if kind != self._kind:
            return await self._pool.run(task, work, storage)
        return await self._pool.run(run_and_die, Fatal(kind, self._after, work), storage)
