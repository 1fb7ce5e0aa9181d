"""A run of gc on a cluster: as `gc.run`, and applied by `hands`.

async with open_spark_run(session, storage, options, spark) as run:      # a dry run: nothing is written
    print(run.summary)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from regstore.events import OnEvent, ignore
from regstore.gc.caches import NoCache, RegistryCache
from regstore.gc.counts import add_counts
from regstore.gc.plan.summary import summarize
from regstore.gc.planning import Planned, compare_counts, look_further
from regstore.gc.reported import with_unseen_days
from regstore.gc.run import GcRun
from regstore.gc.run_options import GcRunOptions
from regstore.inventory.inventory import Inventory
from regstore.inventory.whose import Use, database_in_use, refuse_database
from regstore.spark.cluster import Cluster, open_cluster
from regstore.spark.flow import Flow, Listed, PlannedRows, Read
from regstore.spark.healing import open_part
from regstore.spark.looks import Sight, look_at_all, standing_blobs
from regstore.spark.options import SparkOptions
from regstore.state.counts import Counts, write_counts
from regstore.storage.base import Storage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from regstore.gc.apply.application import Application
    from regstore.gc.begin import Begun
    from regstore.gc.report import GcReport
    from regstore.spark.hands import ClusterHands
    from regstore.spark.reported import ReportedBlobs
    from regstore.state.lock import Lock


class SparkRun(GcRun):
    """inventory: holds of the plan's tables what the driver has planned, and what is told of tags that rules take."""

    def __init__(self, planned: Planned, begun: Begun | None, sight: Sight) -> None:
        super().__init__(planned, begun)
        self._sight = sight
        #: From `apply` on.
        self.hands: ClusterHands | None = None

    @property
    def rows(self) -> PlannedRows:
        """What goes, as long as the run is open."""
        return self._sight.rows

    async def _carry_out(self, begun: Begun) -> GcReport:
        from regstore.gc.apply.steps import apply_plan
        from regstore.spark.hands import ClusterHands

        def hands(application: Application) -> ClusterHands:
            self.hands = ClusterHands(application, self._sight)
            return self.hands

        return await apply_plan(self._planned, begun, hands)

    def _count(self, runs: Collection[str], chosen: Collection[str]) -> Counts:
        shards = [each.counts for each in self._sight.listed.of_shards]
        return add_counts([*shards, Counts(blobs=self.summary.blobs.total)], runs=runs, chosen=chosen)


@asynccontextmanager
async def open_spark_run(
    session: SparkSession,
    storage: Storage,
    options: GcRunOptions,
    spark: SparkOptions,
    lock: Lock | None = None,
    *,
    cache: RegistryCache | None = None,
    on_event: OnEvent = ignore,
) -> AsyncIterator[SparkRun]:
    """List, read and plan, as `gc.run.open_run`; the errors are its, and InputError and Refused as `cluster` says."""
    cache = cache or NoCache("unknown")
    async with open_cluster(session, storage, options, spark, on_event) as cluster:
        with Inventory() as whole:
            yield await _open(cluster, storage, whole, options, lock, cache, on_event)


async def _open(
    cluster: Cluster,
    storage: Storage,
    whole: Inventory,
    options: GcRunOptions,
    lock: Lock | None,
    cache: RegistryCache,
    on_event: OnEvent,
) -> SparkRun:
    flow, begun = cluster.flow, None
    reported = await _reported(cluster, storage, options, whole)
    # What the driver itself reads later, it looks for one by one.
    options = replace(options, scan=replace(options.scan, blobs_from=None))
    whole.scanned_at, whole.database = flow.now, await database_in_use(storage)
    if lock is not None:
        refuse_database(storage.url, whole.database or options.database, Use.REMOVE)
    listed = await look_at_all(cluster, flow, storage, whole, reported)
    first = listed
    before = await compare_counts(
        storage,
        options,
        lambda runs, chosen: add_counts(first.counts, runs=runs, chosen=chosen),
        lambda: first.is_empty,
    )
    if lock is not None and before.forgets_last:
        await write_counts(storage, before.now)
    read = await cluster.run(lambda: flow.read_manifests(listed))
    if lock is not None:
        begun = await _begin(cluster, storage, options, lock, cache, listed, read.shards)
        if not begun.healed.nothing:
            # The plan is of what came back, too. Its ages are as of the first listing.
            flow = cluster.look(0)
            listed = await look_at_all(cluster, flow, storage, whole, reported)
            read = await cluster.run(partial(flow.read_manifests, listed, read.sound))
    sight = await _plan(cluster, flow, listed, read, whole)
    rows = sight.rows
    summary = summarize(rows.facts, options.plan.policy, sweep_blocked=rows.why)
    summary = with_unseen_days(summary, whole)
    small = await cluster.run(rows.small) if summary.unlinked.blobs else []
    summary = await look_further(storage, summary, before, lambda: small, concurrency=options.scan.concurrency)
    planned = Planned(
        storage=storage,
        inventory=whole,
        options=options,
        cache=cache,
        before=before,
        summary=summary,
        on_event=on_event,
    )
    return SparkRun(planned, begun, sight)


async def _reported(
    cluster: Cluster, storage: Storage, options: GcRunOptions, whole: Inventory
) -> ReportedBlobs | None:
    """Where blobs come from, if it is a report."""
    if options.scan.blobs_from is None:
        return None
    from regstore.spark.reported import read_reported

    reported = await read_reported(cluster, storage, options.scan.blobs_from)
    whole.reported = reported.at
    return reported


async def _begin(
    cluster: Cluster,
    storage: Storage,
    options: GcRunOptions,
    lock: Lock,
    cache: RegistryCache,
    listed: Listed,
    shards: DataFrame,
) -> Begun:
    """As `gc.begin`, by the first look."""
    from regstore.gc.begin import begin_by

    flow, blobs = cluster.flow, listed.blobs

    def standing(part: Inventory) -> DataFrame:
        blobs.leave_trashed(flow, part)
        return standing_blobs(listed)

    async with open_part(cluster, storage, options.scan, flow, shards, standing) as part:
        begun = await begin_by(part.past, storage, part.inventory, part.scanner, options, lock, cache)
        await cluster.run(lambda: blobs.see(flow, part.inventory))
    return begun


async def _plan(cluster: Cluster, flow: Flow, listed: Listed, read: Read, whole: Inventory) -> Sight:
    """The plan; where blobs are a report's, made again until what it goes by is as the store is. Each time at least one
    more blob is known."""
    uploads_unknown, first, number = whole.multipart_uploads_unknown, flow, 0

    def plan(flow: Flow, read: Read) -> tuple[DataFrame, PlannedRows, int]:
        shards = flow.read_further(read.shards, uploads_unknown)
        rows = flow.plan(listed, shards, uploads_unknown)
        return shards, rows, listed.blobs.look(flow, rows.gone_by)

    while True:
        shards, rows, otherwise = await cluster.run(partial(plan, flow, read))
        if not otherwise:
            break
        number += 1
        flow = cluster.plan(first, number)
        known = listed.blobs.unchanged(read.manifests)
        read = await cluster.run(partial(flow.read_manifests, listed, known))
    rows = await cluster.run(partial(flow.plan_whole, listed, rows, whole))
    return Sight(cluster=cluster, flow=flow, listed=listed, shards=shards, manifests=read.sound, rows=rows)
