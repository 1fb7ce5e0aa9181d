"""Removing tags at the target that our passes set and the source has no longer: journaled first, under the lock.

Only the tag goes, with its history. What it alone held becomes garbage, which gc removes by its own rules.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import NotFound
from regstore.events import OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.migrate.result import Conflict, MigrateResult, Problem
from regstore.runs.journal import UNLINK, Entry, Journal
from regstore.runs.lock import Lock, hold_lock
from regstore.storage.base import Storage

_BATCH: Final = 500


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
    rows = inventory.all("select origin, name, tag, digest from migrate_delete_tag order by all")
    entries = _entries(inventory)
    async with hold_lock(target, command="migrate --delete") as lock:
        journal = Journal(target, lock.run)
        await journal.begin({"command": "migrate", "source": source.url, "tags": len(rows)})
        before = result.deleted
        for start in range(0, len(rows), _BATCH):
            chosen = await _unchanged(source, target, rows[start : start + _BATCH], result)
            await _delete(
                target, lock, journal, {f"{row[1]}:{row[2]}": entries[row[1], row[2]] for row in chosen}, result
            )
            on_event(
                Progress(phase="removing tags", done=min(start + _BATCH, len(rows)), total=len(rows), unit="tags")
            )
        await journal.end({"tags": result.deleted - before})


def _entries(inventory: Inventory) -> dict[tuple[str, str], list[Entry]]:
    """For each tag to go its keys, the current link first."""
    found: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for name, tag, digest, size, mtime in inventory.all(
        """
        select m.name, m.tag, d.target, d.size, d.mtime from migrate_delete_tag m
        join dst.repository r on r.name = m.name join dst.tag d on d.repository = r.id and d.name = m.tag
        """
    ):
        key = layout.encode(layout.TagCurrentKey(name, tag))
        found[name, tag].append(Entry(UNLINK, key, size, mtime, layout.link_body(Digest.from_raw(bytes(digest)))))
    for name, tag, raw, size, mtime in inventory.all(
        """
        select m.name, m.tag, d.digest, d.size, d.mtime from migrate_delete_tag m
        join dst.repository r on r.name = m.name join dst.tag_index d on d.repository = r.id and d.name = m.tag
        """
    ):
        digest = Digest.from_raw(bytes(raw))
        body = layout.link_body(digest)
        key = layout.encode(layout.TagIndexKey(name, tag, digest))
        found[name, tag].append(Entry(UNLINK, key, size, mtime, body if len(body) == size else None))
    return found


async def _unchanged(
    source: Storage, target: Storage, rows: list[tuple[Any, ...]], result: MigrateResult
) -> list[tuple[Any, ...]]:
    """Those that are still as planned on both sides."""
    kept: list[tuple[Any, ...]] = []

    async def look(row: tuple[Any, ...]) -> None:
        origin, name, tag, raw = row
        try:
            await source.get(layout.encode(layout.TagCurrentKey(origin, tag)))
            return  # it came back
        except NotFound:
            pass
        try:
            body = await target.get(layout.encode(layout.TagCurrentKey(name, tag)))
        except NotFound:
            return
        if body == layout.link_body(Digest.from_raw(bytes(raw))):
            kept.append(row)
        else:
            there = layout.parse_link(body)
            result.conflicts += (Conflict(repository=name, tag=tag, source="", target=str(there) if there else ""),)

    await for_each(rows, look, concurrency=16)
    return sorted(kept)


async def _delete(
    target: Storage, lock: Lock, journal: Journal, tags: dict[str, list[Entry]], result: MigrateResult
) -> None:
    """tags: by name, each with its keys, the current link first."""
    if not tags:
        return
    await lock.guard()
    await journal.write(entry for entries in tags.values() for entry in entries)
    async with lock.batch():
        outcomes = await target.delete_many([entries[0].key for entries in tags.values()])
    gone = {name: entries for name, entries in tags.items() if outcomes[entries[0].key] is None}
    history = [entry.key for entries in gone.values() for entry in entries[1:]]
    if history:
        async with lock.batch():
            outcomes |= await target.delete_many(history)
    for key, error in outcomes.items():
        if error is not None:
            result.failed.append(Problem(repository="", subject=key, reason=f"was not removed: {error}"))
    result.deleted += len(gone)
    result.deleted_tags += gone
    if (await target.capabilities()).folders:
        now = await target.now()
        for entries in gone.values():
            folder = entries[0].key.removesuffix("current/link")
            async with lock.batch():
                await target.remove_empty_folders(folder, older_than=now + 1)
