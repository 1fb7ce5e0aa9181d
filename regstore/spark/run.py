"""A plan on a cluster, and its summary: the same as that of `gc.run.open_run` without the lock."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from regstore.concurrency import in_thread
from regstore.errors import InputError
from regstore.events import OnEvent, ignore
from regstore.gc.counts import add_counts
from regstore.gc.plan import GcSummary
from regstore.gc.plan.summary import summarize
from regstore.gc.planning import compare_counts, look_further
from regstore.gc.run_options import GcRunOptions
from regstore.gc.stops import stops
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.inventory.whose import database_in_use
from regstore.spark.flow import Flow, PlannedRows
from regstore.spark.options import SparkOptions
from regstore.spark.session import check_executors
from regstore.spark.tasks.executing import store_work
from regstore.spark.work_folder import WorkFolder
from regstore.storage.base import Storage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = TypeVar("T")

#: Requests at once of one task, where that is not bounded by less.
_AT_ONCE = 32
_SHARDS_A_CORE = 4


@dataclass(frozen=True, kw_only=True)
class SparkPlan:
    """summary: of the plan. inventory: holds of the plan's tables what is told of tags that rules take. database: what
    says that the registry's metadata is in a database; "" where nothing does. stops: why it would be refused. rows:
    what goes, as long as the plan is open."""

    summary: GcSummary
    inventory: Inventory
    database: str
    stops: list[str]
    rows: PlannedRows


@asynccontextmanager
async def open_spark_plan(
    session: SparkSession,
    storage: Storage,
    options: GcRunOptions,
    spark: SparkOptions,
    *,
    on_event: OnEvent = ignore,
) -> AsyncIterator[SparkPlan]:
    """List, read and plan; nothing is written to the store. The errors are those of one process, and InputError and
    Refused as `work_folder` and `session` say."""
    refuse_options(options)
    run = _Run(session, storage, options, spark, on_event)
    await run.open()
    try:
        with Inventory() as inventory:
            yield await run.plan(inventory)
    finally:
        await run.close()


def refuse_options(options: GcRunOptions) -> None:
    """InputError for what one process has to do."""
    policy = options.plan.policy
    if options.scan.blobs_from is not None:
        raise InputError(
            "--blobs-from is read by one machine, and a cluster lists by itself: leave out one of the two"
        )
    if options.plan.drop_broken:
        raise InputError(
            "--drop-broken-revisions reads again what seems broken, and so works on one machine: leave out "
            "--engine spark"
        )
    if policy is not None and policy.needs_created:
        raise InputError(
            "rules that choose by when images were made read their configs, and so work on one machine: leave out "
            "--engine spark"
        )


class _Run:
    def __init__(
        self,
        session: SparkSession,
        storage: Storage,
        options: GcRunOptions,
        spark: SparkOptions,
        on_event: OnEvent,
    ) -> None:
        self._session = session
        self._storage = storage
        self._options = options
        self._spark = spark
        self._on_event = on_event
        self._work: WorkFolder | None = None

    async def open(self) -> None:
        """All that is refused is refused here."""
        cores = max(1, self._session.sparkContext.defaultParallelism)
        self._shards = self._spark.shards or _SHARDS_A_CORE * cores
        storage = self._storage
        self._store = await store_work(
            storage,
            concurrency=min(_AT_ONCE, self._options.scan.concurrency),
            rate=self._spark.request_rate / cores,
        )
        if self._spark.shards:
            self._session.conf.set("spark.sql.shuffle.partitions", str(self._spark.shards))
        name = secrets.token_hex(8)
        self._work = await self.in_spark(
            lambda: WorkFolder.open(self._session, self._spark.work, name, store=storage.url)
        )
        await self.in_spark(lambda: check_executors(self._session, self._store))

    async def close(self) -> None:
        if self._work is not None:
            await self.in_spark(self._work.close)

    async def plan(self, inventory: Inventory) -> SparkPlan:
        assert self._work is not None
        storage, options = self._storage, self._options
        database = await database_in_use(storage) or options.database
        inventory.scanned_at = await storage.now()
        flow = Flow(
            session=self._session,
            work=self._work,
            store=self._store,
            options=options.plan,
            now=inventory.scanned_at,
            shards=self._shards,
            on_event=self._on_event,
        )
        blobs = await self.in_spark(flow.list_blobs)
        scanner = Scanner(storage, inventory, ScanOptions(cache_dir=None))
        uploads = [upload for _, upload in await scanner.find_multipart_uploads()]
        loaded = await self.in_spark(lambda: flow.list_links(uploads))
        listed = await self.in_spark(lambda: flow.look_at(blobs, loaded))
        before = await compare_counts(
            storage,
            options,
            lambda runs, chosen: add_counts(listed.counts, runs=runs, chosen=chosen),
            lambda: listed.is_empty,
        )
        unknown = inventory.multipart_uploads_unknown
        planned = await self.in_spark(lambda: flow.plan(listed, unknown, inventory))
        summary = summarize(planned.facts, options.plan.policy, sweep_blocked=planned.why)
        summary = await look_further(storage, summary, before, planned.small, concurrency=options.scan.concurrency)
        return SparkPlan(
            summary=summary,
            inventory=inventory,
            database=database,
            stops=stops(summary, options),
            rows=planned,
        )

    async def in_spark(self, work: Callable[[], T]) -> T:
        """In a thread. Cancelled, it cancels Spark's jobs, and waits for their end."""
        running = asyncio.ensure_future(in_thread(work))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._session.sparkContext.cancelAllJobs()
            with suppress(Exception):
                await running
            raise
