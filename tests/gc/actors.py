"""A registry and its clients, one storage operation at a time, over a ModelStore: LAYOUT's orders of writing.

Every actor is a generator: what stands between two `yield`s is one request to the store. So anything may happen
between any two of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from regstore.digest import Digest
from regstore.errors import StorageError
from regstore.layout import (
    BlobKey,
    Key,
    LayerLinkKey,
    RevisionLinkKey,
    TagCurrentKey,
    TagIndexKey,
    UploadKey,
    decode,
    encode,
    link_body,
    tags_prefix,
)
from tests.model.builder import Builder
from tests.model.store import ModelStore

Step = Iterator[None]


@dataclass(frozen=True)
class Doc:
    """A manifest. layers: config and layers; children: manifests that it lists."""

    name: str
    digest: Digest
    data: bytes
    layers: tuple[Digest, ...] = ()
    children: tuple[Doc, ...] = ()

    def documents(self) -> Iterator[Doc]:
        for child in self.children:
            yield from child.documents()
        yield self

    def blobs(self) -> set[Digest]:
        return {digest for doc in self.documents() for digest in (doc.digest, *doc.layers)}

    def links(self, repository: str) -> dict[str, bytes]:
        """The links without which a pull of it from the repository fails."""
        links: dict[str, bytes] = {}
        for doc in self.documents():
            links[encode(RevisionLinkKey(repository, doc.digest))] = link_body(doc.digest)
            links |= {encode(LayerLinkKey(repository, layer)): link_body(layer) for layer in doc.layers}
        return links


class Images:
    """A few images over a few layers, two indexes, and a signature in cosign's manner."""

    def __init__(self) -> None:
        builder = Builder()
        self.content: dict[Digest, bytes] = {}
        layers = [self._blob(b"layer %d" % n) for n in range(3)]
        configs = [self._blob(b"config %d" % n) for n in range(4)]
        pairs = [(0, (0,)), (1, (0, 1)), (2, (1, 2))]
        self.images = [self._image(builder, f"m{n}", configs[n], [layers[p] for p in of]) for n, of in pairs]
        self.index = self._index(builder, "i0", self.images[:2])
        self.signature = self._image(builder, "s0", configs[3], [layers[2]])
        self.signature_tag = str(self.images[0].digest).replace(":", "-") + ".sig"
        self.docs = [*self.images, self.index]

    def _blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        self.content[digest] = data
        return digest

    def _image(self, builder: Builder, name: str, config: Digest, layers: Sequence[Digest]) -> Doc:
        digest = builder.image(config, layers)
        return self._doc(builder, name, digest, (config, *layers))

    def _index(self, builder: Builder, name: str, children: Sequence[Doc]) -> Doc:
        digest = builder.index([child.digest for child in children])
        return self._doc(builder, name, digest, (), tuple(children))

    def _doc(
        self,
        builder: Builder,
        name: str,
        digest: Digest,
        layers: tuple[Digest, ...],
        children: tuple[Doc, ...] = (),
    ) -> Doc:
        data = builder.store.objects[encode(BlobKey(digest))][0]
        self.content[digest] = data
        return Doc(name, digest, data, layers, children)


@dataclass
class World:
    """The store, its clock in microseconds, and what a registry process remembers.

    coarse: times of whole seconds, as AWS gives them. stale: the registry has a descriptor cache that forgets nothing.
    conditional: the store has conditional writes.
    repeats: its listings show entries twice. etags: they show the MD5 of what they list.
    unreadable, archived: keys that toolkits can't read, as `ModelStorage` has them, until they are written anew.
    """

    coarse: bool = False
    stale: bool = False
    conditional: bool = True
    repeats: bool = False
    etags: bool = True
    store: ModelStore = field(default_factory=ModelStore)
    now: int = 1_700_000_000_000_000
    remembered: set[tuple[str, Digest]] = field(default_factory=set)
    #: Keys that a client or the registry ever wrote; those that a client deleted last.
    written: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    images: Images = field(default_factory=Images)
    unreadable: dict[str, StorageError] = field(default_factory=dict)
    archived: dict[str, str] = field(default_factory=dict)

    def mtime(self) -> int:
        return self.now // 1_000_000 * 1_000_000 if self.coarse else self.now

    def put(self, key: Key, body: bytes) -> None:
        self.now += 300_000
        text = encode(key)
        self.store.objects[text] = (body, self.mtime())
        self.renew(text)
        self.written.add(text)
        self.deleted.discard(text)

    def delete(self, key: str) -> None:
        self.now += 300_000
        if self.store.objects.pop(key, None) is not None:
            self.deleted.add(key)

    def renew(self, key: str) -> None:
        """It was written: what was there, and could not be read, is no more."""
        self.unreadable.pop(key, None)
        self.archived.pop(key, None)

    def has(self, key: Key) -> bool:
        return encode(key) in self.store

    # -- what the registry answers

    def knows_layer(self, repository: str, digest: Digest) -> bool:
        """HEAD of a blob: through the repository's link, and through the cache where there is one."""
        if self.stale and (repository, digest) in self.remembered:
            return True
        found = self.has(LayerLinkKey(repository, digest)) and self.has(BlobKey(digest))
        if found:
            self.remember(repository, digest)
        return found

    def knows_blob(self, digest: Digest) -> bool:
        return (self.stale and ("", digest) in self.remembered) or self.has(BlobKey(digest))

    def remember(self, repository: str, digest: Digest) -> None:
        self.remembered |= {(repository, digest), ("", digest)}


@dataclass
class Push:
    """A client that pushes, and the registry that serves it. `told`: the registry said 201 to the tag."""

    world: World
    repository: str
    doc: Doc
    tag: str
    check: bool = True
    mount_from: str = ""
    only_manifest: bool = False
    told: bool = False
    failed: bool = False
    refusals: int = 0
    wrote_tag: bool = False
    #: A client deleted something of it meanwhile: what the registry says of it means nothing.
    disturbed: bool = False

    def run(self) -> Step:
        for _ in range(4):
            try:
                yield from self._all()
            except _BlobUnknown:
                self.refusals += 1
                self.only_manifest = False
                continue
            self.told = True
            return
        self.failed = True

    def _all(self) -> Step:
        for doc in self.doc.documents():
            if not self.only_manifest:
                for layer in doc.layers:
                    yield from self._layer(layer)
            elif doc is not self.doc:
                continue
            yield from self._manifest(doc, self.tag if doc is self.doc else "")

    def _layer(self, digest: Digest) -> Step:
        world = self.world
        if self.check:
            known = world.knows_layer(self.repository, digest)
            yield
            if known:
                return
        if self.mount_from:
            known = world.knows_layer(self.mount_from, digest)
            yield
            if known:
                world.put(LayerLinkKey(self.repository, digest), link_body(digest))
                world.remember(self.repository, digest)
                yield
                return
        upload = UploadKey(self.repository, "00000000-0000-4000-8000-000000000000", "startedat")
        world.put(upload, b"x")
        yield
        present = world.has(BlobKey(digest))
        yield
        if not present:
            world.put(BlobKey(digest), world.images.content[digest])
            yield
        world.put(LayerLinkKey(self.repository, digest), link_body(digest))
        world.remember(self.repository, digest)
        yield
        world.store.objects.pop(encode(upload), None)
        yield

    def _manifest(self, doc: Doc, tag: str) -> Step:
        world, repository = self.world, self.repository
        for layer in doc.layers:
            known = world.knows_layer(repository, layer)
            yield
            if not known:
                raise _BlobUnknown
        for child in doc.children:
            known = world.has(RevisionLinkKey(repository, child.digest)) and world.knows_blob(child.digest)
            yield
            if not known:
                raise _BlobUnknown
        present = world.knows_blob(doc.digest)
        yield
        if not present:
            world.put(BlobKey(doc.digest), doc.data)
            yield
        world.remember("", doc.digest)
        world.put(RevisionLinkKey(repository, doc.digest), link_body(doc.digest))
        yield
        if tag:
            world.put(TagIndexKey(repository, tag, doc.digest), link_body(doc.digest))
            yield
            world.put(TagCurrentKey(repository, tag), link_body(doc.digest))
            self.wrote_tag = True
            yield


class _BlobUnknown(Exception):
    """400 MANIFEST_BLOB_UNKNOWN or MANIFEST_UNKNOWN: the client begins again."""


@dataclass
class Deletion:
    """A client's DELETE of a manifest, as 2.8 serves it: the revision link, then each tag that was found to name it,
    folder by folder, even if it names another by then."""

    world: World
    repository: str
    doc: Doc
    tags: list[str] = field(default_factory=list)

    def run(self) -> Step:
        world = self.world
        revision = encode(RevisionLinkKey(self.repository, self.doc.digest))
        if revision not in world.store:
            return
        world.delete(revision)
        yield
        for key in world.store:
            place = decode(key)
            if (
                isinstance(place, TagCurrentKey)
                and place.name == self.repository
                and world.store.body(key) == link_body(self.doc.digest)
            ):
                self.tags.append(place.tag)
        yield
        for tag in self.tags:
            delete_tag(world, self.repository, tag)
            yield

    def touches(self, repository: str, tag: str, doc: Doc) -> bool:
        """Whether it takes something of this tag, or of what the tag names."""
        return repository == self.repository and (
            tag in self.tags or self.doc.digest in {part.digest for part in doc.documents()}
        )


def delete_layer(world: World, repository: str, digest: Digest) -> str:
    """A client's DELETE of a blob: its link in the repository, and what a cache knows of it. The link's key."""
    world.remembered.discard((repository, digest))
    key = encode(LayerLinkKey(repository, digest))
    world.delete(key)
    return key


def delete_tag(world: World, repository: str, tag: str) -> None:
    """The tag's folder, in one DeleteObjects."""
    for key in [key for key in world.store if key.startswith(f"{tags_prefix(repository)}{tag}/")]:
        world.delete(key)
