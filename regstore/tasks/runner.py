"""What a task is, and who runs one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from regstore.errors import RegstoreError
from regstore.events import OnEvent, ignore
from regstore.storage.base import Storage

Work = TypeVar("Work")
Done = TypeVar("Done")


class WorkerDied(RegstoreError):
    """A worker process ended in the midst of a task, as often as it was tried. What the task did is not known."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """stores: those that the task was given, in that order. concurrency: requests at once, this task's share. attempt:
    how often it was begun before, by workers that died; or a number that no other attempt of the run has, and
    again says whether one may have begun the same before. on_event: tells who asked."""

    stores: tuple[Storage, ...]
    concurrency: int
    attempt: int = 0
    again: bool | None = None
    on_event: OnEvent = field(default=ignore, repr=False)

    @property
    def is_again(self) -> bool:
        return self.attempt > 0 if self.again is None else self.again

    @property
    def store(self) -> Storage:
        """The only one, or the first."""
        return self.stores[0]


Task = Callable[[Context, Work], Awaitable[Done]]


class Runner(Protocol):
    """size: tasks that run at the same time; below 2 nothing is gained by cutting work into more of them. share: so
    many of them have one computer's memory and connections. is_far: they run on other computers. Then all work is
    theirs, in larger batches, for each costs more to hand out; but nothing that must not be done late, for one that is
    lost may be at work yet, unseen. near: who does that; itself, unless it is far."""

    @property
    def size(self) -> int: ...

    @property
    def share(self) -> int: ...

    @property
    def is_far(self) -> bool: ...

    @property
    def near(self) -> Runner: ...

    def reaches(self, *stores: Storage) -> bool:
        """Whether tasks on these stores run elsewhere than in the calling process."""
        ...

    def takes(self, count: int, least: int, *stores: Storage) -> bool:
        """Whether so much work on these stores is handed out: from `least` on it is worth the start of processes."""
        ...

    async def run(self, task: Task[Work, Done], work: Work, *stores: Storage, on_event: OnEvent = ignore) -> Done:
        """The task's result, or its error. Cancelled, it returns when the task has ended. WorkerDied."""
        ...


class Here:
    """The calling event loop, with the stores as they are."""

    size: Final = 1
    share: Final = 1
    is_far: Final = False

    def __init__(self, concurrency: int = 32) -> None:
        self._concurrency = concurrency

    @property
    def near(self) -> Runner:
        return self

    def reaches(self, *stores: Storage) -> bool:
        return False

    def takes(self, count: int, least: int, *stores: Storage) -> bool:
        return False

    async def run(self, task: Task[Work, Done], work: Work, *stores: Storage, on_event: OnEvent = ignore) -> Done:
        return await task(Context(stores=stores, concurrency=self._concurrency, on_event=on_event), work)


HERE: Final = Here()
