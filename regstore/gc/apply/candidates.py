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
from regstore.inventory.statements import Statements

_SQL: Final = Statements("regstore.gc.apply", "candidates.sql")


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
        _SQL.run(inventory, "begin")

    def __len__(self) -> int:
        return self._inventory.count("gc_candidate")

    def keep_reached(self, look: Inventory, options: GcOptions, *, now: int) -> int:
        """Let go only what this later look at all links does not reach either; how many blobs stay."""
        plan_blobs(look, options, now=now)
        [(kept,)] = _SQL.run(look, "keep_reached").fetchall()
        return int(kept)

    def after(self, position: int, most: int) -> list[Blob]:
        """The next of them, behind this position."""
        rows = _SQL.run(self._inventory, "after", {"position": position, "most": most}).fetchall()
        return [
            Blob(position, layout.blob_key(Digest.from_raw(bytes(raw))), bytes(raw), size, mtime)
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
        _SQL.run(self._inventory, "done", {"first": first, "last": last})


def gone_digests(inventory: Inventory) -> Iterator[str]:
    """Of all blobs that are gone so far."""
    return (digest_text(raw) for (raw,) in inventory.all("select digest from gc_gone"))
