"""One run of gc on a store: scan, heal, plan, and the application of the plan, safe while the registry serves.

    async with open_run(storage, options) as run:      # a dry run: nothing is written
        print(run.summary)

    async with hold_lock(storage, command="gc") as lock, open_run(storage, options, lock) as run:
        report = await run.apply()

LIST passes over `repositories/`: one for the scan; while the registry serves also one before and one after the
unlinking, of the repositories that lose something only, one before blobs are moved, again whenever that takes longer
than some minutes, and one after `settle`; and one of the tags of repositories that lose tags (`runs.pushed_again`). One
copy a blob and one DeleteObjects a thousand keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from regstore import layout
from regstore.concurrency import for_each, in_thread
from regstore.digest import Digest
from regstore.errors import InputError, NotARegistry, NotFound, Refused, StorageError
from regstore.events import OnEvent, Progress, ignore
from regstore.gc.caches import NoCache, RegistryCache
from regstore.gc.confirm import confirm_broken
from regstore.gc.counts import count_inventory
from regstore.gc.created import read_created
from regstore.gc.failures import Failures, try_deleting
from regstore.gc.freeing import Freeing
from regstore.gc.going import SLICE, Going, Row
from regstore.gc.heal import Healed, Healer
from regstore.gc.past import Past
from regstore.gc.plan import GcOptions, GcSummary, Step, plan_blobs, plan_gc, plan_links
from regstore.gc.policy import Pattern
from regstore.gc.pushed_again import half_pushed
from regstore.gc.stops import stops
from regstore.gc.trash import Emptied, empty_runs, forget_past, refuse_symbolic_links, without_damaged
from regstore.gc.unread_needs import held_for_unread
from regstore.gc.vanished import find_vanished
from regstore.inventory.inventory import Inventory, digest_text
from regstore.inventory.scan import LINK_MAX, Scanner, ScanOptions, scan
from regstore.inventory.tag_times import load_record
from regstore.inventory.unlinked import look_for_manifests
from regstore.inventory.whose import Use, database_in_use, refuse_database
from regstore.layout import BlobKey, LayerLinkKey, RevisionLinkKey, TagCurrentKey, UploadKey
from regstore.state import RUNS
from regstore.state.counts import Counts, read_counts, write_counts
from regstore.state.journal import (
    ABORTED,
    GIVEN_BACK,
    TRASHED,
    UNLINK,
    Entry,
    Journal,
    RunRecord,
    find_runs,
    write_seen,
)
from regstore.state.lock import Lock
from regstore.state.not_freed import NotFreed
from regstore.state.pushed_again import give_back
from regstore.state.registry_state import Restart
from regstore.state.trashed import TrashedRun
from regstore.storage.base import MultipartUpload, Page, Storage
from regstore.storage.clock import clock
from regstore.storage.streams import is_fatal
from regstore.tagging import remove_tag_folders

_BATCH: Final = 1000
#: What is unlinked between two looks at the repositories concerned.
_GROUP_KEYS: Final = 5_000
_GROUP_REPOSITORIES: Final = 100
#: While the registry serves, no blob goes longer than this after a look at all links, in seconds; or than as long as
#: that look took, where that is longer.
_LOOK_STANDS: Final = 300.0
#: Numbered from 1 in the order of the blobs' keys: by algorithm, then by digest.
_CANDIDATES: Final = """
    create or replace table gc_candidate as
    select row_number() over (order by octet_length(digest), digest) as position, digest, size, mtime
    from gc_dead_blob order by position
"""
#: No link: nothing of these is put back.
_WITHOUT_BODY: Final = frozenset({Step.UPLOAD, Step.LITTER})
#: Blobs that a report names where they are not as planned.
_NAMED: Final = 5
#: Empty folders younger than this stay while the registry serves; in microseconds.
_FOLDERS_STAY: Final = 600 * 1_000_000
#: v2.x finds repositories by `_layers`, v3 by `_manifests`; a repository without them would lose its blobs to the
#: registry's own garbage-collect.
_REPOSITORY_FOLDERS: Final = frozenset({"_layers", "_manifests", "_uploads", "tags", "revisions"})


@dataclass(frozen=True, kw_only=True)
class GcRunOptions:
    """How gc runs. settle in seconds; max_delete is a share, 0 to 1, of the blobs, and of the tags by a policy.

    offline: the registry is stopped or read-only, so no second look is needed.
    trash: keep removed blobs in the trash; False only with offline.
    allow_empty: go on where the last run left blobs, or links, and this one sees none.
    allow_gone: repositories that may have lost all their tags since the last run, with no run of ours having taken
    them; max_lost: the share, 0 to 1, of the links that may have gone so.
    trash_older_than: empty what runs that ended so long ago (microseconds) left in the trash, where the registry's
    cache and `TrashedRun.may_go_at` allow it; None keeps it.
    restart_command: restarts the registry once this run is over (`gc.restart`), where its cache is in its memory and
    anything in the trash waits for that.
    untagged_repositories: yes to the end of repositories that have revisions and no tag at all.
    copied_times: choose the newest also among tags that were all set at one time (`gc.one_time`).
    unlinked_blobs: yes to the end of blobs that came steadily after the newest link (`inventory.unlinked`).
    database, tags_in: what the registry's configuration says (`inventory.whose.database_told`, and its `tags_in`).
    tags_complete: all the same, every tag that matters is in the store.
    """

    plan: GcOptions = field(default_factory=GcOptions)
    scan: ScanOptions = field(default_factory=ScanOptions.default)
    offline: bool = False
    trash: bool = True
    settle: float = 60.0
    max_delete: float = 0.5
    allow_empty: bool = False
    allow_gone: tuple[Pattern, ...] = ()
    max_lost: float = 0.5
    trash_older_than: int | None = None
    restart_command: str | None = None
    untagged_repositories: bool = False
    copied_times: bool = False
    unlinked_blobs: bool = False
    database: str = ""
    tags_in: str = ""
    tags_complete: bool = False

    def __post_init__(self) -> None:
        if not self.trash and not self.offline:
            raise InputError("without trash (--no-trash) there is no way back: that is allowed only with --offline")
        if not 0 <= self.max_delete <= 1:
            raise InputError("the share of blobs that may go (--max-delete) is from 0% to 100%")
        if not 0 <= self.max_lost <= 1:
            raise InputError("the share of links that may have gone (--max-lost) is from 0% to 100%")


@dataclass(frozen=True, kw_only=True)
class GcReport:
    """What a run did. Sizes in bytes, seconds for the time it took.

    litter: directory markers, and files of NAS and desktop systems, that went with what they stood beside.
    vanished: dead blobs that somebody else had deleted when their turn came, and the digests of some of them.
    kept_back: planned, but left alone because it was in use, or had changed, when its turn came.
    failures: keys that the store would not delete, with its words: a line a reason.
    emptied: older runs whose trash went for good; overdue: those that the registry's cache may still answer for.
    versioned: the bucket keeps what is deleted as noncurrent versions, so no space is free until these expire.
    restart: of the registry, where the restart command was run. not_freed: what lies in the trash still, and why.
    """

    run: str
    trashed: bool
    healed: Healed
    tags: int = 0
    revisions: int = 0
    layer_links: int = 0
    uploads: int = 0
    litter: int = 0
    blobs: int = 0
    blob_bytes: int = 0
    upload_bytes: int = 0
    vanished: int = 0
    vanished_digests: tuple[str, ...] = ()
    kept_back: int = 0
    folders: int = 0
    seconds: float = 0.0
    failures: tuple[str, ...] = ()
    emptied: Emptied = field(default_factory=Emptied)
    overdue: tuple[str, ...] = ()
    versioned: bool | None = False
    restart: Restart | None = None
    not_freed: NotFreed = field(default_factory=NotFreed)

    @property
    def nothing_went(self) -> bool:
        return not (
            self.tags
            or self.revisions
            or self.layer_links
            or self.uploads
            or self.litter
            or self.blobs
            or self.emptied.blobs
        )


async def require_registry(storage: Storage, *prefixes: str) -> None:
    """NotARegistry where nothing is below these: by default neither a registry nor anything of ours."""
    for prefix in prefixes or (layout.PREFIX, layout.STATE):
        async for page in storage.list(prefix):
            if page.keys:
                return
    raise NotARegistry(
        f"{storage.url} holds no registry: there is nothing below {layout.PREFIX} "
        "(is the root directory part of the URL?)"
    )


@asynccontextmanager
async def open_run(
    storage: Storage,
    options: GcRunOptions,
    lock: Lock | None = None,
    *,
    cache: RegistryCache | None = None,
    on_event: OnEvent = ignore,
) -> AsyncIterator[GcRun]:
    """Scan and plan. With a lock, what earlier runs left is healed first; without, nothing is written at all.

    cache: the registry's descriptor cache; one that is not known counts as one in its memory.
    NotARegistry where neither blobs nor repositories are.
    """
    async with scan(storage, options.scan, on_event=on_event) as inventory:
        run = GcRun(storage, inventory, options, lock, cache or NoCache("unknown"), on_event)
        await run.prepare()
        yield run


class GcRun:
    """A planned run. `summary` is the plan in numbers, `healed` what came back before it was made; `expired`: older
    runs whose trash is emptied with it, `overdue`: those that the registry's cache may still answer for."""

    def __init__(
        self,
        storage: Storage,
        inventory: Inventory,
        options: GcRunOptions,
        lock: Lock | None,
        cache: RegistryCache,
        on_event: OnEvent,
    ) -> None:
        self._storage = storage
        self.inventory: Final = inventory
        self._options = options
        self._lock = lock
        self._cache = cache
        self._on_event = on_event
        self.summary: GcSummary
        self.healed = Healed()
        self._past: Past
        self._freeing = Freeing(
            storage,
            cache,
            older_than=options.trash_older_than,
            offline=options.offline,
            command=options.restart_command,
        )
        #: What the last run left, and the runs whose journals are kept.
        self._last: Counts | None = None
        self._runs: set[str] = set()
        self._unlinked: dict[Step, int] = dict.fromkeys(Step, 0)
        self._failures = Failures(storage.url)
        self._kept_back = 0
        #: Dead blobs that were not there any more when their turn came.
        self._vanished: list[_Blob] = []
        self._tags_back: list[str] = []
        self._given_back = Healed()
        self._uploads_gone: set[tuple[str, str]] = set()
        self._upload_bytes = 0
        self._look_due = 0.0
        self._gone = 0
        self._gone_bytes = 0
        self._applied = False

    async def prepare(self) -> None:
        if self._lock is not None:
            refuse_database(self._storage.url, self.database, Use.REMOVE)
        records = await find_runs(self._storage)
        await self._refuse_what_is_no_registry(records)
        refuse_symbolic_links(self._storage)
        if self._lock is not None:
            self._past = await Past.load(self._storage, self.inventory)
            await self._past.note_seen(self._storage, self._lock)
            await forget_past(self.inventory, self._cache, self._past.records)
            self.healed = await self._healer(self.inventory).run()
            await self._past.note_given_back(self._storage, self._lock, self.healed.links)
            await self._freeing.find()
            await self._hold_for_unread(self.inventory)
        policy = self._options.plan.policy
        if policy is not None and policy.needs_time:
            await load_record(self._storage, self.inventory)
        await self._read_created(self.inventory)
        await confirm_broken(
            self._storage,
            self.inventory,
            Scanner(self._storage, self.inventory, self._options.scan, self._on_event),
            self._options.plan.drop_broken,
            concurrency=self._options.scan.concurrency,
        )
        summary = await in_thread(self._plan)  # the lock is kept meanwhile
        concurrency = self._options.scan.concurrency
        unlinked = await look_for_manifests(
            self._storage, self.inventory, summary.unlinked, concurrency=concurrency
        )
        self.summary = replace(summary, unlinked=unlinked)

    def _plan(self) -> GcSummary:
        return plan_gc(self.inventory, self._options.plan, now=self.inventory.scanned_at)

    async def _read_created(self, inventory: Inventory) -> None:
        policy = self._options.plan.policy
        if policy is not None:
            await read_created(self._storage, inventory, policy, self._options.scan, on_event=self._on_event)

    async def _hold_for_unread(self, inventory: Inventory) -> None:
        if self.expired:
            self._freeing.hold(await in_thread(held_for_unread, inventory))

    async def remember(self) -> None:
        """That this run has come to its end without a change, for the next one to compare with. Written where it is not
        what the last one has left."""
        now = count_inventory(self.inventory, runs=self._runs)
        if now != self._last and self._lock is not None:
            await write_counts(self._storage, now)

    async def _refuse_what_is_no_registry(self, records: Sequence[RunRecord]) -> None:
        self._runs = {record.run for record in records}
        self._last, now = await read_counts(self._storage), count_inventory(self.inventory, runs=self._runs)
        if self._last is not None:
            await self._refuse_what_vanished(self._last, now, records)
        if self._last or records or self.inventory.key_count():
            return
        await require_registry(self._storage, layout.PREFIX)  # the seed alone: an empty registry

    async def _refuse_what_vanished(self, last: Counts, now: Counts, records: Sequence[RunRecord]) -> None:
        url, options = self._storage.url, self._options
        if missing := last.missing_in(now):
            if not options.allow_empty:
                raise Refused(
                    f"{url} shows none of the {missing} that the last run left in it; if that is right, "
                    "say --allow-empty"
                )
            if self._lock is not None:
                await write_counts(self._storage, now)
        if options.allow_empty:
            return
        vanished = await find_vanished(self._storage, last, now, records)
        if refusal := vanished.refusal(allow_gone=options.allow_gone, max_lost=options.max_lost):
            raise Refused(f"{url}: {refusal}")

    @property
    def expired(self) -> list[TrashedRun]:
        return self._freeing.expired

    @property
    def overdue(self) -> tuple[str, ...]:
        return self._freeing.overdue

    @property
    def nothing_to_do(self) -> bool:
        """Neither in the plan, nor in the trash."""
        return self.summary.nothing_to_do and not self.expired

    @property
    def database(self) -> str:
        """What says that the registry's metadata is in a database; "" where nothing does."""
        return self.inventory.database or self._options.database

    @property
    def stops(self) -> list[str]:
        """Why `apply` refuses the plan."""
        return stops(self.summary, self._options)

    def check(self) -> None:
        """Refused where something stops it."""
        if found := self.stops:
            raise Refused("; ".join(found))

    async def apply(self) -> GcReport:
        """Carry the plan out, once. Interrupted at any point, the next run finishes or begins again."""
        if self._lock is None:
            raise InputError("a run without the store's lock can't be applied")
        if self._applied:
            raise InputError("a plan is applied once; open a new run")
        self._applied = True
        self.check()
        started = time.monotonic()
        await self._refuse_database()  # the plan may have waited for somebody's yes
        await try_deleting(self._storage, f"{RUNS}{self._lock.run}/none")
        self._journal = Journal(self._storage, self._lock.run)
        await self._journal.begin(self._description())
        healed = await self._unlink()
        await self._find_candidates()
        await self._remove_blobs()
        links_went = any(number for step, number in self._unlinked.items() if step is not Step.LITTER)
        if not self._options.offline and (links_went or self._gone or self.expired):
            healed += await self._settle()
        await self._remove_outer_litter()
        await self._forget()
        expired, spoilt = without_damaged(self.expired, self.healed + healed + self._given_back)
        emptied = await empty_runs(self._storage, self._lock, expired, on_event=self._on_event)
        emptied = replace(emptied, kept=(*spoilt, *self._freeing.held))
        folders = await self._remove_folders()
        report = GcReport(
            run=self._lock.run,
            tags=self._unlinked[Step.TAG],
            revisions=self._unlinked[Step.REVISION],
            layer_links=self._unlinked[Step.LAYER],
            uploads=len(self._uploads_gone),
            litter=self._unlinked[Step.LITTER],
            blobs=self._gone,
            blob_bytes=self._gone_bytes,
            upload_bytes=self._upload_bytes,
            trashed=self._options.trash,
            healed=self.healed + healed + self._given_back + Healed(links=tuple(self._tags_back)),
            vanished=len(self._vanished),
            vanished_digests=tuple(digest_text(blob.raw) for blob in self._vanished[:_NAMED]),
            kept_back=self._kept_back,
            folders=folders,
            seconds=time.monotonic() - started,
            failures=(*self._failures.lines(), *emptied.failures),
            emptied=emptied,
            overdue=self.overdue,
            versioned=(await self._storage.capabilities()).versioned,
        )
        if back := sorted({*healed.links, *self._given_back.links}):
            await write_seen(self._storage, self._lock.run, self._lock.run, back, GIVEN_BACK)
        await write_counts(
            self._storage,
            count_inventory(
                self.inventory,
                runs=self._runs | {self._lock.run},
                gone_links=sum(self._unlinked[step] for step in (Step.TAG, Step.REVISION, Step.LAYER)),
                gone_tags="gc_dead_tag",
                gone_revisions="gc_dead_revision",
            ),
        )
        kind = self._cache.known.kind
        told = self._cache.in_reach or kind != "redis"  # of one out of reach another run sees to it
        done = await self._journal.end({**asdict(report), "cache": kind if told else "unknown"})
        if self._options.trash:
            self._freeing.add(self._lock.run, done, blobs=self._gone, blob_bytes=self._gone_bytes)
        return await self._told_what_is_left(report)

    async def rest(self) -> GcReport:
        """Where nothing is to do: no run is written, but what earlier ones left may wait for a restart."""
        kept = Emptied(kept=tuple(self._freeing.held))
        report = GcReport(
            run="", trashed=self._options.trash, healed=self.healed, overdue=self.overdue, emptied=kept
        )
        return await self._told_what_is_left(report)

    async def _told_what_is_left(self, report: GcReport) -> GcReport:
        restart = await self._freeing.restart(self._lock, self._on_event) if self._lock is not None else None
        versions = (report.blobs + report.emptied.blobs, report.blob_bytes + report.emptied.blob_bytes)
        left = self._freeing.left(report.emptied.runs, versions=versions if report.versioned else None)
        return replace(report, restart=restart, not_freed=left)

    # Unlinking

    async def _unlink(self) -> Healed:
        """Every dead link and upload, some repositories at a time."""
        healed = Healed()
        done = 0
        total = self.inventory.count("gc_unlink")
        for group in self._groups():
            names = [name for _, name in group]
            going = Going(self.inventory, [repository for repository, _ in group])
            await in_thread(going.choose)
            uploads = self._uploads(self.inventory, group)
            done += len(going)
            if not self._options.offline:
                uploads = await self._again(names, going, uploads)
            await self._delete(going)
            await self._abort(uploads)
            if not self._options.offline:
                healed += await self._look_after(names, going)
            self._on_event(Progress(phase="unlinking", done=done, total=total, unit="links"))
        return healed

    def _groups(self) -> Iterable[list[tuple[int, str]]]:
        """Repositories that lose something, in handfuls: (id, name)."""
        group: list[tuple[int, str]] = []
        keys = 0
        for repository, name, count in self.inventory.all(
            """
            select u.repository, r.name, sum(keys)::bigint from (
                select repository, count(*) as keys from gc_unlink group by all
                union all
                select repository, count(*) from multipart_upload
                join gc_dead_upload using (repository, uuid) group by all
            ) u join repository r on r.id = u.repository
            group by all order by 2
            """
        ):
            if group and (keys + count > _GROUP_KEYS or len(group) >= _GROUP_REPOSITORIES):
                yield group
                group, keys = [], 0
            group.append((repository, name))
            keys += count
        if group:
            yield group

    def _plan_links(self, look: Inventory) -> None:
        plan_links(look, self._options.plan, now=self.inventory.scanned_at)

    def _uploads(self, inventory: Inventory, group: Sequence[tuple[int, str]]) -> list[MultipartUpload]:
        """Those to abort."""
        rows = inventory.all(
            "select key, upload_id, newest, m.size from multipart_upload m join gc_dead_upload using (repository, uuid)"
            " where repository in (select unnest(?)) order by key, upload_id",
            [[repository for repository, _ in group]],
        )
        return [MultipartUpload(*row) for row in rows]

    async def _again(
        self, names: Sequence[str], going: Going, uploads: Sequence[MultipartUpload]
    ) -> list[MultipartUpload]:
        """List the repositories anew, plan them anew, and keep what both plans say of keys that did not change."""
        look = self.inventory.child()
        upload_keys = going.upload_keys()
        losing = upload_keys | {upload.key for upload in uploads}
        try:
            await self._scan_some(look, names, uploads_of=sorted(set(map(_repository, losing))))
            await self._read_created(look)
            await in_thread(self._plan_links, look)
            dead = self._uploads(look, look.all("select id, name from repository"))
            busy = half_pushed(look, now=self.inventory.scanned_at)
            self._kept_back += await in_thread(going.keep_what_changed, look, busy)
        finally:
            look.close()
        in_use = set(map(_upload, upload_keys - going.upload_keys()))
        aborted = [
            upload
            for upload in uploads
            if upload in dead and _upload(upload.key) not in in_use and _repository(upload.key) not in busy
        ]
        self._kept_back += len(uploads) - len(aborted)
        return aborted

    async def _delete(self, going: Going) -> None:
        """Journal, then delete, step by step. What could not be deleted stops the later steps of its repository."""
        assert self._lock is not None
        failed: set[str] = set()
        for rows in going.slices():
            await self._lock.guard()
            known = await self._with_bodies(rows, failed)
            going.drop(sorted({row.key for row in rows} - {row.key for row in known}))
            await self._journal.write(
                Entry(UNLINK, row.key, row.size, row.mtime, row.body, row.loose) for row in known
            )
        for step in Step:
            for rows in going.slices(step):
                failed |= await self._delete_some(step, [row for row in rows if _repository(row.key) not in failed])
        if any(True for _ in going.slices(Step.LITTER)):  # it was in the way of folders that the links had left
            steps = (Step.TAG, Step.TAG_INDEX, Step.LITTER)
            await remove_tag_folders(
                self._storage, (row.key for step in steps for rows in going.slices(step) for row in rows)
            )
        for step in (Step.REVISION, Step.LAYER):
            for rows in going.slices(step):
                await self._forget_links(row.key for row in rows)

    async def _delete_some(self, step: Step, rows: Sequence[Row]) -> set[str]:
        """Names of the repositories in which nothing more must go."""
        assert self._lock is not None
        if not rows:
            return set()
        keys = [row.key for row in rows]
        outcomes = await self._lock.delete_many(keys)
        self._failures.note(outcomes)
        stopped = {_repository(key) for key, error in outcomes.items() if error is not None}
        self._unlinked[step] += sum(error is None for error in outcomes.values())
        if step is Step.UPLOAD:
            gone = [row for row in rows if outcomes[row.key] is None]
            self._uploads_gone |= {_upload(row.key) for row in gone}
            self._upload_bytes += sum(row.size for row in gone)
        if step is Step.TAG and not self._options.offline:
            stopped |= await self._keep_pushed_tags(rows)
        if step in (Step.TAG, Step.TAG_INDEX):
            await remove_tag_folders(self._storage, keys)
        return stopped

    async def _keep_pushed_tags(self, rows: Sequence[Row]) -> set[str]:
        """Repositories whose tags were pushed again as they went; these stand again, and nothing more goes there."""
        assert self._lock is not None
        busy, back = await give_back(
            self._storage,
            self._lock,
            {key: row.mtime for row in rows if isinstance(key := layout.decode(row.key), TagCurrentKey)},
            now=self.inventory.scanned_at,
            concurrency=self._options.scan.concurrency,
        )
        self._tags_back += back
        return {tag.name for tag in busy}

    async def _with_bodies(self, rows: Sequence[Row], unread: set[str]) -> Sequence[Row]:
        """Links whose bodies no listing proved are read, for a way back; one that is gone is left out, and so is one
        that can't be read. unread: gets the repositories of such."""
        found: dict[str, bytes | None] = {}

        async def read(row: Row) -> None:
            try:
                found[row.key] = await self._storage.get(row.key)
            except NotFound:
                found[row.key] = None
            except StorageError as error:
                if is_fatal(error):
                    raise
                found[row.key] = None
                unread.add(_repository(row.key))
                self._failures.add(row.key, error)

        bare = [row for row in rows if row.body is None and row.step not in _WITHOUT_BODY and row.size <= LINK_MAX]
        await for_each(bare, read, concurrency=self._options.scan.concurrency)
        read_rows = (replace(row, body=found[row.key]) if row.key in found else row for row in rows)
        return [row for row in read_rows if row.key not in found or row.body is not None]

    async def _forget_links(self, keys: Iterable[str]) -> None:
        links = [link for key in keys if isinstance(link := layout.decode(key), LayerLinkKey | RevisionLinkKey)]
        await self._cache.forget_links((link.name, str(link.digest)) for link in links)

    async def _forget(self) -> None:
        """Once more, all that went: a request that was under way may have told the cache of it again."""
        if not self._cache.in_reach:
            return
        cursor = self.inventory.connection.cursor()
        rows = cursor.execute(f"select key from main.gc_unlink where step in ({Step.REVISION}, {Step.LAYER})")
        while keys := rows.fetchmany(SLICE):
            await self._forget_links(key for (key,) in keys)
        cursor.close()
        await self._cache.forget_blobs(
            digest_text(raw) for (raw,) in self.inventory.all("select digest from gc_gone")
        )

    async def _look_after(self, names: Sequence[str], removed: Going) -> Healed:
        """List the repositories once more and give back what somebody needed while it was taken."""
        assert self._lock is not None
        if not removed:
            return Healed()
        look = self.inventory.child()
        try:
            scanner = await self._scan_some(look, names)
            past = Past(look, [])
            for rows in removed.slices():
                past.add_removed(self._lock.run, [Entry(UNLINK, r.key, r.size, r.mtime, r.body) for r in rows])
            return await self._healer(look, scanner).run()
        finally:
            look.close()

    async def _scan_some(self, look: Inventory, names: Sequence[str], *, uploads_of: Sequence[str] = ()) -> Scanner:
        scanner = Scanner(self._storage, look, self._options.scan)
        await scanner.list_repositories(names, uploads_of=uploads_of)
        await scanner.read_manifests()
        return scanner

    async def _abort(self, uploads: Sequence[MultipartUpload]) -> None:
        assert self._lock is not None
        if not uploads:
            return
        await self._lock.guard()
        await self._journal.write(
            Entry(ABORTED, upload.key, upload.size, upload.newest, upload.upload_id.encode()) for upload in uploads
        )
        outcomes: dict[str, StorageError | None] = {}

        async def abort(upload: MultipartUpload) -> None:
            try:
                await self._storage.abort_multipart_upload(upload)
            except StorageError as error:
                if is_fatal(error):
                    raise
                outcomes[upload.key] = error
                return
            outcomes[upload.key] = None
            self._uploads_gone.add(_upload(upload.key))
            self._upload_bytes += upload.size

        for start in range(0, len(uploads), _BATCH):
            async with self._lock.batch():
                await for_each(uploads[start : start + _BATCH], abort, concurrency=self._options.scan.concurrency)
        self._failures.note(outcomes)

    # Blobs

    async def _find_candidates(self) -> None:
        """gc_candidate: the planned blobs that a fresh listing of all links still does not reach."""
        self.inventory.execute(_CANDIDATES)
        self.inventory.execute("create or replace table gc_gone (digest blob, position bigint)")
        unchanged = self._options.offline and not self._failures  # a tag that would not go still needs its blobs
        if not unchanged and self.inventory.count("gc_candidate"):
            await self._look(choose=True)

    async def _refuse_database(self) -> None:
        """One may have come into use since."""
        refuse_database(self._storage.url, await database_in_use(self._storage), Use.REMOVE)

    async def _look(self, *, heal: bool = False, choose: bool = False) -> Healed:
        """List all links once more. heal: what they miss comes back; choose: what they reach is no candidate."""
        began = clock()
        healed = Healed()
        look = self.inventory.child()
        try:
            scanner = Scanner(self._storage, look, self._options.scan, self._on_event)
            await scanner.list_links()
            if choose:
                await self._refuse_database()
            await scanner.read_manifests()
            if heal:
                assert self._lock is not None
                past = await Past.load(self._storage, look)
                healed = await self._healer(look, scanner).run()
                await past.note_given_back(self._storage, self._lock, healed.links)
                await self._hold_for_unread(look)
            if choose:
                before = self.inventory.count("gc_candidate")
                await in_thread(self._choose, look)
                self._kept_back += before - self.inventory.count("gc_candidate")
        finally:
            look.close()
        self._look_due = clock() + max(_LOOK_STANDS, clock() - began)
        return healed

    def _choose(self, look: Inventory) -> None:
        plan_blobs(look, self._options.plan, now=self.inventory.scanned_at)
        look.execute("delete from main.gc_candidate where digest not in (select digest from gc_dead_blob)")
        # A repository that has become unreadable may need the very links that this run took from it.
        look.execute(
            """
            delete from main.gc_candidate where digest in (
                select unnest([l.digest, l.target]) from main.layer_link l
                join main.gc_dead_layer_link using (repository, digest)
                join main.repository r on r.id = l.repository
                where r.name in (select name from repository join gc_protected p on p.repository = id)
            )
            """
        )

    async def _remove_blobs(self) -> None:
        """Move the candidates to the trash, or delete them, a thousand at a time in the order of their keys."""
        total = self.inventory.count("gc_candidate")
        done = position = 0
        while batch := self._candidates(position):
            position, first = batch[-1].position, batch[0].position
            self._on_event(Progress(phase="removing blobs", done=done, total=total, unit="blobs"))
            done += len(batch)
            dead = await self._still_dead(batch)
            known = len(self._vanished)
            taken = await (self._trash(dead) if self._options.trash else self._delete_blobs(dead)) if dead else []
            self._gone += len(taken)
            self._gone_bytes += sum(blob.size for blob in taken)
            gone = [*taken, *self._vanished[known:]]
            self.inventory.insert(
                "gc_gone",
                {
                    "digest": ("binary", [blob.raw for blob in gone]),
                    "position": ("int64", [blob.position for blob in gone]),
                },
            )
            self.inventory.execute(
                f"delete from blob where digest in (select digest from gc_gone where position >= {first})"
            )
            self.inventory.execute(f"delete from gc_candidate where position <= {position}")
            await self._cache.forget_blobs(digest_text(blob.raw) for blob in gone)
        self._on_event(Progress(phase="removing blobs", done=done, total=max(total, done), unit="blobs"))

    def _candidates(self, after: int) -> list[_Blob]:
        """The next of them, behind this position."""
        rows = self.inventory.all(
            "select position, digest, size, mtime from gc_candidate where position > ? order by position limit ?",
            [after, _BATCH],
        )
        return [
            _Blob(position, layout.encode(BlobKey(Digest.from_raw(bytes(raw)))), bytes(raw), size, mtime)
            for position, raw, size, mtime in rows
        ]

    async def _still_dead(self, batch: Sequence[_Blob]) -> Sequence[_Blob]:
        """Those that may go now. Where the last look at the links is too long ago, there is another, and what it misses
        comes back."""
        if self._options.offline or clock() < self._look_due:
            return batch
        self._given_back += await self._look(heal=True, choose=True)
        last = batch[-1].position
        left = {at for (at,) in self.inventory.all("select position from gc_candidate where position <= ?", [last])}
        return [blob for blob in batch if blob.position in left]

    async def _delete_blobs(self, batch: Sequence[_Blob]) -> list[_Blob]:
        assert self._lock is not None
        await self._lock.guard()
        await self._journal.write(Entry(UNLINK, blob.key, blob.size, blob.mtime) for blob in batch)
        return await self._delete_keys(batch)

    async def _delete_keys(self, batch: Sequence[_Blob]) -> list[_Blob]:
        assert self._lock is not None
        outcomes = await self._lock.delete_many([blob.key for blob in batch])
        self._failures.note(outcomes)
        return [blob for blob in batch if outcomes[blob.key] is None]

    async def _trash(self, batch: Sequence[_Blob]) -> list[_Blob]:
        """R2: a blob is deleted only after a listing has shown its copy with equal size."""
        assert self._lock is not None
        lock, prefix = self._lock, self._journal.trash
        await lock.guard()
        await self._journal.write(Entry(TRASHED, blob.key, blob.size, blob.mtime) for blob in batch)
        rename = (await self._storage.capabilities()).atomic_rename
        done: list[_Blob] = []
        outcomes: dict[str, StorageError | None] = {}

        async def take(blob: _Blob) -> None:
            try:
                if rename:
                    await self._storage.move(blob.key, prefix + blob.key, size=blob.size)
                else:
                    await self._storage.copy(blob.key, prefix + blob.key, size=blob.size)
            except NotFound:
                self._vanished.append(blob)
                return
            except StorageError as error:
                outcomes[blob.key] = error
                return
            outcomes[blob.key] = None
            done.append(blob)

        if rename:
            async with lock.batch():
                await for_each(batch, take, concurrency=self._options.scan.concurrency)
            self._failures.note(outcomes)
            return done
        # Copies take nothing away, and large ones take their time: only the deletes below need the lease.
        await for_each(batch, take, concurrency=self._options.scan.concurrency)
        self._failures.note(outcomes)
        if not done:
            return []
        sizes = await self._sizes(prefix, batch[0].key, batch[-1].key)
        safe = [blob for blob in done if sizes.get(prefix + blob.key) == blob.size]
        for blob in done:
            if sizes.get(prefix + blob.key) != blob.size:
                self._failures.add(blob.key, "its copy in the trash was not listed with its size; it stays")
        safe = list(await self._still_dead(safe)) if safe else []
        return await self._delete_keys(safe)

    async def _sizes(self, prefix: str, first: str, last: str) -> dict[str, int]:
        """Sizes of the keys from first to last below the prefix, by one listing of that range."""
        sizes: dict[str, int] = {}
        async for page in self._storage.list(prefix, start_after=prefix + first[:-1]):
            sizes |= dict(zip(page.keys, page.sizes, strict=True))
            if _passed(page, prefix + last):
                break
        return sizes

    async def _settle(self) -> Healed:
        """A last look: what was linked while blobs were moved is given back."""
        self._on_event(Progress(phase=f"waiting {self._options.settle:g} s before the last look", done=0, unit="s"))
        await asyncio.sleep(self._options.settle)
        return await self._look(heal=True)

    async def _remove_outer_litter(self) -> None:
        """That in folders of blobs which are gone, and above repositories of which nothing is left."""
        assert self._lock is not None
        rows = self.inventory.all(
            "select key, size, mtime from gc_dead_litter where repository is null"
            " and (digest is null or digest not in (select digest from blob)) order by key"
        )
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            await self._lock.guard()
            await self._journal.write(Entry(UNLINK, key, size, mtime) for key, size, mtime in batch)
            outcomes = await self._lock.delete_many([key for key, _, _ in batch])
            self._failures.note(outcomes)
            self._unlinked[Step.LITTER] += sum(error is None for error in outcomes.values())

    async def _remove_folders(self) -> int:
        """What the deletions left empty on a disk. A repository that stays keeps the folders that make it one."""
        if not (await self._storage.capabilities()).folders:
            return 0
        remove = self._storage.remove_empty_folders
        removed = await remove(layout.BLOBS, older_than=await self._folders_may_go())
        for name in self.summary.emptied:
            # Not all below it: repositories nested in it stay, and theirs with them.
            for prefix in (layout.layers_prefix(name), layout.manifests_prefix(name), layout.uploads_prefix(name)):
                removed += await remove(prefix, older_than=await self._folders_may_go())
        # Asked anew each time: taking a folder away has just changed the one above it.
        return removed + await remove(
            layout.REPOSITORIES, older_than=await self._folders_may_go(), keep=_REPOSITORY_FOLDERS
        )

    async def _folders_may_go(self) -> int:
        """Empty folders older than this time may go; a push makes its folder before the file in it."""
        now = await self._storage.now()
        return now + 1 if self._options.offline else now - max(self._options.plan.grace, _FOLDERS_STAY)

    def _healer(self, inventory: Inventory, scanner: Scanner | None = None) -> Healer:
        assert self._lock is not None
        scanner = scanner or Scanner(self._storage, inventory, self._options.scan, self._on_event)
        return Healer(self._storage, inventory, scanner, self._lock, concurrency=self._options.scan.concurrency)

    def _description(self) -> dict[str, Any]:
        plan = self._options.plan
        return {
            "command": "gc",
            "cache": self._cache.known.kind,
            "delete_untagged": plan.delete_untagged,
            "rules": [rule.name for rule in plan.policy.rules] if plan.policy else [],
            "drop_broken": [str(scope) for scope in plan.drop_broken],
            "grace_seconds": plan.grace // 1_000_000,
            "offline": self._options.offline,
            "planned_blobs": self.summary.blobs.dead,
            "planned_bytes": self.summary.dead_blob_bytes,
        }


@dataclass(frozen=True, slots=True)
class _Blob:
    position: int
    key: str
    raw: bytes
    size: int
    mtime: int


def _repository(key: str) -> str:
    return layout.repository_around(key)


def _upload(key: str) -> tuple[str, str]:
    """The repository and the id of an upload, by a key of it."""
    decoded = layout.decode(key)
    assert isinstance(decoded, UploadKey)
    return decoded.name, decoded.uuid


def _passed(page: Page, last: str) -> bool:
    return bool(page.keys) and page.keys[-1] >= last
