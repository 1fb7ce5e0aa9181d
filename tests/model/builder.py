"""Writes the keys of a registry into a ModelStore, as a registry would, or wrongly on purpose."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from regstore import manifest as media
from regstore.digest import Digest
from regstore.layout import (
    BlobKey,
    Key,
    LayerLinkKey,
    RevisionLinkKey,
    SignatureLinkKey,
    TagCurrentKey,
    TagIndexKey,
    UploadKey,
    encode,
    link_body,
)
from tests.model.store import ModelStore

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"


def descriptor(digest: Digest, media_type: str, size: int = 1, **more: Any) -> dict[str, Any]:
    named = {"mediaType": media_type} if media_type else {}
    return {**named, "digest": str(digest), "size": size, **more}


def dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


class Builder:
    """Every write carries `self.mtime`; `store` is the result."""

    def __init__(self, mtime: int = 0) -> None:
        self.store = ModelStore()
        self.mtime = mtime
        #: Of each manifest made here: its children (manifests), its plain blobs.
        self.children: dict[Digest, list[Digest]] = {}
        self.layers_of: dict[Digest, list[Digest]] = {}

    def put(self, key: Key | str, body: bytes, mtime: int | None = None) -> str:
        text = key if isinstance(key, str) else encode(key)
        self.store.objects[text] = (body, self.mtime if mtime is None else mtime)
        return text

    def blob(self, content: bytes) -> Digest:
        """As a push does: what is there is not written again, so its mtime stays."""
        digest = Digest.of(content)
        if encode(BlobKey(digest)) not in self.store:
            self.put(BlobKey(digest), content)
        return digest

    def manifest(self, document: Any, *, children: Iterable[Digest] = (), layers: Iterable[Digest] = ()) -> Digest:
        digest = self.blob(document if isinstance(document, bytes) else dump(document))
        self.children[digest], self.layers_of[digest] = list(children), list(layers)
        return digest

    def image(
        self,
        config: Digest,
        layers: Sequence[Digest] = (),
        *,
        subject: Digest | None = None,
        media_type: str = media.OCI_MANIFEST,
        layer_type: str = LAYER,
        **more: Any,
    ) -> Digest:
        document = {
            "schemaVersion": 2,
            **({"mediaType": media_type} if media_type else {}),
            "config": descriptor(config, CONFIG),
            "layers": [descriptor(layer, layer_type) for layer in layers],
            **({"subject": descriptor(subject, media.OCI_MANIFEST)} if subject else {}),
            **more,
        }
        return self.manifest(document, layers=[config, *layers])

    def index(
        self,
        entries: Sequence[Digest],
        *,
        entry_type: str = media.OCI_MANIFEST,
        media_type: str = media.OCI_INDEX,
        subject: Digest | None = None,
        **more: Any,
    ) -> Digest:
        document = {
            "schemaVersion": 2,
            **({"mediaType": media_type} if media_type else {}),
            "manifests": [descriptor(entry, entry_type) for entry in entries],
            **({"subject": descriptor(subject, media.OCI_MANIFEST)} if subject else {}),
            **more,
        }
        return self.manifest(document, children=entries)

    def cache_index(self, config: Digest, layers: Sequence[Digest]) -> Digest:
        """BuildKit's: an index that lists layers."""
        entries = [descriptor(layer, LAYER) for layer in layers] + [descriptor(config, CACHE_CONFIG)]
        document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries}
        return self.manifest(document, layers=[*layers, config])

    def artifact(self, blobs: Sequence[Digest], *, subject: Digest | None = None, **more: Any) -> Digest:
        document = {
            "mediaType": media.OCI_ARTIFACT,
            "blobs": [descriptor(blob, LAYER) for blob in blobs],
            **({"subject": descriptor(subject, media.OCI_MANIFEST)} if subject else {}),
            **more,
        }
        return self.manifest(document, layers=blobs)

    def schema1(self, layers: Sequence[Digest], **more: Any) -> Digest:
        document = {
            "schemaVersion": 1,
            "name": "x",
            "tag": "y",
            "fsLayers": [{"blobSum": str(layer)} for layer in layers],
            **more,
        }
        return self.manifest(document, layers=layers)

    def by_sha512(self, manifest: Digest) -> Digest:
        """The same manifest, stored by its sha512 too."""
        body, _ = self.store.objects[encode(BlobKey(manifest))]
        alias = Digest.of(body, "sha512")
        self.put(BlobKey(alias), body)
        self.children[alias], self.layers_of[alias] = self.children[manifest], self.layers_of[manifest]
        return alias

    def link_layer(self, repository: str, digest: Digest, body: bytes | None = None) -> str:
        return self.put(LayerLinkKey(repository, digest), link_body(digest) if body is None else body)

    def link_revision(self, repository: str, digest: Digest, body: bytes | None = None) -> str:
        return self.put(RevisionLinkKey(repository, digest), link_body(digest) if body is None else body)

    def sign(self, repository: str, revision: Digest, signature: Digest) -> str:
        return self.put(SignatureLinkKey(repository, revision, signature), link_body(signature))

    def tag(self, repository: str, tag: str, digest: Digest, body: bytes | None = None) -> str:
        self.tag_index(repository, tag, digest)
        return self.put(TagCurrentKey(repository, tag), link_body(digest) if body is None else body)

    def tag_index(self, repository: str, tag: str, digest: Digest) -> str:
        return self.put(TagIndexKey(repository, tag, digest), link_body(digest))

    def upload(self, repository: str, uuid: str, parts: Iterable[str] = ("startedat", "data")) -> None:
        for part in parts:
            self.put(UploadKey(repository, uuid, part), b"x")

    def push(self, repository: str, digest: Digest, tag: str | None = None, *, layers: bool = True) -> None:
        """Layer links, children before parents, revision link, tag. What is not in the store is not linked."""
        for layer in self.layers_of.get(digest, ()):
            if layers and layer.algorithm == "sha256" and encode(BlobKey(layer)) in self.store:
                self.link_layer(repository, layer)
        for child in self.children.get(digest, ()):
            if encode(BlobKey(child)) in self.store:
                self.push(repository, child, layers=layers)
        self.link_revision(repository, digest)
        if tag is not None:
            self.tag(repository, tag, digest)
