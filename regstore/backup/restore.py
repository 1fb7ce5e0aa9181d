"""`backup restore`: a snapshot, or a part of it, into a store that may be empty or in use.

First all blobs, each hashed on its way; then, a repository at a time, layer links, manifests (children first),
signatures, tag histories and tags (LAYOUT section 4). What is cut short leaves garbage, never a link to nothing; the
next run finds what is missing. Nothing is deleted, and nothing replaced but links whose body is wrong and, where that
is asked for, tags.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from regstore import layout
from regstore.backup import format as form
from regstore.backup.format import Pack, Snapshot
from regstore.backup.opening import choose, list_snapshots, read_pack
from regstore.backup.options import RestoreOptions
from regstore.backup.plan import select
from regstore.backup.source import list_blobs
from regstore.backup.transfer import FAILURES_IN_A_ROW, in_lanes
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import AlreadyExists, InputError, IntegrityError, NoSuchBucket, NotFound, StorageError
from regstore.events import OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.runs.lock import Lock, clock
from regstore.seed.seeding import SEED_BODY
from regstore.storage.base import ObjectInfo, Storage
from regstore.storage.streams import SourceGone, copy_blob, is_fatal

_AT_ONCE: Final = 8
_BATCH_SECONDS: Final = 1.0


@dataclass(frozen=True, kw_only=True, order=True)
class Conflict:
    """A tag that names something else in the store than in the snapshot; there is "" where its link is unreadable."""

    repository: str
    tag: str
    snapshot: str
    there: str


@dataclass(frozen=True, kw_only=True)
class RestorePlan:
    """What a restore would do. missing_…: that the store lacks. Sizes in bytes."""

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

    @property
    def partial(self) -> bool:
        return bool(self.conflicts or self.damaged)


@dataclass(kw_only=True)
class RestoreResult:
    """What a run did. damaged: what the backup could not give, and left_out: what was not restored because of it."""

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

    @property
    def partial(self) -> bool:
        return bool(self.conflicts or self.damaged or self.left_out)


@dataclass(frozen=True, slots=True)
class _Link:
    """A link to write. replaces: the key stands there with another body."""

    key: str
    body: bytes
    replaces: bool = False


@dataclass(kw_only=True)
class _Work:
    """What one repository lacks, in the order of writing."""

    name: str
    steps: list[list[_Link]] = field(default_factory=list)
    tags: list[tuple[str, _Link]] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)


async def plan_restore(
    backup: Storage, store: Storage, options: RestoreOptions | None = None, *, on_event: OnEvent = ignore
) -> RestorePlan:
    """What `restore` would do now. Writes nothing."""
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
    need it are left out; the rest goes on.
    """
    began = time.monotonic()
    async with _opened(backup, store, options or RestoreOptions(), on_event) as run:
        result = await run.restore(lock)
    result.seconds = time.monotonic() - began
    return result


@asynccontextmanager
async def _opened(
    backup: Storage, store: Storage, options: RestoreOptions, on_event: OnEvent
) -> AsyncIterator[_Run]:
    listed = await list_snapshots(backup)
    snapshot = choose(listed, options.snapshot, backup.url)
    names = [
        name
        for name in sorted(snapshot.repositories)
        if not options.repositories or any(fnmatchcase(name, pattern) for pattern in options.repositories)
    ]
    if options.repositories and not names:
        raise InputError(f"snapshot {snapshot.run} has no repository {' or '.join(options.repositories)}")
    with Inventory() as inventory:
        yield _Run(backup, store, inventory, options, snapshot, names, on_event)


class _Run:
    def __init__(
        self,
        backup: Storage,
        store: Storage,
        inventory: Inventory,
        options: RestoreOptions,
        snapshot: Snapshot,
        names: Sequence[str],
        on_event: OnEvent,
    ) -> None:
        self._backup = backup
        self._store = store
        self._inventory = inventory
        self._options = options
        self._snapshot = snapshot
        self._names = names
        self._on_event = on_event
        self._damaged: list[str] = []
        self._lost: set[Digest] = set()
        self._failures = 0
        self._missing = False

    async def _pack(self, name: str) -> Pack | None:
        """The part of the pack that is asked for; None, and noted, where it is damaged."""
        try:
            pack = await read_pack(self._backup, self._snapshot.repositories[name].pack)
        except IntegrityError as error:
            if str(error) not in self._damaged:
                self._damaged.append(str(error))
            return None
        if pack.name != name:
            wrong = f"{form.pack_key(self._snapshot.repositories[name].pack)} is of {pack.name}, not of {name}"
            if wrong not in self._damaged:
                self._damaged.append(wrong)
            return None
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

        await for_each(self._names, one, concurrency=_AT_ONCE)
        self._inventory.execute(
            "create table lacking as select distinct w.digest, w.size from wanted w"
            " anti join blob b on b.digest = w.digest and b.size = w.size"
        )
        return tags, repositories

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
            work = await self._work(pack)
            missing_tags += len(work.tags)
            missing_links += sum(map(len, work.steps))
            conflicts.extend(work.conflicts)

        await for_each(self._names, one, concurrency=_AT_ONCE)
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
            damaged=tuple(self._damaged),
        )

    async def restore(self, lock: Lock) -> RestoreResult:
        result = RestoreResult(snapshot=self._snapshot)
        await self._collect()
        await lock.guard()
        guard = _Guard(lock)
        await self._seed(result)
        await self._blobs(guard, result)
        conditional = bool(self._names) and (await self._store.capabilities()).conditional_put
        done = 0

        async def one(name: str) -> None:
            nonlocal done
            pack = await self._pack(name)
            if pack is not None:
                await self._repository(pack, guard, result, conditional)
            else:
                result.left_out.append(f"{name}: all of it, for its pack is damaged")
            done += 1
            self._on_event(
                Progress(phase="restoring links", done=done, total=len(self._names), unit="repositories")
            )

        await for_each(self._names, one, concurrency=_AT_ONCE)
        result.damaged = self._damaged
        result.conflicts.sort()
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

    async def _blobs(self, guard: _Guard, result: RestoreResult) -> None:
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
                self._not_copied(digest, error)
            else:
                self._failures = 0
                result.blobs += 1
                result.bytes += size
            done += size
            self._on_event(Progress(phase="restoring blobs", done=done, total=total, unit="B"))

        await in_lanes(lacking, one, concurrency=self._options.concurrency, target=self._store)

    def _not_copied(self, digest: Digest, error: StorageError) -> None:
        if is_fatal(error):
            raise error
        of_the_backup = isinstance(error, IntegrityError | SourceGone)
        self._failures += not of_the_backup
        if self._failures >= FAILURES_IN_A_ROW:
            raise error
        self._lost.add(digest)
        if isinstance(error, SourceGone):
            self._damaged.append(f"blob {digest} is lost from {self._backup.url}")
        else:
            self._damaged.append(f"blob {digest}: {error}")

    # -- links

    async def _repository(self, pack: Pack, guard: _Guard, result: RestoreResult, conditional: bool) -> None:
        if self._lost:
            pack = self._without_lost(pack, result)
        work = await self._work(pack)
        result.conflicts += work.conflicts

        async def put(link: _Link) -> None:
            await guard.check()
            await self._store.put(link.key, link.body, options=self._options.put)
            result.links += 1

        async def set_tag(row: tuple[str, _Link]) -> None:
            await guard.check()
            conflict = await self._set_tag(pack.name, row[0], row[1], conditional)
            if conflict is None:
                result.tags += 1
            else:
                result.conflicts.append(conflict)

        for step in work.steps:
            await for_each(step, put, concurrency=_AT_ONCE)
        await for_each(work.tags, set_tag, concurrency=_AT_ONCE)

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

    async def _work(self, pack: Pack) -> _Work:
        """What the store's repository lacks, by listing it."""
        there: dict[str, ObjectInfo] = {}
        if not self._missing:
            async for page in self._store.list(layout.repository_prefix(pack.name) + "_"):
                there.update((info.key, info) for info in page.objects())

        async def lacking(links: Iterable[tuple[layout.Key, Digest]]) -> list[_Link]:
            found = []
            for key, digest in links:
                text, body = layout.encode(key), layout.link_body(digest)
                info = there.get(text)
                if info is None or not await self._says(info, body):
                    found.append(_Link(text, body, info is not None))
            return found

        name = pack.name
        work = _Work(name=name)
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
        tags: list[tuple[str, _Link]] = []
        for tag, packed in sorted(pack.tags.items()):
            for link in await lacking([(layout.TagCurrentKey(name, tag), packed.digest)]):
                if link.replaces and not self._options.overwrite_tags:
                    there_now = layout.parse_link(await self._get(link.key) or b"")
                    work.conflicts.append(
                        Conflict(
                            repository=name,
                            tag=tag,
                            snapshot=str(packed.digest),
                            there=str(there_now) if there_now else "",
                        )
                    )
                else:
                    tags.append((tag, link))
        work.tags = tags
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

    async def _says(self, info: ObjectInfo, body: bytes) -> bool:
        if info.size != len(body):
            return False
        if info.etag == hashlib.md5(body, usedforsecurity=False).hexdigest():
            return True
        return await self._get(info.key) == body

    async def _get(self, key: str) -> bytes | None:
        try:
            return await self._store.get(key)
        except NotFound:
            return None

    async def _set_tag(self, name: str, tag: str, link: _Link, conditional: bool) -> Conflict | None:
        """A conflict where somebody has set it since the repository was listed."""
        if not self._options.overwrite_tags:
            if conditional:
                try:
                    await self._store.put(link.key, link.body, if_absent=True, options=self._options.put)
                    return None
                except AlreadyExists:
                    pass
            found = await self._get(link.key)
            if found is not None and found != link.body:
                there = layout.parse_link(found)
                snapshot = layout.parse_link(link.body)
                return Conflict(repository=name, tag=tag, snapshot=str(snapshot), there=str(there) if there else "")
        await self._store.put(link.key, link.body, options=self._options.put)
        return None


class _Guard:
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
