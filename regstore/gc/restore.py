"""Undo: give back what a run took, from its trash and its journal.

In the order of a push: blobs, layer links, signatures, revisions (children before the indexes that list them), tag
histories, tags. So whatever is cut short leaves garbage, never a link to nothing, and the next call goes on. Nothing
that stands is written over: what differs is a conflict, and so is what would name something that is gone for good.
The trash keeps its copies.

On a store unchanged since the run every key and body is as before, uploads excepted. Times are fresh, so the next gc
takes nothing of it before the grace has passed; for retention, the record (`state.tag_record`) says when tags were
set before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import NotFound
from regstore.events import OnEvent, Progress, ignore
from regstore.gc.copying_back import copy_back
from regstore.gc.restore_plan import (
    BlobBack,
    Conflict,
    LinkBack,
    RestoreOptions,
    RestorePlan,
    differing,
    plan_restore,
    size_of,
)
from regstore.gc.restore_taken import body_of
from regstore.inventory.inventory import Inventory
from regstore.inventory.tag_times import TagTimes, own_times
from regstore.layout import RevisionLinkKey, TagCurrentKey, TagIndexKey
from regstore.state.journal import RESTORED, write_seen
from regstore.state.lock import Lock
from regstore.storage.base import Storage
from regstore.storage.transfer import READ, each_blob, in_order
from regstore.tagging import list_tag, put_missing, replace_tag

__all__ = ["Conflict", "RestoreOptions", "RestorePlan", "Restored", "apply_restore", "plan_restore"]

_BATCH: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Restored:
    run: str
    blobs: int
    blob_bytes: int
    links: int
    standing: int
    conflicts: tuple[Conflict, ...]


async def apply_restore(
    storage: Storage, plan: RestorePlan, lock: Lock, *, concurrency: int = 32, on_event: OnEvent = ignore
) -> Restored:
    """Carry the plan out. What came to stand since it was made is left alone; so is what needs a blob whose copy turns
    out to be damaged."""
    undo = _Undo(storage, lock, concurrency, on_event)
    while damaged := await undo.give_blobs(plan):
        # There may be another copy; what needs a blob of which there is none stays away.
        plan = await plan_restore(storage, plan.options, damaged=damaged)
    await undo.give_links(plan)
    if undo.written:
        # From here on who removes one of these means it: the journal gives it back no more.
        async with lock.batch():
            await write_seen(storage, plan.run, lock.run, sorted(undo.written), RESTORED)
    return Restored(
        run=plan.run,
        blobs=len(undo.blobs),
        blob_bytes=sum(blob.size for blob in undo.blobs),
        links=len(undo.written),
        standing=len(plan.standing),
        conflicts=tuple(sorted({*plan.conflicts, *undo.conflicts}, key=lambda conflict: conflict.key)),
    )


class _Undo:
    """What came back so far: blobs, and keys of links written. conflicts: what was found in the way."""

    def __init__(self, storage: Storage, lock: Lock, concurrency: int, on_event: OnEvent) -> None:
        self._storage = storage
        self._lock = lock
        self._concurrency = concurrency
        self._on_event = on_event
        self._damaged: set[str] = set()
        self.blobs: list[BlobBack] = []
        self.written: set[str] = set()
        self.conflicts: list[Conflict] = []

    async def give_blobs(self, plan: RestorePlan) -> frozenset[str]:
        """Keys of all copies so far that turned out to be damaged; none where this plan met no new one."""
        known = len(self._damaged)

        async def give(blob: BlobBack) -> None:
            await self._give_blob(blob)
            done = len(self.blobs)
            self._on_event(Progress(phase="giving back blobs", done=done, total=len(plan.blobs), unit="blobs"))

        for start in range(0, len(plan.blobs), _BATCH):
            await (
                self._lock.guard()
            )  # a copy takes nothing away, and a large one takes its time: no lease for these
            blobs = in_order(plan.blobs[start : start + _BATCH], lambda blob: blob.size)
            await each_blob(READ, blobs, give, concurrency=self._concurrency)
        return frozenset(self._damaged) if len(self._damaged) > known else frozenset()

    async def _give_blob(self, blob: BlobBack) -> None:
        key = layout.blob_key(blob.digest)
        size = await size_of(self._storage, key)
        if size is None:
            if await copy_back(self._storage, blob.source, blob.digest, size=blob.size):
                self.blobs.append(blob)
            else:
                self._damaged.add(blob.source)
        elif size != blob.size:
            self.conflicts.append(differing(key, size, blob.size))

    async def give_links(self, plan: RestorePlan) -> None:
        """Step by step, each when the one before has come back; the record says when tags were set before."""
        times = await _times_of_tags(self._storage, plan)
        record = TagTimes(self._storage, f"trash restore {plan.run}")

        async def give(link: LinkBack) -> None:
            await self._give_link(link)
            done = len(self.written)
            self._on_event(Progress(phase="giving back links", done=done, total=plan.link_count, unit="links"))

        for step in plan.links:
            for start in range(0, len(step), _BATCH):
                links = step[start : start + _BATCH]
                tags = {
                    (link.place.name, link.place.tag): link.key
                    for link in links
                    if isinstance(link.place, TagCurrentKey)
                }
                lines = [record.line(*place, *times[place]) for place in tags if place in times]
                async with record.setting(lines) as not_set, self._lock.batch():
                    await for_each(links, give, concurrency=self._concurrency)
                    not_set |= {place for place, key in tags.items() if key not in self.written}

    async def _give_link(self, link: LinkBack) -> None:
        if await put_missing(self._storage, link.key, link.body) or await self._move_back(link):
            self.written.add(link.key)
        elif await body_of(self._storage, link.key) != link.body:
            self.conflicts.append(Conflict(key=link.key, reason="another link stands there now"))

    async def _move_back(self, link: LinkBack) -> bool:
        """A tag that the run moved, unless somebody has set it since; whether that was done."""
        moved = link.moved
        if moved is None or not isinstance(link.place, TagCurrentKey):
            return False
        links = await list_tag(self._storage, link.place)
        history = {key.digest: info.mtime for key, info in links.items() if isinstance(key, TagIndexKey)}
        revision = layout.encode(RevisionLinkKey(link.place.name, moved.to))
        if moved.is_set_since(history, await _time_of(self._storage, revision)):
            return False
        expected = {layout.link_body(moved.to)}
        found = await replace_tag(self._storage, link.place, link.body, expected=expected, known=history, ours=())
        return found is None


async def _time_of(storage: Storage, key: str) -> int:
    """In microseconds; 0 where it is not there."""
    try:
        return (await storage.stat(key)).mtime
    except NotFound:
        return 0


async def _times_of_tags(storage: Storage, plan: RestorePlan) -> dict[tuple[str, str], tuple[Digest, int]]:
    """Of each tag (repository, tag) that comes back what it names, and when it was set before the run took it."""
    tags: dict[tuple[str, str], tuple[Digest, int]] = {}
    for link in (link for step in plan.links for link in step):
        tag = link.place
        if isinstance(tag, TagCurrentKey) and link.target is not None:  # a damaged one has no time by the record
            tags[tag.name, tag.tag] = link.target, link.mtime
    if not tags:
        return {}
    with Inventory() as inventory:
        times = await own_times(storage, inventory, tags)
    return {place: (digest, times[place]) for place, (digest, _) in tags.items()}
