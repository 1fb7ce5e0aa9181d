"""An import: blobs, then links, then tags, as a restore writes them (`backup.restore_links`): the registry may serve.

Each blob of the layout is hashed, also one that the store has: the layout, not the store, says that it may be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from regstore import layout
from regstore.backup.asked import without_lost
from regstore.backup.format import Pack
from regstore.backup.opening import check_marker
from regstore.backup.options import RestoreOptions
from regstore.backup.restore import seed_empty
from regstore.backup.restore_links import Conflict, Guard, LinkUnreadable, LinkWriter, plan_links
from regstore.digest import Digest
from regstore.errors import InputError, IntegrityError, NoSuchBucket, NotFound
from regstore.events import OnEvent, Progress, ignore
from regstore.exchange.choosing import choose
from regstore.exchange.image_layout import blob_path
from regstore.exchange.packing import pack_layout, read_layout
from regstore.inventory.inventory import Inventory
from regstore.inventory.whose import Use, database_in_use, refuse_database
from regstore.reference import Reference
from regstore.state.lock import Lock
from regstore.storage.base import PutOptions, Storage
from regstore.storage.streams import SourceGone, verified_size
from regstore.storage.transfer import Attempts, Carrier, each_blob, largest_first


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """what: where to, see `choosing.choose`. overwrite_tags: also tags that name something else in the store. sparse:
    an index may list manifests that the layout lacks, as of platforms that were left out."""

    what: tuple[Reference, ...] = ()
    overwrite_tags: bool = False
    sparse: bool = False
    put: PutOptions | None = None
    concurrency: int = 128

    @property
    def restoring(self) -> RestoreOptions:
        return RestoreOptions(overwrite_tags=self.overwrite_tags, put=self.put, concurrency=self.concurrency)


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """What an import would do now. lacking: blobs that the store does not have, with their sizes in bytes. links, tags:
    how many would be written. left_out: what can't be imported, and why. database: see `RestorePlan`."""

    packs: tuple[Pack, ...]
    lacking: dict[Digest, int]
    links: int
    tags: int
    conflicts: tuple[Conflict, ...]
    left_out: tuple[str, ...]
    database: str = ""

    @property
    def contents(self) -> dict[Digest, int]:
        return {digest: size for pack in self.packs for digest, size in pack.blobs.items()}

    @property
    def partial(self) -> bool:
        return bool(self.conflicts or self.left_out)


@dataclass(kw_only=True)
class ImportResult:
    """What was written, sizes in bytes; conflicts: tags that were left as they are; left_out as in the plan."""

    blobs: int = 0
    bytes: int = 0
    links: int = 0
    tags: int = 0
    seeded: bool = False
    conflicts: list[Conflict] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def partial(self) -> bool:
        return bool(self.conflicts or self.left_out)


async def plan_import(
    source: Storage, store: Storage, options: ImportOptions, *, on_event: OnEvent = ignore
) -> ImportPlan:
    """Look: manifests of the layout are read and verified, blobs are not. Nothing is written.

    InputError where the source is no layout, or has nothing of what was asked for.
    """
    on_event(Progress(phase="reading manifests", done=0, unit="manifests"))
    missing = not await _is_there(store)
    if not missing and await check_marker(store):
        raise InputError(f"{store.url} is a backup, which must not become a registry: give another place")
    chosen = choose(await read_layout(source), options.what, source.url)
    now = await source.now() if missing else await store.now()
    packed = await pack_layout(source, chosen, now, sparse=options.sparse)
    contents = {digest: size for pack in packed.packs for digest, size in pack.blobs.items()}
    links = tags = 0
    conflicts: list[Conflict] = []
    for pack in packed.packs:
        try:
            work = await plan_links(store, pack, overwrite_tags=options.overwrite_tags, missing=missing)
        except LinkUnreadable as error:
            packed.left_out.append(f"{pack.name}: all of it, for {error}")
            continue
        links += sum(map(len, work.steps))
        tags += len(work.tags)
        conflicts += work.conflicts
    return ImportPlan(
        packs=tuple(packed.packs),
        lacking=contents if missing else await _lacking(store, contents, options.concurrency),
        links=links,
        tags=tags,
        conflicts=tuple(sorted(conflicts)),
        left_out=tuple(packed.left_out),
        database="" if missing else await database_in_use(store),
    )


async def import_layout(
    source: Storage,
    store: Storage,
    plan: ImportPlan,
    options: ImportOptions,
    *,
    lock: Lock,
    on_event: OnEvent = ignore,
) -> ImportResult:
    """Write what was planned, under the store's lock; an empty store gets its seeds.

    A blob that is not as its digest says is named, and what needs it is left out. Cut short, it leaves garbage that gc
    takes, never a link to nothing; run again, it writes the rest. Refused where the store's metadata is in a database.
    """
    refuse_database(store.url, await database_in_use(store), Use.WRITE)
    guard, result = Guard(lock), ImportResult(left_out=list(plan.left_out))
    await lock.guard()
    result.seeded = await seed_empty(store, options.put)
    blobs = _Blobs(source, store, plan, options, on_event)
    lost = await blobs.copy(guard, result)
    conditional = bool(plan.packs) and (await store.capabilities()).conditional_put
    writer = LinkWriter(
        store, options.restoring, lock, guard, conditional, source=f"import {source.url}", command="import"
    )
    for number, whole in enumerate(plan.packs):
        pack, left_out = without_lost(whole, lost)
        result.left_out += left_out
        try:
            work = await plan_links(store, pack, overwrite_tags=options.overwrite_tags)
        except LinkUnreadable as error:
            result.left_out.append(f"{pack.name}: all of it, for {error}")
            continue
        result.conflicts += work.conflicts
        await writer.write(work)
        on_event(Progress(phase="writing links", done=number + 1, total=len(plan.packs), unit="repositories"))
    with Inventory() as inventory:
        await writer.end(inventory)
    result.links, result.tags = writer.links, writer.tags
    result.conflicts = sorted(result.conflicts + writer.conflicts)
    return result


class _Blobs:
    """All that the packs need: what the store lacks is copied, the rest is read."""

    def __init__(
        self, source: Storage, store: Storage, plan: ImportPlan, options: ImportOptions, on_event: OnEvent
    ) -> None:
        self._source = source
        self._store = store
        self._contents = plan.contents
        self._options = options
        self._on_event = on_event

    async def copy(self, guard: Guard, result: ImportResult) -> set[Digest]:
        """Those that are not as they should be."""
        total, done = sum(self._contents.values()), 0
        carrier = Carrier(self._source, self._store, put=self._options.put)
        attempts = Attempts(self._source, self._others)
        lacking = await _lacking(self._store, self._contents, self._options.concurrency)
        lost: set[Digest] = set()

        async def one(blob: tuple[Digest, int]) -> None:
            nonlocal done
            digest, size = blob
            await guard.check()
            path = blob_path(digest)
            if digest in lacking:
                working = carrier.copy(path, layout.blob_key(digest), digest=digest, size=size)
            else:
                working = self._verify(path, digest, size)
            failure = await attempts.of(path, digest, size, working)
            if failure is not None:
                lost.add(digest)
                result.left_out.append(f"blob {digest}: {failure.error}")
            elif digest in lacking:
                result.blobs += 1
                result.bytes += size
            done += size
            self._on_event(Progress(phase="writing blobs", done=done, total=total, unit="B"))

        await each_blob(
            carrier.road, largest_first(self._contents.items()), one, concurrency=self._options.concurrency
        )
        await attempts.end()
        return lost

    async def _verify(self, path: str, digest: Digest, size: int) -> None:
        found = await verified_size(self._source, path, digest, size)
        if found is None:
            try:
                await self._source.stat(path)
            except NotFound as error:
                raise SourceGone(path, self._source.url) from error
            raise IntegrityError(f"{path} in {self._source.url} is not what its name says")

    def _others(self, most: int, failed: Sequence[str]) -> list[str]:
        return [path for path in map(blob_path, self._contents) if path not in failed][:most]


async def _lacking(store: Storage, contents: dict[Digest, int], concurrency: int) -> dict[Digest, int]:
    """Of these, what the store does not have in this size."""
    from regstore.concurrency import for_each

    lacking: dict[Digest, int] = {}

    async def look(blob: tuple[Digest, int]) -> None:
        digest, size = blob
        try:
            info = await store.stat(layout.blob_key(digest))
        except NotFound:
            lacking[digest] = size
            return
        if info.size != size:
            lacking[digest] = size

    await for_each(contents.items(), look, concurrency=concurrency if store.serves_in_parallel else 8)
    return lacking


async def _is_there(store: Storage) -> bool:
    try:
        await anext(store.list(layout.PREFIX), None)
    except NoSuchBucket:
        return False
    return True
