"""A cluster at the service of one run: its session, its work folder, and looks at the store by its executors."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from regstore.concurrency import in_thread
from regstore.events import OnEvent
from regstore.gc.run_options import GcRunOptions
from regstore.spark.flow import Flow
from regstore.spark.options import SparkOptions
from regstore.spark.session import check_executors, result_of
from regstore.spark.tasks.executing import AT_ONCE, store_work
from regstore.spark.work_folder import WorkFolder
from regstore.storage.base import Storage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

T = TypeVar("T")

_SHARDS_A_CORE: Final = 4
#: Rows at the driver at a time.
_SLICE: Final = 5_000


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Made with `open_cluster`. flow: of the first look at the store."""

    session: SparkSession
    flow: Flow

    def look(self, number: int) -> Flow:
        """A later look."""
        return replace(self.flow, look=f"look-{number}-")

    def plan(self, flow: Flow, number: int) -> Flow:
        """A later plan by a look."""
        return replace(flow, look=f"{flow.look}plan-{number}-")

    async def run(self, work: Callable[[], T]) -> T:
        """In a thread. Cancelled, it cancels Spark's jobs, and waits for their end."""
        return await _in_spark(self.session, work, self.flow.on_event)

    async def slices(self, frame: DataFrame) -> AsyncIterator[list[Row]]:
        """Its rows, some at a time."""
        rows = await self.run(frame.toLocalIterator)
        while some := await self.run(lambda: list(islice(rows, _SLICE))):
            yield some


@asynccontextmanager
async def open_cluster(
    session: SparkSession, storage: Storage, options: GcRunOptions, spark: SparkOptions, on_event: OnEvent
) -> AsyncIterator[Cluster]:
    """InputError and Refused as `work_folder` and `session` say; Unsupported where only this process has the store."""
    cores = max(1, session.sparkContext.defaultParallelism)
    store = await store_work(
        storage, concurrency=min(AT_ONCE, options.scan.concurrency), rate=spark.request_rate / cores
    )
    if spark.shards:
        session.conf.set("spark.sql.shuffle.partitions", str(spark.shards))
    name = secrets.token_hex(8)
    work = await _in_spark(session, lambda: WorkFolder.open(session, spark.work, name, store=storage.url), on_event)
    try:
        await _in_spark(session, lambda: check_executors(session, store), on_event)
        flow = Flow(
            session=session,
            work=work,
            store=store,
            options=options.plan,
            now=await storage.now(),
            shards=spark.shards or _SHARDS_A_CORE * cores,
            on_event=on_event,
        )
        yield Cluster(session=session, flow=flow)
    finally:
        await _in_spark(session, work.close, on_event)


async def _in_spark(session: SparkSession, work: Callable[[], T], on_event: OnEvent) -> T:
    running = asyncio.ensure_future(in_thread(work))
    return await result_of(session, running, session.sparkContext.cancelAllJobs, on_event)
