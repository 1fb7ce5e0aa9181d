"""Which blobs are read, and in what order, as SQL over an inventory. No I/O, no clock."""

from __future__ import annotations

from typing import Final

from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.proving.read_data import ReadData

#: Microseconds that the clocks of one store's servers may differ by.
CLOCKS_DIFFER: Final = 600 * 1_000_000
_SQL: Final = Statements("regstore.proving", "pick.sql")


def plan_reading(
    inventory: Inventory, read: ReadData | None, *, now: int, max_age: int | None = None, seed: int = 0
) -> None:
    """Make reading_pick(place, digest, size, time): the blobs to read, in order. Uses reading_proof(digest, size, time,
    proved), reading_changed(digest, time) where that tells more than a blob's mtime and, for what to look at first,
    reading_suspect(digest). seed orders those that were never proved. read None: the suspects only."""
    _SQL.run(inventory, "blobs")
    part = "true" if read is not None else "suspect"
    read = read or ReadData(share=1.0)
    if read.part is not None:
        number, of = read.part
        part = f"('0x' || hex(digest)[:12])::ubigint % {of} = {number - 1}"
    budget = read.size
    if read.share is not None:
        ((total,),) = _SQL.run(inventory, "bytes").fetchall()
        budget = -int(-total * read.share // 1) if read.share < 1 else None
    # What was proved in times to come was proved by a wrong clock, nobody knows when.
    fresh = (
        "true"
        if max_age is None
        else f"coalesce(proved not between {now - max_age} and {now + CLOCKS_DIFFER}, true)"
    )
    _SQL.run(inventory, "pick", {"seed": str(seed), "budget": budget}, chosen=f"{part} and {fresh}")
