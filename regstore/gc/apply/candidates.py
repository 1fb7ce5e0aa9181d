"""The blobs that may go, in the order of their keys, and those that went: relations, for there may be any number.

    gc_candidate(position, digest, size, mtime)
    gc_gone(digest, position)

Positions are numbered from 1 in the order of the blobs' keys: by algorithm, then by digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.digest import Digest
from regstore.gc.plan import GcOptions, plan_blobs
from regstore.inventory.inventory import Inventory, digest_text
from regstore.layout import BlobKey

_CANDIDATES: Final = """
    create or replace table gc_candidate as
    select row_number() over (order by octet_length(digest), digest) as position, digest, size, mtime
    from gc_dead_blob order by position
"""


@dataclass(frozen=True, slots=True)
class Blob:
    """One that may go, as it was listed. raw: its digest."""

    position: int
    key: str
    raw: bytes
    size: int
    mtime: int

    @property
    def digest(self) -> str:
        return digest_text(self.raw)


class Candidates:
    """At first the planned blobs, all of them; then fewer after each look."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        inventory.execute(_CANDIDATES)
        inventory.execute("create or replace table gc_gone (digest blob, position bigint)")

    def __len__(self) -> int:
        return self._inventory.count("gc_candidate")

    def keep_reached(self, look: Inventory, options: GcOptions, *, now: int) -> int:
        """Let go only what this later look at all links does not reach either; how many blobs stay."""
        before = len(self)
        plan_blobs(look, options, now=now)
        look.execute("delete from main.gc_candidate where digest not in (select digest from gc_dead_blob)")
        # A repository that has become unreadable may need the very links that this run took from it.
        look.execute(
            """
            delete from main.gc_candidate where digest in (
                select unnest([l.digest, l.target]) from main.layer_link l
                join main.gc_dead_layer_link using (repository, digest)
                join main.repository r on r.id = l.repository
                where r.name in (select name from repository join gc_protected p on p.repository = id)
            )
            """
        )
        return before - len(self)

    def after(self, position: int, most: int) -> list[Blob]:
        """The next of them, behind this position."""
        rows = self._inventory.all(
            "select position, digest, size, mtime from gc_candidate where position > ? order by position limit ?",
            [position, most],
        )
        return [
            Blob(position, layout.encode(BlobKey(Digest.from_raw(bytes(raw)))), bytes(raw), size, mtime)
            for position, raw, size, mtime in rows
        ]

    def still(self, batch: Sequence[Blob]) -> list[Blob]:
        """Those of these that are candidates yet."""
        last = max(blob.position for blob in batch)  # they come as their copies did
        rows = self._inventory.all("select position from gc_candidate where position <= ?", [last])
        left = {position for (position,) in rows}
        return [blob for blob in batch if blob.position in left]

    def done(self, batch: Sequence[Blob], gone: Sequence[Blob]) -> None:
        """All of the batch had its turn, and these of it are not there any more."""
        first, last = batch[0].position, batch[-1].position
        self._inventory.insert(
            "gc_gone",
            {
                "digest": ("binary", [blob.raw for blob in gone]),
                "position": ("int64", [blob.position for blob in gone]),
            },
        )
        self._inventory.execute(
            f"delete from blob where digest in (select digest from gc_gone where position >= {first})"
        )
        self._inventory.execute(f"delete from gc_candidate where position <= {last}")


def gone_digests(inventory: Inventory) -> Iterator[str]:
    """Of all blobs that are gone so far."""
    return (digest_text(raw) for (raw,) in inventory.all("select digest from gc_gone"))
