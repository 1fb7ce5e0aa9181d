"""Manifests that others list, in an inventory whose blobs were not listed."""

from __future__ import annotations

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import NotFound
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import Scanner
from regstore.manifest import EdgeKind
from regstore.storage.base import ObjectInfo, Storage


async def read_children(storage: Storage, inventory: Inventory, scanner: Scanner, *, concurrency: int) -> None:
    """Manifests that are listed and no revisions of their repositories: a scan finds them by their blobs, which are not
    listed here, so each is asked for. What these list may be what is to go."""
    while unread := _unread(inventory):
        there: list[tuple[bytes, ObjectInfo]] = []
        missing: list[bytes] = []

        async def look(
            digest: Digest, there: list[tuple[bytes, ObjectInfo]] = there, missing: list[bytes] = missing
        ) -> None:
            try:
                there.append((digest.raw, await storage.stat(layout.blob_key(digest))))
            except NotFound:
                missing.append(digest.raw)

        await for_each(unread, look, concurrency=concurrency)
        inventory.insert_rows(
            "main.blob",
            {"digest": "binary", "size": "int64", "mtime": "int64"},
            [(raw, info.size, info.mtime) for raw, info in there],
        )
        inventory.insert_rows(
            "main.manifest",
            {"digest": "binary", "state": "utf8", "reason": "utf8", "size": "int64"},
            [(raw, "missing", "its blob is missing", 0) for raw in missing],
        )
        await scanner.read_manifests()


def _unread(inventory: Inventory) -> list[Digest]:
    """Manifests that others list, and that nothing is known of."""
    rows = inventory.all(
        "select distinct e.target from edge e anti join manifest m on m.digest = e.target"
        f" where e.kind = {int(EdgeKind.MANIFEST)}"
    )
    return [Digest.from_raw(bytes(raw)) for (raw,) in rows]
