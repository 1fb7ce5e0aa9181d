"""The inventory of a source that registries may write to while it is listed.

A push writes blobs, layer links, revision and tag; a listing shows blobs first, and of a repository its layers before
its revisions. So a push during the listing can show its manifest without the layers, or an index without its children,
and at the target that would be a tag to something incomplete. What a young link or manifest names and the listing
lacks is therefore looked for by name. The other way round, what gc takes while the listing runs is no damage: where a
manifest's blob is missing, the links to it are looked at again, and those that are gone too do not count.
"""

from __future__ import annotations

from typing import Any, Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import AccessDenied, NotFound, Refused, StorageError
from regstore.events import OnEvent
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.inventory.statements import EDGE_KINDS, Statements
from regstore.storage.base import Storage
from regstore.storage.streams import is_fatal

#: A link written up to this long before the listing began may be part of a push that the listing saw half of.
_PUSH: Final = 60 * 1_000_000
_SQL: Final = Statements("regstore.migrate", "source.sql", **EDGE_KINDS)


async def scan_source(source: Storage, inventory: Inventory, scanning: ScanOptions, on_event: OnEvent) -> None:
    """Fill the inventory: everything listed, every manifest read, pushes during the listing seen whole.

    Refused where symbolic links keep something out of sight.
    """
    inventory.scanned_at = await source.now()
    scanner = Scanner(source, inventory, scanning, on_event)
    await scanner.list_blobs()
    await scanner.list_links()
    _refuse_symbolic_links(source)
    look = _SecondLook(source, inventory, scanning)
    while True:
        await look.blobs()
        await scanner.read_manifests()
        await scanner.find_unreported()
        if not await look.links() | await look.links_to_nothing():
            return


async def is_pull_through(source: Storage) -> bool:
    """Whether it is a pull-through cache, where what is absent was not fetched: no damage."""
    try:
        await source.stat(layout.SCHEDULER_STATE)
    except (NotFound, AccessDenied):
        return False
    return True


def _refuse_symbolic_links(source: Storage) -> None:
    links = sorted(key for key in source.symlinks if key.startswith(layout.PREFIX))
    if links:
        raise Refused(
            f"{source.url} holds symbolic links ({len(links)}, such as {links[0]}); what lies behind them is not seen,"
            " so it would be missing at the target: replace them by bind mounts"
        )


class _SecondLook:
    def __init__(self, source: Storage, inventory: Inventory, scanning: ScanOptions) -> None:
        self._source = source
        self._inventory = inventory
        self._concurrency = scanning.concurrency
        self._young = inventory.scanned_at - _PUSH
        self._asked: set[tuple[Any, ...]] = set()

    def _new(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        found = [tuple(bytes(each) if isinstance(each, bytearray) else each for each in row) for row in rows]
        found = [row for row in found if row not in self._asked]
        self._asked.update(found)
        return found

    async def blobs(self) -> None:
        """Blobs that young links name."""
        rows = _SQL.run(self._inventory, "unlisted_blobs", {"young": self._young}).fetchall()
        found: list[tuple[bytes, int, int]] = []

        async def look(row: tuple[Any, ...]) -> None:
            (raw,) = row
            try:
                info = await self._source.stat(layout.blob_key(Digest.from_raw(raw)))
            except StorageError as error:
                if is_fatal(error):
                    raise
                return
            found.append((raw, info.size, info.mtime))

        await for_each(self._new(rows), look, concurrency=self._concurrency)
        self._inventory.insert_rows("blob", {"digest": "binary", "size": "int64", "mtime": "int64"}, found)

    async def links(self) -> bool:
        """Links to what young manifests and tags name; whether there were any that the listing lacks."""
        rows = _SQL.run(self._inventory, "unlisted_links", {"young": self._young}).fetchall()
        found: list[tuple[str, int, bytes, bytes, int]] = []

        async def look(row: tuple[Any, ...]) -> None:
            repository, name, raw, is_manifest = row
            make = layout.RevisionLinkKey if is_manifest else layout.LayerLinkKey
            try:
                body = await self._source.get(layout.encode(make(name, Digest.from_raw(raw))))
            except StorageError as error:
                if is_fatal(error):
                    raise
                return
            target = layout.parse_link(body)
            if target is not None:
                table = "revision_link" if is_manifest else "layer_link"
                found.append((table, repository, raw, target.raw, len(body)))

        await for_each(self._new(rows), look, concurrency=self._concurrency)
        for table in ("layer_link", "revision_link"):
            chosen = [row for row in found if row[0] == table]
            self._inventory.insert(
                table,
                {
                    "repository": ("int32", [row[1] for row in chosen]),
                    "digest": ("binary", [row[2] for row in chosen]),
                    "target": ("binary", [row[3] for row in chosen]),
                    "size": ("int64", [row[4] for row in chosen]),
                    "mtime": ("int64", [self._inventory.scanned_at] * len(chosen)),
                },
            )
        return bool(found)

    async def links_to_nothing(self) -> bool:
        """Links that name a missing manifest: forget those that are gone by now; whether a tag has moved."""
        rows = _SQL.run(self._inventory, "links_to_nothing").fetchall()
        moved: list[tuple[Any, ...]] = []

        async def look(row: tuple[Any, ...]) -> None:
            table, repository, name, raw, tag, target = row
            key: layout.Key = layout.TagCurrentKey(name, tag)
            if table != "tag":
                make = layout.RevisionLinkKey if table == "revision_link" else layout.LayerLinkKey
                key = make(name, Digest.from_raw(raw))
            label, value = ("name", tag) if table == "tag" else ("digest", raw)
            try:
                found = layout.parse_link(await self._source.get(layout.encode(key)))
            except NotFound:
                given = {"repository": repository, "label": value}
                _SQL.run(self._inventory, "forget_link", given, table=table, column=label)
                return
            except StorageError as error:
                if is_fatal(error):
                    raise
                return  # it may stand
            if table == "tag" and found is not None and found.raw != target:
                moved.append((found.raw, repository, tag))

        await for_each(self._new(rows), look, concurrency=self._concurrency)
        for raw, repository, tag in moved:
            given = {"target": raw, "now": self._inventory.scanned_at, "repository": repository, "tag": tag}
            _SQL.run(self._inventory, "moved_tag", given)
        return bool(moved)
