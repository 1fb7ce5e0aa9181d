"""Workers and threads: what ends, in what order, and which error comes out."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from regstore.concurrency import for_each, in_thread
from regstore.errors import RegstoreError
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import scan
from regstore.storage.disk import DiskStorage


async def test_a_thread_gives_what_it_returns_or_raises() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_thread_has_ended_when_its_cancellation_has(fails: bool) -> None:
    started, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    ended = False

    def work() -> None:
        nonlocal ended
        loop.call_soon_threadsafe(started.set)
        assert go_on.wait(30)
        ended = True
        if fails:
            raise ValueError("too late to matter")

    task = asyncio.create_task(in_thread(work))
    await started.wait()
    for _ in range(3):  # a second Ctrl-C changes nothing
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended


async def test_a_cancelled_scan_leaves_its_inventory_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a connection that a thread still uses is a crash of DuckDB."""
    started, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    ingest, close, during = Inventory.ingest, Inventory.close, []

    def slow_ingest(inventory: Inventory, pages: Any) -> None:
        loop.call_soon_threadsafe(started.set)
        assert go_on.wait(30)
        ingest(inventory, pages)
        during.append("ingested")

    def seen_close(inventory: Inventory) -> None:
        during.append("closed")
        close(inventory)

    monkeypatch.setattr(Inventory, "ingest", slow_ingest)
    monkeypatch.setattr(Inventory, "close", seen_close)
    async with DiskStorage(tmp_path) as storage:
        await storage.put("docker/registry/v2/repositories/a/_layers/x", b"")

        async def look() -> None:
            async with scan(storage):
                pass

        task = asyncio.create_task(look())
        await asyncio.wait_for(started.wait(), 30)
        task.cancel()
        await asyncio.sleep(0.01)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert during == ["ingested", "closed"]


async def test_the_first_error_comes_out_alone() -> None:
    seen = []

    async def fail_at_three(item: int) -> None:
        seen.append(item)
        if item == 3:
            raise KeyError(item)
        await asyncio.sleep(0)

    with pytest.raises(KeyError):
        await for_each(range(1000), fail_at_three, concurrency=4)
    assert len(seen) < 20


async def test_what_was_cancelled_by_what_it_waited_for_is_not_taken_for_done() -> None:
    done: list[int] = []

    async def do(number: int) -> None:
        if number == 3:
            waited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waited.cancel()
            await waited
        done.append(number)

    with pytest.raises(RegstoreError, match="was cancelled by what it waited for"):
        await for_each(range(6), do, concurrency=2)
    assert 3 not in done
