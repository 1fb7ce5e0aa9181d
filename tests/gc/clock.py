"""The store's clock, for tests without a grace."""

from __future__ import annotations

import asyncio

from regstore.storage.base import Storage


async def until_all_is_older(storage: Storage) -> None:
    """Return once the store's clock, which may tell whole seconds only, is past all that is in it."""
    newest = max([mtime async for page in storage.list("") for mtime in page.mtimes], default=0)
    async with asyncio.timeout(30):
        while await storage.now() <= newest:
            await asyncio.sleep(0.05)
