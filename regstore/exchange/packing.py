"""What of a layout is to be imported, as packs: the same that a backup keeps of a repository, and a restore writes.

Every manifest is read and held against its digest before what it names is looked at, so nothing can go in circles. All
that an image needs must be in the layout: a digest alone, of something that only the store has, is no right to read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from regstore.backup.format import Pack, PackedManifest, PackedTag
from regstore.digest import Digest
from regstore.errors import InputError, InvalidManifest, NotFound, StorageError
from regstore.exchange.choosing import Chosen
from regstore.exchange.image_layout import INDEX, MARKER, MOST, Entry, blob_path, check_marker, entries_of
from regstore.manifest import MAX_SIZE, Descriptor, EdgeKind, Manifest, parse_manifest
from regstore.reference import is_name
from regstore.registry.manifests import StoredManifest, check_document
from regstore.storage.base import Storage

_MARKER_MOST = 4096
_BLOBS = frozenset({EdgeKind.CONFIG, EdgeKind.LAYER, EdgeKind.FOREIGN_LAYER, EdgeKind.BLOB, EdgeKind.ENTRY})


async def read_layout(source: Storage) -> list[Entry]:
    """The entries of its index. InputError where it is no OCI image layout, or could be understood in two ways."""
    check_marker(await _small(source, MARKER, _MARKER_MOST), source.url)
    return entries_of(await _small(source, INDEX, MAX_SIZE), source.url)


async def _small(source: Storage, key: str, most: int) -> bytes:
    try:
        info = await source.stat(key)
        if info.size > most:
            raise InputError(f"{key} in {source.url} has {info.size:,} bytes: more than it can have")
        return await source.get(key)
    except NotFound as error:
        raise InputError(f"{source.url} has no {key}: it is no OCI image layout, or not a whole one") from error


@dataclass(kw_only=True)
class Packed:
    """packs: one a repository. left_out: what can't be imported, and why."""

    packs: list[Pack] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


async def pack_layout(source: Storage, chosen: Chosen, now: int, *, sparse: bool = False) -> Packed:
    """now: the time that the tags get, in microseconds. sparse: an index may list manifests that are not there."""
    reader, building = _Reader(source, sparse), dict[str, _Building]()
    packed = Packed(left_out=list(chosen.left_out))
    for image in chosen.images:
        if not is_name(image.repository):
            packed.left_out.append(f"{image.entry.name}: {image.repository!r} is no name of a repository")
            continue
        await _add(reader, building, packed, image.entry, image.repository, image.tag)
    await _add_loose(reader, building, packed, chosen)
    packed.packs = [building[name].pack(name, now) for name in sorted(building)]
    return packed


async def _add(
    reader: _Reader, building: dict[str, _Building], packed: Packed, entry: Entry, repository: str, tag: str
) -> None:
    try:
        closure = await reader.closure(Descriptor(entry.digest, entry.media_type, entry.size))
    except InvalidManifest as error:
        packed.left_out.append(f"{repository}:{tag}: {error}" if tag else f"{repository}@{entry.digest}: {error}")
        return
    there = building.setdefault(repository, _Building())
    if tag and there.tags.get(tag, entry.digest) != entry.digest:
        raise InputError(f"{reader.url} says twice what {repository}:{tag} is: which is meant can't be told")
    there.add(closure)
    if tag:
        there.tags[tag] = entry.digest


async def _add_loose(reader: _Reader, building: dict[str, _Building], packed: Packed, chosen: Chosen) -> None:
    """Referrers go where their subject goes, also those of referrers; then what has a repository of its own."""
    left = list(chosen.loose)
    subjects = {entry.digest: await reader.subject(entry) for entry in left}
    while True:
        going = [
            (entry, name)
            for entry in left
            for name, there in building.items()
            if subjects[entry.digest] in there.manifests
        ]
        if not going:
            break
        for entry, name in going:
            await _add(reader, building, packed, entry, name, "")
        gone = {entry.digest for entry, _ in going}
        left = [entry for entry in left if entry.digest not in gone]
    for entry in left:
        if any(entry.digest in there.manifests for there in building.values()):
            continue
        if chosen.by_name and entry.repository and is_name(entry.repository):
            await _add(reader, building, packed, entry, entry.repository, "")
        elif chosen.by_name:
            packed.left_out.append(
                f"{entry.digest}: it has no name in the layout: give REPOSITORY or REPOSITORY:TAG"
            )


@dataclass(slots=True)
class _Closure:
    """manifests: children before what names them; their bytes, and what they say. blobs: with their sizes."""

    manifests: dict[Digest, tuple[int, Manifest]] = field(default_factory=dict)
    blobs: dict[Digest, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Building:
    """A pack that grows."""

    manifests: dict[Digest, tuple[int, Manifest]] = field(default_factory=dict)
    blobs: dict[Digest, int] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)

    def add(self, closure: _Closure) -> None:
        for digest, known in closure.manifests.items():
            self.manifests.setdefault(digest, known)
        self.blobs |= closure.blobs

    def pack(self, name: str, now: int) -> Pack:
        sizes = {digest: size for digest, (size, _) in self.manifests.items()}
        return Pack(
            name=name,
            blobs=self.blobs | sizes,
            layers={digest: digest for digest in self.blobs},
            manifests={
                digest: PackedManifest(
                    media_type=manifest.media_type,
                    linked=True,
                    needs=tuple(self._needs(manifest)),
                    subject=manifest.subject.digest if manifest.subject else None,
                )
                for digest, (_, manifest) in self.manifests.items()
            },
            history=frozenset(self.tags.items()),
            tags={tag: PackedTag(digest, now) for tag, digest in self.tags.items()},
        )

    def _needs(self, manifest: Manifest) -> Iterable[Digest]:
        for edge in manifest.edges:
            if edge.kind is not EdgeKind.SUBJECT:
                digest = edge.target.digest
                if digest in self.manifests or digest in self.blobs:  # a foreign layer may be in neither
                    yield digest


class _Reader:
    """Manifests and sizes of one layout."""

    def __init__(self, source: Storage, sparse: bool) -> None:
        self.url = source.url
        self._sparse = sparse
        self._source = source
        self._manifests: dict[Digest, tuple[int, Manifest]] = {}
        self._sizes: dict[Digest, int] = {}

    async def subject(self, entry: Entry) -> Digest | None:
        try:
            _, manifest = await self._manifest(Descriptor(entry.digest, entry.media_type, entry.size))
        except InvalidManifest:
            return None  # it is said when its turn comes
        return manifest.subject.digest if manifest.subject else None

    async def closure(self, root: Descriptor) -> _Closure:
        """InvalidManifest says what is missing, or wrong."""
        found = _Closure()
        stack: list[tuple[Descriptor, bool]] = [(root, False)]
        opened: set[Digest] = set()
        while stack:
            target, done = stack.pop()
            size, manifest = await self._manifest(target)
            if done:
                found.manifests[target.digest] = size, manifest
                continue
            if target.digest in opened:
                continue
            opened.add(target.digest)
            stack.append((target, True))
            for edge in manifest.edges:
                if edge.kind is EdgeKind.MANIFEST:
                    if not self._sparse or await self._size(edge.target.digest) is not None:
                        stack.append((edge.target, False))
                elif edge.kind in _BLOBS:
                    await self._blob(edge.target, edge.kind is EdgeKind.FOREIGN_LAYER, found)
        return found

    async def _manifest(self, target: Descriptor) -> tuple[int, Manifest]:
        known = self._manifests.get(target.digest)
        if known is None:
            if len(self._manifests) >= MOST:
                raise InputError(f"{self.url} has more than {MOST:,} manifests: import it in parts")
            known = await self._read(target.digest)
            self._manifests[target.digest] = known
        if target.size not in (-1, known[0]):
            raise InvalidManifest(f"{target.digest} has {known[0]:,} bytes, and {target.size:,} were promised")
        return known

    async def _read(self, digest: Digest) -> tuple[int, Manifest]:
        size = await self._size(digest)
        if size is None:
            raise InvalidManifest(f"the layout lacks the manifest {digest} (--sparse: an index may list more)")
        if size > MAX_SIZE:
            raise InvalidManifest(f"{digest} has {size:,} bytes: no manifest")
        data = await self._source.get(blob_path(digest))
        if not digest.matches(data):
            raise InvalidManifest(f"{digest} is damaged: its bytes have {Digest.of(data)}")
        manifest = parse_manifest(data)
        check_document(StoredManifest(digest, manifest.media_type, data, manifest), None)
        return len(data), manifest

    async def _blob(self, target: Descriptor, foreign: bool, found: _Closure) -> None:
        size = await self._size(target.digest)
        if size is None:
            if foreign:
                return
            raise InvalidManifest(f"the layout lacks the blob {target.digest}")
        if target.size not in (-1, size):
            raise InvalidManifest(f"{target.digest} has {size:,} bytes, and its manifest says {target.size:,}")
        found.blobs[target.digest] = size

    async def _size(self, digest: Digest) -> int | None:
        if digest.algorithm != "sha256":
            raise InvalidManifest(f"{digest} is not of sha256, by which registries store what they get")
        if digest not in self._sizes:
            try:
                self._sizes[digest] = (await self._source.stat(blob_path(digest))).size
            except NotFound:
                return None
            except StorageError as error:
                raise InvalidManifest(f"{digest} can't be read: {error}") from error
        return self._sizes[digest]
