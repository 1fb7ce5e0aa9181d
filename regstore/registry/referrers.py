"""Referrers: which manifests of a repository say that they belong to another (signatures, SBOMs, attestations)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from regstore.digest import Digest
from regstore.errors import InvalidManifest, ManifestUnknown, StorageError
from regstore.manifest import Manifest
from regstore.reference import digests_named
from regstore.registry.manifests import Manifests, StoredManifest
from regstore.registry.tags import Tags
from regstore.registry.workers import run_all
from regstore.storage.streams import is_fatal


@dataclass(frozen=True, slots=True)
class Referrer:
    """size: of the manifest, in bytes, -1 where unknown. tag: the one that says so, where no `subject` does."""

    digest: Digest
    media_type: str
    artifact_type: str
    size: int
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Referrers:
    """What refers to one digest. unreadable: revisions of the repository that could not be read; they may too."""

    items: tuple[Referrer, ...]
    unreadable: tuple[Digest, ...] = ()

    def __iter__(self) -> Iterator[Referrer]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class KnownManifest:
    """What is remembered of a manifest that was read and verified; size in bytes."""

    manifest: Manifest
    size: int
    annotations: dict[str, str]

    @classmethod
    def of(cls, stored: StoredManifest) -> KnownManifest:
        return cls(stored.manifest, len(stored.data), stored.annotations)


@dataclass(slots=True)
class Subjects:
    """Every manifest of a repository by digest, and the referrers of each: one pass over its revisions."""

    manifests: dict[Digest, KnownManifest] = field(default_factory=dict)
    referrers: dict[Digest, dict[Digest, Referrer]] = field(default_factory=dict)
    unreadable: list[Digest] = field(default_factory=list)

    def of(self, digest: Digest) -> Referrers:
        return Referrers(tuple(self.referrers.get(digest, {}).values()), tuple(self.unreadable))

    def add(self, subject: Digest, referrer: Referrer) -> None:
        self.referrers.setdefault(subject, {}).setdefault(referrer.digest, referrer)


def _as_it_is(digest: Digest, found: KnownManifest) -> KnownManifest:
    return found


async def read_subjects(
    manifests: Manifests,
    tags: Tags,
    *,
    known: Mapping[Digest, KnownManifest] | None = None,
    keep: Callable[[Digest, KnownManifest], KnownManifest] = _as_it_is,
) -> Subjects:
    """One GET a revision that is not `known`, one listing of revisions and one of tags. A damaged manifest is noted,
    not raised. keep: gives what is kept of each that was read, as soon as it was."""
    subjects = Subjects()

    async def read(revision: tuple[Digest, bool]) -> KnownManifest | None:
        digest, sound = revision
        if sound and known is not None and digest in known:
            return known[digest]
        try:
            return keep(
                digest, KnownManifest.of(await (manifests.read(digest) if sound else manifests.get(digest)))
            )
        except (ManifestUnknown, InvalidManifest):
            return None
        except StorageError as error:
            if is_fatal(error):
                raise
            return None

    revisions = [revision async for revision in manifests.revisions()]
    for (digest, _), found in zip(revisions, await run_all(read, revisions), strict=True):
        if found is None:
            subjects.unreadable.append(digest)
            continue
        subjects.manifests[digest] = found
        subject = found.manifest.subject
        if subject is not None:
            subjects.add(subject.digest, _referrer(digest, found))
    beginning: dict[str, list[Digest]] = {}
    for digest, _ in revisions:
        beginning.setdefault(f"{digest.algorithm}-{digest.encoded[:64]}", []).append(digest)
    async for tag in tags:
        if tag.digest is not None:
            _follow_tag(subjects, tag.name, tag.digest, beginning.get(tag.name[:71], ()))
    return subjects


def artifact_type(document: Manifest) -> str:
    """As the referrers API gives it: the manifest's own, or else its config's media type."""
    config = document.config
    return document.artifact_type or (config.media_type if config else "")


def _follow_tag(subjects: Subjects, tag: str, digest: Digest, linked: Sequence[Digest]) -> None:
    """The OCI fallback `sha256-<hex>` is an index of referrers; cosign's `sha256-<hex>.sig` is one itself. One that is
    cut names what of the `linked` manifests begins so."""
    known = subjects.manifests.get(digest)
    if known is None:
        return
    document = known.manifest
    for subject in digests_named(tag, linked):
        if "." not in tag and document.is_index:
            for entry in document.manifests:
                subjects.add(
                    subject, Referrer(entry.digest, entry.media_type, entry.artifact_type, entry.size, tag)
                )
        else:
            subjects.add(subject, _referrer(digest, known, tag))


def _referrer(digest: Digest, known: KnownManifest, tag: str | None = None) -> Referrer:
    return Referrer(digest, known.manifest.media_type, artifact_type(known.manifest), known.size, tag)
