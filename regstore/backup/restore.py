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
from fnmatch import fnmatchcase

from regstore import layout
from regstore.backup import format as form
from regstore.backup.format import Pack, Snapshot
from regstore.backup.intent import hold_intent
from regstore.backup.opening import check_marker, choose, list_snapshots, passed_over, read_pack, untold
from regstore.backup.options import RestoreOptions, refuse_unmatched
from regstore.backup.plan import select
from regstore.backup.restore_links import AT_ONCE, Conflict, Guard, LinkUnreadable, LinkWriter, plan_links
from regstore.backup.source import list_blobs
from regstore.backup.transfer import FAILURES_IN_A_ROW, in_lanes
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import (
    AccessDenied,
    InputError,
    IntegrityError,
    LockHeld,
    NoSuchBucket,
    NotFound,
    StorageError,
    Unreachable,
)
from regstore.events import OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.inventory.leftovers import remove_leftovers
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.inventory.whose import Use, database_in_use, refuse_database
from regstore.seed.seeding import SEED_BODY
from regstore.state import new_run
from regstore.state.lock import Lock
from regstore.storage.base import Storage
from regstore.storage.optional import keep_private
from regstore.storage.outage import OutageWatch, error_of_source
from regstore.storage.streams import SourceGone, copy_blob, is_fatal, verified_size


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
    backup: Storage, store: Storage, options: RestoreOptions | None = None, *, on_event: OnEvent = ignore
) -> RestorePlan:
    """What `restore` would do now. Writes nothing."""
    await refuse_target(backup, store)
    async with _opened(backup, store, options or RestoreOptions(), on_event) as run:
        return await run.plan()


async def restore(
    backup: Storage,
    store: Storage,
    options: RestoreOptions | None = None,
    *,
    lock: Lock,
    on_event: OnEvent = ignore,
) -> RestoreResult:
    """Restore, under the store's lock. An empty store gets the seeds of `seed-bucket` too.

    A blob that the backup has lost, or that does not match its digest, is named, and the tags and manifests that
    need it are left out; the rest goes on. Refused where the store's metadata is in a database (`inventory.whose`).
    While it runs, an intent keeps prune from beginning to collect, where the backup may be written to. Where a
    prune forgot the snapshot all the same, that raises.
    """
    began = time.monotonic()
    await refuse_target(backup, store)
    async with _protected(backup), _opened(backup, store, options or RestoreOptions(), on_event) as run:
        result = await run.restore(lock)
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


@asynccontextmanager
async def _opened(
    backup: Storage, store: Storage, options: RestoreOptions, on_event: OnEvent
) -> AsyncIterator[_Run]:
    listed = await list_snapshots(backup)
    snapshot = choose(listed, options.snapshot, backup.url)
    refuse_unknown_repositories(snapshot, options)
    with Inventory() as inventory:
        run = _Run(backup, store, inventory, options, snapshot, listed.keys[snapshot.run], on_event)
        run.damaged += passed_over(listed, options.snapshot, snapshot)
        run.notes += untold(listed, options.snapshot, snapshot)
        yield run


class _Run:
    def __init__(
        self,
        backup: Storage,
        store: Storage,
        inventory: Inventory,
        options: RestoreOptions,
        snapshot: Snapshot,
        key: str,
        on_event: OnEvent,
    ) -> None:
        self._backup = backup
        self._store = store
        self._inventory = inventory
        self._options = options
        self._snapshot = snapshot
        self._key = key
        self._names = [name for name in sorted(snapshot.repositories) if self._is_wanted(name)]
        self._on_event = on_event
        self._tags: set[str] = set()
        self._unread_packs = False
        self.damaged: list[str] = []
        self.notes: list[str] = []
        self._lost: set[Digest] = set()
        self._failures = 0
        self._watch = OutageWatch(backup, self._others)
        self._missing = False

    def _is_wanted(self, name: str) -> bool:
        patterns = self._options.repositories
        return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)

    def _absent(self) -> list[str]:
        """What was asked for, and the snapshot had left out."""
        patterns = self._options.tags
        return [
            str(one)
            for one in self._snapshot.left_out
            if self._is_wanted(one.repository)
            and (not patterns or (one.tag and any(fnmatchcase(one.tag, pattern) for pattern in patterns)))
        ]

    async def _refuse_forgotten(self) -> None:
        """Something is not there: raise where that is because prune has forgotten the snapshot meanwhile."""
        async for page in self._backup.list(self._key):
            if self._key in page.keys:
                return
        raise StorageError(
            f"snapshot {self._snapshot.run} of {self._backup.url} was forgotten meanwhile, by a prune: what is "
            "restored so far is not all of it; restore another one"
        )

    async def _pack(self, name: str) -> Pack | None:
        """The part of the pack that is asked for; None, and noted, where it is damaged."""
        encoded = self._snapshot.repositories[name].pack
        try:
            pack = await read_pack(self._backup, encoded)
            if pack.name != name:
                raise IntegrityError(f"{form.pack_key(encoded)} is of {pack.name}, not of {name}")
        except IntegrityError as error:
            await self._refuse_forgotten()
            self._unread_packs = True
            if str(error) not in self.damaged:
                self.damaged.append(str(error))
            return None
        self._tags.update(pack.tags)
        return select(pack, self._options.tags)

    async def _collect(self) -> tuple[int, int]:
        """List both sides' blobs; (tags, repositories) that are asked for."""
        scanner = Scanner(
            self._store, self._inventory, ScanOptions(concurrency=self._options.concurrency), self._on_event
        )
        if not self._missing:
            await list_blobs(scanner)
        self._inventory.execute("create table wanted (digest blob not null, size bigint not null)")
        tags = repositories = 0

        async def one(name: str) -> None:
            nonlocal tags, repositories
            pack = await self._pack(name)
            if pack is None:
                return
            tags += len(pack.tags)
            repositories += bool(pack.manifests)
            self._inventory.insert(
                "wanted",
                {
                    "digest": ("binary", [digest.raw for digest in pack.blobs]),
                    "size": ("int64", list(pack.blobs.values())),
                },
            )

        await for_each(self._names, one, concurrency=AT_ONCE)
        if not self._unread_packs:  # they may have it
            known = self._tags | {one.tag for one in self._snapshot.left_out}
            refuse_unmatched("tag", self._options.tags, known, f"snapshot {self._snapshot.run}")
        self._inventory.execute(
            "create table lacking as select distinct w.digest, w.size from wanted w"
            " anti join blob b on b.digest = w.digest and b.size = w.size"
        )
        if self._options.verify_existing:
            await self._verify_existing()
        return tags, repositories

    async def _verify_existing(self) -> None:
        """Read what the store has already; what is not as its digest says is lacking."""
        rows = self._inventory.all(
            "select distinct digest, size from wanted where digest not in (select digest from lacking)"
        )
        there = [(Digest.from_raw(bytes(raw)), size) for raw, size in rows]
        total, done = sum(size for _, size in there), 0
        wrong: list[tuple[Digest, int]] = []

        async def one(blob: tuple[Digest, int]) -> None:
            nonlocal done
            digest, size = blob
            try:
                found = await verified_size(self._store, layout.encode(layout.BlobKey(digest)), digest, size)
            except StorageError as error:
                if isinstance(error, AccessDenied | Unreachable) or is_fatal(error):
                    raise
                found = None
            if found is None:
                wrong.append(blob)
            done += size
            self._on_event(Progress(phase="reading what is there", done=done, total=total, unit="B"))

        await in_lanes(there, one, concurrency=self._options.concurrency)
        self._inventory.insert(
            "lacking",
            {
                "digest": ("binary", [digest.raw for digest, _ in wrong]),
                "size": ("int64", [size for _, size in wrong]),
            },
        )

    def _sums(self, table: str) -> tuple[int, int]:
        row = self._inventory.all(
            f"select count(*), coalesce(sum(size), 0)::bigint from (select distinct digest, size from {table})"
        )[0]
        return int(row[0]), int(row[1])

    async def plan(self) -> RestorePlan:
        try:
            await anext(self._store.list(layout.PREFIX), None)
        except NoSuchBucket:
            self._missing = True  # a restore would have made it
        tags, repositories = await self._collect()
        missing_tags = missing_links = 0
        conflicts: list[Conflict] = []

        async def one(name: str) -> None:
            nonlocal missing_tags, missing_links
            pack = await self._pack(name)
            if pack is None:
                return
            try:
                work = await plan_links(
                    self._store, pack, overwrite_tags=self._options.overwrite_tags, missing=self._missing
                )
            except LinkUnreadable as error:
                self.damaged.append(f"{name}: nothing of it would be restored, for {error}")
                return
            missing_tags += len(work.tags)
            missing_links += sum(map(len, work.steps))
            conflicts.extend(work.conflicts)

        await for_each(self._names, one, concurrency=AT_ONCE)
        blobs, size = self._sums("wanted")
        missing_blobs, missing_bytes = self._sums("lacking")
        return RestorePlan(
            snapshot=self._snapshot,
            repositories=repositories,
            tags=tags,
            missing_tags=missing_tags,
            missing_links=missing_links,
            blobs=blobs,
            bytes=size,
            missing_blobs=missing_blobs,
            missing_bytes=missing_bytes,
            conflicts=tuple(sorted(conflicts)),
            damaged=tuple(self.damaged),
            absent=tuple(self._absent()),
            notes=tuple(self.notes),
            database="" if self._missing else await database_in_use(self._store),
        )

    async def restore(self, lock: Lock) -> RestoreResult:
        refuse_database(self._store.url, await database_in_use(self._store), Use.WRITE)
        result = RestoreResult(snapshot=self._snapshot, absent=self._absent(), notes=self.notes)
        await self._collect()
        await lock.guard()
        await remove_leftovers(self._store, self._inventory)
        guard = Guard(lock)
        await self._seed(result)
        await self._blobs(guard, result)
        conditional = bool(self._names) and (await self._store.capabilities()).conditional_put
        writer = LinkWriter(
            self._store, self._options, lock, guard, conditional, source=f"{self._backup.url} {self._snapshot.run}"
        )
        done = 0

        async def one(name: str) -> None:
            nonlocal done
            pack = await self._pack(name)
            if pack is not None:
                pack = self._without_lost(pack, result) if self._lost else pack
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
                Progress(phase="restoring links", done=done, total=len(self._names), unit="repositories")
            )

        await for_each(self._names, one, concurrency=AT_ONCE)
        await writer.end(self._inventory)
        result.links, result.tags = writer.links, writer.tags
        result.conflicts = sorted(result.conflicts + writer.conflicts)
        result.damaged = self.damaged
        result.left_out.sort()
        return result

    async def _seed(self, result: RestoreResult) -> None:
        async for page in self._store.list(layout.PREFIX):
            if page.keys:
                return
        for seed in layout.SEEDS:
            await self._store.put(layout.encode(seed), SEED_BODY, options=self._options.put)
        result.seeded = True

    # -- blobs

    async def _blobs(self, guard: Guard, result: RestoreResult) -> None:
        rows = self._inventory.all("select digest, size from lacking")
        lacking = [(Digest.from_raw(bytes(raw)), size) for raw, size in rows]
        total, done = sum(size for _, size in lacking), 0

        async def one(blob: tuple[Digest, int]) -> None:
            nonlocal done
            digest, size = blob
            await guard.check()
            try:
                await copy_blob(
                    self._backup,
                    form.blob_key(digest),
                    self._store,
                    layout.encode(layout.BlobKey(digest)),
                    digest=digest,
                    size=size,
                    put=self._options.put,
                )
            except StorageError as error:
                await self._not_copied(digest, size, error)
            else:
                self._watch.good()
                self._failures = 0
                result.blobs += 1
                result.bytes += size
            done += size
            self._on_event(Progress(phase="restoring blobs", done=done, total=total, unit="B"))

        await in_lanes(lacking, one, concurrency=self._options.concurrency, target=self._store)
        await self._watch.end()

    def _others(self, most: int, failed: Sequence[str]) -> list[str]:
        rows = self._inventory.all(
            "select distinct digest from wanted order by hash(digest) limit ?", [most + len(failed)]
        )
        keys = [form.blob_key(Digest.from_raw(bytes(raw))) for (raw,) in rows]
        return [key for key in keys if key not in set(failed)][:most]

    async def _not_copied(self, digest: Digest, size: int, error: StorageError) -> None:
        if is_fatal(error):
            raise error
        if not isinstance(error, IntegrityError | SourceGone):
            key = form.blob_key(digest)
            of_the_backup = await error_of_source(self._backup, key, digest, size, error)
            if of_the_backup is not None:
                await self._watch.bad(key, of_the_backup)
            else:
                self._failures += 1
                if self._failures >= FAILURES_IN_A_ROW:
                    raise error
        if isinstance(error, SourceGone):
            await self._refuse_forgotten()
        self._lost.add(digest)
        if isinstance(error, SourceGone):
            self.damaged.append(f"blob {digest} is lost from {self._backup.url}")
        else:
            self.damaged.append(f"blob {digest}: {error}")

    # -- links

    def _without_lost(self, pack: Pack, result: RestoreResult) -> Pack:
        """The pack without what needs a blob that could not be restored."""
        bad: set[Digest] = set()
        for digest, known in pack.manifests.items():
            parts = {digest, *known.needs}
            if parts & bad or {pack.blob_of(part) for part in parts} & self._lost:
                bad.add(digest)
        if not bad:
            return pack
        manifests = {digest: known for digest, known in pack.manifests.items() if digest not in bad}
        for tag, packed in sorted(pack.tags.items()):
            if packed.digest in bad:
                result.left_out.append(f"{pack.name}: tag {tag}")
        named = {packed.digest for packed in pack.tags.values()}
        result.left_out += (
            f"{pack.name}: untagged manifest {digest}"
            for digest in sorted(bad - named)
            if pack.manifests[digest].linked
        )
        tags = {tag: packed for tag, packed in pack.tags.items() if packed.digest not in bad}
        return Pack(
            name=pack.name,
            blobs={digest: size for digest, size in pack.blobs.items() if digest not in self._lost},
            layers={digest: target for digest, target in pack.layers.items() if target not in self._lost},
            manifests=manifests,
            signatures=frozenset(
                pair for pair in pack.signatures if pair[0] not in bad and pair[1] not in self._lost
            ),
            history=frozenset((tag, digest) for tag, digest in pack.history if tag in tags and digest not in bad),
            tags=tags,
        )
