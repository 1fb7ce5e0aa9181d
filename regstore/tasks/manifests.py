"""Read manifests by digest, hold them against it, and parse them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import Archived, InvalidManifest, NotFound, RegstoreError, StorageError
from regstore.events import Progress
from regstore.manifest import Manifest, parse_manifest
from regstore.storage.outage import IN_A_ROW
from regstore.storage.streams import is_fatal
from regstore.storage.transfer import Breaker
from regstore.tasks.packing import PackedError, pack
from regstore.tasks.runner import Context

PHASE: Final = "reading manifests"
#: Manifests between two words on how far it is.
_TELL: Final = 25
_HEAD: Final = struct.Struct("<BBq")


#: Digest, size, media type, artifact type, edges, and a checksum of all these.
RememberedManifest = tuple[bytes, int, str, str, bytes, bytes]


@dataclass(frozen=True, slots=True)
class ReadManifests:
    """digests: the hash's own bytes. keys: where each stands, "" for its own place."""

    digests: Sequence[bytes]
    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class ManifestRows:
    """Readable manifests, as columns. `remembered` has a row for each, as `inventory.cache` keeps it. sources, targets,
    kinds and sizes: of all their edges."""

    remembered: list[RememberedManifest] = field(default_factory=list)
    sources: list[bytes] = field(default_factory=list)
    targets: list[bytes] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.remembered)

    def add(self, digest: bytes, size: int, manifest: Manifest) -> None:
        packed = bytearray()
        for edge in manifest.edges:
            target, kind, bound = edge.target.digest.raw, int(edge.kind), edge.target.size
            packed += _HEAD.pack(kind, len(target), bound) + target
            self._edge(digest, target, kind, bound)
        row = (digest, size, manifest.media_type, manifest.artifact_type, bytes(packed))
        self.remembered.append((*row, checksum(row)))

    def add_remembered(self, row: RememberedManifest) -> None:
        """Of a row that has its checksum."""
        self.remembered.append(row)
        for target, kind, size in _unpack(row[4]):
            self._edge(row[0], target, kind, size)

    def extend(self, other: ManifestRows) -> None:
        self.remembered.extend(other.remembered)
        self.sources.extend(other.sources)
        self.targets.extend(other.targets)
        self.kinds.extend(other.kinds)
        self.sizes.extend(other.sizes)

    def _edge(self, source: bytes, target: bytes, kind: int, size: int) -> None:
        self.sources.append(source)
        self.targets.append(target)
        self.kinds.append(kind)
        self.sizes.append(size)


@dataclass(frozen=True, slots=True)
class ReadResult:
    """broken: those that are missing, or of no use: digest, size, state and reason as the inventory's `manifest` has
    them. not_given: those that the store has and does not give: digest, key, and the error."""

    sound: ManifestRows
    broken: list[tuple[bytes, int, str, str]]
    not_given: list[tuple[bytes, str, PackedError]]
    #: Those that were not asked for: so many in a row were not given that this may be no matter of single ones.
    left: list[bytes]

    def require(self, digests: Sequence[bytes]) -> None:
        """RegstoreError where it says nothing of one of these: what nobody knows as a manifest names nothing, and its
        layers would be garbage."""
        told = {row[0] for rows in (self.sound.remembered, self.broken, self.not_given) for row in rows}
        untold = set(digests) - told - set(self.left)
        if untold:
            raise RegstoreError(
                f"of {len(digests):,} manifests that were to be read, a task said nothing of {len(untold):,}, "
                f"{Digest.from_raw(min(untold))} among them; this is a fault of regstore, and nothing was done by it"
            )


async def read_manifests(context: Context, work: ReadManifests) -> ReadResult:
    """One GET each. Raises what every request would meet."""
    result = ReadResult(ManifestRows(), [], [], [])
    watch = Breaker(IN_A_ROW)
    done, stopped = 0, False

    async def read(wanted: tuple[bytes, str]) -> None:
        nonlocal done, stopped
        raw, key = wanted
        if stopped:
            result.left.append(raw)
            return
        if await read_one(raw, key):
            watch.good()
        else:
            stopped = watch.is_broken_by_one_more()
        done += 1
        if done % _TELL == 0:
            context.on_event(Progress(phase=PHASE, done=done, unit="manifests"))

    async def read_one(raw: bytes, key: str) -> bool:
        """False where the store does not give it."""
        digest = Digest.from_raw(raw)
        key = key or layout.blob_key(digest)
        try:
            data = await context.store.get(key)
        except NotFound:
            result.broken.append((raw, 0, "missing", "its blob is missing"))
            return True
        except StorageError as error:
            if is_fatal(error):
                raise
            result.not_given.append((raw, key, pack(error)))
            return isinstance(error, Archived)
        if not digest.matches(data):
            what = "it is empty" if not data else f"its {len(data):,} bytes have another digest"
            result.broken.append((raw, len(data), "mismatch", what))
            return True
        try:
            result.sound.add(raw, len(data), parse_manifest(data))
        except InvalidManifest as error:
            result.broken.append((raw, len(data), "invalid", str(error)))
        return True

    await for_each(zip(work.digests, work.keys, strict=True), read, concurrency=context.concurrency)
    return result


def checksum(row: Sequence[Any]) -> bytes:
    """Of a row to be remembered, without this."""
    return hashlib.blake2b(repr(list(row)).encode(), digest_size=16).digest()


def _unpack(packed: bytes) -> Iterator[tuple[bytes, int, int]]:
    position, end = 0, len(packed)
    while position < end:
        kind, length, size = _HEAD.unpack_from(packed, position)
        position += _HEAD.size
        yield packed[position : position + length], kind, size
        position += length
