"""The links of a repository in the store that is restored to: what it lacks of a pack, and the writing of it.

Layer links, manifests (children first), signatures, tag histories, tags. What a link that is replaced said goes into
the run's journal first (op "rewrite").
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from regstore import layout
from regstore.backup.format import Pack
from regstore.backup.options import RestoreOptions
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import AlreadyExists, NotFound, StorageError
from regstore.inventory.inventory import Inventory
from regstore.inventory.links import LINK_MAX
from regstore.inventory.tag_times import TagTimes
from regstore.state.journal import REWRITTEN, Entry, Journal
from regstore.state.lock import Lock
from regstore.state.tag_record import LINES, TagLine
from regstore.storage.base import ObjectInfo, Storage
from regstore.storage.clock import clock
from regstore.storage.streams import is_fatal
from regstore.tagging import replace_tag

AT_ONCE: Final = 8
_BATCH_SECONDS: Final = 1.0


@dataclass(frozen=True, kw_only=True, order=True)
class Conflict:
    """A tag that names something else in the store than in the snapshot; there is "" where its link is unreadable."""

    repository: str
    tag: str
    snapshot: str
    there: str


class LinkUnreadable(StorageError):
    """The store has a link of the repository and does not give it: it is not written over."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link to write. target: what it names. replaces: what stands there with another body."""

    key: str
    target: Digest
    replaces: ObjectInfo | None = None

    @property
    def body(self) -> bytes:
        return layout.link_body(self.target)


@dataclass(kw_only=True)
class Work:
    """What one repository lacks, in the order of writing. times: of the index links of tags, as listed, in
    microseconds. history: of tags, the digests whose index links are written. set_at: when each tag was set, in
    microseconds."""

    name: str
    set_at: dict[str, int] = field(default_factory=dict)
    times: dict[str, dict[Digest, int]] = field(default_factory=dict)
    history: dict[str, set[Digest]] = field(default_factory=dict)
    steps: list[list[Link]] = field(default_factory=list)
    tags: list[tuple[str, Link]] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)


async def plan_links(store: Storage, pack: Pack, *, overwrite_tags: bool, missing: bool = False) -> Work:
    """By listing the store's repository; missing: there is no store yet."""
    there: dict[str, ObjectInfo] = {}
    if not missing:
        async for page in store.list(layout.repository_prefix(pack.name) + "_"):
            there.update((info.key, info) for info in page.objects())

    async def lacking(links: Iterable[tuple[layout.Key, Digest]]) -> list[Link]:
        found = []
        for key, digest in links:
            text = layout.encode(key)
            link = Link(text, digest, there.get(text))
            if link.replaces is None or not await _says(store, link.replaces, link.body):
                found.append(link)
        return found

    name = pack.name
    work = Work(name=name, times=_index_times(there.values()))
    work.steps.append(
        await lacking((layout.LayerLinkKey(name, digest), target) for digest, target in pack.layers.items())
    )
    for rank in _ranks(pack):
        work.steps.append(await lacking((layout.RevisionLinkKey(name, digest), digest) for digest in rank))
    work.steps.append(
        await lacking(
            (layout.SignatureLinkKey(name, manifest, digest), digest)
            for manifest, digest in sorted(pack.signatures)
        )
    )
    work.set_at = {tag: packed.time for tag, packed in pack.tags.items()}
    for tag, packed in sorted(pack.tags.items()):
        for link in await lacking([(layout.TagCurrentKey(name, tag), packed.digest)]):
            if link.replaces is None or overwrite_tags:
                work.tags.append((tag, link))
            else:
                work.conflicts.append(_conflict(name, tag, link, await _get(store, link.key)))
    for tag, digest in pack.history:
        work.history.setdefault(tag, {pack.tags[tag].digest} if tag in pack.tags else set()).add(digest)
    # A tag that stays as it is keeps its history as it is too: a registry may show a folder as a tag.
    refused = {conflict.tag for conflict in work.conflicts}
    work.steps.append(
        await lacking(
            (layout.TagIndexKey(name, tag, digest), digest)
            for tag, digest in sorted(pack.history)
            if tag not in refused
        )
    )
    return work


def _index_times(there: Iterable[ObjectInfo]) -> dict[str, dict[Digest, int]]:
    times: dict[str, dict[Digest, int]] = {}
    for info in there:
        key = layout.decode(info.key)
        if isinstance(key, layout.TagIndexKey):
            times.setdefault(key.tag, {})[key.digest] = info.mtime
    return times


class LinkWriter:
    """Writes links under the store's lock. links, tags: how many. conflicts: tags that somebody set meanwhile."""

    def __init__(
        self,
        store: Storage,
        options: RestoreOptions,
        lock: Lock,
        guard: Guard,
        conditional: bool,
        *,
        source: str,
        command: str = "backup restore",
    ) -> None:
        """source: where the links come from, for the record of tags. command: what the journal says."""
        self._store = store
        self._options = options
        self._guard = guard
        self._conditional = conditional
        self._journal = Journal(store, lock.run)
        self._command = command
        self._journaled = 0
        self._times = TagTimes(store, source)
        self.links = self.tags = 0
        self.conflicts: list[Conflict] = []

    async def write(self, work: Work) -> None:
        replaced = [link for step in work.steps for link in step] + [link for _, link in work.tags]
        held = await self._record([link.replaces for link in replaced if link.replaces is not None])

        async def put(link: Link) -> None:
            await self._guard.check()
            await self._store.put(link.key, link.body, options=self._options.put)
            self.links += 1

        async def set_tag(row: tuple[str, Link]) -> None:
            await self._guard.check()
            conflict = await self._set_tag(work, row[0], row[1], held.get(row[1].key))
            if conflict is None:
                self.tags += 1
            else:
                self.conflicts.append(conflict)

        for step in work.steps:
            await for_each(step, put, concurrency=AT_ONCE)
        for start in range(0, len(work.tags), LINES):
            rows = work.tags[start : start + LINES]
            lines = [self._line(work, tag, link, held.get(link.key)) for tag, link in rows]
            async with self._times.setting(lines) as not_set:
                await for_each(rows, set_tag, concurrency=AT_ONCE)
                not_set |= {(one.repository, one.tag) for one in self.conflicts}

    def _line(self, work: Work, tag: str, link: Link, held: bytes | None) -> TagLine:
        was = layout.parse_link(held) if held is not None else None
        return self._times.line(work.name, tag, link.target, work.set_at[tag], was=was)

    async def end(self, inventory: Inventory) -> None:
        """Say in the journal, where there is one, that the run came to its end."""
        await self._times.end(inventory)
        if self._journaled:
            await self._journal.end({"rewritten_links": self._journaled, "failures": 0})

    async def _record(self, replaced: Sequence[ObjectInfo]) -> dict[str, bytes | None]:
        """What these links hold, by key, once it is in the journal. One that is too long is kept as a copy."""
        entries: list[Entry] = []

        async def look(info: ObjectInfo) -> None:
            body = await _get(self._store, info.key) if info.size <= LINK_MAX else None
            entries.append(Entry(REWRITTEN, info.key, info.size, info.mtime, body))

        await for_each(replaced, look, concurrency=AT_ONCE)
        if entries:
            await self._guard.check()
            if not self._journaled:
                await self._journal.begin({"command": self._command})
            self._journaled += len(entries)
            await self._journal.write(entries)
        for entry in entries:
            if entry.body is None and entry.size > LINK_MAX:
                aside = f"{self._journal.trash}damaged/{entry.key}"
                await self._store.copy(entry.key, aside, size=entry.size)
        return {entry.key: entry.body for entry in entries}

    async def _set_tag(self, work: Work, tag: str, link: Link, held: bytes | None) -> Conflict | None:
        """held: what the journal says that it held. A conflict where somebody has set it since the repository was
        listed, and it is not to be overwritten."""
        if link.replaces is None and self._conditional:
            try:
                await self._store.put(link.key, link.body, if_absent=True, options=self._options.put)
                return None
            except AlreadyExists:
                pass
        if not self._options.overwrite_tags:
            stands = await replace_tag(
                self._store,
                layout.TagCurrentKey(work.name, tag),
                link.body,
                expected=(None,),
                known=work.times.get(tag, {}),
                ours=work.history.get(tag, ()),
                options=self._options.put,
            )
            return None if stands is None else _conflict(work.name, tag, link, stands)
        found = await _get(self._store, link.key)
        if found == link.body:
            return None
        if found is not None and (link.replaces is None or found != held):
            await self._record([await self._store.stat(link.key)])
        await self._store.put(link.key, link.body, options=self._options.put)
        return None


class Guard:
    """The store's lock, looked at once a second: what is written within one is a batch."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._checked = 0.0
        self._checking = asyncio.Lock()

    async def check(self) -> None:
        if clock() - self._checked < _BATCH_SECONDS:
            return
        async with self._checking:
            if clock() - self._checked >= _BATCH_SECONDS:
                started = clock()
                await self._lock.guard()
                self._checked = started


async def _says(store: Storage, info: ObjectInfo, body: bytes) -> bool:
    if info.size != len(body):
        return False
    if info.etag == hashlib.md5(body, usedforsecurity=False).hexdigest():
        return True
    try:
        return await _get(store, info.key) == body
    except StorageError as error:
        if is_fatal(error):
            raise
        raise LinkUnreadable(f"a link that stands there can't be read ({error})") from error


async def _get(store: Storage, key: str) -> bytes | None:
    try:
        return await store.get(key)
    except NotFound:
        return None


def _conflict(name: str, tag: str, link: Link, found: bytes | None) -> Conflict:
    there = layout.parse_link(found or b"")
    return Conflict(repository=name, tag=tag, snapshot=str(link.target), there=str(there) if there else "")


def _ranks(pack: Pack) -> list[list[Digest]]:
    """Linked manifests, those without children first."""
    rank: dict[Digest, int] = {}
    for digest, known in pack.manifests.items():  # children come before what names them
        rank[digest] = 1 + max((rank[need] for need in known.needs if need in rank), default=-1)
    ranks: list[list[Digest]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for digest, number in rank.items():
        if pack.manifests[digest].linked:
            ranks[number].append(digest)
    return ranks
