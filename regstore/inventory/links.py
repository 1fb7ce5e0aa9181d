"""Bodies of links: told by size and ETag where that can be (`ingest.sql` by digest, here for tags), else read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from regstore import layout
from regstore.concurrency import for_each, in_thread
from regstore.digest import Digest
from regstore.errors import NotFound, StorageError
from regstore.events import OnEvent, Progress
from regstore.inventory.inventory import Columns, Inventory
from regstore.inventory.sample import note_not_given
from regstore.inventory.statements import Statements
from regstore.storage.base import Storage
from regstore.storage.outage import OutageWatch

#: A link longer than this holds no digest; it is not read.
LINK_MAX: Final = 1024
#: Links held in memory at a time.
_SLICE: Final = 50_000
_SQL: Final = Statements(
    "regstore.inventory",
    "links.sql",
    unknown=f"target is null and body is null and unread is null and size <= {LINK_MAX}",
)
_COLUMNS: Final = {"layer_link": "digest", "revision_link": "digest", "tag": "name"}


class LinkBodies:
    """Sets target, body and unread of links. One GET for each that the listing does not tell."""

    def __init__(self, storage: Storage, inventory: Inventory, concurrency: int, on_event: OnEvent) -> None:
        self._storage = storage
        self._inventory = inventory
        self._concurrency = concurrency
        self._on_event = on_event
        self._links_read = 0

    async def resolve(self) -> None:
        """After a listing."""
        _SQL.run(self._inventory, "forget_missing_manifests")
        _SQL.run(self._inventory, "resolve_tags")
        await self._read()

    async def _read(self) -> None:
        """Read what the listing did not prove, and set target and body."""
        found = {table for (table,) in _SQL.run(self._inventory, "unknown").fetchall()}
        if not found:
            return
        names = dict(self._inventory.all("select id, name from repository"))
        for table in [table for table in _COLUMNS if table in found]:
            column, full = _COLUMNS[table], True
            watch = OutageWatch(self._storage, partial(self._other_links, table, column))
            while full:
                rows = _SQL.run(
                    self._inventory, "some_unknown", table=table, column=column, most=str(_SLICE)
                ).fetchall()
                full = len(rows) == _SLICE
                await self._read_slice(table, column, rows, names, watch)
            await watch.end()

    def _other_links(self, table: str, column: str, most: int, failed: Sequence[str]) -> list[str]:
        given = {"most": most + len(failed)}
        rows = _SQL.run(self._inventory, "others", given, table=table, column=column).fetchall()
        bad = set(failed)
        keys = (_link_key(table, name, label) for name, label in rows)
        return [key for key in keys if key not in bad][:most]

    async def _read_slice(
        self,
        table: str,
        column: str,
        rows: Sequence[tuple[int, Any]],
        names: dict[int, str],
        watch: OutageWatch,
    ) -> None:
        bodies: list[tuple[int, Any, bytes | None, str | None]] = []
        gone: list[tuple[int, Any]] = []

        async def read(row: tuple[int, Any]) -> None:
            repository, label = row
            key = _link_key(table, names[repository], label)
            try:
                body = await self._storage.get(key)
            except NotFound:
                gone.append(row)
            except StorageError as error:
                await note_not_given(self._inventory, watch, key, error)
                bodies.append((repository, label, None, str(error)))
                return
            else:
                bodies.append((repository, label, body, None))
            watch.good()
            self._links_read += 1
            self._on_event(Progress(phase="reading links", done=self._links_read, unit="links"))

        await for_each(rows, read, concurrency=self._concurrency)
        await in_thread(self._store_bodies, table, column, bodies, gone)

    def _store_bodies(
        self,
        table: str,
        column: str,
        bodies: Sequence[tuple[int, Any, bytes | None, str | None]],
        gone: Sequence[tuple[int, Any]],
    ) -> None:
        kind = "utf8" if column == "name" else "binary"
        parsed = [None if body is None else layout.parse_link(body) for _, _, body, _ in bodies]
        own = [label if column == "digest" else None for _, label, _, _ in bodies]
        targets = [digest.raw if digest else None for digest in parsed]
        kept = [
            None if target is not None and (column == "name" or target == digest) else body
            for target, digest, (_, _, body, _) in zip(targets, own, bodies, strict=True)
        ]
        found: Columns = {
            "repository": ("int32", [row[0] for row in bodies]),
            "label": (kind, [row[1] for row in bodies]),
            "target": ("binary", targets),
            "body": ("binary", kept),
            "unread": ("utf8", [row[3] for row in bodies]),
        }
        with self._inventory.given("found", found):
            _SQL.run(self._inventory, "told", table=table, column=column)
        if gone:
            labels: Columns = {
                "repository": ("int32", [row[0] for row in gone]),
                "label": (kind, [row[1] for row in gone]),
            }
            with self._inventory.given("gone", labels):
                _SQL.run(self._inventory, "gone", table=table, column=column)


def _link_key(table: str, name: str, label: Any) -> str:
    match table:
        case "layer_link":
            return layout.encode(layout.LayerLinkKey(name, Digest.from_raw(bytes(label))))
        case "revision_link":
            return layout.encode(layout.RevisionLinkKey(name, Digest.from_raw(bytes(label))))
        case _:
            return layout.encode(layout.TagCurrentKey(name, label))
