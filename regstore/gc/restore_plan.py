"""The plan of an undo: what a run's journal and the trash can give back, beside what stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import InputError, InvalidManifest, NotFound
from regstore.gc.past import list_trash
from regstore.layout import BlobKey, LayerLinkKey, RevisionLinkKey, SignatureLinkKey, TagCurrentKey, TagIndexKey
from regstore.manifest import MAX_SIZE, EdgeKind, Manifest, parse_manifest
from regstore.reference import subject_of_tag
from regstore.state import TRASH
from regstore.state.journal import TRASHED, UNLINK, Entry, RunRecord, find_runs, read_parts, read_seen
from regstore.storage.base import Storage

LinkKey = LayerLinkKey | RevisionLinkKey | SignatureLinkKey | TagCurrentKey | TagIndexKey
_TAKEN: Final = (UNLINK, TRASHED)
_ORDER: Final[Sequence[type[LinkKey]]] = (
    LayerLinkKey,
    SignatureLinkKey,
    RevisionLinkKey,
    TagIndexKey,
    TagCurrentKey,
)


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """What to give back: of one run (None: the newest that took anything), all; or what one repository lost; or a
    digest with all it needs: its blobs, its referrers, its links and tags."""

    run: str | None = None
    repository: str | None = None
    digest: Digest | None = None
    concurrency: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobBack:
    """source: the key of its copy. size in bytes."""

    digest: Digest
    source: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkBack:
    """mtime: of the link that went, in microseconds."""

    key: str
    body: bytes
    mtime: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A key that is left as it is, and why."""

    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RestorePlan:
    """links in the order of a push; standing: keys of the run that are there, as they were. options: those that give
    this plan again, with the run's name."""

    options: RestoreOptions
    run: str
    record: RunRecord
    blobs: tuple[BlobBack, ...]
    links: tuple[tuple[LinkBack, ...], ...]
    standing: tuple[str, ...]
    conflicts: tuple[Conflict, ...]

    @property
    def blob_bytes(self) -> int:
        return sum(blob.size for blob in self.blobs)

    @property
    def link_count(self) -> int:
        return sum(map(len, self.links))

    @property
    def nothing_to_do(self) -> bool:
        return not self.blobs and not self.links


async def plan_restore(storage: Storage, options: RestoreOptions, *, damaged: Collection[str] = ()) -> RestorePlan:
    """Look at the journal, the trash and what stands; nothing is written. InputError for a run that is not there.
    damaged: copies in the trash that are no good.

    Reads: one LIST of the trash, one of each repository concerned, one GET a revision, one HEAD a blob.
    """
    record = await _choose(storage, options.run)
    planner = _Planner(storage, replace(options, run=record.run), record, damaged)
    await planner.read_journal()
    await planner.select()
    return await planner.plan()


class _Planner:
    def __init__(
        self, storage: Storage, options: RestoreOptions, record: RunRecord, damaged: Collection[str]
    ) -> None:
        self._damaged = damaged
        self._storage = storage
        self._options = options
        self._record = record
        self._links: dict[LinkKey, Entry] = {}
        self._taken: dict[Digest, int] = {}
        self._copies: dict[Digest, tuple[str, int]] = {}
        self._manifests: dict[Digest, Manifest | None] = {}
        self._present: dict[Digest, int | None] = {}
        self._wanted: set[Digest] = set()
        self._conflicts: list[Conflict] = []
        #: Times of index links that the run did not take, the newest of each tag.
        self._pushed: dict[TagCurrentKey, int] = {}

    async def read_journal(self) -> None:
        """Links and blobs that the run took, and where copies of blobs are: its own before those of later runs."""
        run = self._record.run
        async for entries in read_parts(self._storage, self._record.parts):
            for entry in entries:
                key = layout.decode(entry.key)
                if isinstance(key, BlobKey) and entry.op in _TAKEN:
                    self._taken[key.digest] = entry.size
                elif isinstance(key, LinkKey) and entry.op == UNLINK:
                    self._links[key] = entry
        async for found, text, size in list_trash(self._storage):
            if text in self._damaged:
                continue
            key = layout.decode(text[len(f"{TRASH}{found}/") :])
            known = self._copies.get(key.digest) if isinstance(key, BlobKey) else None
            if isinstance(key, BlobKey) and (known is None or not known[0].startswith(f"{TRASH}{run}/")):
                self._copies[key.digest] = (text, size)

    async def select(self) -> None:
        """Drop the links that were not asked for, and find all digests that what comes back needs."""
        name, digest = self._options.repository, self._options.digest
        if name is not None:
            self._links = {key: entry for key, entry in self._links.items() if key.name == name}
        if digest is not None:
            homes = {key.name for key, entry in self._links.items() if digest in _named(key, entry)}
            if homes:
                self._links = {key: entry for key, entry in self._links.items() if key.name in homes}
        targets = (_target(entry) for key, entry in self._links.items() if isinstance(key, TagCurrentKey))
        await self._read(self._revisions() | {target for target in targets if target is not None})
        if digest is not None:
            wanted = await self._closure({digest})
            while True:
                more = {
                    each
                    for each in self._revisions() - wanted
                    if (subject := self._subject(each)) is not None and subject in wanted
                } | {
                    target
                    for key, entry in self._links.items()
                    if isinstance(key, TagCurrentKey)
                    and subject_of_tag(key.tag) in wanted
                    and (target := _target(entry)) is not None
                } - wanted
                if not more:
                    break
                wanted |= await self._closure(more)
            tags = {
                (key.name, key.tag)
                for key, entry in self._links.items()
                if isinstance(key, TagCurrentKey) and _target(entry) in wanted
            }
            self._links = {
                key: entry
                for key, entry in self._links.items()
                if (
                    (key.name, key.tag) in tags
                    if isinstance(key, TagCurrentKey)
                    else (key.name, key.tag) in tags or key.digest in wanted
                    if isinstance(key, TagIndexKey)
                    else key.revision in wanted
                    if isinstance(key, SignatureLinkKey)
                    else bool(_named(key, entry) & wanted)
                )
            }
            self._wanted = wanted
        named = {each for key, entry in self._links.items() for each in _named(key, entry)}
        self._wanted |= await self._closure(named)
        if name is None and digest is None:
            self._wanted |= self._taken.keys()

    async def plan(self) -> RestorePlan:
        void = await read_seen(self._storage, self._record)
        blobs, lost = await self._plan_blobs()
        bodies = await self._standing_bodies()
        standing: list[str] = []
        links: list[LinkKey] = []
        for key, entry in self._links.items():
            text = entry.key
            if text in bodies:
                if entry.body in (None, bodies[text]):
                    standing.append(text)
                else:
                    self._conflict(text, "another link stands there now")
            elif entry.body is None:
                self._conflict(text, "the journal does not say what it held")
            elif isinstance(key, TagCurrentKey) and self._pushed.get(key, 0) > entry.mtime:
                self._conflict(text, "it was pushed since, as its history says")
            elif text in void:
                self._conflict(text, "it came back after the run, and was removed by somebody else since")
            elif lost and (gone := sorted(map(str, await self._closure(_named(key, entry)) & lost))):
                self._conflict(text, f"it needs {gone[0]}, which is gone for good")
            else:
                links.append(key)
        links = self._without_lost_tags(links, bodies)
        return RestorePlan(
            options=self._options,
            run=self._record.run,
            record=self._record,
            blobs=tuple(sorted(blobs, key=lambda blob: str(blob.digest))),
            links=tuple(tuple(_back(self._links[key]) for key in step) for step in self._steps(links)),
            standing=tuple(sorted(standing)),
            conflicts=tuple(sorted(self._conflicts, key=lambda conflict: conflict.key)),
        )

    async def _plan_blobs(self) -> tuple[list[BlobBack], set[Digest]]:
        """What is copied back; and which of the run's blobs are neither there nor in any trash."""
        blobs: list[BlobBack] = []
        lost: set[Digest] = set()
        await self._look({digest for digest in self._wanted if digest in self._taken or digest in self._copies})
        for digest in self._wanted:
            size, known = self._taken.get(digest), self._copies.get(digest)
            present = self._present.get(digest)
            key = layout.encode(BlobKey(digest))
            if present is not None:
                if size is not None and present != size:
                    self._conflicts.append(differing(key, present, size))
            elif known is not None and size in (None, known[1]):
                blobs.append(BlobBack(digest=digest, source=known[0], size=known[1]))
            elif size is not None:
                lost.add(digest)
                self._conflict(key, self._why_lost(digest, known is not None))
        return blobs, lost

    def _why_lost(self, digest: Digest, cut_off: bool) -> str:
        key = layout.encode(BlobKey(digest))
        rotted = [text for text in self._damaged if text.endswith(key)]
        if rotted:
            return f"its copy {min(rotted)} has other bytes than its digest says: push it again"
        return "its copy is cut off" if cut_off else "its copy is no longer in the trash"

    async def _look(self, digests: Iterable[Digest]) -> None:
        async def look(digest: Digest) -> None:
            self._present[digest] = await size_of(self._storage, layout.encode(BlobKey(digest)))

        await for_each(sorted(digests, key=str), look, concurrency=self._options.concurrency)

    async def _standing_bodies(self) -> dict[str, bytes]:
        """Bodies of the run's links that are there; of revisions all that are there, without their bodies."""
        wanted = {entry.key for entry in self._links.values()}
        found: list[str] = []
        bodies: dict[str, bytes] = {}

        async def list_one(name: str) -> None:
            async for page in self._storage.list(layout.repository_prefix(name) + "_"):
                for key, mtime in zip(page.keys, page.mtimes, strict=True):
                    if key in wanted:
                        found.append(key)
                    elif key.startswith(layout.revisions_prefix(name)):
                        bodies[key] = b""
                    else:
                        self._note_pushed(key, mtime)

        async def read(key: str) -> None:
            body = await body_of(self._storage, key)
            if body is not None:
                bodies[key] = body

        names = sorted({key.name for key in self._links})
        await for_each(names, list_one, concurrency=self._options.concurrency)
        await for_each(found, read, concurrency=self._options.concurrency)
        return bodies

    def _note_pushed(self, text: str, mtime: int) -> None:
        """An index link that the run did not take tells when its tag was pushed since."""
        key = layout.decode(text)
        if isinstance(key, TagIndexKey):
            tag = TagCurrentKey(key.name, key.tag)
            self._pushed[tag] = max(mtime, self._pushed.get(tag, 0))

    def _without_lost_tags(self, links: Sequence[LinkKey], bodies: Mapping[str, bytes]) -> list[LinkKey]:
        """A tag comes back only with what it names: a manifest that the repository no longer links was deleted."""
        back = set(links)
        kept: list[LinkKey] = []
        for key in links:
            entry = self._links[key]
            target = _target(entry)
            if isinstance(key, TagCurrentKey) and target is not None and not entry.loose:
                revision = RevisionLinkKey(key.name, target)
                if revision not in back and layout.encode(revision) not in bodies:
                    self._conflict(entry.key, f"it names {target}, which the repository no longer links")
                    continue
            kept.append(key)
        return kept

    def _steps(self, links: Iterable[LinkKey]) -> Iterable[Sequence[LinkKey]]:
        by_kind: dict[type[LinkKey], list[LinkKey]] = {kind: [] for kind in _ORDER}
        for key in sorted(links, key=lambda each: self._links[each].key):
            by_kind[type(key)].append(key)
        for kind in _ORDER:
            if kind is RevisionLinkKey:
                yield from self._children_first(by_kind[kind])
            elif by_kind[kind]:
                yield by_kind[kind]

    def _children_first(self, links: Sequence[LinkKey]) -> Iterable[Sequence[LinkKey]]:
        """Revisions in steps: none before those that it lists. (No manifest can list itself: a digest names its
        content.)"""
        waiting = {key: self._below(key.digest) for key in links if isinstance(key, RevisionLinkKey)}
        while waiting:
            left = {key.digest for key in waiting}
            step = [key for key, below in waiting.items() if not below & left]
            yield step
            for key in step:
                del waiting[key]

    def _below(self, digest: Digest) -> set[Digest]:
        manifest = self._manifests.get(digest)
        edges = manifest.edges if manifest else ()
        return {edge.target.digest for edge in edges if edge.kind is not EdgeKind.SUBJECT}

    def _revisions(self) -> set[Digest]:
        return {key.digest for key in self._links if isinstance(key, RevisionLinkKey)}

    def _subject(self, digest: Digest) -> Digest | None:
        manifest = self._manifests.get(digest)
        edges = manifest.edges if manifest else ()
        return next((edge.target.digest for edge in edges if edge.kind is EdgeKind.SUBJECT), None)

    async def _closure(self, seeds: Iterable[Digest]) -> set[Digest]:
        """The seeds and all they name. What the run did not unlink as a revision is followed where it is named as a
        manifest."""
        reached: set[Digest] = set()
        pending = set(seeds)
        while pending:
            reached |= pending
            following: set[Digest] = set()
            named: set[Digest] = set()
            for digest in pending:
                manifest = self._manifests.get(digest)
                for edge in manifest.edges if manifest else ():
                    if edge.kind is EdgeKind.SUBJECT:
                        continue
                    named.add(edge.target.digest)
                    if edge.kind is EdgeKind.MANIFEST:
                        following.add(edge.target.digest)
            await self._read(following)
            pending = named - reached
        return reached

    async def _read(self, digests: Iterable[Digest]) -> None:
        """Manifests by digest: from the store, else from the trash; None where neither has a readable one."""

        async def read(digest: Digest) -> None:
            self._manifests[digest] = await self._read_manifest(digest)

        unread = sorted(set(digests) - self._manifests.keys(), key=str)
        await for_each(unread, read, concurrency=self._options.concurrency)

    async def _read_manifest(self, digest: Digest) -> Manifest | None:
        copy = self._copies.get(digest)
        for key in (layout.encode(BlobKey(digest)), copy[0] if copy else ""):
            data = await body_of(self._storage, key) if key else None
            if data is not None and digest.matches(data):
                try:
                    return parse_manifest(data) if len(data) <= MAX_SIZE else None
                except InvalidManifest:
                    return None
        return None

    def _conflict(self, key: str, reason: str) -> None:
        self._conflicts.append(Conflict(key=key, reason=reason))


async def _choose(storage: Storage, run: str | None) -> RunRecord:
    records = await find_runs(storage)
    if run is not None:
        records = [record for record in records if record.run == run]
    for record in reversed(records):
        async for entries in read_parts(storage, record.parts):
            if any(entry.op in _TAKEN for entry in entries):
                return record
    what = "no run to undo" if run is None else f"no journal of a run {run} that took anything"
    raise InputError(f"{storage.url} has {what}; see `regstore trash list`")


async def size_of(storage: Storage, key: str) -> int | None:
    try:
        return (await storage.stat(key)).size
    except NotFound:
        return None


async def body_of(storage: Storage, key: str) -> bytes | None:
    try:
        return await storage.get(key)
    except NotFound:
        return None


def differing(key: str, present: int, size: int) -> Conflict:
    return Conflict(key=key, reason=f"it is there with {present:,} bytes, and had {size:,}")


def _back(entry: Entry) -> LinkBack:
    return LinkBack(key=entry.key, body=entry.body or b"", mtime=entry.mtime)


def _target(entry: Entry) -> Digest | None:
    return layout.parse_link(entry.body) if entry.body is not None else None


def _named(key: LinkKey, entry: Entry) -> set[Digest]:
    """The digests that the link keeps: its own and what its body says."""
    target = _target(entry)
    own = set() if isinstance(key, TagCurrentKey | TagIndexKey) else {key.digest}
    return own | ({target} if target is not None and not isinstance(key, TagIndexKey) else set())
