"""What a person wants to know of a manifest: size, platforms, age, layers, referrers."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from regstore import manifest
from regstore.digest import Digest
from regstore.errors import BlobUnknown, InvalidManifest, ManifestUnknown, StorageError
from regstore.manifest import Descriptor, Platform
from regstore.registry.referrers import KnownManifest, Referrer, Subjects, artifact_type, read_subjects
from regstore.registry.uploads import parse_time
from regstore.registry.workers import WORKERS, run_all
from regstore.storage.streams import is_fatal

if TYPE_CHECKING:
    from regstore.registry.repository import Repository

_IMAGE_CONFIGS: Final = frozenset({manifest.OCI_CONFIG, "application/vnd.docker.container.image.v1+json"})
#: What BuildKit writes as the platform of an attestation, which has none.
_NO_PLATFORM: Final = frozenset({"", "unknown"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """size: of the manifest alone; total_size: with its config, layers and children, each blob counted once;
    both in bytes. Foreign layers, which are usually not stored, are not counted.

    platforms: of the image, or of each image of an index. created: from the config (for an index the newest
    of its images), microseconds since 1970, None where it does not say. layers: how many distinct ones.
    missing: manifests that it lists, and blobs, that the repository has not (a sparse index), or only damaged.
    referrers: empty unless asked for.
    """

    digest: Digest
    media_type: str
    size: int
    total_size: int
    platforms: tuple[Platform, ...] = ()
    created: int | None = None
    layers: int = 0
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    missing: tuple[Digest, ...] = ()
    referrers: tuple[Referrer, ...] = ()


@dataclass(slots=True)
class _Closure:
    """What was met on the way down from one manifest."""

    sizes: dict[Digest, int] = dataclasses.field(default_factory=dict)
    layers: set[Digest] = dataclasses.field(default_factory=set)
    platforms: dict[Platform, None] = dataclasses.field(default_factory=dict)
    created: int | None = None
    missing: dict[Digest, None] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Config:
    platform: Platform | None = None
    created: int | None = None


async def describe(repository: Repository, reference: Digest | str, *, referrers: bool = True) -> Description:
    subjects = await read_subjects(repository.manifests, repository.tags) if referrers else Subjects()
    return await _Describer(repository, subjects).describe(reference)


async def describe_tags(
    repository: Repository, *, referrers: bool = True
) -> AsyncGenerator[tuple[str, Description | None], None]:
    subjects = await read_subjects(repository.manifests, repository.tags) if referrers else Subjects()
    describer = _Describer(repository, subjects)

    async def of(digest: Digest | None) -> Description | None:
        if digest is None:
            return None
        try:
            return await describer.describe(digest)
        except (ManifestUnknown, InvalidManifest):
            return None
        except StorageError as error:
            if is_fatal(error):
                raise
            return None

    async with aclosing(repository.tags.__aiter__()) as tags:
        batch = []
        async for tag in tags:
            batch.append(tag)
            if len(batch) == 4 * WORKERS:
                for name, description in zip(batch, await run_all(of, [tag.digest for tag in batch]), strict=True):
                    yield name.name, description
                batch = []
        for name, description in zip(batch, await run_all(of, [tag.digest for tag in batch]), strict=True):
            yield name.name, description


class _Describer:
    """Descriptions of one repository, reading each child and each config once."""

    def __init__(self, repository: Repository, subjects: Subjects) -> None:
        self._repository = repository
        self._subjects = subjects
        self._configs: dict[Digest, _Config] = {}
        self._absent: set[Digest] = set()

    async def describe(self, reference: Digest | str) -> Description:
        digest = await self._repository.manifests.resolve(reference)
        known = await self._known(digest)
        closure = _Closure()
        await self._follow(digest, known, closure)
        subject = known.manifest.subject
        return Description(
            digest=digest,
            media_type=known.manifest.media_type,
            size=known.size,
            total_size=sum(closure.sizes.values()),
            platforms=tuple(closure.platforms),
            created=closure.created,
            layers=len(closure.layers),
            subject=subject.digest if subject else None,
            artifact_type=artifact_type(known.manifest),
            annotations=known.annotations,
            missing=tuple(closure.missing),
            referrers=self._subjects.of(digest).items,
        )

    async def _follow(self, digest: Digest, known: KnownManifest, closure: _Closure) -> None:
        """Each manifest below once, in the order of the lists. No recursion: indexes may be nested to any depth."""
        entries = [(entry, False) for entry in await self._add(digest, known, closure, told=False)]
        while entries:
            entry, told = entries.pop()
            if entry.digest in closure.sizes or entry.digest in closure.missing:
                continue
            if entry.media_type and entry.media_type not in manifest.MANIFEST_MEDIA_TYPES:
                closure.layers.add(entry.digest)
                await self._add_blob(entry, closure)
                continue
            if entry.platform is not None and not told and entry.platform.architecture not in _NO_PLATFORM:
                closure.platforms.setdefault(entry.platform)
            child = await self._child(entry.digest)
            if child is None:
                closure.missing.setdefault(entry.digest)
                continue
            told = told or entry.platform is not None
            entries += [(below, told) for below in await self._add(entry.digest, child, closure, told=told)]

    async def _add(
        self, digest: Digest, known: KnownManifest, closure: _Closure, *, told: bool
    ) -> Sequence[Descriptor]:
        """One manifest and its blobs; what it lists, last first. told: an index has said the platform, and its word
        decides: a config often leaves the variant out."""
        document = known.manifest
        closure.sizes[digest] = known.size
        for layer in document.layers:
            closure.layers.add(layer.digest)
            if not layer.foreign:
                await self._add_blob(layer, closure)
        if (config := document.config) is not None:
            await self._add_blob(config, closure)
            facts = await self._config(config)
            if facts.platform is not None and not told:
                closure.platforms.setdefault(facts.platform)
            if facts.created is not None:
                closure.created = max(closure.created or facts.created, facts.created)
        return document.manifests[::-1]

    async def _child(self, digest: Digest) -> KnownManifest | None:
        """None where it is absent or damaged."""
        if digest in self._absent:
            return None
        try:
            return await self._known(digest)
        except (ManifestUnknown, InvalidManifest):
            self._absent.add(digest)
            return None
        except StorageError as error:
            if is_fatal(error):
                raise
            self._absent.add(digest)
            return None

    async def _known(self, digest: Digest) -> KnownManifest:
        known = self._subjects.manifests.get(digest)
        if known is None:
            known = KnownManifest.of(await self._repository.manifests.get(digest))
            self._subjects.manifests[digest] = known
        return known

    async def _add_blob(self, target: Descriptor, closure: _Closure) -> None:
        if target.digest in closure.sizes:
            return
        size = target.size
        if size < 0:
            try:
                size = (await self._repository.blobs.stat(target.digest)).size
            except BlobUnknown:
                closure.missing.setdefault(target.digest)
                size = 0
        closure.sizes[target.digest] = size

    async def _config(self, config: Descriptor) -> _Config:
        if config.media_type not in _IMAGE_CONFIGS or config.size > manifest.MAX_SIZE:
            return _Config()
        if config.digest not in self._configs:
            try:
                data = await self._repository.blobs.read(config.digest)
                self._configs[config.digest] = _read_config(data)
            except BlobUnknown:
                self._configs[config.digest] = _Config()
            except StorageError as error:
                if is_fatal(error):
                    raise
                self._configs[config.digest] = _Config()
        return self._configs[config.digest]


def _read_config(data: bytes) -> _Config:
    document = _object(data)
    os, architecture, variant = (str(document.get(name) or "") for name in ("os", "architecture", "variant"))
    platform = None if architecture in _NO_PLATFORM else Platform(os, architecture, variant)
    created = document.get("created")
    return _Config(platform, parse_time(created) if isinstance(created, str) else None)


def _object(data: bytes) -> dict[str, Any]:
    import orjson

    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
