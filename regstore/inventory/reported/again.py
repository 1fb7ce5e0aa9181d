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
    look = Look(storage, Way(wanted=total, blobs=blobs), concurrency=concurrency, on_event=on_event)
    for first in range(1, total + 1, _SLICE):
        given = {"first": first, "last": first + _SLICE - 1}
        rows = _SQL.run(inventory, "slice", given).fetchall()
        await look.at([(bytes(raw), mtime) for raw, mtime in rows])
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How blobs are looked at again. wanted: how many; blobs: of so many in the store."""

    wanted: int
    blobs: int

    @property
    def by_listing(self) -> bool:
        return self.wanted >= self._pages * _HEADS_A_PAGE

    def ranges(self, some: int) -> int:
        """Into how many so many of the wanted ones are cut, at most."""
        return max(1, round(self._pages * some / self.wanted))

    @property
    def _pages(self) -> int:
        return max(1, round(self.blobs / _PAGE))


class Look:
    """One look, at some blobs after others."""

    def __init__(self, storage: Storage, way: Way, *, concurrency: int, on_event: OnEvent = ignore) -> None:
        self._storage = storage
        self._way = way
        self._concurrency = concurrency
        self._on_event = on_event
        self._done = 0
        self._found: list[tuple[bytes, int, int]] = []

    async def at(self, rows: Sequence[tuple[bytes, int | None]]) -> None:
        """(digest, the time that is known of it), in the order of their keys."""
        if self._way.by_listing:
            await self._list(rows, ranges=self._way.ranges(len(rows)))
        else:
            await self._ask(rows)

    def taken(self) -> list[tuple[bytes, int, int]]:
        """(digest, size, mtime) of what was found since the last call."""
        found, self._found = self._found, []
        return found

    async def _ask(self, rows: Sequence[tuple[bytes, int | None]]) -> None:
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

    async def _list(self, rows: Sequence[tuple[bytes, int | None]], *, ranges: int) -> None:
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
        self._on_event(
            Progress(phase="looking again at blobs", done=self._done, total=self._way.wanted, unit="blobs")
        )


def _time(shown: int, known: int | None) -> int:
    """Of what HEAD shows and the report knows."""
    if known is not None and known // _SECOND == shown // _SECOND:
        return max(known, shown)
    return shown if shown % _SECOND else shown + _SECOND - 1


def _key(raw: bytes) -> str:
    return layout.blob_key(Digest.from_raw(raw))
