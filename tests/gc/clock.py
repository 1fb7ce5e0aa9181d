"""The store's clock: for tests without a grace, and for what a run must have ended some time ago for."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from regstore.runs import RUNS
from regstore.storage.base import Storage


async def until_all_is_older(storage: Storage, *, by: int = 0) -> None:
    """Return once the store's clock is past all that is in it, by so many microseconds; and by a second more, for its
    listings may tell whole seconds only, and so may the Date that a dry run goes by."""
    newest = max([mtime async for page in storage.list("") for mtime in page.mtimes], default=0)
    async with asyncio.timeout(30):
        while await storage.now() <= newest + by + 1_000_000:
            await asyncio.sleep(0.05)


def end_long_ago(root: Path, *, seconds: int = 2 * 3600) -> None:
    """On a disk: as if every run so far had ended so long ago."""
    for path in (root / RUNS).rglob("*"):
        if path.is_file():
            at = path.stat().st_mtime - seconds
            os.utime(path, (at, at))
