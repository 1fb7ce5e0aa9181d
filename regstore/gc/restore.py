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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.events import OnEvent, Progress, ignore
from regstore.gc.copying_back import copy_back
from regstore.gc.restore_plan import (
    BlobBack,
    Conflict,
    LinkBack,
    RestoreOptions,
    RestorePlan,
    body_of,
    differing,
    plan_restore,
    size_of,
)
from regstore.inventory.inventory import Inventory
from regstore.inventory.tag_times import TagTimes, own_times
from regstore.layout import BlobKey, TagCurrentKey
from regstore.state.journal import RESTORED, write_seen
from regstore.state.lock import Lock
from regstore.storage.base import Storage
from regstore.tagging import put_missing

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
    conflicts: list[Conflict] = []
    damaged: set[str] = set()
    written: list[str] = []
    blobs: list[BlobBack] = []

    async def copy(blob: BlobBack) -> None:
        key = layout.encode(BlobKey(blob.digest))
        size = await size_of(storage, key)
        if size is None:
            if await copy_back(storage, blob.source, blob.digest, size=blob.size):
                blobs.append(blob)
            else:
                damaged.add(blob.source)
        elif size != blob.size:
            conflicts.append(differing(key, size, blob.size))
        on_event(Progress(phase="giving back blobs", done=len(blobs), total=len(plan.blobs), unit="blobs"))

    async def write(link: LinkBack) -> None:
        if await put_missing(storage, link.key, link.body):
            written.append(link.key)
        elif await body_of(storage, link.key) != link.body:
            conflicts.append(Conflict(key=link.key, reason="another link stands there now"))
        on_event(Progress(phase="giving back links", done=len(written), total=plan.link_count, unit="links"))

    while True:
        refused = len(damaged)
        for start in range(0, len(plan.blobs), _BATCH):
            await lock.guard()  # a copy takes nothing away, and a large one takes its time: no lease for these
            await for_each(plan.blobs[start : start + _BATCH], copy, concurrency=concurrency)
        if len(damaged) == refused:
            break
        # There may be another copy; what needs a blob of which there is none stays away.
        plan = await plan_restore(storage, plan.options, damaged=frozenset(damaged))
    times = await _times_of_tags(storage, plan)
    record = TagTimes(storage, f"trash restore {plan.run}")
    for step in plan.links:
        for start in range(0, len(step), _BATCH):
            links = step[start : start + _BATCH]
            places = [(key.name, key.tag) for key in _tags(links)]
            lines = [record.line(*place, *times[place]) for place in places if place in times]
            async with record.setting(lines) as not_set, lock.batch():
                await for_each(links, write, concurrency=concurrency)
                not_set |= {place for place in places if layout.encode(TagCurrentKey(*place)) not in written}
    if written:
        # From here on who removes one of these means it: the journal gives it back no more.
        async with lock.batch():
            await write_seen(storage, plan.run, lock.run, sorted(written), RESTORED)
    return Restored(
        run=plan.run,
        blobs=len(blobs),
        blob_bytes=sum(blob.size for blob in blobs),
        links=len(written),
        standing=len(plan.standing),
        conflicts=tuple(sorted({*plan.conflicts, *conflicts}, key=lambda conflict: conflict.key)),
    )


def _tags(links: Iterable[LinkBack]) -> list[TagCurrentKey]:
    keys = (layout.decode(link.key) for link in links)
    return [key for key in keys if isinstance(key, TagCurrentKey)]


async def _times_of_tags(storage: Storage, plan: RestorePlan) -> dict[tuple[str, str], tuple[Digest, int]]:
    """Of each tag (repository, tag) that comes back what it names, and when it was set before the run took it."""
    tags: dict[tuple[str, str], tuple[Digest, int]] = {}
    for link in (link for step in plan.links for link in step):
        key, digest = layout.decode(link.key), layout.parse_link(link.body)
        if isinstance(key, TagCurrentKey) and digest is not None:  # a damaged one has no time by the record
            tags[key.name, key.tag] = digest, link.mtime
    if not tags:
        return {}
    with Inventory() as inventory:
        times = await own_times(storage, inventory, tags)
    return {place: (digest, times[place]) for place, (digest, _) in tags.items()}
