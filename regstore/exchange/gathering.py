"""What of a store is to be exported: the images that are named, with all that they need and what refers to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from regstore.digest import Digest
from regstore.errors import (
    BlobUnknown,
    InputError,
    InvalidManifest,
    ManifestUnknown,
    StorageError,
)
from regstore.events import OnEvent, Progress, ignore
from regstore.exchange.image_layout import Entry
from regstore.manifest import DOCKER_LIST, DOCKER_MANIFEST, Descriptor, EdgeKind, Manifest
from regstore.reference import Reference, digests_named
from regstore.registry import Registry, Repository
from regstore.registry.referrers import KnownManifest, Subjects, read_subjects
from regstore.registry.workers import run_all
from regstore.storage.base import Storage
from regstore.storage.streams import is_fatal
from regstore.words import counted

_BLOBS = frozenset({EdgeKind.CONFIG, EdgeKind.LAYER, EdgeKind.FOREIGN_LAYER, EdgeKind.BLOB})


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """what: repositories (all their tags), tags, or images by digest. referrers: signatures, SBOMs and the like go,
    too."""

    what: tuple[Reference, ...]
    referrers: bool = True
    concurrency: int = 128

    def __post_init__(self) -> None:
        if not self.what:
            raise InputError("say what to export: REPOSITORY, REPOSITORY:TAG or REPOSITORY@DIGEST")


@dataclass(frozen=True, slots=True)
class Content:
    """A blob or manifest: the digest that it lies under in the store, and its bytes."""

    stored_as: Digest
    size: int


@dataclass(kw_only=True)
class ExportPlan:
    """entries: of the index. needs: of each entry's digest, all that it reaches, itself included. contents: of these,
    by the digest that names them. left_out: what can't be exported, and why. notes: what is odd, and goes as it is."""

    entries: list[Entry] = field(default_factory=list)
    needs: dict[Digest, frozenset[Digest]] = field(default_factory=dict)
    contents: dict[Digest, Content] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(content.size for content in self.contents.values())


async def plan_export(storage: Storage, options: ExportOptions, *, on_event: OnEvent = ignore) -> ExportPlan:
    """Look; blobs are not read. Where a repository's referrers are wanted, each of its manifests is.

    NameUnknown, TagUnknown, ManifestUnknown for what is asked for and not there. What is damaged is left out.
    """
    registry, plan = Registry(storage), ExportPlan()
    names = list(dict.fromkeys(reference.name for reference in options.what))
    for number, name in enumerate(names):
        on_event(Progress(phase="reading manifests", done=number, total=len(names), unit="repositories"))
        repository = registry.repository(name)
        wanted = [reference for reference in options.what if reference.name == name]
        await _Gathering(repository, plan, options.referrers).gather(wanted)
    used = {digest for entry in plan.entries for digest in plan.needs[entry.digest]}
    plan.contents = {digest: content for digest, content in plan.contents.items() if digest in used}
    docker = [entry.name for entry in plan.entries if entry.media_type in (DOCKER_MANIFEST, DOCKER_LIST)]
    if docker:
        plan.notes.append(
            f"{counted(len(docker), 'image')} of Docker's own media types, such as {docker[0]}, go as they are, for "
            "another type is another digest: skopeo, podman and umoci pass over such ones in a layout"
        )
    return plan


class _NotWhole(Exception):
    """Why an image can't be exported."""


class _Gathering:
    """Of one repository."""

    def __init__(self, repository: Repository, plan: ExportPlan, referrers: bool) -> None:
        self._repository = repository
        self._plan = plan
        self._referrers = referrers
        self._subjects = Subjects()
        self._known: dict[Digest, KnownManifest] = {}
        self._found: dict[Digest, Content] = {}
        #: Tags, and digests without one, that have an entry.
        self._entered: set[str | Digest] = set()

    async def gather(self, wanted: Sequence[Reference]) -> None:
        repository, plan = self._repository, self._plan
        if self._referrers:
            self._subjects = await read_subjects(repository.manifests, repository.tags)
            if self._subjects.unreadable:
                plan.notes.append(
                    f"{repository.name}: {len(self._subjects.unreadable)} manifests can't be read: what refers to "
                    "others by them is not known"
                )
        tags = {tag.name: tag.digest async for tag in repository.tags}
        roots = await self._roots(wanted, tags)
        for digest, named in roots.items():
            await self._add(digest, named)
        if self._referrers:
            await self._follow(tags)

    async def _roots(
        self, wanted: Sequence[Reference], tags: dict[str, Digest | None]
    ) -> dict[Digest, dict[str, None]]:
        """Digests with the tags that they are to have."""
        roots: dict[Digest, dict[str, None]] = {}
        for reference in wanted:
            if reference.digest is not None:
                roots.setdefault(reference.digest, {}).update({reference.tag: None} if reference.tag else {})
                if reference.tag and tags.get(reference.tag) != reference.digest:
                    raise InputError(f"{reference.name}:{reference.tag} does not name {reference.digest}")
                await self._repository.manifests.get(reference.digest)
            elif reference.tag is not None:
                roots.setdefault(await self._repository.tags.get(reference.tag), {})[reference.tag] = None
            else:
                for tag, digest in tags.items():
                    if digest is None:
                        self._plan.left_out.append(f"{reference.name}:{tag}: its link is damaged")
                    else:
                        roots.setdefault(digest, {})[tag] = None
        return roots

    async def _add(self, digest: Digest, tags: Iterable[str]) -> None:
        """An entry for each of the tags, or one without; with what it needs. What is not whole is left out."""
        name = self._repository.name
        names = list(tags) or [""]
        try:
            if digest not in self._plan.needs:
                self._plan.needs[digest] = frozenset(await self._closure(digest))
            known = await self._manifest(digest)
        except _NotWhole as error:
            self._plan.left_out += [
                f"{name}:{tag}: {error}" if tag else f"{name}@{digest}: {error}" for tag in names
            ]
            return
        for tag in names:
            if (tag or digest) not in self._entered:
                self._entered.add(tag or digest)
                self._plan.entries.append(_entry(name, digest, tag, known))

    async def _follow(self, tags: dict[str, Digest | None]) -> None:
        """What refers to what is in the plan, again and again: by a subject, or by a tag `sha256-<hex>…`."""
        done: set[Digest] = set()
        named = {entry.digest for entry in self._plan.entries if entry.tag}
        while True:
            mine = [entry.digest for entry in self._plan.entries if entry.repository == self._repository.name]
            reached = {digest for entry in mine for digest in self._plan.needs[entry]} & set(
                self._subjects.manifests
            )
            fresh = reached - done
            if not fresh:
                return
            done |= fresh
            for tag, digest in tags.items():
                if digest is not None and fresh & set(digests_named(tag, list(fresh))):
                    await self._add(digest, [tag])
                    named.add(digest)
            for subject in fresh:
                for referrer in self._subjects.of(subject):
                    if referrer.tag is None and referrer.digest not in named | reached:
                        await self._add(referrer.digest, [])

    async def _closure(self, root: Digest) -> set[Digest]:
        seen: set[Digest] = set()
        stack = [root]
        while stack:
            digest = stack.pop()
            if digest in seen:
                continue
            seen.add(digest)
            known = await self._manifest(digest)
            self._plan.contents[digest] = Content(digest, known.size)
            stack += await self._children(digest, known.manifest, seen)
            seen.update(await self._blobs(known.manifest))
        return seen

    async def _manifest(self, digest: Digest) -> KnownManifest:
        known = self._known.get(digest) or self._subjects.manifests.get(digest)
        if known is None:
            try:
                known = KnownManifest.of(await self._repository.manifests.get(digest))
            except (ManifestUnknown, InvalidManifest, StorageError) as error:
                if isinstance(error, StorageError) and is_fatal(error):
                    raise
                raise _NotWhole(str(error)) from error
        if known.manifest.is_schema1:
            raise _NotWhole("it is of Docker's schema 1, which no image layout can hold")
        self._known[digest] = known
        return known

    async def _children(self, parent: Digest, manifest: Manifest, seen: set[Digest]) -> list[Digest]:
        """Manifests that an index lists. Those that were never pushed stay away, as in the registry."""
        found = []
        for edge in manifest.edges:
            digest = edge.target.digest
            if edge.kind is not EdgeKind.MANIFEST or digest in seen:
                continue
            if await self._is_revision(digest):
                found.append(digest)
            else:
                self._plan.notes.append(
                    f"{self._repository.name}: the index {parent.short} lists {digest.short}, which was never pushed"
                )
        return found

    async def _is_revision(self, digest: Digest) -> bool:
        if digest in self._subjects.manifests or digest in self._known:
            return True
        try:
            await self._manifest(digest)
        except _NotWhole as error:
            if isinstance(error.__cause__, ManifestUnknown) and "links the manifest" not in str(error):
                return False
            raise
        return True

    async def _blobs(self, manifest: Manifest) -> set[Digest]:
        targets = {
            edge.target.digest: edge
            for edge in manifest.edges
            if edge.kind in _BLOBS or edge.kind is EdgeKind.ENTRY
        }

        async def look(digest: Digest) -> tuple[Digest, Content | None]:
            edge = targets[digest]
            return digest, await self._blob(edge.target, edge.kind is EdgeKind.FOREIGN_LAYER)

        found = set()
        for digest, content in await run_all(look, list(targets)):
            if content is not None:
                self._plan.contents[digest] = content
                found.add(digest)
        return found

    async def _blob(self, target: Descriptor, foreign: bool) -> Content | None:
        found = self._found.get(target.digest)
        if found is None:
            try:
                info = await self._repository.blobs.stat(target.digest)
            except BlobUnknown as error:
                if foreign:  # it lies elsewhere, as its descriptor says
                    return None
                raise _NotWhole(str(error)) from error
            except StorageError as error:
                if is_fatal(error):
                    raise
                raise _NotWhole(str(error)) from error
            found = self._found[target.digest] = Content(info.stored_as, info.size)
        if target.size not in (-1, found.size):
            raise _NotWhole(f"{target.digest} has {found.size:,} bytes, and its manifest says {target.size:,}")
        return found


def _entry(name: str, digest: Digest, tag: str, known: KnownManifest) -> Entry:
    manifest = known.manifest
    return Entry(
        digest=digest,
        media_type=manifest.media_type,
        size=known.size,
        repository=name,
        tag=tag,
        artifact_type=manifest.artifact_type,
    )
