"""The store's clock: for tests without a grace, and for what a run must have ended some time ago for."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from regstore.layout import STATE
from regstore.state import RUNS
from regstore.storage.base import Storage


async def until_all_is_older(storage: Storage, *, by: int = 0) -> None:
    """Return once what is put now gets a later time in listings, which may tell whole seconds only, than all that is in
    the store, by so many microseconds; and the store's clock, as it is told here, is as late."""
    newest = max([mtime async for page in storage.list("") for mtime in page.mtimes], default=0)
    async with asyncio.timeout(30):
        while await _whole_second(storage) <= newest + by or await _time_of_a_put(storage) <= newest + by:
            await asyncio.sleep(0.05)


async def _whole_second(storage: Storage) -> int:
    """The store's clock as who only looks is told it, by the Date of an answer."""
    return await storage.now() // 1_000_000 * 1_000_000


async def _time_of_a_put(storage: Storage) -> int:
    key = f"{STATE}clock"
    await storage.put(key, b"")
    [mtime] = [mtime async for page in storage.list(key) for mtime in page.mtimes]
    await storage.delete_many([key])
    return mtime


def end_long_ago(root: Path, *, seconds: int = 2 * 3600) -> None:
    """On a disk: as if every run so far had ended so long ago."""
    for path in (root / RUNS).rglob("*"):
        if path.is_file():
            at = path.stat().st_mtime - seconds
            os.utime(path, (at, at))
