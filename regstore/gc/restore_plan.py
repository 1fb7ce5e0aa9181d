"""The plan of an undo: what a run's journal and the trash can give back, beside what stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import InputError, NotFound
from regstore.gc.restore_taken import (
    LinkKey,
    Manifests,
    Moved,
    Selected,
    Taken,
    TakenLink,
    body_of,
    read_taken,
    select,
    takes,
)
from regstore.layout import LayerLinkKey, RevisionLinkKey, SignatureLinkKey, TagCurrentKey, TagIndexKey
from regstore.state.journal import RunRecord, find_runs, read_parts, read_seen
from regstore.storage.base import Storage

#: Repositories that a sentence names.
_NAMED: Final = 5
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
    """place: its key, decoded; target: the digest that its body names, None where that is damaged. mtime: of the link
    that went, in microseconds. moved: it did not go, and stands, pointed elsewhere."""

    place: LinkKey
    key: str
    body: bytes
    target: Digest | None
    mtime: int
    moved: Moved | None = None


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
    """Look at the journal, the trash and what stands; nothing is written. InputError for a run that is not there,
    or that took nothing of what is asked for.
    damaged: copies in the trash that are no good.

    Reads: one LIST of the trash, one of each repository concerned, one GET a revision, one HEAD a blob.
    """
    record = await _choose(storage, options.run)
    taken = await read_taken(storage, record, damaged=damaged)
    manifests = Manifests(storage, taken.copies, concurrency=options.concurrency)
    selected = await select(taken, manifests, repository=options.repository, digest=options.digest)
    _refuse_nothing(record.run, taken, selected, options)
    void = await read_seen(storage, record)
    blobs = await _plan_blobs(storage, taken, selected.wanted, damaged, concurrency=options.concurrency)
    standing = await _find_standing(storage, selected.links, concurrency=options.concurrency)
    links = _Links(manifests, standing, void, blobs.lost)
    for link in selected.links.values():
        await links.judge(link)
    links.leave_lost_tags()
    return RestorePlan(
        options=replace(options, run=record.run),
        run=record.run,
        record=record,
        blobs=tuple(sorted(blobs.back, key=lambda blob: str(blob.digest))),
        links=tuple(tuple(map(_back, step)) for step in _steps(links.back, manifests)),
        standing=tuple(sorted(links.standing)),
        conflicts=tuple(sorted([*blobs.conflicts, *links.conflicts], key=lambda conflict: conflict.key)),
    )


def _refuse_nothing(run: str, taken: Taken, selected: Selected, options: RestoreOptions) -> None:
    """InputError where what was asked for is nothing that the run took: it is a mistake."""
    if selected.links or any(digest in taken.blobs for digest in selected.wanted):
        return
    asked = " and ".join(str(each) for each in (options.repository, options.digest) if each is not None)
    if asked:
        names = sorted({place.name for place in taken.links})
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        took = f", but of {', '.join(names[:_NAMED])}{more}" if names else ""
        raise InputError(f"run {run} took nothing of {asked}{took}")


@dataclass(frozen=True, kw_only=True)
class _Blobs:
    """back: what is copied back; lost: which of the run's blobs are neither there nor in any trash."""

    back: Sequence[BlobBack]
    lost: Collection[Digest]
    conflicts: Sequence[Conflict]


async def _plan_blobs(
    storage: Storage, taken: Taken, wanted: Collection[Digest], damaged: Collection[str], *, concurrency: int
) -> _Blobs:
    back: list[BlobBack] = []
    lost: set[Digest] = set()
    conflicts: list[Conflict] = []
    present: dict[Digest, int | None] = {}

    async def look(digest: Digest) -> None:
        present[digest] = await size_of(storage, layout.blob_key(digest))

    known = {digest for digest in wanted if digest in taken.blobs or digest in taken.copies}
    await for_each(sorted(known, key=str), look, concurrency=concurrency)
    for digest in known:
        size, copy, there = taken.blobs.get(digest), taken.copies.get(digest), present[digest]
        key = layout.blob_key(digest)
        if there is not None:
            if size is not None and there != size:
                conflicts.append(differing(key, there, size))
        elif copy is not None and size in (None, copy.size):
            back.append(BlobBack(digest=digest, source=copy.key, size=copy.size))
        elif size is not None:
            lost.add(digest)
            conflicts.append(Conflict(key=key, reason=_why_lost(key, damaged, cut_off=copy is not None)))
    return _Blobs(back=back, lost=lost, conflicts=conflicts)


def _why_lost(key: str, damaged: Collection[str], *, cut_off: bool) -> str:
    rotted = [text for text in damaged if text.endswith(key)]
    if rotted:
        return f"its copy {min(rotted)} has other bytes than its digest says: push it again"
    return "its copy is cut off" if cut_off else "its copy is no longer in the trash"


@dataclass(frozen=True, kw_only=True)
class _Standing:
    """What stands in the repositories concerned. bodies: of the run's links that are there. Of what the run did not
    take, with times in microseconds: revisions, by key; and the history of each tag: when it was set to what."""

    bodies: Mapping[str, bytes]
    revisions: Mapping[str, int]
    histories: Mapping[TagCurrentKey, Mapping[Digest, int]]

    def is_set_since(self, link: TakenLink) -> bool:
        """Whether somebody has set this tag since it was taken."""
        if not isinstance(link.place, TagCurrentKey):
            return False
        history = self.histories.get(link.place, {})
        if link.moved is None:
            return any(mtime > link.mtime for mtime in history.values())
        revision = layout.encode(RevisionLinkKey(link.place.name, link.moved.to))
        return link.moved.is_set_since(history, self.revisions.get(revision, 0))


async def _find_standing(storage: Storage, links: Mapping[LinkKey, TakenLink], *, concurrency: int) -> _Standing:
    wanted = {link.key for link in links.values()}
    found: list[str] = []
    bodies: dict[str, bytes] = {}
    revisions: dict[str, int] = {}
    histories: dict[TagCurrentKey, dict[Digest, int]] = {}

    async def list_one(name: str) -> None:
        async for page in storage.list(layout.repository_prefix(name) + "_"):
            for key, mtime in zip(page.keys, page.mtimes, strict=True):
                if key in wanted:
                    found.append(key)
                elif key.startswith(layout.revisions_prefix(name)):
                    revisions[key] = mtime
                elif isinstance(place := layout.decode(key), TagIndexKey):
                    histories.setdefault(TagCurrentKey(place.name, place.tag), {})[place.digest] = mtime

    async def read(key: str) -> None:
        body = await body_of(storage, key)
        if body is not None:
            bodies[key] = body

    await for_each(sorted({place.name for place in links}), list_one, concurrency=concurrency)
    await for_each(found, read, concurrency=concurrency)
    return _Standing(bodies=bodies, revisions=revisions, histories=histories)


class _Links:
    """Which of the links come back, which stand, and which stay away and why. void: keys of links that came back after
    the run. lost: blobs that nothing gives back."""

    def __init__(
        self,
        manifests: Manifests,
        standing: _Standing,
        void: Collection[str],
        lost: Collection[Digest],
    ) -> None:
        self._manifests = manifests
        self._standing = standing
        self._void = void
        self._lost = lost
        self.back: list[TakenLink] = []
        self.standing: list[str] = []
        self.conflicts: list[Conflict] = []

    async def judge(self, link: TakenLink) -> None:
        stands = self._standing.bodies.get(link.key)
        moved = link.moved is not None and stands == layout.link_body(link.moved.to) != link.body
        if stands is None and link.moved is not None:
            self._leave(link, "it was removed since")
        elif stands is None or moved:
            if why := await self._why_not(link):
                self._leave(link, why)
            else:
                self.back.append(link)
        elif link.body in (None, stands):
            self.standing.append(link.key)
        else:
            self._leave(link, "another link stands there now")

    async def _why_not(self, link: TakenLink) -> str:
        """Why a link that is not there stays away, "" where it comes back."""
        if link.body is None:
            return "the journal does not say what it held"
        if self._standing.is_set_since(link):
            return "it was pushed since, as its history says"
        if link.key in self._void:
            return "it came back after the run, and was removed by somebody else since"
        if self._lost and (gone := (await self._manifests.closure(link.named)).intersection(self._lost)):
            return f"it needs {min(map(str, gone))}, which is gone for good"
        return ""

    def leave_lost_tags(self) -> None:
        """A tag comes back only with what it names: a manifest that the repository no longer links was deleted."""
        places = {link.place for link in self.back}
        back, self.back = self.back, []
        for link in back:
            revision = None
            if isinstance(link.place, TagCurrentKey) and link.target is not None and not link.loose:
                revision = RevisionLinkKey(link.place.name, link.target)
            if revision is None or revision in places or self._is_there(layout.encode(revision)):
                self.back.append(link)
            else:
                self._leave(link, f"it names {link.target}, which the repository no longer links")

    def _is_there(self, revision: str) -> bool:
        return revision in self._standing.bodies or revision in self._standing.revisions

    def _leave(self, link: TakenLink, reason: str) -> None:
        self.conflicts.append(Conflict(key=link.key, reason=reason))


def _steps(links: Iterable[TakenLink], manifests: Manifests) -> Iterator[Sequence[TakenLink]]:
    """In the order of a push."""
    by_kind: dict[type[LinkKey], list[TakenLink]] = {kind: [] for kind in _ORDER}
    for link in sorted(links, key=lambda each: each.key):
        by_kind[type(link.place)].append(link)
    for kind in _ORDER:
        if kind is RevisionLinkKey:
            yield from _children_first(by_kind[kind], manifests)
        elif by_kind[kind]:
            yield by_kind[kind]


def _children_first(links: Iterable[TakenLink], manifests: Manifests) -> Iterator[Sequence[TakenLink]]:
    """Revisions in steps: none before those that it lists. (No manifest can list itself: a digest names its
    content.)"""
    waiting = {
        link.place: (link, manifests.below(link.place.digest))
        for link in links
        if isinstance(link.place, RevisionLinkKey)
    }
    while waiting:
        left = {place.digest for place in waiting}
        step = {place: link for place, (link, below) in waiting.items() if not below & left}
        yield list(step.values())
        for place in step:
            del waiting[place]


async def _choose(storage: Storage, run: str | None) -> RunRecord:
    records = await find_runs(storage)
    if run is not None:
        records = [record for record in records if record.run == run]
    for record in reversed(records):
        async for entries in read_parts(storage, record.parts):
            if any(takes(record, entry) for entry in entries):
                return record
    what = "no run to undo" if run is None else f"no journal of a run {run} that took anything"
    raise InputError(f"{storage.url} has {what}; see `regstore trash list`")


async def size_of(storage: Storage, key: str) -> int | None:
    """None where it is not there."""
    try:
        return (await storage.stat(key)).size
    except NotFound:
        return None


def differing(key: str, present: int, size: int) -> Conflict:
    return Conflict(key=key, reason=f"it is there with {present:,} bytes, and had {size:,}")


def _back(link: TakenLink) -> LinkBack:
    return LinkBack(
        place=link.place,
        key=link.key,
        body=link.body or b"",
        target=link.target,
        mtime=link.mtime,
        moved=link.moved,
    )
