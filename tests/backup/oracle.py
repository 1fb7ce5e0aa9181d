"""What a backup, restored to an empty store, must give back: a naive model over one dict of keys and bodies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property

from regstore.digest import Digest
from regstore.errors import InvalidManifest
from regstore.layout import (
    BlobKey,
    Key,
    LayerLinkKey,
    RevisionLinkKey,
    SignatureLinkKey,
    TagCurrentKey,
    TagIndexKey,
    decode,
    encode,
    parse_link,
)
from regstore.manifest import MAX_SIZE, Edge, EdgeKind, Manifest, parse_manifest


class Repository:
    """One repository's keys, and whether its manifests are complete, by recursion."""

    def __init__(self, name: str, objects: Mapping[str, bytes]) -> None:
        self.name = name
        self.objects = objects
        self.keys: list[Key] = [key for text in objects if getattr(key := decode(text), "name", None) == name]

    def body(self, key: Key) -> bytes | None:
        return self.objects.get(encode(key))

    def blob(self, digest: Digest) -> bytes | None:
        return self.body(BlobKey(digest))

    @cached_property
    def layers(self) -> dict[Digest, Digest]:
        found = {}
        for key in self.keys:
            if isinstance(key, LayerLinkKey) and (target := parse_link(self.objects[encode(key)])):
                found[key.digest] = target
        return found

    @cached_property
    def revision_keys(self) -> set[Digest]:
        return {key.digest for key in self.keys if isinstance(key, RevisionLinkKey)}

    @cached_property
    def revisions(self) -> set[Digest]:
        return {
            digest
            for digest in self.revision_keys
            if parse_link(self.objects[encode(RevisionLinkKey(self.name, digest))]) == digest
        }

    @cached_property
    def legacy_keys(self) -> set[Digest]:
        """Manifests with a layer link alone, as v2.1.0 linked them: a signature or a tag says that they are such."""
        known = {key.revision for key in self.keys if isinstance(key, SignatureLinkKey)}
        known |= {
            digest
            for key in self.keys
            if isinstance(key, TagCurrentKey) and (digest := parse_link(self.objects[encode(key)]))
        }
        layer_keys = {key.digest for key in self.keys if isinstance(key, LayerLinkKey)}
        return (known & layer_keys) - self.revision_keys

    @cached_property
    def legacy(self) -> set[Digest]:
        """Those that a registry serves: it reads the link."""
        return {digest for digest in self.legacy_keys if self.layers.get(digest) == digest}

    def manifest(self, digest: Digest) -> Manifest | str:
        data = self.blob(digest)
        if data is None:
            return "missing"
        if len(data) > MAX_SIZE:
            return "opaque"
        if not digest.matches(data):
            return "damaged"
        try:
            return parse_manifest(data)
        except InvalidManifest:
            return "opaque"

    def sound(self, digest: Digest) -> bool:
        data = self.blob(digest)
        return data is not None and digest.matches(data)

    def stored(self, digest: Digest) -> Digest | None:
        """The blob behind what a manifest names."""
        if self.sound(digest):
            return digest
        target = self.layers.get(digest)
        return target if target is not None and self.sound(target) else None

    def is_child(self, edge: Edge) -> bool:
        return edge.kind is EdgeKind.MANIFEST or edge.target.digest in self.revisions

    def is_sparse(self, digest: Digest) -> bool:
        return digest not in self.revision_keys | self.legacy_keys and self.blob(digest) is None

    def complete(self, digest: Digest) -> bool:
        manifest = self.manifest(digest)
        if isinstance(manifest, str):
            return manifest == "opaque"
        return all(self.has(edge) for edge in manifest.edges if edge.kind is not EdgeKind.SUBJECT)

    def has(self, edge: Edge) -> bool:
        digest = edge.target.digest
        if self.is_child(edge):
            return self.is_sparse(digest) or self.complete(digest)
        foreign = edge.kind is EdgeKind.FOREIGN_LAYER and self.blob(self.layers.get(digest, digest)) is None
        return foreign or self.stored(digest) is not None

    def below(self, digest: Digest) -> tuple[set[Digest], set[Digest]]:
        """Of a complete manifest: the manifests it reaches, itself included; all that they name."""
        manifest = self.manifest(digest)
        manifests, named = {digest}, {digest}
        if isinstance(manifest, Manifest):
            for edge in manifest.edges:
                target = edge.target.digest
                if edge.kind is EdgeKind.SUBJECT or self.stored(target) is None:
                    continue
                named.add(target)
                if self.is_child(edge):
                    more = self.below(target)
                    manifests |= more[0]
                    named |= more[1]
        return manifests, named

    def tags(self) -> dict[str, Digest]:
        """Those that are complete."""
        found = {}
        for key in self.keys:
            if isinstance(key, TagCurrentKey):
                digest = parse_link(self.objects[encode(key)])
                if digest in self.revisions | self.legacy and self.complete(digest):
                    found[key.tag] = digest
        return found

    def expected(self) -> set[str]:
        """Every key of it, and every blob it needs."""
        manifests: set[Digest] = set()
        named: set[Digest] = set()
        for digest in self.revisions | self.legacy:
            if self.complete(digest):
                more = self.below(digest)
                manifests |= more[0]
                named |= more[1]
        opaque = any(isinstance(self.manifest(digest), str) for digest in manifests)
        links = set(self.layers) if opaque else named & set(self.layers)
        links = {digest for digest in links if self.sound(self.layers[digest])}
        links |= {self.layers[d] for d in links if self.layers.get(self.layers[d]) == self.layers[d]}
        blobs = {stored for digest in named if (stored := self.stored(digest))}
        blobs |= {self.layers[digest] for digest in links}
        keys = {encode(LayerLinkKey(self.name, digest)) for digest in links}
        keys |= {
            encode(RevisionLinkKey(self.name, digest)) for digest in manifests & (self.revisions | self.legacy)
        }
        tags = self.tags()
        keys |= {encode(TagCurrentKey(self.name, tag)) for tag in tags}
        for key in self.keys:
            if isinstance(key, TagIndexKey) and key.tag in tags and key.digest in manifests:
                keys.add(encode(key))
            if isinstance(key, SignatureLinkKey) and key.revision in manifests and self.sound(key.digest):
                keys.add(encode(key))
                blobs.add(key.digest)
        return keys | {encode(BlobKey(digest)) for digest in blobs}


def repositories(objects: Mapping[str, bytes]) -> list[Repository]:
    names = {name for text in objects if isinstance(name := getattr(decode(text), "name", None), str)}
    return [Repository(name, objects) for name in sorted(names)]


def expected(objects: Mapping[str, bytes], patterns: Iterable[str] = ()) -> set[str]:
    """The keys that a restored registry has, from those of the registry that was backed up."""
    patterns = list(patterns)
    keys: set[str] = set()
    for repository in repositories(objects):
        if not patterns or any(fnmatchcase(repository.name, pattern) for pattern in patterns):
            keys |= repository.expected()
    return keys


def incomplete_tags(objects: Mapping[str, bytes]) -> list[str]:
    """Tags, as `name:tag`, that a client could not pull whole."""
    bad = []
    for repository in repositories(objects):
        whole = repository.tags()
        bad += [
            f"{repository.name}:{key.tag}"
            for key in repository.keys
            if isinstance(key, TagCurrentKey) and key.tag not in whole
        ]
    return bad
