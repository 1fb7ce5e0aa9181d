"""A run of gc on a cluster: as `gc.run`, and applied by `hands`.

async with open_spark_run(session, storage, options, spark) as run:      # a dry run: nothing is written
    print(run.summary)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from regstore.errors import InputError
from regstore.events import OnEvent, ignore
from regstore.gc.caches import NoCache, RegistryCache
from regstore.gc.counts import add_counts
from regstore.gc.plan.summary import summarize
from regstore.gc.planning import Planned, compare_counts, look_further
from regstore.gc.run import GcRun
from regstore.gc.run_options import GcRunOptions
from regstore.inventory.inventory import Inventory
from regstore.inventory.whose import Use, database_in_use, refuse_database
from regstore.spark.cluster import Cluster, open_cluster
from regstore.spark.flow import PlannedRows
from regstore.spark.healing import open_part
from regstore.spark.looks import Sight, look_at_all, standing_blobs
from regstore.spark.options import SparkOptions
from regstore.state.counts import Counts, write_counts
from regstore.storage.base import Storage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from regstore.gc.apply.application import Application
    from regstore.gc.begin import Begun
    from regstore.gc.report import GcReport
    from regstore.spark.hands import ClusterHands
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
        return add_counts(self._sight.listed.counts, runs=runs, chosen=chosen)


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
    refuse_options(options)
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
    whole.scanned_at, whole.database = flow.now, await database_in_use(storage)
    if lock is not None:
        refuse_database(storage.url, whole.database or options.database, Use.REMOVE)
    listed = await look_at_all(cluster, flow, storage, whole)
    first = listed
    before = await compare_counts(
        storage,
        options,
        lambda runs, chosen: add_counts(first.counts, runs=runs, chosen=chosen),
        lambda: first.is_empty,
    )
    if lock is not None and before.forgets_last:
        await write_counts(storage, before.now)
    shards = await cluster.run(lambda: flow.read_manifests(listed))
    if lock is not None:
        from regstore.gc.begin import begin_by

        blobs = standing_blobs(listed)
        async with open_part(cluster, storage, options.scan, flow, shards, blobs) as part:
            begun = await begin_by(part.past, storage, part.inventory, part.scanner, options, lock, cache)
        if not begun.healed.nothing:
            # The plan is of what came back, too. Its ages are as of the first listing.
            flow = cluster.look(0)
            listed = await look_at_all(cluster, flow, storage, whole)
            shards = await cluster.run(lambda: flow.read_manifests(listed))
    shards = await cluster.run(lambda: flow.read_further(shards, whole.multipart_uploads_unknown))
    rows = await cluster.run(lambda: flow.plan(listed, shards, whole.multipart_uploads_unknown, whole))
    summary = summarize(rows.facts, options.plan.policy, sweep_blocked=rows.why)
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
    return SparkRun(planned, begun, Sight(cluster=cluster, flow=flow, listed=listed, shards=shards, rows=rows))


def refuse_options(options: GcRunOptions) -> None:
    """InputError for what one process has to do."""
    if options.scan.blobs_from is not None:
        raise InputError(
            "--blobs-from is read by one machine, and a cluster lists by itself: leave out one of the two"
        )
