"""gc with a report in place of the listing of blobs removes nothing that gc with a fresh listing would keep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.errors import NotARegistry
from regstore.gc.heal import HealOptions, heal_store
from regstore.gc.run import GcRunOptions, open_run
from regstore.inventory.reported.report import BlobsFrom
from regstore.inventory.scan import ScanOptions, scan
from regstore.layout import REPOSITORIES, BlobKey, decode, encode
from regstore.state import TRASH
from regstore.state.lock import hold_lock
from regstore.storage.base import Page
from tests.examples import examples
from tests.gc.scenes import Watch, both, collect, copy_of, options, trash
from tests.inventory.reports import InBucket, make_report, rows_of
from tests.model.builder import Builder
from tests.model.random_registry import AGES, DAY, GRACES, HOUR, NOW, SECOND, registries
from tests.model.store import ModelStore

CREATED = NOW - 2 * DAY
generated = settings(max_examples=examples(6))

#: What became of a store since the report: keys that went, that were written again, and blobs with other bytes.
changes = st.lists(
    st.tuples(st.sampled_from(("blob gone", "key gone", "written again", "other bytes")), st.integers(0, 99)),
    max_size=6,
)


def changed(then: ModelStore, later: ModelStore, what: list[tuple[str, int]], age: int) -> ModelStore:
    """The store as it became: with what was pushed since, so long ago, and other changes."""
    now = copy_of(then)
    for key, (body, mtime) in later.objects.items():
        if key not in now or not isinstance(decode(key), BlobKey):
            now.objects[key] = body, max(mtime, NOW - age)
    for kind, number in what:
        keys = [key for key in now if kind == "key gone" or isinstance(decode(key), BlobKey)]
        if not keys:
            break
        key = keys[number % len(keys)]
        body, mtime = now.objects.pop(key)
        if kind == "written again":
            now.objects[key] = body, NOW - number * HOUR
        elif kind == "other bytes":
            now.objects[key] = body + b"!", mtime
    return now


def with_report(run: GcRunOptions, then: ModelStore, **more: Any) -> GcRunOptions:
    blobs_from: BlobsFrom = make_report(rows_of(then), created=more.pop("created", CREATED), **more).blobs_from()
    return replace(run, scan=replace(run.scan, blobs_from=blobs_from))


async def plan(store: ModelStore, run: GcRunOptions) -> tuple[dict[str, tuple[int, int]], set[str], list[str]]:
    """Blobs that go with their size and time, links that go, and what stops it."""
    async with open_run(InBucket(copy_of(store), now=NOW), run) as opened:
        inventory = opened.inventory
        blobs = {
            encode(BlobKey(Digest.from_raw(bytes(raw)))): (size, mtime)
            for raw, size, mtime in inventory.all("select digest, size, mtime from gc_dead_blob")
        }
        return blobs, {key for (key,) in inventory.all("select key from gc_unlink")}, opened.stops


def has_blobs(store: ModelStore) -> bool:
    return any(isinstance(decode(key), BlobKey) for key in store)


@generated
@given(
    registries(disk=False),
    registries(disk=False),
    changes,
    st.sampled_from(AGES),
    st.booleans(),
    st.sampled_from(GRACES),
)
def test_what_goes_would_go_with_a_fresh_listing(
    tmp_path_factory: pytest.TempPathFactory,
    then: ModelStore,
    later: ModelStore,
    what: list[tuple[str, int]],
    age: int,
    delete_untagged: bool,
    grace: int,
) -> None:
    """Manifests that an earlier run has read are not read again: so what it remembers of a lost one must not count."""
    assume(has_blobs(then))
    now = changed(then, later, what, age)
    cache = tmp_path_factory.mktemp("cache")
    run = options(offline=True, delete_untagged=delete_untagged, grace=grace)
    run = replace(run, scan=ScanOptions(cache_dir=cache, concurrency=4))

    async def compare() -> None:
        async with scan(InBucket(then, now=NOW), run.scan):
            pass
        try:
            fresh, fresh_links, fresh_stops = await plan(now, run)
        except NotARegistry:
            return
        blobs, links, stops = await plan(now, with_report(run, then))
        assert blobs.keys() <= fresh.keys(), "blobs"
        for key, (size, mtime) in blobs.items():  # HEAD tells whole seconds: nothing looks older than it is
            assert size == fresh[key][0] and fresh[key][1] <= mtime < fresh[key][1] + SECOND
        assert links <= fresh_links, "links"
        assert stops or not fresh_stops

    asyncio.run(compare())


@generated
@given(registries(disk=False), st.booleans(), st.sampled_from(GRACES), st.sampled_from(["CSV", "Parquet", "ORC"]))
def test_of_a_store_that_did_not_change_the_same_goes(
    store: ModelStore, delete_untagged: bool, grace: int, format: str
) -> None:
    assume(has_blobs(store))
    run = options(offline=True, delete_untagged=delete_untagged, grace=grace)

    async def compare() -> None:
        blobs, links, _ = await plan(store, with_report(run, store, format=format, created=NOW))
        fresh, fresh_links, _ = await plan(store, run)
        litter = {key for key in fresh_links if "/blobs/" in key}
        assert (blobs, links) == (fresh, fresh_links - litter)

    asyncio.run(compare())


def scene() -> tuple[Builder, dict[str, Digest]]:
    """Garbage of all kinds, a month old."""
    b = Builder(NOW - 30 * DAY)
    names = {"kept": b.image(b.blob(b"config"), [b.blob(b"layer")])}
    b.push("a", names["kept"], "latest")
    names["old"] = b.image(b.blob(b"old config"), [b.blob(b"old layer"), b.blob(b"layer")])
    b.push("a", names["old"])
    names["orphan"] = b.blob(b"nothing names this")
    names["gone"] = b.blob(b"went since")
    names["again"] = b.blob(b"went, and was pushed again since")
    return b, names


def blob(digest: Digest) -> str:
    return encode(BlobKey(digest))


@both
async def test_a_run_removes_what_is_dead_by_now(offline: bool) -> None:
    b, names = scene()
    then = copy_of(b.store)
    del b.store.objects[blob(names["gone"])]
    b.store.objects[blob(names["again"])] = b"went, and was pushed again since", NOW - HOUR
    b.mtime = NOW - 10 * DAY
    late = b.blob(b"dead, and came after the report")
    before = copy_of(b.store)
    storage = InBucket(b.store, now=NOW)
    report = await collect(storage, with_report(options(offline=offline), then, created=NOW - 20 * DAY))
    gone = {Digest.of(text) for text in (b"old config", b"old layer")} | {names["old"], names["orphan"]}
    assert trash(storage.store).keys() == {blob(digest) for digest in gone}
    assert report.blobs == 4 and not report.failures and report.healed.nothing and report.vanished == 0
    assert blob(late) in storage.store and blob(names["again"]) in storage.store
    Watch(before).check(storage.store)
    # The next one, with a listing, takes what is left, and finds nothing odd in what the last has left.
    await collect(storage, options(offline=offline))
    assert blob(late) not in storage.store and blob(names["again"]) in storage.store


async def test_a_plan_that_is_made_again_is_as_the_first() -> None:
    """What litter alone is left of is no repository with a name that a registry would not accept."""
    b, names = scene()
    marker = b.put(f"{REPOSITORIES}Invalid/_layers/sha256/{names['old'].encoded}/", b"")
    then = copy_of(b.store)
    del b.store.objects[blob(names["gone"])]
    fresh = await plan(b.store, options(offline=True))
    by_report = await plan(b.store, with_report(options(offline=True), then))
    assert by_report == fresh and marker in fresh[1]


async def test_it_costs_no_listing_of_blobs_but_of_what_goes() -> None:
    b, _ = scene()
    for number in range(2500):
        b.blob(b"live %d" % number)
    b.push("b", b.image(b.blob(b"config"), [b.blob(b"live %d" % number) for number in range(2500)]), "big")
    then = copy_of(b.store)
    few, many = InBucket(b.store, now=NOW), InBucket(copy_of(b.store), now=NOW)
    run = with_report(options(offline=True), then)
    async with open_run(few, run) as opened:
        assert opened.summary.blobs.dead == 6
    spent = few.counters.requests
    assert spent["stat"] == 6 + 1, "what goes, and the other manifest of the repository that loses something"
    for number in range(500):
        b.blob(b"dead %d" % number)
    many = InBucket(b.store, now=NOW)
    async with open_run(many, with_report(options(offline=True), copy_of(b.store))) as opened:
        assert opened.summary.blobs.dead == 506
    assert "stat" not in many.counters.requests
    assert 3 <= many.counters.requests["list"] - spent["list"] <= 3 + 3, "pages of a thousand, in three ranges"


async def test_what_an_earlier_run_took_and_is_needed_again_comes_back() -> None:
    """The report shows it still, and a manifest that is remembered is not read again."""
    b, names = scene()
    then = copy_of(b.store)
    storage = InBucket(b.store, now=NOW)
    await collect(storage, options(offline=True))
    assert blob(names["old"]) in trash(storage.store)
    for key, value in then.objects.items():  # linked again, by a registry whose cache still had it
        if not isinstance(decode(key), BlobKey):
            storage.store.objects[key] = value[0], NOW
    report = await collect(storage, with_report(options(offline=True), then))
    assert storage.store.bodies().items() >= {blob(names["old"]): then.objects[blob(names["old"])][0]}.items()
    assert blob(Digest.of(b"old layer")) in storage.store
    assert str(names["old"]) in report.healed.blobs


async def test_what_stands_again_is_not_said_to_have_come_back() -> None:
    b, _ = scene()
    then = copy_of(b.store)
    storage = InBucket(b.store, now=NOW)
    await collect(storage, options(offline=True))
    for key, value in then.objects.items():
        storage.store.objects.setdefault(key, (value[0], NOW))
    report = await collect(storage, with_report(options(offline=True), then))
    assert report.healed.nothing
    assert all(key in storage.store for key in then)


async def test_what_was_not_listed_and_stands_has_not_come_back_but_what_it_names() -> None:
    """Pushed since the blobs were listed: an index's child, that nothing else names, and that a run had taken."""
    b = Builder(NOW - 30 * DAY)
    layer = b.blob(b"layer")
    child = b.image(b.blob(b"config"), [layer])
    index = b.index([child])
    b.link_revision("a", index)

    class Late(InBucket):
        async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
            async for page in super().list(prefix, start_after=start_after):
                kept = [info for info in page.objects() if info.key != blob(child)]
                yield self.shown(kept, None, complete=page.complete)

    storage = Late(b.store, now=NOW)
    for digest in (layer, child):
        body, _ = b.store.objects[blob(digest)]
        b.store.objects[f"{TRASH}20230101T000000Z-00000000/{blob(digest)}"] = body, NOW - DAY
    del b.store.objects[blob(layer)]
    async with hold_lock(storage, command="heal") as lock:
        healed = await heal_store(storage, HealOptions(scan=ScanOptions(cache_dir=None)), lock)
    assert healed.blobs == (str(layer),)


async def test_a_child_that_only_an_index_names_and_that_came_after_the_report_keeps_what_it_names() -> None:
    b = Builder(NOW - 30 * DAY)
    layer, config = b.blob(b"old layer"), b.blob(b"old config")
    b.link_layer("a", layer)
    then = copy_of(b.store)
    b.mtime = NOW - 3 * DAY
    child = b.image(config, [layer])
    index = b.index([child])
    b.link_revision("b", index)
    b.tag("b", "latest", index)
    blobs, _, _ = await plan(b.store, with_report(options(offline=True), then, created=NOW - 10 * DAY))
    fresh, _, _ = await plan(b.store, options(offline=True))
    assert blobs == fresh == {}


@pytest.mark.parametrize("lost", ["kept", "child"])
async def test_what_a_lost_manifest_protects_is_kept_though_it_is_remembered(tmp_path: Path, lost: str) -> None:
    b, names = scene()
    names["child"] = b.image(b.blob(b"config"), [b.blob(b"of a child")])
    b.push("a", b.index([names["child"]]), "index")
    then = copy_of(b.store)
    run = options(offline=True)
    run = replace(run, scan=replace(run.scan, cache_dir=tmp_path))
    await plan(then, run)
    del b.store.objects[blob(names[lost])]
    blobs, links, _ = await plan(b.store, with_report(run, then))
    fresh, fresh_links, _ = await plan(b.store, run)
    assert (blobs, links) == (fresh, fresh_links) and links == set()


@pytest.mark.parametrize("age", [5, 1])
async def test_whether_blobs_come_without_links_can_not_be_told_by_an_old_report(age: int) -> None:
    """A registry whose metadata moved into a database leaves a mark; where that is lost, blobs that come steadily and
    unlinked tell. A report does not show those that came after it."""
    b = Builder(NOW - 30 * DAY)
    b.blob(b"dead")
    b.mtime = NOW - 6 * DAY
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "latest")
    for day in range(5):
        b.mtime = NOW - day * DAY
        for number in range(4):
            b.blob(b"of the database %d %d" % (day, number))
    then = ModelStore({key: value for key, value in b.store.objects.items() if value[1] <= NOW - age * DAY})
    run = options(offline=True, unlinked_blobs=False)
    for each in (run, with_report(run, then, created=NOW - age * DAY)):
        blobs, _, stops = await plan(b.store, each)
        assert blob(Digest.of(b"dead")) in blobs
        assert any("--unlinked-blobs" in stop for stop in stops)
    _, _, stops = await plan(b.store, with_report(options(offline=True), then))
    assert not stops


async def test_of_a_registry_that_is_pushed_to_an_old_report_will_do() -> None:
    b, _ = scene()
    b.mtime = NOW - DAY
    b.link_layer("a", b.blob(b"newest"))
    run = with_report(options(offline=True, unlinked_blobs=False), b.store, created=NOW - 9 * DAY)
    blobs, _, stops = await plan(b.store, run)
    assert blobs and not stops
