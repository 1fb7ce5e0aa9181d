"""Many small requests at once, their answers in the order of the questions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from regstore.concurrency import for_each

T = TypeVar("T")
R = TypeVar("R")

WORKERS: Final = 16


async def run_all(function: Callable[[T], Awaitable[R]], items: Sequence[T]) -> list[R]:
    """`function` of every item, at most WORKERS at a time. The first error ends the others and is raised."""
    results: dict[int, R] = {}

    async def keep(numbered: tuple[int, T]) -> None:
        position, item = numbered
        results[position] = await function(item)

    if items:
        await for_each(enumerate(items), keep, concurrency=min(WORKERS, len(items)))
    return [results[position] for position in range(len(items))]
