"""`backup restore`: a snapshot, or a part of it, into a store that may be empty or in use.

First all blobs, each hashed on its way; then, a repository at a time, layer links, manifests (children first),
signatures, tag histories and tags (LAYOUT section 4). What is cut short leaves garbage, never a link to nothing; the
next run finds what is missing. Nothing is deleted, and nothing replaced but links whose body is wrong and, where that
is asked for, tags.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from regstore import layout
from regstore.backup import format as form
from regstore.backup.asked import Asked, without_lost
from regstore.backup.format import Snapshot
from regstore.backup.intent import hold_intent
from regstore.backup.opening import check_marker, choose, list_snapshots, passed_over, untold
from regstore.backup.options import RestoreOptions, refuse_unmatched
from regstore.backup.restore_blobs import RestoreBlobs
from regstore.backup.restore_links import AT_ONCE, Conflict, Guard, LinkUnreadable, LinkWriter, plan_links
from regstore.concurrency import for_each
from regstore.errors import InputError, LockHeld, NoSuchBucket, NotFound, StorageError
from regstore.events import OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.inventory.leftovers import remove_leftovers
from regstore.inventory.whose import Use, database_in_use, refuse_database
from regstore.seed.seeding import SEED_BODY
from regstore.state import new_run
from regstore.state.lock import Lock
from regstore.storage.base import PutOptions, Storage
from regstore.storage.optional import keep_private
from regstore.tasks.runner import HERE, Runner
from regstore.tasks.under_lock import HeldLock


@dataclass(frozen=True, kw_only=True)
class RestorePlan:
    """What a restore would do. missing_…: that the store lacks. damaged, absent, notes: as in `RestoreResult`. Sizes in
    bytes. database: what says that the store's metadata is in a database, so that `restore` is refused; "" if
    nothing."""

    snapshot: Snapshot
    repositories: int
    tags: int
    missing_tags: int
    missing_links: int
    blobs: int
    bytes: int
    missing_blobs: int
    missing_bytes: int
    conflicts: tuple[Conflict, ...]
    damaged: tuple[str, ...]
    absent: tuple[str, ...]
    notes: tuple[str, ...] = ()
    database: str = ""

    @property
    def partial(self) -> bool:
        return bool(self.conflicts or self.damaged or self.absent)


@dataclass(kw_only=True)
class RestoreResult:
    """What a run did. damaged: what the backup could not give, newer snapshots among it, and those whose date can't be
    right; left_out: what was not restored because of it. absent: what was asked for, and the snapshot had left out when
    it was made. notes: what can't be told of the snapshot that was chosen."""

    snapshot: Snapshot
    blobs: int = 0
    bytes: int = 0
    links: int = 0
    tags: int = 0
    seeded: bool = False
    seconds: float = 0.0
    conflicts: list[Conflict] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def partial(self) -> bool:
        return bool(self.conflicts or self.damaged or self.left_out or self.absent)


async def plan_restore(
    backup: Storage,
    store: Storage,
    options: RestoreOptions | None = None,
    *,
    runner: Runner = HERE,
    on_event: OnEvent = ignore,
) -> RestorePlan:
    """What `restore` would do now. Writes nothing. runner: who lists what is much."""
    await refuse_target(backup, store)
    options = options or RestoreOptions()
    asked, notes = await _choose(backup, options)
    with Inventory() as inventory:
        return await _Run(asked, store, inventory, options, runner, on_event).plan(notes)


async def restore(
    backup: Storage,
    store: Storage,
    options: RestoreOptions | None = None,
    *,
    lock: Lock,
    runner: Runner = HERE,
    on_event: OnEvent = ignore,
) -> RestoreResult:
    """Restore, under the store's lock. An empty store gets the seeds of `seed-bucket` too. runner: who lists and copies
    what is much.

    A blob that the backup has lost, or that does not match its digest, is named, and the tags and manifests that
    need it are left out; the rest goes on. Refused where the store's metadata is in a database (`inventory.whose`).
    While it runs, an intent keeps prune from beginning to collect, where the backup may be written to. Where a
    prune forgot the snapshot all the same, that raises.
    """
    began = time.monotonic()
    await refuse_target(backup, store)
    options = options or RestoreOptions()
    async with _protected(backup):
        asked, notes = await _choose(backup, options)
        result = RestoreResult(snapshot=asked.snapshot, notes=notes)
        with Inventory() as inventory:
            await _Run(asked, store, inventory, options, runner, on_event).restore(lock, result)
    result.seconds = time.monotonic() - began
    return result


async def refuse_target(backup: Storage, store: Storage) -> None:
    """InputError where the store is a backup, or lies in this one: it would look like a registry."""
    try:
        await store.stat(form.MARKER)
    except (NotFound, NoSuchBucket):
        if not _lies_within(store.url, backup.url):
            return
        raise InputError(f"{store.url} lies within the backup {backup.url}: give another place") from None
    raise InputError(f"{store.url} is a backup, which must not become a registry: give another place")


def refuse_unknown_repositories(snapshot: Snapshot, options: RestoreOptions) -> None:
    """InputError for a pattern of which the snapshot neither holds nor misses any repository."""
    names = {*snapshot.repositories, *(one.repository for one in snapshot.left_out)}
    refuse_unmatched("repository", options.repositories, names, f"snapshot {snapshot.run}")


def _lies_within(inner: str, outer: str) -> bool:
    if "://" not in inner and "://" not in outer:
        inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    return inner.rstrip("/").startswith(f"{outer.rstrip('/')}/")


@asynccontextmanager
async def _protected(backup: Storage) -> AsyncIterator[None]:
    """Hold an intent in the backup, where there is a marker (else no prune works on it) and it may be written. A prune
    that is under way already does not keep anybody from restoring what it leaves."""
    keep_private(backup)
    async with AsyncExitStack() as stack:
        if await check_marker(backup):
            try:
                run = new_run(await backup.now())
                await stack.enter_async_context(hold_intent(backup, run, command="restore"))
            except (StorageError, LockHeld):
                pass  # `_refuse_forgotten` tells what prune did meanwhile
        yield


async def _choose(backup: Storage, options: RestoreOptions) -> tuple[Asked, list[str]]:
    """What is asked for, and what can't be told of the snapshot that was chosen."""
    listed = await list_snapshots(backup)
    snapshot = choose(listed, options.snapshot, backup.url)
    refuse_unknown_repositories(snapshot, options)
    asked = Asked(backup, snapshot, listed.keys[snapshot.run], options)
    asked.damaged += passed_over(listed, options.snapshot, snapshot)
    return asked, list(untold(listed, options.snapshot, snapshot))


class _Run:
    """A restore, or the plan of one."""

    def __init__(
        self,
        asked: Asked,
        store: Storage,
        inventory: Inventory,
        options: RestoreOptions,
        runner: Runner,
        on_event: OnEvent,
    ) -> None:
        self._asked = asked
        self._store = store
        self._inventory = inventory
        self._options = options
        self._on_event = on_event
        self._blobs = RestoreBlobs(asked, store, inventory, options, runner, on_event)

    async def plan(self, notes: Sequence[str]) -> RestorePlan:
        missing = not await self._is_there()  # a restore would have made it
        await self._blobs.collect(missing=missing)
        missing_tags = missing_links = 0
        conflicts: list[Conflict] = []

        async def one(name: str) -> None:
            nonlocal missing_tags, missing_links
            pack = await self._asked.pack(name)
            if pack is None:
                return
            try:
                work = await plan_links(
                    self._store, pack, overwrite_tags=self._options.overwrite_tags, missing=missing
                )
            except LinkUnreadable as error:
                self._asked.damaged.append(f"{name}: nothing of it would be restored, for {error}")
                return
            missing_tags += len(work.tags)
            missing_links += sum(map(len, work.steps))
            conflicts.extend(work.conflicts)

        await for_each(self._asked.names, one, concurrency=AT_ONCE)
        blobs, size = self._blobs.sums("wanted")
        missing_blobs, missing_bytes = self._blobs.sums("lacking")
        return RestorePlan(
            snapshot=self._asked.snapshot,
            repositories=self._blobs.repositories,
            tags=self._blobs.tags,
            missing_tags=missing_tags,
            missing_links=missing_links,
            blobs=blobs,
            bytes=size,
            missing_blobs=missing_blobs,
            missing_bytes=missing_bytes,
            conflicts=tuple(sorted(conflicts)),
            damaged=tuple(self._asked.damaged),
            absent=tuple(self._asked.absent()),
            notes=tuple(notes),
            database="" if missing else await database_in_use(self._store),
        )

    async def _is_there(self) -> bool:
        try:
            await anext(self._store.list(layout.PREFIX), None)
        except NoSuchBucket:
            return False
        return True

    async def restore(self, lock: Lock, result: RestoreResult) -> None:
        refuse_database(self._store.url, await database_in_use(self._store), Use.WRITE)
        result.absent = self._asked.absent()
        await self._blobs.collect()
        await lock.guard()
        await remove_leftovers(self._store, self._inventory)
        guard = Guard(lock)
        result.seeded = await seed_empty(self._store, self._options.put)
        await self._blobs.copy(guard.check, HeldLock(lock.run, lock.lease))
        result.blobs, result.bytes = self._blobs.copied, self._blobs.copied_bytes
        await self._links(lock, guard, result)
        result.damaged = self._asked.damaged
        result.left_out.sort()

    async def _links(self, lock: Lock, guard: Guard, result: RestoreResult) -> None:
        asked = self._asked
        conditional = bool(asked.names) and (await self._store.capabilities()).conditional_put
        writer = LinkWriter(
            self._store,
            self._options,
            lock,
            guard,
            conditional,
            source=f"{asked.backup.url} {asked.snapshot.run}",
        )
        done = 0

        async def one(name: str) -> None:
            nonlocal done
            pack = await asked.pack(name)
            if pack is not None:
                pack, left_out = without_lost(pack, self._blobs.lost)
                result.left_out += left_out
                try:
                    work = await plan_links(self._store, pack, overwrite_tags=self._options.overwrite_tags)
                except LinkUnreadable as error:
                    result.left_out.append(f"{name}: all of it, for {error}")
                else:
                    result.conflicts += work.conflicts
                    await writer.write(work)
            else:
                result.left_out.append(f"{name}: all of it, for its pack is damaged")
            done += 1
            self._on_event(
                Progress(phase="restoring links", done=done, total=len(asked.names), unit="repositories")
            )

        await for_each(asked.names, one, concurrency=AT_ONCE)
        await writer.end(self._inventory)
        result.links, result.tags = writer.links, writer.tags
        result.conflicts = sorted(result.conflicts + writer.conflicts)


async def seed_empty(store: Storage, put: PutOptions | None) -> bool:
    """Whether the store was empty, and has the seeds now."""
    async for page in store.list(layout.PREFIX):
        if page.keys:
            return False
    for seed in layout.SEEDS:
        await store.put(layout.encode(seed), SEED_BODY, options=put)
    return True
