"""What the last run of gc left in the store: a listing that shows much less of it is not believed (`gc.vanished`).

    regstore/counts.json    {"blobs": …, "links": …, "tagged": …, "untagged": …, "chosen": …, "runs": […]}

It lies beside the journals, for these go when the trash is emptied; what the emptied ones took is taken off it first.
tagged: the repositories that had tags, a line each, "<tags> <name>", sorted, compressed with gzip, in base64: some 5
bytes a repository; untagged: those that had revisions and no tag, "<revisions> <name>"; chosen: those of which somebody
removed tags by name, as far as they have no tag, "1 <name>". Files of older versions have none of these, nor the runs,
and older versions read blobs and links only.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from regstore.errors import NotFound
from regstore.layout import COUNTS
from regstore.storage.base import Storage

#: What reading nonsense raises.
_DAMAGES: Final = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    EOFError,
    OSError,
    zlib.error,
)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """links: tags, revisions and layer links. tagged: tags of each repository that has any; untagged: revisions of each
    that has some and no tag, as OpenShift's have. runs: those whose journals stood in the store then, the run that
    wrote this among them, and those that are emptied since. chosen: repositories of which somebody removed tags by
    name, by journals that are emptied."""

    blobs: int = 0
    links: int = 0
    tagged: Mapping[str, int] = field(default_factory=dict)
    untagged: Mapping[str, int] = field(default_factory=dict)
    runs: frozenset[str] = frozenset()
    chosen: frozenset[str] = frozenset()

    def missing_in(self, now: Counts) -> str:
        """What is not there at all any more, such as "4 blobs"; "" where nothing is."""
        gone = [
            f"{before:,} {what}"
            for what, before, after in (("blobs", self.blobs, now.blobs), ("links", self.links, now.links))
            if before and not after
        ]
        return " and ".join(gone)


async def read_counts(storage: Storage) -> Counts | None:
    """None where no run has left any, or where they can't be read."""
    try:
        known = json.loads(await storage.get(COUNTS))
        return Counts(
            blobs=int(known["blobs"]),
            links=int(known["links"]),
            tagged=_unpack(known.get("tagged", "")),
            untagged=_unpack(known.get("untagged", "")),
            runs=frozenset(map(str, known.get("runs", ()))),
            chosen=frozenset(_unpack(known.get("chosen", ""))),
        )
    except (NotFound, *_DAMAGES):
        return None


async def write_counts(storage: Storage, counts: Counts) -> None:
    known = {
        "blobs": counts.blobs,
        "links": counts.links,
        "tagged": _pack(counts.tagged),
        "untagged": _pack(counts.untagged),
        "chosen": _pack(dict.fromkeys(counts.chosen, 1)),
        "runs": sorted(counts.runs),
    }
    await storage.put(COUNTS, json.dumps(known).encode())


def _pack(numbers: Mapping[str, int]) -> str:
    lines = "".join(f"{number} {name}\n" for name, number in sorted(numbers.items()))
    return base64.b64encode(gzip.compress(lines.encode(), 6, mtime=0)).decode()


def _unpack(text: str) -> dict[str, int]:
    packed = base64.b64decode(text, validate=True)
    lines = gzip.decompress(packed).decode().splitlines() if packed else []
    return {name: int(number) for number, _, name in (line.partition(" ") for line in lines)}
