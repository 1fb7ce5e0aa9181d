"""`regstore gc --engine spark`: the options, and the run that a cluster makes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.cluster import Engine, opened_session
from regstore.cli.gc_options import Questions
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.events import OnEvent
    from regstore.gc.caches import RegistryCache
    from regstore.gc.run_options import GcRunOptions
    from regstore.spark.options import SparkOptions
    from regstore.spark.run import SparkRun
    from regstore.state.lock import Lock
    from regstore.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class Cluster(Engine):
    """Of a run whose stages pass rows between them."""

    work: Annotated[
        str | None,
        typer.Option(
            metavar="URL|DIR",
            show_default=False,
            help="With Spark: what lies between its stages, and the manifests that were read, for the next run. A "
            "folder that all executors reach, and no registry's: s3a://bucket/folder, or a shared one.",
        ),
    ] = None
    shards: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default="4 a core", help="With Spark: parts that are planned by themselves."
        ),
    ] = None

    def check(
        self,
        questions: Questions,
        inventory: Path | None,
        state_dir: Path | None,
    ) -> None:
        """InputError where something is asked for that one machine has to do, before anything of Spark is started."""
        if questions.explain or questions.why:
            raise InputError("--explain and --why look at one inventory: leave out --engine spark")
        if inventory is not None:
            raise InputError("with --engine spark there is no one inventory that --inventory could keep")
        if state_dir is not None:
            raise InputError(
                "the executors look at the lock and write the journal in the store itself: leave out --state-dir, or "
                "--engine spark"
            )
        self.options()

    def options(self) -> SparkOptions:
        from regstore.inventory.cache import default_cache_dir
        from regstore.spark.options import SparkOptions

        work = self.work
        if work is None and (self.master or "").startswith("local") and (cache := default_cache_dir()) is not None:
            work = str(cache / "spark")
        if work and "://" not in work:
            work = f"file://{Path(work).absolute()}"
        return SparkOptions(
            master=self.master or "",
            work=work or "",
            shards=self.shards or 0,
            request_rate=self.request_rate or 0,
        )


@asynccontextmanager
async def open_on_cluster(
    storage: Storage,
    options: GcRunOptions,
    cluster: Cluster,
    lock: Lock | None,
    cache: RegistryCache | None,
    on_event: OnEvent,
) -> AsyncIterator[SparkRun]:
    """In a session of its own."""
    from regstore.spark.run import open_spark_run

    told = cluster.options()
    async with (
        opened_session(told, on_event) as session,
        open_spark_run(session, storage, options, told, lock, cache=cache, on_event=on_event) as run,
    ):
        yield run
