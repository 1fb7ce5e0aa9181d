"""Bounded concurrency: a fixed number of workers over one iterator, results in the order of the input."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

WORKERS: Final = 16


async def run_all(function: Callable[[T], Awaitable[R]], items: Sequence[T], workers: int = WORKERS) -> list[R]:
    """`function` of every item, at most `workers` at a time. The first error ends the others and is raised."""
    results: dict[int, R] = {}
    pending = iter(enumerate(items))

    async def work() -> None:
        for position, item in pending:
            results[position] = await function(item)

    tasks = [asyncio.create_task(work()) for _ in range(min(workers, len(items)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [results[position] for position in range(len(items))]
