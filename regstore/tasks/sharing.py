"""Rows shared out in batches: this process works too, beside those of a runner that are on this computer.

Batches are an equal part of what is left, so they become smaller: few questions and answers while there is much to do,
and all end at about the same time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final, Generic, TypeVar

from regstore.concurrency import task_group
from regstore.events import Event, OnEvent, Progress
from regstore.storage.sizes import MiB
from regstore.tasks.runner import Here, Runner

Row = TypeVar("Row")

#: So many rows (small blobs, links, manifests), or bytes of large blobs, make up for the start of processes.
WORTH_WORKERS: Final = 3000
WORTH_WORKERS_BYTES: Final = 4096 * MiB
#: Of a batch of blobs that pass through a process.
BATCH_BYTES: Final = 32 * MiB
#: Of what is left, each of those that work gets this part.
_PART: Final = 3
_LEAST: Final = 50
_MOST: Final = 1000
#: A task of another computer is worth so many of one here; and more where they are so many that who hands them out, in
#: some hundredths of a second each, would not keep up.
_FAR: Final = 16
_FAR_OF_MANY: Final = 0.25


class Batches(Generic[Row]):
    """Of `rows`, of which there are about `count`. weight: of a row; no batch of more than one row has more than `most`
    in all. hands: so many work at the same time. Made for a runner by `batches_for`."""

    def __init__(
        self,
        rows: Iterator[Row],
        count: int,
        *,
        hands: int,
        weight: Callable[[Row], int] = lambda row: 0,
        most: int = 0,
        rows_at_most: int = _MOST,
    ) -> None:
        self._rows = rows
        self._left = count
        self._hands = hands
        self._weight = weight
        self._most = most
        self._rows_at_most = rows_at_most
        self._again: deque[Sequence[Row]] = deque()
        self._held: list[Row] = []

    def add(self, batch: Sequence[Row]) -> None:
        """What was not done of one."""
        if batch:
            self._again.append(batch)

    def take(self) -> Sequence[Row]:
        """The next; empty where there is none for now."""
        if self._again:
            return self._again.popleft()
        wanted = min(self._rows_at_most, max(_LEAST, self._left // (_PART * self._hands)))
        batch: list[Row] = []
        total = 0
        rows = iter(self._held + list(islice(self._rows, max(0, wanted - len(self._held)))))
        for row in rows:
            total += self._weight(row)
            if batch and total > self._most:
                self._held = [row, *rows]
                break
            batch.append(row)
        else:
            self._held = []
        self._left -= len(batch)
        return batch


def times(runner: Runner) -> int:
    """How much larger a batch for this runner is than one for processes of this computer."""
    return max(_FAR, int(runner.size * _FAR_OF_MANY)) if runner.is_far else 1


def batches_for(
    runner: Runner, rows: Iterator[Row], count: int, *, weight: Callable[[Row], int] = lambda row: 0, most: int = 0
) -> Batches[Row]:
    """As `Batches`. most: for a runner on this computer."""
    larger = times(runner)
    return Batches(rows, count, hands=runner.size, weight=weight, most=most * larger, rows_at_most=_MOST * larger)


async def share_out(
    runner: Runner,
    batches: Batches[Row],
    work: Callable[[Runner, Sequence[Row]], Awaitable[object]],
    *,
    concurrency: int,
) -> None:
    """Await work(runner, batch) for all of them, one at a time in each process, and in this one where the runner is not
    far. The first error cancels the rest and is raised. concurrency: requests at once, of all."""
    here = Here(share_of(runner, concurrency))

    async def hand(whose: Runner) -> None:
        while batch := batches.take():
            await work(whose, batch)

    async with task_group() as group:
        for _ in range(runner.size if runner.is_far else runner.size - 1):
            group.create_task(hand(runner))
        if not runner.is_far:
            group.create_task(hand(here))


def share_of(runner: Runner, concurrency: int) -> int:
    """Of requests at once, for each process."""
    return max(1, -(-concurrency // runner.size))


class Ways:
    """How far several batches are, all together. tell: is told whenever one has told how far it is."""

    def __init__(self, tell: Callable[[], object], on_event: OnEvent) -> None:
        self._tell = tell
        self._on_event = on_event
        self._open: dict[int, int] = {}
        self._batches = 0

    @property
    def done(self) -> int:
        """Of the batches that are under way."""
        return sum(self._open.values())

    @contextmanager
    def of_one(self) -> Iterator[OnEvent]:
        self._batches += 1
        number = self._batches
        self._open[number] = 0

        def tell(event: Event) -> None:
            if isinstance(event, Progress):
                self._open[number] = event.done
                self._tell()
            else:
                self._on_event(event)

        try:
            yield tell
        finally:
            del self._open[number]
