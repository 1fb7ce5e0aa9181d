"""Rows of the inventory as what `plan_pack` takes, a repository at a time.

Repositories are read some at a time, so many that their rows are a bounded number; one that has more is read alone.
Where they are not all read at once, the rows are put in the order of the repositories first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from regstore.backup.plan import KnownManifest, Listing
from regstore.digest import Digest
from regstore.inventory.inventory import Inventory
from regstore.inventory.reachability import Reachability
from regstore.inventory.statements import Statements
from regstore.manifest import EdgeKind

#: Rows of links and of what manifests name that are read together.
_ROWS: Final = 50_000
_FETCHED: Final = 10_000
_SQL: Final = Statements("regstore.backup", "listings.sql")
_SECTIONS: Final = (
    "layer_links",
    "revision_links",
    "legacy_revisions",
    "signature_links",
    "tag_index",
    "tags",
    "edges",
    "manifests",
    "blobs",
)
_KINDS: Final = {int(kind): kind for kind in EdgeKind}
#: A repository with the manifests and the blobs (their sizes) that it may need.
Listed = tuple[Listing, dict[Digest, KnownManifest], dict[Digest, int]]


def mark(inventory: Inventory) -> None:
    """Compute what each repository reaches, before `listings`."""
    Reachability(inventory, "backup_reach").add(_SQL.text("roots"))


def listings(inventory: Inventory, names: Sequence[str]) -> Iterator[Listed]:
    """Each of these repositories. names: sorted."""
    with inventory.given("given", {"place": ("int32", range(len(names))), "name": ("utf8", names)}):
        _SQL.run(inventory, "chosen")
    ranges = list(_ranges(len(names), _SQL.run(inventory, "weights").fetchall()))
    rows = {section: f"({_SQL.text(section)})" for section in _SECTIONS}
    if len(ranges) > 1:
        for section, query in rows.items():
            rows[section] = f"backup_{section}"
            _SQL.run(inventory, "sorted", table=rows[section], query=query)
    for first, last in ranges:
        yield from _Batch(inventory, rows, names, first, last).listed()
    if len(ranges) > 1:
        for table in rows.values():
            _SQL.run(inventory, "drop", table=table)


def _ranges(number: int, weights: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The first and last place of those that are read together, of `number` places. weights: (place, rows) of those
    that have any, in order."""
    first = held = 0
    for place, rows in weights:
        if held and held + rows > _ROWS:
            yield first, place - 1
            first, held = place, 0
        held += rows
    if first < number:
        yield first, number - 1


class _Batch:
    """The repositories of a range of places. rows: for each section SQL for its rows."""

    def __init__(
        self, inventory: Inventory, rows: dict[str, str], names: Sequence[str], first: int, last: int
    ) -> None:
        self._inventory = inventory
        self._sections = rows
        self._first, self._last = first, last
        self._listings = {place: Listing(name=names[place]) for place in range(first, last + 1)}

    def _rows(self, section: str) -> Iterator[tuple[Any, ...]]:
        given = {"first": self._first, "last": self._last}
        result = _SQL.run(self._inventory, "between", given, table=self._sections[section])
        while rows := result.fetchmany(_FETCHED):
            yield from rows

    def listed(self) -> Iterator[Listed]:
        manifests, blobs = self._read()
        for place, listing in self._listings.items():
            yield listing, manifests.pop(place, {}), blobs.pop(place, {})

    def _read(self) -> tuple[dict[int, dict[Digest, KnownManifest]], dict[int, dict[Digest, int]]]:
        """Fill the listings; by their places what is known of manifests, and sizes of blobs."""
        digest, listings = _Digests(), self._listings
        for place, raw, target in self._rows("layer_links"):
            listings[place].layers[digest(raw)] = digest(target)
        for place, raw, target, fault in self._rows("revision_links"):
            if target is not None and bytes(raw) == bytes(target):
                listings[place].revisions.add(digest(raw))
            else:
                listings[place].broken[digest(raw)] = fault
        for place, raw, target, fault in self._rows("legacy_revisions"):
            if target is not None and bytes(raw) == bytes(target):
                listings[place].legacy.add(digest(raw))
            else:
                listings[place].broken[digest(raw)] = fault
        for place, revision, raw in self._rows("signature_links"):
            listings[place].signatures.add((digest(revision), digest(raw)))
        for place, tag, raw in self._rows("tag_index"):
            listings[place].history.add((tag, digest(raw)))
        for place, tag, target, mtime, fault in self._rows("tags"):
            listings[place].tags[tag] = (None if target is None else digest(target), mtime)
            if target is None:
                listings[place].broken_tags[tag] = fault
        manifests = self._manifests(digest)
        blobs: dict[int, dict[Digest, int]] = defaultdict(dict)
        for place, raw, size in self._rows("blobs"):
            blobs[place][digest(raw)] = size
        return manifests, blobs

    def _manifests(self, digest: _Digests) -> dict[int, dict[Digest, KnownManifest]]:
        edges: dict[tuple[int, bytes], set[tuple[EdgeKind, Digest]]] = defaultdict(set)
        for place, source, target, kind in self._rows("edges"):
            edges[place, bytes(source)].add((_KINDS[kind], digest(target)))
        manifests: dict[int, dict[Digest, KnownManifest]] = defaultdict(dict)
        for place, raw, state, reason, media_type in self._rows("manifests"):
            named = sorted(edges.pop((place, bytes(raw)), ()), key=_in_order)
            manifests[place][digest(raw)] = KnownManifest(
                state, reason or "", media_type or "", tuple((target, kind) for kind, target in named)
            )
        return manifests


def _in_order(edge: tuple[EdgeKind, Digest]) -> tuple[EdgeKind, bytes]:
    return edge[0], edge[1].raw


class _Digests:
    """From raw bytes, each made once."""

    def __init__(self) -> None:
        self._made: dict[bytes, Digest] = {}

    def __call__(self, raw: bytes) -> Digest:
        raw = bytes(raw)
        made = self._made.get(raw)
        if made is None:
            made = self._made[raw] = Digest.from_raw(raw)
        return made
