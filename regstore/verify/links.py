"""Links of which a scan says too little: what is archived, and histories and signatures that LIST did not prove.

No registry needs the latter to serve an image, so a scan does not read them; a verification does.
"""

from __future__ import annotations

from typing import Any, Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import NotFound, StorageError
from regstore.inventory.inventory import Inventory
from regstore.inventory.links import LINK_MAX
from regstore.inventory.sample import other_blobs
from regstore.inventory.statements import Statements
from regstore.layout import LayerLinkKey, RevisionLinkKey, SignatureLinkKey, TagCurrentKey, TagIndexKey
from regstore.storage.base import Storage
from regstore.storage.outage import OutageWatch

_SQL: Final = Statements("regstore.verify", "links.sql", repositories=layout.REPOSITORIES)
_ARCHIVED: Final = {
    "key": "utf8",
    "class": "utf8",
    "area": "utf8",
    "repository": "utf8",
    "digest": "binary",
    "tag": "utf8",
}
_ODD: Final = {
    "area": "utf8",
    "repository": "int32",
    "tag": "utf8",
    "revision": "binary",
    "digest": "binary",
    "size": "int64",
    "mtime": "int64",
    "body": "binary",
    "unread": "utf8",
}


def find_archived_links(inventory: Inventory) -> None:
    """Make verify_archived_link what the listing says now."""
    found: list[tuple[str, str, str, str, bytes | None, str | None]] = []
    for text, name in _SQL.run(inventory, "archived").fetchall():
        match layout.decode(text):
            case LayerLinkKey() as key:
                found.append((text, name, "layer", key.name, key.digest.raw, None))
            case RevisionLinkKey() as key:
                found.append((text, name, "revision", key.name, key.digest.raw, None))
            case TagCurrentKey() as key:
                found.append((text, name, "tag", key.name, None, key.tag))
    _SQL.run(inventory, "forget_archived")
    inventory.insert_rows("verify_archived_link", _ARCHIVED, found)


async def read_odd_links(storage: Storage, inventory: Inventory, *, concurrency: int) -> None:
    """Make verify_odd_link those whose body is not the digest of their path, or that can't be read. A GET each of what
    the listing did not prove."""
    odd: list[tuple[Any, ...]] = []
    watch = OutageWatch(storage, other_blobs(inventory))

    async def look(row: tuple[Any, ...]) -> None:
        name, area, repository, tag, revision, raw, size, mtime = row
        digest = Digest.from_raw(bytes(raw))
        key: layout.Key = TagIndexKey(name, tag, digest)
        if area == "signature":
            key = SignatureLinkKey(name, Digest.from_raw(bytes(revision)), digest)
        body = None
        if size <= LINK_MAX:
            try:
                body = await storage.get(layout.encode(key))
            except NotFound:
                watch.good()
                return
            except StorageError as error:
                await watch.bad(layout.encode(key), error)
                odd.append((area, repository, tag, revision, digest.raw, size, mtime, None, str(error)))
                return
            watch.good()
        if body != layout.link_body(digest):
            odd.append((area, repository, tag, revision, digest.raw, size, mtime, body, None))

    rows = _SQL.run(inventory, "unproven").fetchall()
    await for_each(rows, look, concurrency=concurrency)
    await watch.end()
    _SQL.run(inventory, "forget_odd")
    inventory.insert_rows("verify_odd_link", _ODD, odd)
