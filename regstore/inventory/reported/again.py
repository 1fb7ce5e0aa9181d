"""A second look at chosen blobs of a report, or at such as it lacks: what the store has of them now.

Few of many are asked for one by one, by HEAD. Where a page of a listing shows several of them, it is listed instead:
each LIST begins at the next that is wanted, so there are never more than a whole listing has. Digests are spread
evenly, so their share of all blobs says which is cheaper.

HEAD tells a time in whole seconds. Where that agrees with the report's, the report's counts; else the end of the
second, for nothing must look older than it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.concurrency import for_each, in_thread
from regstore.digest import Digest
from regstore.errors import NotFound
from regstore.events import OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import EDGE_KINDS, Statements
from regstore.storage.base import Storage

_SQL: Final = Statements("regstore.inventory.reported", "again.sql", **EDGE_KINDS)
#: Digests held in memory at a time.
_SLICE: Final = 50_000
#: Keys of a page of a listing.
_PAGE: Final = 1000
#: A page costs about so many HEADs, in money and in processor time.
_HEADS_A_PAGE: Final = 10
_SECOND: Final = 1_000_000
UNLISTED_CHILDREN: Final = _SQL.text("unlisted_children")
UNLISTED: Final = _SQL.text("unlisted")


@dataclass(frozen=True, slots=True)
class Looked:
    """blobs: how many were looked at; otherwise: how many of them are not as the inventory had them; gone: of these,
    those that are not there. The temporary table looked_otherwise(digest, gone) names them."""

    blobs: int = 0
    otherwise: int = 0
    gone: int = 0

    @property
    def found(self) -> int:
        """There, and not as the inventory had them."""
        return self.otherwise - self.gone


async def look_again(
    storage: Storage, inventory: Inventory, wanted: str, *, concurrency: int, on_event: OnEvent = ignore
) -> Looked:
    """Bring `blob` up to date, of the digests that a query gives (`digest`) and that were not looked at before. Raises
    the first error: what can't be looked at is not judged."""
    [(total, blobs)] = await in_thread(lambda: _SQL.run(inventory, "wanted", None, wanted=wanted).fetchall())
    if not total:
        return Looked()
    look = _Look(storage, concurrency, on_event, total)
    pages = max(1, round(blobs / _PAGE))
    by_listing = total >= pages * _HEADS_A_PAGE
    for first in range(1, total + 1, _SLICE):
        given = {"first": first, "last": first + _SLICE - 1}
        rows = [(bytes(raw), mtime) for raw, mtime in _SQL.run(inventory, "slice", given).fetchall()]
        if by_listing:
            await look.list(rows, ranges=max(1, round(pages * len(rows) / total)))
        else:
            await look.ask(rows)
        inventory.insert_rows("looked", {"digest": "binary", "size": "int64", "mtime": "int64"}, look.taken())
    await in_thread(_SQL.run, inventory, "compare")
    [(otherwise, gone)] = await in_thread(lambda: _SQL.run(inventory, "take_over").fetchall())
    return Looked(total, otherwise, gone)


def these(digests: Iterable[Digest]) -> str:
    """For `look_again`."""
    named = ", ".join(f"unhex('{digest.raw.hex()}')" for digest in digests)
    return f"select unnest([{named}]) as digest"


def forget_absent(inventory: Inventory) -> None:
    """What was looked for and not there is looked for again."""
    _SQL.run(inventory, "forget_absent")


def forget_missing(inventory: Inventory) -> None:
    """Blobs of manifests that turned out to be missing are none."""
    _SQL.run(inventory, "forget_missing")


class _Look:
    def __init__(self, storage: Storage, concurrency: int, on_event: OnEvent, total: int) -> None:
        self._storage = storage
        self._concurrency = concurrency
        self._on_event = on_event
        self._total = total
        self._done = 0
        self._found: list[tuple[bytes, int, int]] = []

    def taken(self) -> list[tuple[bytes, int, int]]:
        """(digest, size, mtime) of what was found since the last call."""
        found, self._found = self._found, []
        return found

    async def ask(self, rows: Sequence[tuple[bytes, int | None]]) -> None:
        async def look(row: tuple[bytes, int | None]) -> None:
            raw, mtime = row
            try:
                info = await self._storage.stat(_key(raw))
            except NotFound:
                pass
            else:
                self._found.append((raw, info.size, _time(info.mtime, mtime)))
            self._tell(1)

        await for_each(rows, look, concurrency=self._concurrency)

    async def list(self, rows: Sequence[tuple[bytes, int | None]], *, ranges: int) -> None:
        """Of rows in the order of their keys; in so many ranges at most."""
        count = -(-len(rows) // min(ranges, self._concurrency))
        pieces = [rows[start : start + count] for start in range(0, len(rows), count)]
        await for_each(pieces, self._list_range, concurrency=self._concurrency)

    async def _list_range(self, rows: Sequence[tuple[bytes, int | None]]) -> None:
        keys = {_key(raw): raw for raw, _ in rows}
        order = list(keys)
        at = 0
        while at < len(order):
            passed = at
            async for page in self._storage.list(layout.BLOBS, start_after=order[at][:-1]):
                for position, key in enumerate(page.keys):
                    if key in keys:
                        self._found.append((keys[key], page.sizes[position], page.mtimes[position]))
                last = page.keys[-1] if page.keys else ""
                while at < len(order) and (page.complete or order[at] <= last):
                    at += 1
                if at > passed:
                    break  # the next that is wanted may be far away
            self._tell(at - passed)

    def _tell(self, more: int) -> None:
        self._done += more
        self._on_event(Progress(phase="looking again at blobs", done=self._done, total=self._total, unit="blobs"))


def _time(shown: int, known: int | None) -> int:
    """Of what HEAD shows and the report knows."""
    if known is not None and known // _SECOND == shown // _SECOND:
        return max(known, shown)
    return shown if shown % _SECOND else shown + _SECOND - 1


def _key(raw: bytes) -> str:
    return layout.blob_key(Digest.from_raw(raw))
