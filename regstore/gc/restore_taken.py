"""What an undo is about: what a run took by its journal, where copies of it lie, and what of it is asked for.

A key of the journal is decoded once, when its line is read; from there on a link is a `TakenLink`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import InvalidManifest, NotFound
from regstore.gc.past import list_trash
from regstore.layout import BlobKey, LayerLinkKey, RevisionLinkKey, SignatureLinkKey, TagCurrentKey, TagIndexKey
from regstore.manifest import MAX_SIZE, Edge, EdgeKind, Manifest, parse_manifest
from regstore.reference import digests_named
from regstore.state import TRASH
from regstore.state.journal import REWRITTEN, TRASHED, UNLINK, Entry, RunRecord, read_parts
from regstore.storage.base import Storage

LinkKey = LayerLinkKey | RevisionLinkKey | SignatureLinkKey | TagCurrentKey | TagIndexKey
#: What of a journal's lines is about keys that were to go.
_TAKEN: Final = (UNLINK, TRASHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A tag that a run of `tag` moved: to what, and when the run wrote first and last, in microseconds.

    A run that was killed may have written the tag after the last time that is known. So its index link of that image
    says nothing of who wrote it. But whoever pushes it writes the link of the revision first, which `tag` never does.
    """

    to: Digest
    began: int
    ended: int

    def is_set_since(self, history: Mapping[Digest, int], revision: int) -> bool:
        """By the times of the tag's index links, and that of the link of the revision which it was moved to."""
        return revision >= self.began or any(
            mtime > self.ended for digest, mtime in history.items() if digest != self.to
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenLink:
    """A link that a run took, as it was. target: the digest that its body names, None where that is damaged or not
    known; mtime in microseconds; loose: a tag whose manifest the repository did not link even then. moved: it did not
    go, it was moved."""

    place: LinkKey
    key: str
    body: bytes | None
    target: Digest | None
    mtime: int
    loose: bool
    moved: Moved | None = None

    @property
    def named(self) -> set[Digest]:
        """The digests that the link keeps: its own and what its body says."""
        own = set() if isinstance(self.place, TagCurrentKey | TagIndexKey) else {self.place.digest}
        return own if self.target is None or isinstance(self.place, TagIndexKey) else own | {self.target}


@dataclass(frozen=True, slots=True)
class Copy:
    """A blob's copy in the trash."""

    key: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Taken:
    """blobs: what was taken, with its size. copies: of any blob, the run's own before those of later runs."""

    links: Mapping[LinkKey, TakenLink]
    blobs: Mapping[Digest, int]
    copies: Mapping[Digest, Copy]


@dataclass(frozen=True, kw_only=True)
class Selected:
    """links to give back, and every digest that these, or what was asked for, need."""

    links: Mapping[LinkKey, TakenLink]
    wanted: Collection[Digest]


def takes(record: RunRecord, entry: Entry) -> bool:
    """Whether an undo of the run is about this key: it was to go, or was a tag that was moved."""
    return entry.op in _TAKEN or (entry.op == REWRITTEN and _moved(record) is not None)


def _moved(record: RunRecord) -> Moved | None:
    """None of all runs but those of `tag`."""
    to = layout.parse_link(str(record.begun.get("digest")).encode())
    if record.begun.get("command") != "tag" or to is None:
        return None
    return Moved(to=to, began=record.began, ended=record.written)


async def read_taken(storage: Storage, record: RunRecord, *, damaged: Collection[str]) -> Taken:
    """A GET a part of the journal, and a LIST of the trash. damaged: keys of copies that are no good."""
    links: dict[LinkKey, TakenLink] = {}
    blobs: dict[Digest, int] = {}
    copies: dict[Digest, Copy] = {}
    async for entries in read_parts(storage, record.parts):
        for entry in entries:
            place = layout.decode(entry.key)
            if isinstance(place, BlobKey) and entry.op in _TAKEN:
                blobs[place.digest] = entry.size
            elif isinstance(place, LinkKey) and takes(record, entry):
                links[place] = TakenLink(
                    place=place,
                    key=entry.key,
                    body=entry.body,
                    target=None if entry.body is None else layout.parse_link(entry.body),
                    mtime=entry.mtime,
                    loose=entry.loose,
                    moved=_moved(record) if entry.op == REWRITTEN else None,
                )
    own = f"{TRASH}{record.run}/"
    async for found, key, size in list_trash(storage):
        place = layout.decode(key[len(f"{TRASH}{found}/") :])
        if key in damaged or not isinstance(place, BlobKey):
            continue
        known = copies.get(place.digest)
        if known is None or not known.key.startswith(own):
            copies[place.digest] = Copy(key, size)
    return Taken(links=links, blobs=blobs, copies=copies)


class Manifests:
    """Manifests by digest, read once: from the store, else from the trash."""

    def __init__(self, storage: Storage, copies: Mapping[Digest, Copy], *, concurrency: int) -> None:
        self._storage = storage
        self._copies = copies
        self._concurrency = concurrency
        self._read: dict[Digest, Manifest | None] = {}

    async def read(self, digests: Iterable[Digest]) -> None:
        async def read(digest: Digest) -> None:
            self._read[digest] = await self._read_one(digest)

        await for_each(sorted(set(digests) - self._read.keys(), key=str), read, concurrency=self._concurrency)

    async def closure(self, seeds: Iterable[Digest]) -> set[Digest]:
        """The seeds and all they name. What was not read yet is followed where it is named as a manifest."""
        reached: set[Digest] = set()
        pending = set(seeds)
        while pending:
            reached |= pending
            edges = [
                edge for digest in pending for edge in self._edges(digest) if edge.kind is not EdgeKind.SUBJECT
            ]
            await self.read(edge.target.digest for edge in edges if edge.kind is EdgeKind.MANIFEST)
            pending = {edge.target.digest for edge in edges} - reached
        return reached

    def below(self, digest: Digest) -> set[Digest]:
        """What a manifest that was read names, but for its subject."""
        return {edge.target.digest for edge in self._edges(digest) if edge.kind is not EdgeKind.SUBJECT}

    def subject(self, digest: Digest) -> Digest | None:
        return next((edge.target.digest for edge in self._edges(digest) if edge.kind is EdgeKind.SUBJECT), None)

    def _edges(self, digest: Digest) -> Iterable[Edge]:
        manifest = self._read.get(digest)
        return manifest.edges if manifest else ()

    async def _read_one(self, digest: Digest) -> Manifest | None:
        copy = self._copies.get(digest)
        for key in (layout.blob_key(digest), copy.key if copy else ""):
            data = await body_of(self._storage, key) if key else None
            if data is not None and digest.matches(data):
                try:
                    return parse_manifest(data) if len(data) <= MAX_SIZE else None
                except InvalidManifest:
                    return None
        return None


async def select(taken: Taken, manifests: Manifests, *, repository: str | None, digest: Digest | None) -> Selected:
    """What is asked for: what one repository lost, or a digest with all that it needs and that refers to it; with
    neither, all."""
    links = dict(taken.links)
    if repository is not None:
        links = {place: link for place, link in links.items() if place.name == repository}
    if digest is not None:
        homes = {place.name for place, link in links.items() if digest in link.named}
        if homes:
            links = {place: link for place, link in links.items() if place.name in homes}
    targets = (link.target for place, link in links.items() if isinstance(place, TagCurrentKey))
    await manifests.read(_revisions(links) | {target for target in targets if target is not None})
    wanted: set[Digest] = set()
    if digest is not None:
        wanted = await _with_referrers(links, manifests, digest)
        links = _of(links, wanted)
    wanted |= await manifests.closure({each for link in links.values() for each in link.named})
    if repository is None and digest is None:
        wanted |= taken.blobs.keys()
    return Selected(links=links, wanted=wanted)


async def _with_referrers(links: Mapping[LinkKey, TakenLink], manifests: Manifests, digest: Digest) -> set[Digest]:
    """The digest, all it needs, and what refers to any of this: by its subject, or by the name of its tag."""
    wanted = await manifests.closure({digest})
    while True:
        by_subject = {each for each in _revisions(links) if manifests.subject(each) in wanted}
        by_tag = {
            link.target
            for place, link in links.items()
            if isinstance(place, TagCurrentKey)
            and link.target is not None
            and not wanted.isdisjoint(digests_named(place.tag, wanted))
        }
        more = (by_subject | by_tag) - wanted
        if not more:
            return wanted
        wanted |= await manifests.closure(more)


def _of(links: Mapping[LinkKey, TakenLink], wanted: Collection[Digest]) -> dict[LinkKey, TakenLink]:
    """The links that keep any of these digests; a tag's index with it."""
    tags = {
        (place.name, place.tag)
        for place, link in links.items()
        if isinstance(place, TagCurrentKey) and link.target in wanted
    }

    def belongs(place: LinkKey, link: TakenLink) -> bool:
        match place:
            case TagCurrentKey():
                return (place.name, place.tag) in tags
            case TagIndexKey():
                return (place.name, place.tag) in tags or place.digest in wanted
            case SignatureLinkKey():
                return place.revision in wanted
            case _:
                return not link.named.isdisjoint(wanted)

    return {place: link for place, link in links.items() if belongs(place, link)}


def _revisions(links: Iterable[LinkKey]) -> set[Digest]:
    return {place.digest for place in links if isinstance(place, RevisionLinkKey)}


async def body_of(storage: Storage, key: str) -> bytes | None:
    """None where it is not there."""
    try:
        return await storage.get(key)
    except NotFound:
        return None
