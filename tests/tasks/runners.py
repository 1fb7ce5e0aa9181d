"""A runner that hands out all there is, as a pool does, and yet works here: on stores that only this process has."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Final

from regstore.events import OnEvent, ignore
from regstore.storage.base import Storage
from regstore.tasks import HERE, Context, Runner
from regstore.tasks.runner import Done, Task, Work


class PackedHere:
    """What goes in and comes out is pickled, as it is on its way to another process. ran: the tasks by their names."""

    size: Final = 2
    share: Final = 2

    def __init__(self, concurrency: int = 4, *, is_far: bool = False) -> None:
        self._concurrency = concurrency
        self.is_far: Final = is_far
        self.ran: Counter[str] = Counter()

    @property
    def near(self) -> Runner:
        return HERE if self.is_far else self

    def reaches(self, *stores: Storage) -> bool:
        return True

    def takes(self, count: int, least: int, *stores: Storage) -> bool:
        return count > 0

    async def run(self, task: Task[Work, Done], work: Work, *stores: Storage, on_event: OnEvent = ignore) -> Done:
        self.ran[task.__name__] += 1
        told: OnEvent = lambda event: on_event(pickle.loads(pickle.dumps(event)))  # noqa: E731
        context = Context(stores=stores, concurrency=self._concurrency, on_event=told)
        done: Done = pickle.loads(pickle.dumps(await task(context, pickle.loads(pickle.dumps(work)))))
        return done
