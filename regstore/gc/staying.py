"""Why so little goes: what is younger than the grace, and what only unknown keys name. Works on the inventory and the
plan's tables; no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from regstore.inventory.inventory import Inventory
from regstore.layout import DIGEST_PATH_RE, REPOSITORIES

#: A time so far ahead of the listing's start, in microseconds, is not that of a push during the listing.
_AHEAD: Final = 3600 * 1_000_000
_NAMED: Final = 5


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


@dataclass(frozen=True, kw_only=True)
class Held:
    """Dead blobs that stay because unknown keys below repositories name them, or what refers to them. keys: some of
    these, the first ones. Sizes in bytes."""

    blobs: int = 0
    blob_bytes: int = 0
    keys: tuple[str, ...] = ()


def hold_by_unknown(inventory: Inventory, held: str) -> Held:
    """Take out of gc_dead_blob what unknown keys hold. held: SQL for the digests that only they reach."""
    if not inventory.count("unknown"):
        return Held()
    inventory.execute(f"create or replace temp table held_blob as select distinct digest from ({held})")
    [(blobs, blob_bytes)] = inventory.all(
        "select count(*), coalesce(sum(size), 0)::bigint from gc_dead_blob where digest in (from held_blob)"
    )
    inventory.execute("delete from gc_dead_blob where digest in (from held_blob)")
    keys = inventory.all(
        f"""
        select distinct key from (
            select key, unnest(regexp_extract_all(key, '{DIGEST_PATH_RE}')) as named from unknown
            where starts_with(key, '{REPOSITORIES}')
        ) where unhex(regexp_replace(named, '^[^/]*/', '')) in (from held_blob) order by key limit {_NAMED}
        """
    )
    return Held(blobs=blobs, blob_bytes=blob_bytes, keys=tuple(key for (key,) in keys) if blobs else ())


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
