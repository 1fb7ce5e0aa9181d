"""`--engine spark`: what is said of a cluster, and the session on it."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from regstore.errors import InputError
from regstore.events import OnEvent, Progress

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from regstore.inventory.scan import ScanOptions
    from regstore.spark.options import ClusterOptions
    from regstore.spark.runner import SparkRunner
    from regstore.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where the work is done, where one machine is not enough."""

    engine: Annotated[
        str,
        typer.Option(
            metavar="local|spark", help="This machine, or a cluster of Apache Spark: for 10^8 keys and more."
        ),
    ] = "local"
    master: Annotated[
        str | None,
        typer.Option(
            metavar="URL", show_default=False, help="Spark's master; without, what Spark is configured to."
        ),
    ] = None
    request_rate: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default=False, help="With Spark: requests to S3 a second, of all executors."
        ),
    ] = None

    @property
    def is_used(self) -> bool:
        """InputError where it is no engine."""
        if self.engine not in ("local", "spark"):
            raise InputError(f"--engine is local or spark, not {self.engine}")
        return self.engine == "spark"


@dataclass(frozen=True, kw_only=True)
class Executors(Engine):
    """Of a command whose tasks each stand by themselves."""

    tasks: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default="its cores", help="With Spark: tasks that run at the same time."
        ),
    ] = None

    @asynccontextmanager
    async def scanning(
        self, scan: ScanOptions, concurrency: int, on_event: OnEvent, *stores: Storage
    ) -> AsyncIterator[tuple[ScanOptions, SparkRunner | None]]:
        """The scan, and what goes by its runner, as it is on a cluster, in a session of its own; None without one.
        concurrency: requests at once of each task, at most. stores: that are worked on."""
        if not self.is_used:
            yield scan, None
            return
        from regstore.spark.options import ClusterOptions
        from regstore.spark.runner import SparkRunner
        from regstore.spark.tasks.executing import address_of

        for store in stores:
            address_of(store)
        options = ClusterOptions(
            master=self.master or "", request_rate=self.request_rate or 0, tasks=self.tasks or 0
        )
        async with (
            opened_session(options, on_event) as session,
            SparkRunner(session, options, concurrency=concurrency, near=scan.runner, on_event=on_event) as runner,
        ):
            # What waits here for a task is no request of this process.
            at_once = max(scan.concurrency, 2 * runner.size)
            yield replace(scan, runner=runner, concurrency=at_once), runner


@asynccontextmanager
async def opened_session(options: ClusterOptions, on_event: OnEvent) -> AsyncIterator[SparkSession]:
    from regstore.concurrency import in_thread
    from regstore.spark.session import gone, open_session

    on_event(Progress(phase="starting Spark", done=0))
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = open_session(options)
    spark = await in_thread(session.__enter__)
    from py4j.protocol import Py4JNetworkError

    try:
        yield spark
    except (Py4JNetworkError, ConnectionError) as error:  # a store's is an error of regstore
        raise gone(error) from error
    finally:
        await in_thread(session.__exit__, None, None, None)
