"""Repositories planned in shards, which tell each other only what `gc.plan.shards` says, go as in one inventory."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstore.gc.plan import GcOptions, GcSummary, keeping_all, plan_gc
from regstore.gc.plan import plan_blobs as look_at_blobs
from regstore.gc.plan.question import Question
from regstore.gc.plan.shards import (
    BY_DIGEST,
    ask_for_blobs,
    ask_for_manifests,
    facts_of_links,
    open_blobs,
    open_whole,
    plan_blobs,
    plan_links,
    plan_look,
    plan_roots,
    plan_whole,
)
from regstore.gc.plan.summary import summarize
from regstore.gc.policy import BrokenScope, Pattern, Policy, Rule
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions, scan
from regstore.layout import repository_around
from tests.examples import examples
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, GRACES, NOW, UPLOADS_OLDER_THAN, example_registry, registries
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
#: One that names repositories, one for all; both with patterns that match nothing.
POLICIES = (
    None,
    Policy(
        rules=(
            Rule(name="newest", repositories=(Pattern.repository("a/**"),), keep_newest=1),
            Rule(name="none", repositories=(Pattern.repository("z"),), drop=(Pattern.tag("*"),)),
            Rule(name="drop", keep=(Pattern.tag("1-*"), Pattern.tag("9")), drop=(Pattern.tag("[l1]*"),)),
        ),
        protect=(Pattern.tag("_*"), Pattern.tag("nothing")),
    ),
    Policy(rules=(Rule(name="young", keep_younger_than=DAY, keep=(Pattern.tag("latest"),)),), delete_untagged=True),
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


def plan_in_shards(stored: Inventory, options: GcOptions, number: int) -> tuple[dict[str, set[Any]], GcSummary]:
    """Each relation of the plan, and its rows; and the summary."""
    with ExitStack() as stack:
        shards = [stack.enter_context(Inventory()) for _ in range(number)]
        blobs = [stack.enter_context(Inventory()) for _ in range(number)]
        whole = stack.enter_context(Inventory())
        share_out(stored, shards)
        for table in ("litter", "unknown"):
            give(stored, whole, table, "true")
        for shard, own in zip(blobs, _by_digest(number), strict=True):
            give(stored, shard, "blob", own)
        questions = [Question(shard, options, NOW) for shard in shards]
        for question in questions:
            exchange_manifests(stored, question.inventory)
            plan_roots(question)
        odd = {bytes(raw) for shard in shards for (raw,) in shard.all("select digest from gc_reached_odd")}
        for shard in shards:
            shard.insert("gc_reached_odd", {"digest": ("binary", sorted(odd))})
        reasons = [plan_links(question) for question in questions]
        facts = [facts_of_links(question) for question in questions]
        newest = max((each.newest_link for each in facts if each.newest_link is not None), default=None)
        for shard, own in zip(blobs, _by_digest(number), strict=True):
            question = Question(shard, options, NOW)
            open_blobs(question)
            for relation in BY_DIGEST:
                for each in shards:
                    give(each, shard, relation, own)
            facts.append(plan_blobs(question, blocked=any(reasons), newest_link=newest))
        answer = Question(whole, options, NOW)
        open_whole(answer)
        for each in shards:
            give(each, whole, "standing_repository", "true")
        wanted = ask_for_blobs(answer)
        for each in blobs:
            for relation in ("blob", "gc_dead_blob"):
                give(each, whole, relation, "digest in (select unnest(?::blob[]))", [wanted])
        facts.append(plan_whole(answer))
        places = {"unlink": shards, "protected": shards, "dead_litter": [*shards, whole], "dead_blob": blobs}
        rows = {
            relation: set().union(*(rows_of(inventory, relation) for inventory in places[relation]))
            for relation in PLAN
        }
        return rows, summarize(facts, options.policy, sweep_blocked=next(filter(None, reasons), ""))


def _by_digest(number: int) -> list[str]:
    """SQL for what is of each shard of blobs; what has no digest is any one's."""
    return [f"coalesce(hash(digest), 0) % {number} = {shard}" for shard in range(number)]


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
        found, summary = plan_in_shards(inventory, options, number)
        whole = plan_gc(inventory, options, now=NOW)
        for relation in PLAN:
            assert found[relation] == rows_of(inventory, relation), relation
        assert bool(summary.sweep_blocked) == bool(whole.sweep_blocked)  # one reason of several
        assert replace(summary, sweep_blocked="") == replace(whole, sweep_blocked="")


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
    st.sampled_from([(), (BrokenScope(),)]),
    st.sampled_from(POLICIES),
)
def test_shards_make_the_plan_of_one_inventory(
    store: ModelStore,
    delete_untagged: bool,
    grace: int,
    number: int,
    broken: tuple[BrokenScope, ...],
    policy: Policy | None,
) -> None:
    options = GcOptions(
        delete_untagged=delete_untagged,
        grace=grace,
        uploads_older_than=UPLOADS_OLDER_THAN,
        drop_broken=broken,
        policy=policy,
    )
    asyncio.run(compare(store, options, number))


async def compare_looks(store: ModelStore, options: GcOptions, number: int) -> None:
    """What a later look lets go, and of which repositories nothing."""
    async with scan(ModelStorage(store, now=NOW), ScanOptions(cache_dir=None, concurrency=4)) as inventory:
        asked = keeping_all(options)
        with ExitStack() as stack:
            shards = [stack.enter_context(Inventory()) for _ in range(number)]
            share_out(inventory, shards)
            questions = [Question(shard, asked, NOW) for shard in shards]
            for shard in shards:
                exchange_manifests(inventory, shard)
            reasons = [plan_look(question) for question in questions]
            kept = {
                raw
                for shard in shards
                for (raw,) in shard.all("select digest from live_blob union select digest from unknown_reach")
            }
            alone = set().union(*(rows_of(shard, "protected") for shard in shards))
        old = inventory.all("select digest, size, mtime from blob where mtime < ?", [NOW - options.grace])
        look_at_blobs(inventory, options, now=NOW)
        assert rows_of(inventory, "dead_blob") == {row for row in old if not any(reasons) and row[0] not in kept}
        assert rows_of(inventory, "protected") == alone


@settings(
    max_examples=examples(10),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
@given(registries(disk=False), st.sampled_from(GRACES), st.sampled_from([2, 3]), st.sampled_from(POLICIES))
def test_a_later_look_by_shards_lets_go_what_one_inventory_does(
    store: ModelStore, grace: int, number: int, policy: Policy | None
) -> None:
    asyncio.run(compare_looks(store, GcOptions(grace=grace, policy=policy), number))


@pytest.mark.parametrize("delete_untagged", [False, True])
async def test_the_example(delete_untagged: bool) -> None:
    await compare(example_registry(), GcOptions(delete_untagged=delete_untagged), 3)
    await compare_looks(example_registry(), GcOptions(delete_untagged=delete_untagged), 3)
