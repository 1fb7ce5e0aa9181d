"""What a migration of everything must leave at an empty target, said naively: sets, no SQL."""

from __future__ import annotations

from dataclasses import dataclass

from regstore import reference
from regstore.digest import Digest
from regstore.errors import InvalidManifest
from regstore.layout import (
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    SignatureLinkKey,
    TagCurrentKey,
    TagIndexKey,
    encode,
    link_body,
)
from regstore.manifest import MAX_SIZE, EdgeKind, Manifest, parse_manifest
from tests.model.gc_oracle import Repository, Store
from tests.model.store import ModelStore


@dataclass
class Expected:
    keys: set[str]
    bad_blobs: set[Digest]


class Naive:
    def __init__(self, model: ModelStore, *, now: int, grace: int) -> None:
        self.store = Store(model)
        self.cutoff = now - grace
        self.manifests: dict[Digest, Manifest | str] = {}
        pending = [
            digest
            for repository in self.store.repositories.values()
            for digest in [
                *repository.revisions,
                *repository.legacy_revisions,
                *(link.target for link in repository.tags.values() if link.target is not None),
            ]
        ]
        while pending:
            digest = pending.pop()
            if digest in self.manifests:
                continue
            found = self.manifests[digest] = self._read(digest)
            if isinstance(found, Manifest):
                pending += [
                    edge.target.digest
                    for edge in found.edges
                    if edge.kind is EdgeKind.MANIFEST and edge.target.digest in self.store.blobs
                ]

    def _read(self, digest: Digest) -> Manifest | str:
        blob = self.store.blobs.get(digest)
        if blob is None:
            return "missing"
        if len(blob.body) > MAX_SIZE:
            return "too large"
        if not digest.matches(blob.body):
            return "mismatch"
        try:
            return parse_manifest(blob.body)
        except InvalidManifest:
            return "invalid"

    def strong(self, digest: Digest) -> list[tuple[Digest, bool]]:
        found = self.manifests.get(digest)
        if not isinstance(found, Manifest):
            return []
        return [
            (edge.target.digest, edge.kind is EdgeKind.MANIFEST)
            for edge in found.edges
            if edge.kind is not EdgeKind.SUBJECT
        ]

    def reach(self, repository: Repository) -> tuple[set[Digest], bool]:
        """Everything reached, and whether the repository is protected."""
        protected = any(
            link.target != digest or isinstance(self.manifests[digest], str)
            for digest, link in repository.revisions.items()
        ) or any(isinstance(self.manifests[digest], str) for digest in repository.legacy_revisions)
        roots = {(digest, True) for digest in repository.revisions.keys() | repository.legacy_revisions}
        roots |= {(link.target, True) for link in repository.tags.values() if link.target is not None}
        marked: set[Digest] = set()
        expanded: set[Digest] = set()
        while True:
            for digest, link in repository.layers.items():
                if link.mtime >= self.cutoff or protected:
                    roots |= {(each, False) for each in (digest, link.target) if each is not None}
            pending = list(roots)
            while pending:
                digest, expand = pending.pop()
                new = digest not in marked
                marked.add(digest)
                if (expand or digest in repository.revisions) and digest not in expanded:
                    expanded.add(digest)
                    pending += self.strong(digest)
                if new and digest in repository.layers:
                    target = repository.layers[digest].target
                    if target is not None and target != digest:
                        pending.append((target, False))
            before = len(roots)
            for digest in repository.revisions:
                found = self.manifests[digest]
                if isinstance(found, Manifest) and any(
                    edge.kind is EdgeKind.SUBJECT and edge.target.digest in marked for edge in found.edges
                ):
                    roots.add((digest, True))
            newly = any(self.manifests.get(digest) in ("mismatch", "invalid", "too large") for digest in expanded)
            if len(roots) == before and newly <= protected:
                return marked, protected
            protected |= newly

    def blocked(self, bad: set[Digest]) -> set[Digest]:
        found = set(bad)
        for repository in self.store.repositories.values():
            if any(link.target in bad for link in repository.layers.values()):
                linked = repository.revisions.keys() | self.by_layer(repository)
                found |= {d for d in linked if self.manifests[d] in ("invalid", "too large")}
        while True:
            more = {digest for digest in self.manifests if any(each in found for each, _ in self.strong(digest))}
            more |= {
                digest
                for repository in self.store.repositories.values()
                for digest, link in repository.layers.items()
                if link.target in found
            }
            if more <= found:
                return found
            found |= more

    def expected(self) -> Expected:
        mismatch = {digest for digest, found in self.manifests.items() if found == "mismatch"}
        reached = {
            repository.name: self.reach(repository)
            for repository in self.store.repositories.values()
            if reference.is_name(repository.name)
        }
        wanted: set[Digest] = set()
        for name, (marked, protected) in reached.items():
            repository = self.store.repositories[name]
            wanted |= marked
            wanted |= {
                link.target
                for digest, link in repository.layers.items()
                if link.target is not None and (protected or digest in marked or link.target in marked)
            }
        signatures = {
            digest
            for name in reached
            for (revision, digest), link in self.store.repositories[name].signatures.items()
            if (
                self._revision_is_sound(self.store.repositories[name], revision)
                or revision in self.by_layer(self.store.repositories[name])
            )
            and self._sound(link.body, digest)
        }
        wanted = (wanted | signatures) & self.store.blobs.keys()
        bad = mismatch | {digest for digest in wanted if not digest.matches(self.store.blobs[digest].body)}
        blocked = self.blocked(bad)
        keys = {encode(BlobKey(digest)) for digest in wanted - bad}
        for name, (marked, protected) in reached.items():
            keys |= self._links(self.store.repositories[name], marked, protected, blocked)
        return Expected(keys, bad & wanted)

    def _sound(self, body: bytes, digest: Digest) -> bool:
        return len(body) == len(link_body(digest))

    def _revision_is_sound(self, repository: Repository, digest: Digest) -> bool:
        link = repository.revisions.get(digest)
        return (
            link is not None
            and link.target == digest
            and digest in self.store.blobs
            and self.manifests[digest] not in ("missing", "mismatch")
        )

    def by_layer(self, repository: Repository) -> set[Digest]:
        """What a registry serves as a manifest by its layer link: as v2.1.0 linked, or named by a tag."""
        tagged = {link.target for link in repository.tags.values()}
        return {
            digest
            for digest, link in repository.layers.items()
            if (digest in repository.legacy_revisions or digest in tagged)
            and digest not in repository.revisions
            and link.target == digest
            and digest in self.store.blobs
            and self.manifests[digest] not in ("missing", "mismatch")
        }

    def _links(
        self, repository: Repository, marked: set[Digest], protected: bool, blocked: set[Digest]
    ) -> set[str]:
        name, blobs = repository.name, self.store.blobs
        keys = set()
        for digest, link in repository.layers.items():
            target = link.target
            if target is None or target not in blobs or target in blocked:
                continue
            own = target == digest or target.algorithm != digest.algorithm
            if own and (protected or digest in marked or target in marked):
                keys.add(encode(LayerLinkKey(name, digest)))
        revisions = {
            digest
            for digest in repository.revisions
            if self._revision_is_sound(repository, digest) and digest not in blocked
        }
        manifests = revisions | (self.by_layer(repository) - blocked)
        keys |= {encode(RevisionLinkKey(name, digest)) for digest in manifests}
        keys |= {
            encode(SignatureLinkKey(name, revision, digest))
            for (revision, digest), link in repository.signatures.items()
            if revision in manifests
            and digest in blobs
            and digest not in blocked
            and self._sound(link.body, digest)
        }
        tags = {tag for tag, link in repository.tags.items() if link.target in manifests}
        keys |= {encode(TagCurrentKey(name, tag)) for tag in tags}
        keys |= {
            encode(TagIndexKey(name, tag, digest))
            for (tag, digest), link in repository.tag_indexes.items()
            if tag in tags and digest in manifests and self._sound(link.body, digest)
        }
        return keys


def incomplete_tags(source: ModelStore, target: ModelStore, *, now: int) -> list[str]:
    """Tags at the target that lack something which the source has: a blob, a link, a child."""
    here, there = Naive(source, now=now, grace=0), Store(target)
    missing = []
    for name, repository in there.repositories.items():
        origin = here.store.repositories.get(name, Repository(name))
        for tag, link in repository.tags.items():
            assert link.target is not None
            if link.target not in repository.revisions.keys() | repository.layers.keys():
                missing.append(f"{name}:{tag} has no revision")
            pending, seen = [link.target], set()
            while pending:
                digest = pending.pop()
                if digest in seen:
                    continue
                seen.add(digest)
                layer = origin.layers.get(digest)
                stored = layer.target if layer is not None and layer.target is not None else digest
                if stored in here.store.blobs and stored not in there.blobs:
                    missing.append(f"{name}:{tag} lacks {stored}")
                child = origin.revisions.get(digest)
                sound = child is not None and child.target == digest and digest in here.store.blobs
                if sound and digest not in repository.revisions:
                    missing.append(f"{name}:{tag} lacks revision {digest}")
                sound = layer is not None and (layer.target == digest or digest.algorithm == "sha512")
                if sound and stored in there.blobs and digest not in repository.layers:
                    missing.append(f"{name}:{tag} lacks layer link {digest}")
                pending += [each for each, _ in here.strong(digest)]
    return missing
