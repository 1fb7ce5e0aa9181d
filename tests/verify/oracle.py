"""What verify must find, said naively: the oracle that the planner's SQL is compared with.

Shared with the planner: the key codec and the manifest parser. Every blob counts as read.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regstore.digest import Digest
from regstore.errors import InvalidManifest
from regstore.layout import link_body
from regstore.manifest import Edge, EdgeKind, Manifest, parse_manifest
from regstore.reference import names_digest
from regstore.verify.fault import FaultKind
from tests.model.gc_oracle import Repository, Store
from tests.model.store import ModelStore

#: (kind, area of a link or "", repository of a link or "", digest or tag)
Name = tuple[FaultKind, str, str, str]
#: Notes a fault, with the tags that it touches.
Add = Callable[[Name, dict[tuple[str, str], bool]], None]


@dataclass(frozen=True)
class Found:
    """faults: each with the tags it touches, and whether the tag itself can't be pulled whole."""

    faults: dict[Name, dict[tuple[str, str], bool]]
    sparse: int
    foreign: int
    leftovers: int


def right(digest: Digest, data: bytes) -> bool:
    return hashlib.new(digest.algorithm, data).hexdigest() == digest.encoded


class _View:
    """One repository: what it follows and needs."""

    def __init__(self, store: Store, repository: Repository) -> None:
        self.store = store
        self.repository = repository
        self.linked = repository.revisions.keys() | repository.layers.keys()
        targets = {link.target for link in repository.tags.values()} - {None}
        self.followed: set[Digest] = set(repository.revisions) | targets | repository.legacy_revisions  # type: ignore
        self.lost: set[Digest] = set()
        while fresh := {child for one in self.followed for child in self._children(one)} - self.followed:
            self.followed |= fresh
        #: source, kind, size, target
        self.named = [
            (source, edge.kind, edge.target.size, edge.target.digest)
            for source in self.followed
            for edge in self._edges(source)
            if edge.kind is not EdgeKind.SUBJECT
        ]
        self.need = [row for row in self.named if self._is_needed(row[1], row[3])]

    def manifest(self, digest: Digest) -> Manifest | None:
        link = self.store.blobs.get(digest)
        if link is None or not right(digest, link.body):
            return None
        try:
            return parse_manifest(link.body)
        except InvalidManifest:
            return None

    def _edges(self, digest: Digest) -> Sequence[Edge]:
        manifest = self.manifest(digest)
        return manifest.edges if manifest else ()

    def _children(self, digest: Digest) -> set[Digest]:
        found = set()
        for edge in self._edges(digest):
            child = edge.target.digest
            if edge.kind is not EdgeKind.MANIFEST or child in self.followed:
                continue
            names = [
                below.target.digest
                for below in self._edges(child)
                if below.kind not in (EdgeKind.SUBJECT, EdgeKind.FOREIGN_LAYER)
            ]
            if child in self.linked:
                found.add(child)
            elif names and all(name in self.linked for name in names):
                found.add(child)
                self.lost.add(child)
        return found

    def _is_needed(self, kind: EdgeKind, target: Digest) -> bool:
        if kind is EdgeKind.MANIFEST:
            return target in self.followed
        return kind is not EdgeKind.FOREIGN_LAYER or target in self.linked

    def stored(self, digest: Digest) -> Digest | None:
        if digest.algorithm == "sha256":
            return digest
        if digest in self.repository.layers:
            return self.repository.layers[digest].target
        return digest if digest in self.followed else None

    @property
    def required(self) -> dict[Digest, Digest | None]:
        return {one: self.stored(one) for one in self.followed | {row[3] for row in self.need}}

    def touched(self, start: Digest) -> dict[tuple[str, str], bool]:
        """Tags above a digest: True when by strong references alone."""
        reached: dict[Digest, bool] = {}
        front = [(start, True)]
        while front:
            digest, pull = front.pop()
            if digest in reached and reached[digest] >= pull:
                continue
            reached[digest] = pull
            front += [(source, pull) for source, _, _, target in self.need if target == digest]
            front += [
                (alias, pull)
                for alias, link in self.repository.layers.items()
                if alias.algorithm != "sha256" and link.target == digest
            ]
            subjects = [
                edge.target.digest
                for edge in (self._edges(digest) if digest in self.followed else ())
                if edge.kind is EdgeKind.SUBJECT
            ]
            subjects += [
                subject
                for tag, link in self.repository.tags.items()
                for subject in self.followed
                if link.target == digest and names_digest(tag, subject)
            ]
            front += [(subject, False) for subject in subjects if subject in self.followed]
        return {
            (self.repository.name, tag): reached[link.target]
            for tag, link in self.repository.tags.items()
            if link.target in reached
        }


def verify_naively(model: ModelStore, *, pull_through: bool = False) -> Found:
    store = Store(model)
    views = [_View(store, repository) for repository in store.repositories.values()]
    faults: dict[Name, dict[tuple[str, str], bool]] = defaultdict(dict)

    def add(name: Name, touched: dict[tuple[str, str], bool]) -> None:
        known = faults[name]
        for tag, pull in touched.items():
            known[tag] = known.get(tag, False) or pull

    for digest, link in store.blobs.items():
        if not right(digest, link.body):
            add((FaultKind.BLOB_DAMAGED, "", "", str(digest)), {})
    leftovers = 0
    for view in views:
        _blob_faults(view, add, pull_through)
        _link_faults(view, add, pull_through)
        leftovers += sum(
            link.target is not None
            and link.target not in store.blobs
            and (link.target == digest or digest.algorithm != "sha256")
            and digest not in view.required
            for digest, link in view.repository.layers.items()
        )
    return Found(
        faults=dict(faults),
        sparse=len(
            {
                (view.repository.name, target)
                for view in views
                for _, kind, _, target in view.named
                if kind is EdgeKind.MANIFEST and target not in view.followed
            }
        ),
        foreign=len(
            {
                target
                for view in views
                for _, kind, _, target in view.named
                if kind is EdgeKind.FOREIGN_LAYER
                and target not in view.linked
                and target not in view.followed
                and target not in store.blobs
            }
        ),
        leftovers=leftovers,
    )


def _blob_faults(view: _View, add: Add, pull_through: bool) -> None:
    blobs = view.store.blobs
    for stored in {stored for stored in view.required.values() if stored is not None}:
        if stored not in blobs:
            if not pull_through:
                add((FaultKind.BLOB_MISSING, "", "", str(stored)), view.touched(stored))
        elif not right(stored, blobs[stored].body):
            add((FaultKind.BLOB_DAMAGED, "", "", str(stored)), view.touched(stored))
    for digest in view.followed:
        if digest in blobs and right(digest, blobs[digest].body) and view.manifest(digest) is None:
            add((FaultKind.MANIFEST_UNREADABLE, "", "", str(digest)), view.touched(digest))
    for _, _, size, target in view.need:
        of = view.stored(target)
        link = blobs.get(of) if of is not None else None
        if of is not None and link is not None and size not in (-1, len(link.body)) and right(of, link.body):
            add((FaultKind.SIZE_DIFFERS, "", "", str(target)), view.touched(target))
            # Whoever needs it elsewhere is touched too.


def _link_faults(view: _View, add: Add, pull_through: bool) -> None:
    repository = view.repository
    name = repository.name
    for digest, link in repository.revisions.items():
        if link.body != link_body(digest):
            add((FaultKind.LINK_DAMAGED, "revision", name, str(digest)), view.touched(digest))
    for digest, link in repository.layers.items():
        if link.target is None or (digest.algorithm == "sha256" and link.target != digest):
            add((FaultKind.LINK_DAMAGED, "layer", name, str(digest)), view.touched(digest))
    for tag, link in repository.tags.items():
        if link.target is None:
            add((FaultKind.LINK_DAMAGED, "tag", name, tag), {(name, tag): True})
        elif link.target not in view.linked and not pull_through:
            add((FaultKind.LINK_MISSING, "revision", name, str(link.target)), view.touched(link.target))
    for (tag, digest), link in repository.tag_indexes.items():
        if link.body != link_body(digest):
            add((FaultKind.LINK_DAMAGED, "history", name, tag), {(name, tag): False})
        if tag not in repository.tags and not pull_through:
            add((FaultKind.LINK_MISSING, "tag", name, tag), {(name, tag): True})
    for (revision, digest), link in repository.signatures.items():
        if link.body != link_body(digest):
            add((FaultKind.LINK_DAMAGED, "signature", name, str(digest)), view.touched(revision))
    if pull_through:
        return
    for digest in view.lost:
        add((FaultKind.LINK_MISSING, "revision", name, str(digest)), view.touched(digest))
    for _, kind, _, target in view.need:
        if target not in view.linked and kind not in (EdgeKind.MANIFEST, EdgeKind.FOREIGN_LAYER):
            add((FaultKind.LINK_MISSING, "layer", name, str(target)), view.touched(target))
