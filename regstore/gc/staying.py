"""Why so little goes: what is younger than the grace. Reads the inventory and the plan's tables; no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from regstore.inventory.inventory import Inventory

#: A time so far ahead of the listing's start, in microseconds, is not that of a push during the listing.
_AHEAD: Final = 3600 * 1_000_000


@dataclass(frozen=True, kw_only=True)
class Young:
    """What is younger than the grace: it stays, whatever needs it. Sizes in bytes, times in microseconds.

    links: tags, revisions and layer links. oldest: when the eldest of these was written. ahead: blobs and links whose
    time lies in the future, by the store's own clock, and the latest such time: they stay until then, and the grace.
    """

    blobs: int = 0
    blob_bytes: int = 0
    links: int = 0
    oldest: int | None = None
    ahead: int = 0
    latest: int | None = None


def find_young(inventory: Inventory, *, cutoff: int, now: int) -> Young:
    """cutoff: what was written at that time or later is young."""
    [(blobs, blob_bytes, links, oldest, ahead, latest)] = inventory.all(
        f"""
        with written as (
            select true as is_blob, size, mtime from blob
            union all select false, 0, mtime from tag
            union all select false, 0, mtime from revision_link
            union all select false, 0, mtime from layer_link
        )
        select count(*) filter (is_blob), coalesce(sum(size), 0)::bigint, count(*) filter (not is_blob), min(mtime),
            count(*) filter (mtime > {now + _AHEAD}), max(mtime) filter (mtime > {now + _AHEAD})
        from written where mtime >= {cutoff}
        """
    )
    return Young(blobs=blobs, blob_bytes=blob_bytes, links=links, oldest=oldest, ahead=ahead, latest=latest)
