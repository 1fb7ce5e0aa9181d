"""What the last run of gc left in the store, in numbers: a listing that shows nothing of it is not believed.

    regstore/counts.json    {"blobs": …, "links": …}

It lies beside the journals, for these go when the trash is emptied.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from regstore.errors import NotFound
from regstore.layout import STATE
from regstore.storage.base import Storage

COUNTS: Final = f"{STATE}counts.json"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """links: tags, revisions and layer links."""

    blobs: int = 0
    links: int = 0

    def missing_in(self, now: Counts) -> str:
        """What is not there at all any more, such as "4 blobs"; "" where nothing is."""
        gone = [
            f"{before:,} {what}"
            for what, before, after in (("blobs", self.blobs, now.blobs), ("links", self.links, now.links))
            if before and not after
        ]
        return " and ".join(gone)


async def read_counts(storage: Storage) -> Counts | None:
    try:
        known = json.loads(await storage.get(COUNTS))
        return Counts(blobs=int(known["blobs"]), links=int(known["links"]))
    except (NotFound, ValueError, KeyError, TypeError):
        return None


async def write_counts(storage: Storage, counts: Counts) -> None:
    await storage.put(COUNTS, json.dumps(asdict(counts)).encode())
