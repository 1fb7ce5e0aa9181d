"""Files that runs were writing on a disk when they were killed: no registry sees them, and nobody finishes them."""

from __future__ import annotations

import re
from typing import Final

from regstore.inventory.inventory import Inventory
from regstore.storage.base import TEMPORARY, Storage

#: Unchanged for so long, in microseconds, nobody is writing one any more.
_AGE: Final = 6 * 3600 * 1_000_000


async def remove_leftovers(storage: Storage, inventory: Inventory, *, schema: str = "main") -> int:
    """Remove those that are of old, by the store's clock, of what the inventory has listed; returns how many.

    schema: of the inventory that the storage was listed into. One that can't be removed stays, for the next run.
    """
    rows = inventory.all(
        f"select key, mtime from {schema}.unknown where regexp_full_match(key, ?)",
        [rf"(?s:.*/){re.escape(TEMPORARY)}[0-9a-f]{{32}}"],
    )
    if not rows or not (await storage.capabilities()).folders:
        return 0
    before = await storage.now() - _AGE
    outcomes = await storage.delete_many([key for key, mtime in rows if mtime < before])
    return sum(outcome is None for outcome in outcomes.values())
