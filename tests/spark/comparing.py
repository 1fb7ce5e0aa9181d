"""Registries of all kinds, and the plan of a cluster beside that of one process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from regstore.gc.plan import GcOptions, plan_gc
from regstore.gc.policy import Pattern, Policy, Rule
from regstore.gc.run import GcRun, open_run
from regstore.gc.run_options import GcRunOptions
from regstore.inventory.inventory import Inventory, ReportedAt
from regstore.inventory.scan import ScanOptions, scan
from regstore.layout import REPOSITORIES
from regstore.spark.options import SparkOptions
from regstore.spark.run import SparkRun, open_spark_run
from regstore.spark.tasks.rows import put_in, row_batch
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW, registries
from tests.model.store import ModelStore
from tests.spark.conftest import MemoryStores

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Between the ages that registries have: the two plans of a store are not made in one moment.
GRACE = DAY // 2
POLICY = Policy(
    rules=(
        Rule(name="newest", repositories=(Pattern.repository("**/a/**"),), keep_newest=1, newest_by="created"),
        Rule(name="none", repositories=(Pattern.repository("z"),), drop=(Pattern.tag("*"),)),
        Rule(name="drop", keep=(Pattern.tag("1-*"), Pattern.tag("9")), drop=(Pattern.tag("[l1]*"),)),
    ),
    protect=(Pattern.tag("_*"), Pattern.tag("nothing")),
)


def some_registries(number: int, with_seed: int) -> list[ModelStore]:
    found: list[ModelStore] = []

    @seed(with_seed)
    @settings(
        max_examples=number,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        deadline=None,
        database=None,
    )
    @given(registries(disk=False))
    def collect(store: ModelStore) -> None:
        found.append(store)

    collect()
    return found


def together(stores: Sequence[ModelStore]) -> ModelStore:
    """One registry of all, their repositories below a name each."""
    objects: dict[str, tuple[bytes, int]] = {}
    for number, store in enumerate(stores):
        for key, content in store.objects.items():
            below = key.removeprefix(REPOSITORIES)
            objects[f"{REPOSITORIES}r{number}/{below}" if below != key and not below.startswith("_") else key] = (
                content
            )
    return ModelStore(objects)


async def not_blocked(stores: Sequence[ModelStore], options: GcOptions) -> list[ModelStore]:
    """Those that let blobs go, each alone and all together: one may lack what another has under the same digest."""
    alone = [store for store in stores if not await _is_blocked(store, options)]
    if not await _is_blocked(together(alone), options):
        return alone
    kept: list[ModelStore] = []
    for store in alone:
        if not await _is_blocked(together([*kept, store]), options):
            kept.append(store)
    return kept


async def _is_blocked(store: ModelStore, options: GcOptions) -> bool:
    planned = replace(options, grace=GRACE)
    async with scan(ModelStorage(store, now=NOW), ScanOptions(cache_dir=None)) as inventory:
        return bool(plan_gc(inventory, planned, now=NOW).sweep_blocked)


def rows_of(inventory: Inventory, relation: str) -> set[Any]:
    columns = {
        "gc_unlink": "step, label, digest, key, size, mtime, body",
        "gc_dead_blob": "digest, size, mtime",
        "gc_dead_litter": "key, size, mtime, digest",
    }
    where = "where repository is null" if relation == "gc_dead_litter" else ""
    rows = inventory.all(f"select {columns[relation]} from {relation} {where}")
    assert len(rows) == len(set(rows))
    return set(rows)


def planned_rows(plan: SparkRun) -> dict[str, set[Any]]:
    found = {"gc_dead_litter": rows_of(plan.inventory, "gc_dead_litter")}
    with Inventory() as inventory:
        inventory.execute("create table gc_dead_blob (digest blob, size bigint, mtime bigint)")
        inventory.execute(
            "create table gc_unlink (repository integer, step tinyint, label varchar, digest blob, key varchar,"
            " size bigint, mtime bigint, body blob)"
        )
        for relation, frame in (("gc_unlink", plan.rows.links), ("gc_dead_blob", plan.rows.blobs)):
            for row in frame.filter(f"relation = '{relation}'").collect():
                values = {name: [value] for name, value in row.asDict().items() if name != "relation"}
                put_in(inventory, row_batch(relation, values))
            found[relation] = rows_of(inventory, relation)
    return found


async def compare(
    session: SparkSession,
    stores: MemoryStores,
    url: str,
    options: GcOptions,
    work: Path,
    *,
    shards: int,
    scan: ScanOptions | None = None,
) -> SparkRun:
    """scan: how it is looked at; but what one process remembers, a cluster keeps in the work folder."""
    ago = time.time_ns() // 1000 - NOW
    how = GcRunOptions(
        plan=replace(options, grace=ago + GRACE, uploads_older_than=ago + 3 * DAY),
        scan=scan or ScanOptions(cache_dir=None),
    )
    spark = SparkOptions(work=f"file://{work}", shards=shards)
    async with (
        stores.open(url) as storage,
        open_run(storage, how) as one,
        open_spark_run(session, storage, how, spark) as plan,
    ):
        same_plan(plan, one)
        return plan


def same_plan(plan: SparkRun, one: GcRun) -> None:
    """All tables, and what is said of them."""
    for relation, found in planned_rows(plan).items():
        assert found == rows_of(one.inventory, relation), relation
    assert bool(plan.summary.sweep_blocked) == bool(one.summary.sweep_blocked)  # one reason of several
    assert replace(plan.summary, sweep_blocked="") == replace(one.summary, sweep_blocked="")
    assert plan.stops == one.stops
    assert reported_at(plan) == reported_at(one)


def reported_at(run: GcRun) -> ReportedAt | None:
    """Without what differs from run to run."""
    return run.inventory.reported and replace(run.inventory.reported, age_seconds=0)
