"""Repositories planned in shards, which tell each other only what `gc.plan.shards` says, go as in one inventory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstore.gc.plan import GcOptions, plan_gc
from regstore.gc.plan.question import Question
from regstore.gc.plan.shards import ask_for_manifests, open_whole, plan_links, plan_roots, plan_whole
from regstore.gc.policy import BrokenScope
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions, scan
from regstore.layout import repository_around
from tests.examples import examples
from tests.model.memory import ModelStorage
from tests.model.random_registry import GRACES, NOW, UPLOADS_OLDER_THAN, example_registry, registries
from tests.model.store import ModelStore

OF_REPOSITORIES = (
    "layer_link",
    "revision_link",
    "signature_link",
    "tag",
    "tag_index",
    "upload_part",
    "multipart_upload",
)
PLAN = ("unlink", "protected", "dead_litter", "dead_blob")


def give(source: Inventory, target: Inventory, table: str, where: str, parameters: list[Any] | None = None) -> None:
    rows = source.execute(f"select * from {table} where {where}", parameters).fetchall()
    if rows:
        marks = ", ".join("?" * len(rows[0]))
        target.connection.executemany(f"insert into {table} values ({marks})", rows)


def share_out(whole: Inventory, shards: list[Inventory]) -> None:
    """Each shard gets what is its repositories', by their ids."""
    shard_of = {
        name: number % len(shards) for number, name in whole.all("select id, name from repository order by id")
    }
    for number, shard in enumerate(shards):
        shard.multipart_uploads_unknown = whole.multipart_uploads_unknown
        own = f"% {len(shards)} = {number}"
        give(whole, shard, "repository", f"id {own}")
        for table in OF_REPOSITORIES:
            give(whole, shard, table, f"repository {own}")
    for table in ("litter", "unknown"):
        for (key,) in whole.all(f"select key from {table}"):
            beside = key[: key.index("@eaDir")] if "@eaDir" in key else key
            name = repository_around(beside)
            number = shard_of.get(name, len(name) % len(shards))  # of a repository that has no other key, too
            give(whole, shards[number], table, "key = ?", [key])


def exchange_manifests(whole: Inventory, shard: Inventory) -> None:
    for number in range(1, 100):
        wanted = ask_for_manifests(shard, number)
        if not wanted:
            return
        for table, column in (("manifest", "digest"), ("edge", "source")):
            give(whole, shard, table, f"{column} in (select unnest(?::blob[]))", [wanted])
    raise AssertionError("there is always more to ask for")


def plan_in_shards(stored: Inventory, options: GcOptions, number: int) -> Iterator[tuple[str, set[Any]]]:
    """Each relation of the plan, and its rows."""
    with ExitStack() as stack:
        shards = [stack.enter_context(Inventory()) for _ in range(number)]
        whole = stack.enter_context(Inventory())
        share_out(stored, shards)
        for table in ("blob", "litter", "unknown"):
            give(stored, whole, table, "true")
        questions = [Question(shard, options, NOW) for shard in shards]
        for question in questions:
            exchange_manifests(stored, question.inventory)
            plan_roots(question)
        odd = {bytes(raw) for shard in shards for (raw,) in shard.all("select digest from gc_reached_odd")}
        for shard in shards:
            shard.insert("gc_reached_odd", {"digest": ("binary", sorted(odd))})
        reasons = [plan_links(question) for question in questions]
        answer = Question(whole, options, NOW)
        open_whole(answer)
        for shard in shards:
            for relation in ("live_blob", "unknown_reach", "standing_repository"):
                give(shard, whole, relation, "true")
        plan_whole(answer, blocked=any(reasons))
        places = {"unlink": shards, "protected": shards, "dead_litter": [*shards, whole], "dead_blob": [whole]}
        for relation in PLAN:
            yield relation, set().union(*(rows_of(inventory, relation) for inventory in places[relation]))


def rows_of(inventory: Inventory, relation: str) -> set[Any]:
    columns = {
        "unlink": "step, key, size, mtime, body from gc_unlink",
        "protected": "name, reason from gc_protected join repository on id = repository",
        "dead_litter": "key, size, mtime, digest from gc_dead_litter",
        "dead_blob": "digest, size, mtime from gc_dead_blob",
    }
    return set(inventory.all(f"select {columns[relation]}"))


async def compare(store: ModelStore, options: GcOptions, number: int) -> None:
    async with scan(ModelStorage(store, now=NOW), ScanOptions(cache_dir=None, concurrency=4)) as inventory:
        found = dict(plan_in_shards(inventory, options, number))
        plan_gc(inventory, options, now=NOW)
        for relation in PLAN:
            assert found[relation] == rows_of(inventory, relation), relation


@settings(
    max_examples=examples(10),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
@given(
    registries(disk=False),
    st.booleans(),
    st.sampled_from(GRACES),
    st.sampled_from([2, 3]),
    st.sampled_from(["", "all"]),
)
def test_shards_make_the_plan_of_one_inventory(
    store: ModelStore, delete_untagged: bool, grace: int, number: int, broken: str
) -> None:
    options = GcOptions(
        delete_untagged=delete_untagged,
        grace=grace,
        uploads_older_than=UPLOADS_OLDER_THAN,
        drop_broken=(BrokenScope(),) if broken else (),
    )
    asyncio.run(compare(store, options, number))


@pytest.mark.parametrize("delete_untagged", [False, True])
async def test_the_example(delete_untagged: bool) -> None:
    await compare(example_registry(), GcOptions(delete_untagged=delete_untagged), 3)
