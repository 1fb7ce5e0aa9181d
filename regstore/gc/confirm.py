"""A second look at revisions that seem broken, before `--drop-broken-revisions` takes any: one bad read is no damage.

Bytes are wrong when two reads here gave the same wrong ones, after the scan's; a manifest is missing when it was absent
each time; a link is damaged when it holds what it held. What can't be read now, or reads differently each time, is not
known to be broken: it protects its repository as before, and never goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import NotFound, StorageError
from regstore.gc.policy import BrokenScope
from regstore.inventory.inventory import Inventory
from regstore.inventory.manifests import ReadsManifests
from regstore.layout import RevisionLinkKey
from regstore.storage.base import Storage
from regstore.storage.streams import is_fatal

#: The state of a manifest of which nothing is known: it is neither read nor known to be broken.
UNSURE: Final = "unsure"


async def confirm_broken(
    storage: Storage,
    inventory: Inventory,
    scanner: ReadsManifests,
    scopes: Sequence[BrokenScope],
    *,
    concurrency: int,
) -> None:
    """Read again what the scan found wrong in the scopes: at most two GETs a revision. What proves right is read into
    the inventory; what stays unsure is so there."""
    if not scopes:
        return
    await _confirm_links(storage, inventory, scopes, concurrency)
    await _confirm_manifests(storage, inventory, scopes, concurrency)
    await scanner.read_manifests()


def _may_go(scopes: Sequence[BrokenScope], name: str, digest: Digest) -> bool:
    return any(scope.name is None or (scope.name == name and scope.digest in (None, digest)) for scope in scopes)


async def _confirm_links(
    storage: Storage, inventory: Inventory, scopes: Sequence[BrokenScope], concurrency: int
) -> None:
    rows = [
        (repository, name, Digest.from_raw(bytes(raw)), body)
        for repository, name, raw, body in inventory.all(
            """
            select r.id, r.name, x.digest, x.body from revision_link x join repository r on r.id = x.repository
            where x.target is distinct from x.digest and x.body is not null
            """
        )
    ]
    changed: list[tuple[int, Digest, Digest | None]] = []

    async def look(row: tuple[int, str, Digest, bytes]) -> None:
        repository, name, digest, held = row
        try:
            body = await storage.get(layout.encode(RevisionLinkKey(name, digest)))
        except StorageError as error:
            if is_fatal(error):
                raise
            body = None
        if body != bytes(held):
            changed.append((repository, digest, digest if body == layout.link_body(digest) else None))

    await for_each((row for row in rows if _may_go(scopes, row[1], row[2])), look, concurrency=concurrency)
    for repository, digest, target in changed:
        inventory.execute(
            "update revision_link set target = ?, body = null where repository = ? and digest = ?",
            [target.raw if target else None, repository, digest.raw],
        )


async def _confirm_manifests(
    storage: Storage, inventory: Inventory, scopes: Sequence[BrokenScope], concurrency: int
) -> None:
    rows = [
        (name, Digest.from_raw(bytes(raw)), state)
        for name, raw, state in inventory.all(
            """
            select r.name, m.digest, m.state from manifest m join revision_link x using (digest)
            join repository r on r.id = x.repository where m.state in ('missing', 'mismatch')
            """
        )
    ]
    chosen = {digest: state for name, digest, state in rows if _may_go(scopes, name, digest)}
    right: list[Digest] = []
    unsure: dict[Digest, str] = {}

    async def look(digest: Digest) -> None:
        key = layout.blob_key(digest)
        try:
            bodies = [await storage.get(key) for _ in range(2)]
        except NotFound:
            if chosen[digest] != "missing":
                unsure[digest] = "it was there, and is not any more"
        except StorageError as error:
            if is_fatal(error):
                raise
            unsure[digest] = str(error)
        else:
            if any(digest.matches(body) for body in bodies):
                right.append(digest)
            elif chosen[digest] == "missing" or bodies[0] != bodies[1]:
                unsure[digest] = "it reads differently each time"

    await for_each(sorted(chosen, key=str), look, concurrency=concurrency)
    for digest in right:
        inventory.execute("delete from manifest where digest = ?", [digest.raw])
    for digest, reason in unsure.items():
        inventory.execute(
            "update manifest set state = ?, reason = ? where digest = ?", [UNSURE, reason, digest.raw]
        )
