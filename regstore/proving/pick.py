"""Which blobs are read, and in what order, as SQL over an inventory. No I/O, no clock."""

from __future__ import annotations

from typing import Final

from regstore.inventory.inventory import Inventory
from regstore.proving.read_data import ReadData

#: Microseconds that the clocks of one store's servers may differ by.
CLOCKS_DIFFER: Final = 600 * 1_000_000


def plan_reading(
    inventory: Inventory, read: ReadData | None, *, now: int, max_age: int | None = None, seed: int = 0
) -> None:
    """Make reading_pick(place, digest, size, time): the blobs to read, in order. Uses reading_proof(digest, size, time,
    proved), reading_changed(digest, time) where that tells more than a blob's mtime and, for what to look at first,
    reading_suspect(digest). seed orders those that were never proved. read None: the suspects only."""
    inventory.execute(
        """
        create or replace table reading_blob as
        with listed as (
            select b.digest, b.size, coalesce(c.time, b.mtime) as time
            from blob b left join reading_changed c on c.digest = b.digest
            -- what is archived is known to give nothing
            anti join archived_blob a on a.digest = b.digest
        )
        select b.digest, b.size, b.time, nullif(p.proved, 0) as proved, m.digest is not null as manifest,
            s.digest is not null or coalesce(p.proved = 0, false) as suspect
        from listed b
        left join reading_proof p on p.digest = b.digest and p.size = b.size and p.time = b.time
        left join (select distinct digest from manifest where state in ('ok', 'invalid', 'mismatch', 'unreadable')) m
            on m.digest = b.digest
        left join reading_suspect s on s.digest = b.digest
        """
    )
    # A digest is random by itself: its first bits make even parts.
    part = "true" if read is not None else "suspect"
    read = read or ReadData(share=1.0)
    if read.part is not None:
        number, of = read.part
        part = f"('0x' || hex(digest)[:12])::ubigint % {of} = {number - 1}"
    budget = read.size
    if read.share is not None:
        total = inventory.one("select coalesce(sum(size), 0)::bigint from reading_blob where not manifest")
        budget = -int(-total * read.share // 1) if read.share < 1 else None
    # What was proved in times to come was proved by a wrong clock, nobody knows when.
    fresh = (
        "true"
        if max_age is None
        else f"coalesce(proved not between {now - max_age} and {now + CLOCKS_DIFFER}, true)"
    )
    inventory.execute(
        f"""
        create or replace table reading_pick as
        with chosen as (
            select digest, size, time,
                row_number() over (
                    order by suspect desc, proved nulls first, md5(hex(digest) || '{seed}')
                ) as place
            from reading_blob where not manifest and {part} and {fresh}
        ),
        running as (
            select *, sum(size) over (order by place rows unbounded preceding) - size as before from chosen
        )
        select place, digest, size, time from running
        where {"true" if budget is None else f"before < {budget}"}
        """
    )
