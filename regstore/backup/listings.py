"""Rows of the inventory as what `plan_pack` takes, a repository at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from regstore.backup.plan import KnownManifest, Listing
from regstore.backup.statements import SQL
from regstore.digest import Digest
from regstore.inventory.inventory import Inventory
from regstore.inventory.reachability import Reachability
from regstore.manifest import EdgeKind

#: Repositories asked for together.
_BATCH: Final = 200


def mark(inventory: Inventory) -> None:
    """Compute what each repository reaches, before `listings`."""
    Reachability(inventory, "backup_reach").add(SQL.text("roots"))


def listings(
    inventory: Inventory, names: Sequence[str]
) -> Iterator[tuple[Listing, dict[Digest, KnownManifest], dict[Digest, int]]]:
    """Each of these repositories with the manifests and the blobs (their sizes) that it may need."""
    for start in range(0, len(names), _BATCH):
        yield from _batch(inventory, names[start : start + _BATCH])


def _batch(
    inventory: Inventory, names: Sequence[str]
) -> Iterator[tuple[Listing, dict[Digest, KnownManifest], dict[Digest, int]]]:
    given = {"names": list(names)}

    def rows(name: str) -> list[tuple[Any, ...]]:
        return SQL.run(inventory, name, given).fetchall()

    digest = _Digests()
    listings = {name: Listing(name=name) for name in names}
    for name, raw, target in rows("layer_links"):
        if target is not None:
            listings[name].layers[digest(raw)] = digest(target)
    for name, raw, target, fault in rows("revision_links"):
        if target is not None and bytes(raw) == bytes(target):
            listings[name].revisions.add(digest(raw))
        else:
            listings[name].broken[digest(raw)] = fault
    for name, raw in rows("legacy_revisions"):
        listings[name].legacy.add(digest(raw))
    for name, revision, raw in rows("signature_links"):
        listings[name].signatures.add((digest(revision), digest(raw)))
    for name, tag, raw in rows("tag_index"):
        listings[name].history.add((tag, digest(raw)))
    for name, tag, target, mtime, fault in rows("tags"):
        listings[name].tags[tag] = (None if target is None else digest(target), mtime)
        if target is None:
            listings[name].broken_tags[tag] = fault
    manifests: dict[str, dict[Digest, KnownManifest]] = defaultdict(dict)
    for name, raw, state, reason, media_type, edges in rows("manifests"):
        pairs = sorted({(edge["kind"], bytes(edge["target"])) for edge in edges or ()})
        manifests[name][digest(raw)] = KnownManifest(
            state,
            reason or "",
            media_type or "",
            tuple((digest(target), EdgeKind(kind)) for kind, target in pairs),
        )
    blobs: dict[str, dict[Digest, int]] = defaultdict(dict)
    for name, raw, size in rows("blobs"):
        blobs[name][digest(raw)] = size
    for name in names:
        yield listings[name], manifests[name], blobs[name]


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
