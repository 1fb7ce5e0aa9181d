"""The tasks that plan a shard for a cluster, run by worker processes: each gets its rows and nothing else, and together
they make the plan of one process."""

from __future__ import annotations

import asyncio
import pickle
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from regstore.gc.plan import GcOptions, GcSummary, plan_gc
from regstore.gc.plan.facts import Facts
from regstore.gc.plan.question import Question
from regstore.gc.plan.shards import BY_DIGEST, ask_for_blobs, open_whole, plan_whole
from regstore.gc.plan.summary import summarize
from regstore.gc.policy import BrokenScope
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions, scan
from regstore.spark.tasks.planning import FACTS, REACHED_ODD, BlobsTask, LinksTask, LinksTold, RootsTask
from regstore.spark.tasks.rows import TABLES, put_in, row_batch, rows_of
from regstore.tasks import Pool
from tests.examples import any_seed, examples
from tests.gc.test_shards import POLICIES, exchange_manifests, give, share_out
from tests.gc.test_shards import rows_of as plan_of
from tests.model.memory import ModelStorage
from tests.model.random_registry import GRACES, NOW, UPLOADS_OLDER_THAN
from tests.model.store import ModelStore
from tests.spark.comparing import not_blocked, some_registries, together
from tests.tasks.jobs import RowTask, map_rows

pytestmark = pytest.mark.long

Batches = list[Any]
#: Rows of the plan that the tasks give back. All others are in the summary, with their names or numbers.
GIVEN = ("unlink", "dead_blob")


class Shards:
    """Tasks of shards, and what goes between them."""

    def __init__(self, pool: Pool, stored: Inventory, options: GcOptions, number: int) -> None:
        self._pool = pool
        self._stored = stored
        self._options = options
        self._number = number

    async def plan(self) -> tuple[dict[str, set[Any]], GcSummary]:
        options, number = self._options, self._number
        told: dict[str, Any] = {
            "options": options,
            "now": NOW,
            "multipart_uploads_unknown": self._stored.multipart_uploads_unknown,
        }
        rows = self._of_repositories()
        odd = [row["digest"] for row in of(REACHED_ODD, await self._run(RootsTask(**told), rows))]
        if odd:
            for shard in range(number):
                rows[shard].append(row_batch(REACHED_ODD, {"shard": [shard] * len(odd), "digest": odd}))
        links = await self._run(LinksTask(**told, by_report=False), rows)
        parts: list[LinksTold] = [pickle.loads(row["rows"]) for row in of(FACTS, links)]
        facts = [each.facts for each in parts]
        why = next((each.blocked for each in parts if each.blocked), "")
        newest = max((each.newest_link for each in facts if each.newest_link is not None), default=None)
        task = BlobsTask(options=options, now=NOW, blocked=bool(why), newest_link=newest)
        blobs = await self._run(task, self._by_digest([*rows_of(self._stored, "blob"), *links]))
        facts += [pickle.loads(row["rows"]) for row in of(FACTS, blobs)]
        with Inventory() as whole:
            facts.append(self._plan_whole(whole, links, blobs))
            whole.execute("delete from gc_dead_blob")
            for batch in relations(("gc_unlink", "gc_dead_blob"), [*links, *blobs]):
                put_in(whole, batch)
            found = {relation: plan_of(whole, relation) for relation in GIVEN}
        return found, summarize(facts, options.policy, sweep_blocked=why)

    def _of_repositories(self) -> list[Batches]:
        with ExitStack() as stack:
            shards = [stack.enter_context(Inventory()) for _ in range(self._number)]
            share_out(self._stored, shards)
            for shard in shards:
                exchange_manifests(self._stored, shard)
            tables = (*TABLES, "manifest", "edge")
            return [
                [batch for table in tables for batch in rows_of(shard, table, shard=number)]
                for number, shard in enumerate(shards)
            ]

    def _by_digest(self, batches: Batches) -> list[Batches]:
        shared: list[Batches] = [[] for _ in range(self._number)]
        for relation in ("blob", *BY_DIGEST):
            for row in of(relation, batches):
                if row["digest"] is not None:
                    shard = row["digest"][-1] % self._number
                    shared[shard].append(one_row(relation, row | {"shard": shard}))
        return shared

    def _plan_whole(self, whole: Inventory, links: Batches, blobs: Batches) -> Facts:
        for table in ("litter", "unknown"):
            give(self._stored, whole, table, "true")
        question = Question(whole, self._options, NOW)
        open_whole(question)
        for batch in relations(("standing_repository",), links):
            put_in(whole, batch)
        wanted = set(ask_for_blobs(question))
        for relation, told in (("blob", list(rows_of(self._stored, "blob"))), ("gc_dead_blob", blobs)):
            for row in of(relation, told):
                if row["digest"] in wanted:
                    put_in(whole, one_row(relation, row))
        return plan_whole(question)

    async def _run(self, task: RowTask, shards: Sequence[Batches]) -> Batches:
        """Each by a process, some at the same time."""
        done = await asyncio.gather(*(self._pool.run(map_rows, (task, batches)) for batches in shards if batches))
        return [batch for batches in done for batch in batches]


def relations(names: Sequence[str], batches: Iterable[Any]) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    for batch in batches:
        yield batch.filter(pc.is_in(batch.column("relation"), pa.array(names)))


def of(relation: str, batches: Iterable[Any]) -> list[dict[str, Any]]:
    return [row for batch in relations((relation,), batches) for row in batch.to_pylist()]


def one_row(relation: str, row: dict[str, Any]) -> Any:
    return row_batch(relation, {name: [value] for name, value in row.items() if name != "relation"})


async def compare(pool: Pool, store: ModelStore, options: GcOptions, number: int) -> None:
    async with scan(ModelStorage(store, now=NOW), ScanOptions(cache_dir=None, concurrency=4)) as inventory:
        found, summary = await Shards(pool, inventory, options, number).plan()
        whole = plan_gc(inventory, options, now=NOW)
        for relation in GIVEN:
            assert found[relation] == plan_of(inventory, relation), relation
        assert bool(summary.sweep_blocked) == bool(whole.sweep_blocked)  # one reason of several
        assert replace(summary, sweep_blocked="") == replace(whole, sweep_blocked="")


async def test_worker_processes_make_the_plan_of_one() -> None:
    """Of many random registries put together into few, since every shard of each takes a while."""
    seed = any_seed()
    chosen = random.Random(seed)
    print("seed", seed)
    found = some_registries(examples(15), seed)
    options = GcOptions(uploads_older_than=UPLOADS_OLDER_THAN)
    free = together(await not_blocked(found, options))
    async with Pool(2) as pool:
        for store, number, more in (
            (free, 3, {"policy": POLICIES[1], "drop_broken": (BrokenScope(),)}),
            (together(found), 2, {"delete_untagged": True}),
        ):
            grace = chosen.choice(GRACES)
            print("grace", grace)
            await compare(pool, store, replace(options, grace=grace, **more), number)
        assert pool.processes, "nothing was handed out"
