"""A pack as a naive model makes it, over sets, a repository at a time, and its bytes: what `regstore.backup.plan` and
`writing` are held to."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

from regstore.backup.format import LeftOut, Pack, PackedManifest, PackedTag, PackSummary
from regstore.backup.selecting import select
from regstore.digest import Digest
from regstore.inventory.inventory import Inventory
from regstore.layout import LayerLinkKey, RevisionLinkKey
from regstore.manifest import EdgeKind


@dataclass(frozen=True, slots=True)
class KnownManifest:
    """A digest that was looked at as a manifest. state, reason: as in the inventory's table `manifest`."""

    state: str
    reason: str = ""
    media_type: str = ""
    edges: tuple[tuple[Digest, EdgeKind], ...] = ()


@dataclass(slots=True, kw_only=True)
class Listing:
    """One repository's links. layers: path and body. revisions: those whose body says what their path says.
    broken: other links of manifests, with what is wrong with each; broken_tags: the same of tags. legacy: manifests
    with a layer link alone, as v2.1.0 linked them: those with signatures, and those that a tag names (a registry of
    2.x asks for no more). tags: what each names, None where its link is broken, and when it was set."""

    name: str
    layers: dict[Digest, Digest] = field(default_factory=dict)
    revisions: set[Digest] = field(default_factory=set)
    broken: dict[Digest, str] = field(default_factory=dict)
    legacy: set[Digest] = field(default_factory=set)
    signatures: set[tuple[Digest, Digest]] = field(default_factory=set)
    history: set[tuple[str, Digest]] = field(default_factory=set)
    tags: dict[str, tuple[Digest | None, int]] = field(default_factory=dict)
    broken_tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackPlan:
    """missing: digests without a blob that kept something from being complete. unlinked: links that the repository
    lacks, of what is packed: without them a registry does not serve it there, though the blob is present."""

    pack: Pack
    left_out: tuple[LeftOut, ...] = ()
    missing: frozenset[Digest] = frozenset()
    unlinked: frozenset[LayerLinkKey | RevisionLinkKey] = frozenset()


#: Manifests whose bytes are right and whose references can't be told.
_OPAQUE: Final = ("invalid", "too large")


def plan_pack(
    listing: Listing,
    manifests: Mapping[Digest, KnownManifest],
    blobs: Mapping[Digest, int],
    *,
    lost: Mapping[Digest, str] | None = None,
    tags: Sequence[str] = (),
) -> PackPlan:
    """blobs: sizes of those that the source has. lost: of these, what can't be copied, and why.
    tags: glob patterns; none means all tags, and untagged manifests too."""
    closure = _Closure(listing, manifests, blobs, lost or {})
    roots = listing.revisions | listing.legacy

    def without(what: str, reason: str, tag: str = "") -> LeftOut:
        return LeftOut(repository=listing.name, tag=tag, what=what, reason=reason)

    left_out = [
        without(f"revision {digest}", f"was left out: its link {fault}")
        for digest, fault in sorted(listing.broken.items())
    ]
    named = {digest for digest, _ in listing.tags.values() if digest is not None}
    kept_tags: dict[str, PackedTag] = {}
    for tag, (digest, time) in listing.tags.items():
        reason = closure.reason_against_tag(tag, digest, roots)
        if reason:
            left_out.append(without(f"tag {tag}", f"was left out: {reason}", tag))
        elif digest is not None:
            kept_tags[tag] = PackedTag(digest, time)
    kept = [digest for digest in sorted(roots) if not closure.problem(digest)]
    left_out += (
        without(f"untagged manifest {digest}", f"was left out: {closure.problem(digest)}")
        for digest in sorted(roots - named)
        if closure.problem(digest)
    )
    pack = select(closure.pack(kept, kept_tags), tags)
    if tags:
        left_out = [one for one in left_out if one.tag and any(fnmatchcase(one.tag, pattern) for pattern in tags)]
    unlinked = closure.unlinked(pack.manifests)
    left_out += (
        without(
            f"{'revision' if isinstance(link, RevisionLinkKey) else 'layer'} link {link.digest}",
            f"is missing or unreadable: a registry does not serve that part of {manifest.short}",
        )
        for link, manifest in unlinked.items()
    )
    return PackPlan(
        pack=pack,
        left_out=tuple(sorted(left_out)),
        missing=frozenset(closure.missing),
        unlinked=frozenset(unlinked),
    )


class _Closure:
    """Completeness of manifests in one repository, each decided once."""

    def __init__(
        self,
        listing: Listing,
        manifests: Mapping[Digest, KnownManifest],
        blobs: Mapping[Digest, int],
        lost: Mapping[Digest, str],
    ) -> None:
        self._listing = listing
        self._manifests = manifests
        self._blobs = blobs
        self._lost = lost
        self._problems: dict[Digest, str] = {}
        self._needs: dict[Digest, tuple[Digest, ...]] = {}
        self._order: list[Digest] = []
        self.missing: set[Digest] = set()

    def _has(self, blob: Digest) -> bool:
        return blob in self._blobs and blob not in self._lost

    def _blob_of(self, digest: Digest) -> Digest:
        if self._has(digest):
            return digest
        return self._listing.layers.get(digest, digest)

    def problem(self, digest: Digest) -> str:
        """Why this manifest is not complete, or ""."""
        stack = [(digest, False)]
        while stack:
            current, children_done = stack.pop()
            if current in self._problems:
                continue
            children = self._children(current)
            if children and not children_done:
                stack.append((current, True))
                stack += [(child, False) for child in children if child not in self._problems]
                continue
            self._decide(current, children)
        return self._problems[digest]

    def _is_child(self, target: Digest, kind: EdgeKind) -> bool:
        return kind is EdgeKind.MANIFEST or target in self._listing.revisions

    def _children(self, digest: Digest) -> list[Digest]:
        known = self._manifests.get(digest)
        if known is None or known.state != "ok":
            return []
        return [
            target
            for target, kind in known.edges
            if kind is not EdgeKind.SUBJECT and self._is_child(target, kind) and not self._is_sparse(target)
        ]

    def _is_linked(self, manifest: Digest) -> bool:
        listing = self._listing
        return manifest in listing.revisions or manifest in listing.broken or manifest in listing.legacy

    def _is_sparse(self, target: Digest) -> bool:
        """An entry of an index that the repository never had, or has no more: normal."""
        return not self._is_linked(target) and target not in self._blobs and target not in self._lost

    def _decide(self, digest: Digest, children: Collection[Digest]) -> None:
        known = self._manifests.get(digest)
        self._problems[digest] = problem = self._why(digest, known, children)
        if known is not None and not problem:
            self._needs[digest] = self._present(known)
            self._order.append(digest)

    def _why(self, digest: Digest, known: KnownManifest | None, children: Collection[Digest]) -> str:
        if digest in self._lost:
            return f"its blob {digest} {self._lost[digest]}"
        if known is None or known.state == "missing" or digest not in self._blobs:
            self.missing.add(digest)
            return f"its manifest {digest.short} is missing"
        if known.state in _OPAQUE:
            return ""
        if known.state == "unreadable":
            return f"its manifest {digest.short} can't be read: {known.reason}"
        if known.state != "ok":
            return f"its manifest {digest.short} is damaged: {known.reason}"
        for target, kind in known.edges:
            if kind is EdgeKind.SUBJECT or target in children or self._is_child(target, kind):
                continue
            blob = self._blob_of(target)
            if self._has(blob) or (kind is EdgeKind.FOREIGN_LAYER and blob not in self._lost):
                continue
            if blob in self._lost:
                return f"its blob {blob} {self._lost[blob]}"
            self.missing.add(blob)
            return f"its blob {blob} is missing"
        return next((self._problems[child] for child in children if self._problems[child]), "")

    def _present(self, known: KnownManifest) -> tuple[Digest, ...]:
        needs = {target: None for target, kind in known.edges if kind is not EdgeKind.SUBJECT}
        return tuple(target for target in needs if self._has(self._blob_of(target)))

    def unlinked(self, manifests: Iterable[Digest]) -> dict[LayerLinkKey | RevisionLinkKey, Digest]:
        """Links that the repository lacks, of parts whose blobs are there, each with a manifest that names it."""
        listing = self._listing
        found: dict[LayerLinkKey | RevisionLinkKey, Digest] = {}
        for manifest in manifests:
            present = set(self._needs[manifest])
            for target, kind in self._manifests[manifest].edges:
                if target not in present or kind in (EdgeKind.SUBJECT, EdgeKind.FOREIGN_LAYER):
                    continue
                linked = self._is_linked(target)
                if kind is EdgeKind.MANIFEST:
                    if not linked:
                        found.setdefault(RevisionLinkKey(listing.name, target), manifest)
                elif not linked and target not in listing.layers:
                    found.setdefault(LayerLinkKey(listing.name, target), manifest)
        return found

    def reason_against_tag(self, tag: str, digest: Digest | None, roots: Collection[Digest]) -> str:
        if digest is None:
            return f"its link {self._listing.broken_tags.get(tag, 'is unreadable')}"
        if digest not in roots:
            broken = digest in self._listing.broken
            return f"the repository has no {'readable ' if broken else 'revision '}link of {digest.short}"
        return self.problem(digest)

    def pack(self, kept: Iterable[Digest], tags: Mapping[str, PackedTag]) -> Pack:
        listing = self._listing
        within: set[Digest] = set()
        stack = list(kept)
        while stack:
            digest = stack.pop()
            if digest not in within:
                within.add(digest)
                stack += [need for need in self._needs[digest] if need in self._needs]
        order = sorted(self._order, key=lambda digest: (self._rank(digest), digest))
        manifests = {digest: self._packed(digest) for digest in order if digest in within}
        opaque = any(self._manifests[digest].state in _OPAQUE for digest in manifests)
        named = {need for digest in manifests for need in self._needs[digest]} | within
        layers = {}
        for digest in sorted(listing.layers if opaque else named & listing.layers.keys()):
            target = listing.layers[digest]
            if self._has(target):
                layers[digest] = target
        # A layer pushed by its sha512 has a link by its sha256 too.
        layers |= {target: target for target in layers.values() if listing.layers.get(target) == target}
        signatures = {
            (manifest, digest)
            for manifest, digest in listing.signatures
            if manifest in manifests and self._has(digest)
        }
        blobs = {self._blob_of(digest) for digest in named} | set(layers.values())
        blobs |= {digest for _, digest in signatures}
        return Pack(
            name=listing.name,
            blobs={digest: self._blobs[digest] for digest in sorted(blobs)},
            layers=layers,
            manifests=manifests,
            signatures=frozenset(signatures),
            history=frozenset(
                (tag, digest) for tag, digest in listing.history if tag in tags and digest in manifests
            ),
            tags=tags,
        )

    def _rank(self, digest: Digest) -> int:
        known = self._manifests.get(digest)
        edges = () if known is None else known.edges
        below = [target for target, kind in edges if kind is not EdgeKind.SUBJECT and target in self._problems]
        return 1 + max(map(self._rank, below), default=-1)

    def _packed(self, digest: Digest) -> PackedManifest:
        known = self._manifests[digest]
        subject = next((target for target, kind in known.edges if kind is EdgeKind.SUBJECT), None)
        return PackedManifest(
            media_type=known.media_type,
            # A signature or a tag tells one with a layer link alone from a layer: both can go, its own link stays.
            linked=digest in self._listing.revisions or digest in self._listing.legacy,
            needs=self._needs[digest],
            subject=subject,
        )


def listing(inventory: Inventory, name: str) -> Listing:
    """What the inventory has of a repository."""

    def rows(table: str, columns: str) -> list[tuple[Any, ...]]:
        return inventory.all(
            f"select {columns} from {table} t join repository r on r.id = t.repository where r.name = ?", [name]
        )

    found = Listing(name=name)
    links = {}
    for raw, target, fault in rows("layer_link", f"digest, target, {_FAULT}"):
        links[_digest(raw)] = (_digest(target) if target is not None else None, fault)
        if target is not None:
            found.layers[_digest(raw)] = _digest(target)
    for raw, target, fault in rows("revision_link", f"digest, target, {_FAULT}"):
        if target is not None and raw == target:
            found.revisions.add(_digest(raw))
        else:
            found.broken[_digest(raw)] = fault
    for tag, target, mtime, fault in rows("tag", f"t.name, target, mtime, {_FAULT}"):
        found.tags[tag] = (None if target is None else _digest(target), mtime)
        if target is None:
            found.broken_tags[tag] = fault
    found.signatures = {(_digest(of), _digest(raw)) for of, raw in rows("signature_link", "revision, digest")}
    found.history = {(tag, _digest(raw)) for tag, raw in rows("tag_index", "t.name, digest")}
    known = {digest for digest, _ in found.tags.values() if digest} | {digest for digest, _ in found.signatures}
    for digest in known & links.keys() - found.revisions - found.broken.keys():
        target, fault = links[digest]
        if target == digest:
            found.legacy.add(digest)
        else:
            found.broken[digest] = fault
    return found


_FAULT: Final = "link_fault(t.size, t.target, t.unread)"


def _digest(raw: bytes) -> Digest:
    return Digest.from_raw(raw)


def manifests(inventory: Inventory) -> dict[Digest, KnownManifest]:
    edges = defaultdict(set)
    for source, target, kind in inventory.all("select source, target, kind from edge"):
        edges[source].add((kind, target))
    return {
        _digest(raw): KnownManifest(
            state,
            reason or "",
            media_type or "",
            tuple((_digest(target), EdgeKind(kind)) for kind, target in sorted(edges[raw])),
        )
        for raw, state, reason, media_type in inventory.all(
            "select digest, state, reason, media_type from manifest"
        )
    }


def blobs(inventory: Inventory) -> dict[Digest, int]:
    return {_digest(raw): size for raw, size in inventory.all("select digest, size from blob")}


def encode_pack(pack: Pack) -> tuple[str, bytes]:
    """The 64 hex characters of its name, and the bytes to store: manifests by rank, those without children first."""
    text = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in _lines(pack))
    return Digest.of(text).encoded, gzip.compress(text, 6, mtime=0)


def _lines(pack: Pack) -> Iterator[dict[str, Any]]:
    yield {"kind": "repository", "name": pack.name, "version": 1}
    for digest, size in sorted(pack.blobs.items()):
        yield {"kind": "blob", "digest": str(digest), "size": size}
    for digest, target in sorted(pack.layers.items()):
        yield {"kind": "layer", "digest": str(digest), "target": str(target)}
    for digest, known in pack.manifests.items():
        yield {
            "kind": "manifest",
            "digest": str(digest),
            "type": known.media_type,
            "linked": known.linked,
            "needs": [str(need) for need in known.needs],
            "subject": str(known.subject) if known.subject else None,
        }
    for manifest, digest in sorted(pack.signatures):
        yield {"kind": "signature", "manifest": str(manifest), "digest": str(digest)}
    for tag, digest in sorted(pack.history):
        yield {"kind": "history", "tag": tag, "digest": str(digest)}
    for tag, packed in sorted(pack.tags.items()):
        yield {"kind": "tag", "tag": tag, "digest": str(packed.digest), "time": packed.time}


def summary(encoded: str, pack: Pack) -> PackSummary:
    return PackSummary(
        pack=encoded,
        tags=len(pack.tags),
        manifests=sum(known.linked for known in pack.manifests.values()),
        layers=len(pack.layers),
        blobs=len(pack.blobs),
        bytes=pack.bytes,
    )
