"""Removing tags at the target that our passes set and the source has no longer: journaled first, under the lock.

Only the tag goes, with its history. What it alone held becomes garbage, which gc removes by its own rules.

The target may be pushed to meanwhile. So each tag is listed just before: one of which any link is not as the pass saw
it stays. Its current/link goes first, then it is looked at once more, and what was pushed meanwhile comes back
(`runs.pushed_again`).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import NotFound, StorageError
from regstore.events import OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.layout import TagCurrentKey, TagIndexKey
from regstore.migrate.result import Conflict, MigrateResult, Problem
from regstore.state.journal import UNLINK, Entry, Journal
from regstore.state.lock import Lock, hold_lock
from regstore.state.pushed_again import give_back
from regstore.storage.base import ObjectInfo, Storage
from regstore.storage.streams import is_fatal
from regstore.tagging import list_tag, remove_tag_folders

_BATCH: Final = 500
_LOOKS: Final = 16


@dataclass(frozen=True)
class _Planned:
    """A tag to go. origin: its repository at the source. digest: what it names. times: of its links at the target, as
    listed, in microseconds."""

    origin: str
    tag: TagCurrentKey
    digest: Digest
    times: Mapping[layout.Key, int]


async def delete_tags(
    source: Storage,
    target: Storage,
    inventory: Inventory,
    result: MigrateResult,
    *,
    on_event: OnEvent = ignore,
) -> None:
    """Do what `migrate_delete_tag` says. A tag that changed since, on either side, is kept. LockHeld when another run
    works on the target."""
    tags = _planned(inventory)
    async with hold_lock(target, command="migrate --delete") as lock:
        journal = Journal(target, lock.run)
        await journal.begin({"command": "migrate", "source": source.url, "tags": len(tags)})
        now = await target.now()
        before = len(result.failed), result.deleted
        for start in range(0, len(tags), _BATCH):
            batch = tags[start : start + _BATCH]
            await _delete(target, lock, journal, await _unchanged(source, target, batch, result), result, now=now)
            on_event(Progress(phase="removing tags", done=start + len(batch), total=len(tags), unit="tags"))
        await journal.end({"tags": result.deleted - before[1], "failures": len(result.failed) - before[0]})


def _planned(inventory: Inventory) -> list[_Planned]:
    times: dict[tuple[str, str], dict[layout.Key, int]] = defaultdict(dict)
    for name, tag, raw, mtime in inventory.all(
        """
        select m.name, m.tag, d.digest, d.mtime from migrate_delete_tag m
        join dst.repository r on r.name = m.name join dst.tag_index d on d.repository = r.id and d.name = m.tag
        union all
        select m.name, m.tag, null, d.mtime from migrate_delete_tag m
        join dst.repository r on r.name = m.name join dst.tag d on d.repository = r.id and d.name = m.tag
        """
    ):
        key = TagCurrentKey(name, tag) if raw is None else TagIndexKey(name, tag, Digest.from_raw(bytes(raw)))
        times[name, tag][key] = mtime
    return [
        _Planned(origin, TagCurrentKey(name, tag), Digest.from_raw(bytes(raw)), times[name, tag])
        for origin, name, tag, raw in inventory.all(
            "select origin, name, tag, digest from migrate_delete_tag order by all"
        )
    ]


async def _unchanged(
    source: Storage, target: Storage, tags: list[_Planned], result: MigrateResult
) -> dict[TagCurrentKey, list[Entry]]:
    """Those that are still as planned on both sides, each with its keys, the current link first."""
    kept: dict[TagCurrentKey, list[Entry]] = {}

    async def look(one: _Planned) -> None:
        try:
            await source.get(layout.encode(TagCurrentKey(one.origin, one.tag.tag)))
            return  # it came back
        except NotFound:
            pass
        except StorageError as error:
            if is_fatal(error):
                raise
            return  # it may stand
        links = await list_tag(target, one.tag)
        current = links.get(one.tag)
        if current is None:
            return
        body = layout.link_body(one.digest)
        if not await _says(target, current, body):
            result.conflicts += (_conflict(one.tag, layout.parse_link(await _body(target, current.key))),)
            return
        changed = [
            (info.mtime, key)
            for key, info in links.items()
            if isinstance(key, TagCurrentKey | TagIndexKey) and info.mtime != one.times.get(key)
        ]
        if changed:  # also between the two links of a push
            newest = max(changed, key=lambda found: found[0])[1]
            there = newest.digest if isinstance(newest, TagIndexKey) else one.digest
            result.conflicts += (_conflict(one.tag, there),)
            return
        entries = [Entry(UNLINK, current.key, current.size, current.mtime, body)]
        for key, info in sorted(links.items(), key=lambda link: link[1].key):
            if isinstance(key, TagIndexKey):
                held = layout.link_body(key.digest)
                entries.append(
                    Entry(UNLINK, info.key, info.size, info.mtime, held if info.size == len(held) else None)
                )
        kept[one.tag] = entries

    await for_each(tags, look, concurrency=_LOOKS)
    return {one.tag: kept[one.tag] for one in tags if one.tag in kept}


async def _says(target: Storage, info: ObjectInfo, body: bytes) -> bool:
    if info.size == len(body) and info.etag == hashlib.md5(body, usedforsecurity=False).hexdigest():
        return True
    return await _body(target, info.key) == body


async def _body(target: Storage, key: str) -> bytes:
    """Nothing where it is gone, or can't be read: then it does not say what was planned, and stays."""
    try:
        return await target.get(key)
    except NotFound:
        return b""
    except StorageError as error:
        if is_fatal(error):
            raise
        return b""


def _conflict(tag: TagCurrentKey, there: Digest | None) -> Conflict:
    return Conflict(repository=tag.name, tag=tag.tag, source="", target=str(there) if there else "")


async def _delete(
    target: Storage,
    lock: Lock,
    journal: Journal,
    tags: dict[TagCurrentKey, list[Entry]],
    result: MigrateResult,
    *,
    now: int,
) -> None:
    """tags: each with its keys, the current link first. now: when this run began, by the store's clock."""
    if not tags:
        return
    await lock.guard()
    await journal.write(entry for entries in tags.values() for entry in entries)
    outcomes = await lock.delete_many([entries[0].key for entries in tags.values()])
    gone = {tag: entries for tag, entries in tags.items() if outcomes[entries[0].key] is None}
    busy, _ = await give_back(
        target, lock, {tag: entries[0].mtime for tag, entries in gone.items()}, now=now, concurrency=_LOOKS
    )
    for tag in sorted(busy, key=layout.encode):
        del gone[tag]
        there = layout.parse_link(await _body(target, layout.encode(tag)))
        result.conflicts += (_conflict(tag, there),)
    history = [entry.key for entries in gone.values() for entry in entries[1:]]
    if history:
        outcomes |= await lock.delete_many(history)
    for key, error in outcomes.items():
        if error is not None:
            result.failed.append(Problem(repository="", subject=key, reason=f"was not removed: {error}"))
    result.deleted += len(gone)
    result.deleted_tags += [f"{tag.name}:{tag.tag}" for tag in gone]
    await remove_tag_folders(target, [entry.key for entries in gone.values() for entry in entries])
