"""The manifests of a repository: what its revision links name."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from regstore import layout, manifest
from regstore.concurrency import in_thread
from regstore.digest import Digest
from regstore.errors import (
    BlobUnknown,
    IntegrityError,
    InvalidManifest,
    ManifestUnknown,
    NotFound,
)
from regstore.manifest import Edge, EdgeKind, Manifest, parse_manifest
from regstore.reference import parse_name, parse_tag
from regstore.registry import links
from regstore.registry.blobs import Blobs, as_digest
from regstore.registry.tags import Tags
from regstore.registry.workers import run_all
from regstore.storage.base import Storage

#: Distribution answers 413 to a larger PUT (`maxManifestBodySize`).
MAX_PUT_SIZE: Final = 4 * 1024 * 1024
#: A larger one is parsed in a thread: one of 4 MiB takes long enough for others to wait.
_LARGE: Final = 128 * 1024
_SERVED: Final = frozenset(
    {manifest.DOCKER_MANIFEST, manifest.DOCKER_LIST, manifest.OCI_MANIFEST, manifest.OCI_INDEX}
)
_CHILDREN: Final = frozenset({EdgeKind.MANIFEST, EdgeKind.ENTRY})
_BLOBS: Final = frozenset({EdgeKind.CONFIG, EdgeKind.LAYER, EdgeKind.BLOB})


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it lies in the store: its bytes have its digest, and they parse."""

    digest: Digest
    media_type: str
    data: bytes
    manifest: Manifest

    @property
    def annotations(self) -> dict[str, str]:
        import orjson

        annotations = orjson.loads(self.data).get("annotations")
        return {str(k): str(v) for k, v in annotations.items()} if isinstance(annotations, dict) else {}


class Manifests:
    """Iterating gives the digest of every revision, tagged or not, from the listing alone."""

    def __init__(self, storage: Storage, name: str, tags: Tags, blobs: Blobs) -> None:
        self._storage = storage
        self._name = name
        self._tags = tags
        self._blobs = blobs

    async def __aiter__(self) -> AsyncGenerator[Digest, None]:
        async with aclosing(self.revisions()) as revisions:
            async for digest, _ in revisions:
                yield digest

    async def revisions(self) -> AsyncGenerator[tuple[Digest, bool], None]:
        """Every revision, and whether the listing alone proves its link sound; where not, `get` finds out."""
        empty = True
        async with aclosing(links.iter_keys(self._storage, layout.revisions_prefix(self._name))) as keys:
            async for info in keys:
                key = layout.decode(info.key)
                if isinstance(key, layout.RevisionLinkKey) and key.name == self._name:
                    empty = False
                    yield key.digest, links.says(key.digest, info.size, info.etag)
        if empty:
            await links.require_repository(self._storage, self._name)

    async def resolve(self, reference: Digest | str) -> Digest:
        """The digest that a tag or a digest's text names; a digest is taken as it is. TagUnknown."""
        if isinstance(reference, str) and ":" not in reference:
            return await self._tags.get(reference)
        return as_digest(reference)

    async def get(self, reference: Digest | str) -> StoredManifest:
        """The manifest that a tag (`latest`) or a digest (`sha256:…`) names, verified.

        TagUnknown; ManifestUnknown when it is no revision of this repository, or its blob is gone;
        IntegrityError when a link or the bytes are damaged; InvalidManifest when they can't be understood.
        """
        return await self.read(await self.require(reference))

    async def require(self, reference: Digest | str) -> Digest:
        """The digest of a revision of this repository, whose manifest is not read. TagUnknown; ManifestUnknown;
        IntegrityError when a link is damaged.

        As registries of 2.x have it, a manifest with a layer link alone is one too: v2.1.0 linked them so."""
        digest = await self.resolve(reference)
        key = layout.RevisionLinkKey(self._name, digest)
        try:
            linked = await links.read_link(self._storage, key)
        except NotFound as error:
            if await self._is_linked_as_layer(digest):
                return digest
            await links.require_repository(self._storage, self._name)
            raise ManifestUnknown(f"{self._name} has no manifest {digest} in {self._storage.url}") from error
        if linked != digest:
            raise IntegrityError(f"the link {layout.encode(key)} names {linked}, not its own digest")
        return digest

    async def _is_linked_as_layer(self, digest: Digest) -> bool:
        """Read, as any layer has such a link."""
        try:
            if await links.read_link(self._storage, layout.LayerLinkKey(self._name, digest)) != digest:
                return False
            await self.read(digest)
        except (NotFound, ManifestUnknown, InvalidManifest):
            return False
        return True

    async def read(self, digest: Digest) -> StoredManifest:
        """As `get`, of a digest that is known to be a revision: one request, the link is not looked at."""
        data = await self.data(digest)
        if len(data) > _LARGE:
            return await in_thread(self._parsed, digest, data)
        return self._parsed(digest, data)

    async def data(self, digest: Digest) -> bytes:
        """As `read`, but only its bytes, verified; what they say is not looked at."""
        key = layout.blob_key(digest)
        try:
            async with self._storage.open_read(key) as handle:
                if handle.info.size > manifest.MAX_SIZE:
                    raise InvalidManifest(f"{digest} in {self._name} has {handle.info.size:,} bytes: no manifest")
                data = b"".join([chunk async for chunk in handle])
        except NotFound as error:
            raise ManifestUnknown(
                f"{self._name} links the manifest {digest}, but {key} is not in {self._storage.url}"
            ) from error
        if not digest.matches(data):
            raise IntegrityError(f"{key}: expected {digest}, but its {len(data):,} bytes have {Digest.of(data)}")
        return data

    async def put(
        self, data: bytes, media_type: str | None = None, *, tag: str | None = None, sparse: bool = False
    ) -> StoredManifest:
        """Store a manifest, and tag it; what it refers to must be here first, as a registry asks.

        media_type: refused when the document says another one, for the store keeps only the document.
        sparse: an index may name manifests that this repository does not have.
        Foreign layers and the subject need not be here.

        InvalidManifest; BlobUnknown or ManifestUnknown naming everything that is missing, and then nothing was
        written. Putting it again is harmless.

            stored = await repository.manifests.put(document, tag="1.0")
        """
        parse_name(self._name)
        if tag is not None:
            parse_tag(tag)
        stored = self._parsed(Digest.of(data), data)
        check_document(stored, media_type)
        await self.require_references(stored.manifest, sparse=sparse, sizes=True)
        key = layout.blob_key(stored.digest)
        present = await self._has(key, len(data))
        if not present:
            await self._storage.put(key, data)
        await links.write_link(self._storage, layout.RevisionLinkKey(self._name, stored.digest), stored.digest)
        # A collection may have taken an old blob just before the link was there.
        if present and not await self._has(key, len(data)):
            await self._storage.put(key, data)
        if tag is not None:
            await self._tags.set(tag, stored.digest)
        return stored

    async def delete(self, reference: Digest | str) -> list[str]:
        """Remove a revision and every tag that names it, tags first; returns those tags. ManifestUnknown.

        Its blobs stay until they are garbage. As in a registry, an index that names this manifest is not looked
        for. A registry that keeps its metadata in a database does not see it (`inventory.whose`).
        """
        digest = await self.resolve(reference)
        prefix = f"{layout.revisions_prefix(self._name)}{digest.algorithm}/{digest.encoded}/"
        revision = layout.encode(layout.RevisionLinkKey(self._name, digest))
        async with aclosing(links.iter_keys(self._storage, prefix)) as keys:
            found = [info.key async for info in keys]
        if revision not in found:
            await links.require_repository(self._storage, self._name)
            raise ManifestUnknown(f"{self._name} has no manifest {digest} in {self._storage.url}")
        tags = await self._tags.delete_all(digest)
        signatures = [key for key in found if isinstance(layout.decode(key), layout.SignatureLinkKey)]
        await links.delete_in_order(self._storage, [revision], signatures)
        await links.remove_folders(self._storage, prefix)
        return tags

    async def _has(self, key: str, size: int) -> bool:
        try:
            return (await self._storage.stat(key)).size == size
        except NotFound:
            return False

    def _parsed(self, digest: Digest, data: bytes) -> StoredManifest:
        try:
            parsed = parse_manifest(data)
        except InvalidManifest as error:
            raise InvalidManifest(f"{digest} in {self._name} is no manifest: {error}") from error
        return StoredManifest(digest, parsed.media_type, data, parsed)

    async def require_references(self, document: Manifest, *, sparse: bool = False, sizes: bool = False) -> None:
        """As a registry asks before it takes a manifest: all that it refers to is in this repository, but for foreign
        layers and the subject. sparse: and but for manifests that an index names.

        BlobUnknown or ManifestUnknown naming everything that is missing. sizes: and InvalidManifest where it gives a
        blob another size than it has, for which registries don't look.
        """
        edges = [edge for edge in document.edges if edge.kind in _BLOBS]
        if not sparse:
            edges += [edge for edge in document.edges if edge.kind in _CHILDREN]
        missing = [
            edge for edge in await run_all(functools.partial(self._missing, sizes=sizes), edges) if edge is not None
        ]
        if not missing:
            return
        names = ", ".join(dict.fromkeys(f"{edge.kind.name.lower()} {edge.target.digest}" for edge in missing))
        error = BlobUnknown if any(edge.kind in _BLOBS for edge in missing) else ManifestUnknown
        raise error(f"{self._name} lacks what the manifest refers to, which must be there first: {names}")

    async def _missing(self, edge: Edge, *, sizes: bool) -> Edge | None:
        target = edge.target
        if edge.kind in _CHILDREN:
            try:
                key = layout.RevisionLinkKey(self._name, target.digest)
                if await links.read_link(self._storage, key) == target.digest:
                    await self._storage.stat(layout.blob_key(target.digest))
                    return None
            except NotFound:
                pass
            if edge.kind is EdgeKind.MANIFEST:
                return edge
        key_of_layer = layout.LayerLinkKey(self._name, target.digest)
        try:
            stored_as = await links.read_link(self._storage, key_of_layer)
            size = (await self._storage.stat(layout.blob_key(stored_as))).size
        except NotFound:
            return edge
        if sizes and target.size not in (-1, size):
            raise InvalidManifest(
                f"the manifest gives {target.digest} {target.size:,} bytes, but it has {size:,} in {self._name}"
            )
        return None


def check_document(stored: StoredManifest, media_type: str | None) -> None:
    """InvalidManifest for what a registry would refuse, or could not serve again."""
    import orjson

    document = orjson.loads(stored.data)
    if len(stored.data) > MAX_PUT_SIZE:
        raise InvalidManifest(f"the manifest has {len(stored.data):,} bytes, registries take {MAX_PUT_SIZE:,}")
    if stored.media_type not in _SERVED:
        raise InvalidManifest(f"registries no longer take or serve {stored.media_type}")
    if document.get("schemaVersion") != 2:
        raise InvalidManifest("schemaVersion is not 2: a registry could not serve it")
    if media_type is not None and media_type != stored.media_type:
        raise InvalidManifest(
            f"the document is {stored.media_type}, not {media_type}: give it a mediaType, the store keeps only that"
        )
