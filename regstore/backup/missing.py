"""What a listing lacked, asked for by name: blobs, and links that a manifest needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeAlias

from regstore import layout
from regstore.backup.statements import SQL
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import AccessDenied, IntegrityError, StorageError
from regstore.inventory.inventory import Inventory
from regstore.layout import LayerLinkKey, RevisionLinkKey
from regstore.state.journal import UNLINK, find_runs, read_parts, read_seen
from regstore.storage.base import Storage
from regstore.storage.streams import is_fatal

#: A link that a manifest needs and no listing showed.
Link: TypeAlias = LayerLinkKey | RevisionLinkKey


class Missing:
    """What is found joins the inventory."""

    def __init__(self, storage: Storage, inventory: Inventory, concurrency: int) -> None:
        self._storage = storage
        self._inventory = inventory
        self._concurrency = concurrency

    def absent(self, names: Collection[str]) -> set[Digest]:
        """What these repositories name that is not among the blobs."""
        rows = SQL.run(self._inventory, "absent", {"names": sorted(names)}).fetchall()
        return {Digest.from_raw(bytes(raw)) for (raw,) in rows}

    async def find_blobs(self, digests: Collection[Digest]) -> int:
        """Ask for these, and take those that are there; how many."""
        rows = SQL.run(self._inventory, "present", {"digests": [one.raw for one in digests]}).fetchall()
        known = {bytes(raw) for (raw,) in rows}
        found: list[tuple[bytes, int, int]] = []

        async def look(digest: Digest) -> None:
            try:
                info = await self._storage.stat(layout.blob_key(digest))
            except StorageError as error:
                if is_fatal(error):
                    raise
                return  # absent, or not to be seen: what needs it is left out, and named
            found.append((digest.raw, info.size, info.mtime))

        await for_each(
            [digest for digest in digests if digest.raw not in known], look, concurrency=self._concurrency
        )
        self._inventory.insert(
            "blob",
            {
                "digest": ("binary", [row[0] for row in found]),
                "size": ("int64", [row[1] for row in found]),
                "mtime": ("int64", [row[2] for row in found]),
            },
        )
        return len(found)

    async def find_links(self, names: Collection[str], asked: set[Link]) -> bool:
        """Links in these repositories that a push wrote while the listing ran, or that gc took while it ran. Whether
        there was any. asked: these are not asked for; gets those that are."""
        if not names:
            return False
        rows = SQL.run(self._inventory, "unlinked", {"names": sorted(names)}).fetchall()
        wanted: set[Link] = {
            (RevisionLinkKey if is_manifest else LayerLinkKey)(name, Digest.from_raw(bytes(raw)))
            for name, raw, is_manifest in rows
        } - asked
        asked |= wanted
        found: dict[Link, Digest] = {}

        async def look(key: Link) -> None:
            try:
                body = await self._storage.get(layout.encode(key))
            except StorageError as error:
                if is_fatal(error):
                    raise
                return
            target = layout.parse_link(body)
            if target is not None:
                found[key] = target

        await for_each(sorted(wanted, key=str), look, concurrency=self._concurrency)
        found |= await self._taken_by_gc(wanted - found.keys())
        self._add_links(found)
        if found:
            await self.find_blobs(set(found.values()))
        return bool(found)

    def _add_links(self, found: Mapping[Link, Digest]) -> None:
        ids = dict(SQL.run(self._inventory, "repository_numbers").fetchall())
        for table, kind in (("layer_link", LayerLinkKey), ("revision_link", RevisionLinkKey)):
            chosen = [(key, target) for key, target in found.items() if isinstance(key, kind)]
            self._inventory.insert(
                table,
                {
                    "repository": ("int32", [ids[key.name] for key, _ in chosen]),
                    "digest": ("binary", [key.digest.raw for key, _ in chosen]),
                    "target": ("binary", [target.raw for _, target in chosen]),
                    "size": ("int64", [71] * len(chosen)),
                    "mtime": ("int64", [0] * len(chosen)),
                },
            )

    async def _taken_by_gc(self, wanted: Collection[Link]) -> dict[Link, Digest]:
        """Links that gc took from a repository where a manifest names them: it gives them back, as it does not know
        yet of that manifest, or was killed before it did. Only what its journals hold (a layer link is a right to
        read), and not what stood again since."""
        found: dict[Link, Digest] = {}
        if not wanted:
            return found
        keys = {layout.encode(key): key for key in wanted}
        try:
            for record in await find_runs(self._storage):
                seen = await read_seen(self._storage, record)
                async for entries in read_parts(self._storage, record.parts):
                    for entry in entries:
                        key = keys.get(entry.key)
                        if key is None or entry.op != UNLINK or entry.body is None or entry.key in seen:
                            continue
                        target = layout.parse_link(entry.body)
                        if target is not None:
                            found[key] = target
        except (AccessDenied, IntegrityError):
            pass  # what regstore keeps beside the registry need not be readable for a backup of it
        return found
