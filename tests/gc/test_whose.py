"""gc on a store whose links are not the whole truth, also when that shows only while it is at work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from regstore.digest import Digest
from regstore.errors import AccessDenied, Refused
from regstore.gc.caches import NoCache
from regstore.gc.heal import HealOptions, heal_store
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.gc.restore import RestoreOptions, apply_restore, plan_restore
from regstore.gc.run import open_run
from regstore.gc.trash import EmptyOptions, empty_trash
from regstore.inventory.scan import ScanOptions
from regstore.layout import BLOBS, DATABASE_IN_USE, LOCKFILES, REPOSITORIES
from regstore.state.lock import hold_lock
from regstore.testing.faulty import FaultyStorage
from regstore.verify.doctor import examine
from tests.examples import crossed
from tests.gc.scenes import (
    both,
    collect,
    look,
    model_storage,
    options,
    registry,
    serving,
    small_registry,
    trash,
    wanted,
)
from tests.model.builder import Builder
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

MARK = (b'{"version":1}', 0)


@both
async def test_a_mark_that_comes_while_somebody_reads_the_plan(offline: bool) -> None:
    storage = model_storage(small_registry())
    before = registry(storage.store)
    async with (
        hold_lock(storage, command="gc") as lock,
        open_run(storage, options(offline=offline), lock) as run,
    ):
        storage.store.objects[DATABASE_IN_USE] = MARK
        with pytest.raises(Refused, match="in a database"):
            await run.apply()
    assert registry(storage.store).objects == before.objects | {DATABASE_IN_USE: MARK}


async def test_a_mark_that_comes_before_blobs_move() -> None:
    """The look at all links, without which no blob goes, asks too."""
    storage = model_storage(small_registry())
    before = registry(storage.store)

    def write_mark(operation: str, key: str) -> None:
        if operation == "delete" and key.startswith(REPOSITORIES):
            storage.store.objects[DATABASE_IN_USE] = MARK

    with pytest.raises(Refused, match="in a database"):
        await collect(FaultyStorage(storage, before=write_mark), options(offline=False))
    assert DATABASE_IN_USE in storage.store
    after = registry(storage.store)
    assert not trash(storage.store)
    assert {key for key in before if key.startswith(BLOBS)} <= set(after)
    # What went is the journal's, and comes back.
    async with hold_lock(storage, command="trash restore") as lock:
        plan = await plan_restore(storage, RestoreOptions(concurrency=1))
        await apply_restore(storage, plan, lock, concurrency=1)
    assert {key for key in before if "_uploads" not in key} <= set(registry(storage.store))


async def test_the_trash_of_a_run_that_did_not_know_stays_and_comes_back() -> None:
    """It holds the only copies of what the database needs."""
    storage = model_storage(small_registry())
    before = registry(storage.store)
    await collect(storage, options(offline=True))
    lost = trash(storage.store)
    assert lost
    storage.store.objects[DATABASE_IN_USE] = MARK
    scanning = ScanOptions(cache_dir=None)
    async with hold_lock(storage, command="trash empty") as lock:
        emptying = EmptyOptions(scan=scanning, settle=0, offline=True)
        with pytest.raises(Refused, match="in a database"):
            await empty_trash(storage, emptying, lock, cache=NoCache("none"))
        assert trash(storage.store) == lost
        await heal_store(storage, HealOptions(scan=scanning), lock)  # it takes nothing
        plan = await plan_restore(storage, RestoreOptions(concurrency=1))
        await apply_restore(storage, plan, lock, concurrency=1)
    assert {key for key in before if key.startswith(BLOBS)} <= set(registry(storage.store))


@serving
async def test_a_mark_that_may_not_be_looked_for(offline: bool) -> None:
    """Not to know is no leave to remove."""
    storage = model_storage(small_registry())

    def deny(operation: str, key: str) -> None:
        if operation == "list" and key == LOCKFILES:
            raise AccessDenied("LIST is not allowed there")

    before = registry(storage.store)
    with pytest.raises(AccessDenied):
        await collect(FaultyStorage(storage, before=deny), options(offline=offline))
    assert registry(storage.store) == before


# -- tags that live elsewhere, or nowhere


def without_tags(names: Sequence[str] = ("stream/a", "stream/b")) -> Builder:
    """A tagged repository, and some with revisions and not one tag, as OpenShift's registry writes them."""
    b = Builder(NOW - 30 * DAY)
    for name in ("team/app", *names):
        image = b.image(b.blob(f"config of {name}".encode()), [b.blob(f"layer of {name}".encode())])
        b.push(name, image, "latest" if name == "team/app" else None)
    return b


@both
async def test_repositories_without_any_tag_are_not_emptied_unasked(offline: bool) -> None:
    storage = model_storage(without_tags().store)
    before = registry(storage.store)
    run = options(offline=offline, untagged_repositories=False)
    planned = await look(storage, run)
    assert planned.summary.untagged == ("stream/a", "stream/b")
    with pytest.raises(Refused, match=r"\(stream/a, stream/b\).*--untagged-repositories$") as refused:
        await collect(storage, run)
    assert registry(storage.store) == before
    assert planned.stops == [str(refused.value)], "a dry run says the same"
    report = await collect(storage, options(offline=offline))
    assert report.revisions == 2, "people do want exactly that deletion: distribution issue 4282"
    assert not [key for key in registry(storage.store) if "/stream/" in key]


async def test_many_repositories_without_tags_are_counted_and_some_named() -> None:
    storage = model_storage(without_tags([f"stream/{number:02}" for number in range(20)]).store)
    with pytest.raises(Refused, match=r"^20 repositories have .*stream/00, .*stream/04 and 15 more\)"):
        await collect(storage, options(offline=True, untagged_repositories=False))


@pytest.mark.parametrize(
    "case", ["one tag is left", "a tag that can't be read", "a young revision", "no --delete-untagged"]
)
async def test_what_is_no_repository_that_loses_everything_for_want_of_tags(case: str) -> None:
    b = without_tags(["stream/a"])
    run = options(offline=True, untagged_repositories=False, delete_untagged=case != "no --delete-untagged")
    if case == "one tag is left":
        b.push("stream/a", b.image(b.blob(b"another config")), "v1")
    elif case == "a tag that can't be read":
        b.tag("stream/a", "v1", Digest.of(b"x"), b"")
    elif case == "a young revision":
        b.mtime = NOW
        b.push("stream/a", b.image(b.blob(b"pushed now")))
    storage = model_storage(b.store)
    assert not (await look(storage, run)).summary.untagged
    await collect(storage, run)


@crossed(
    "suffix, offline",
    {"a signature of cosign": ".sig", "a referrers index": ""},
    {"offline": True, "serving": False},
    meeting=1,
)
async def test_signatures_are_no_tags_of_a_repository_whose_tags_are_elsewhere(suffix: str, offline: bool) -> None:
    """Harbor's and OpenShift's images are signed, too: such a tag keeps nothing that is not kept without it."""
    b = without_tags(["stream/a"])
    image = b.image(b.blob(b"config of a signed image"))
    b.push("stream/a", image)
    signature = b.image(b.blob(b"config of its signature"), [b.blob(b"signature")])
    b.push("stream/a", signature if suffix else b.index([signature]), f"sha256-{image.encoded}{suffix}")
    storage = model_storage(b.store)
    before = registry(storage.store)
    run = options(offline=offline, untagged_repositories=False)
    with pytest.raises(Refused, match=r"revisions and no tag but .*\(stream/a\).*--untagged-repositories$"):
        await collect(storage, run)
    assert registry(storage.store) == before
    await collect(storage, options(offline=offline))
    assert not [key for key in registry(storage.store) if "/stream/" in key]


@both
async def test_a_digest_tag_whose_own_target_is_missing_is_no_tag_either(offline: bool) -> None:
    """It names an image that is there, and keeps none: whatever tagged that image is elsewhere, or lost."""
    b = without_tags(["stream/a"])
    image = b.image(b.blob(b"config of stream/a"), [b.blob(b"layer of stream/a")])
    b.tag("stream/a", f"sha256-{image.encoded}", Digest.of(b"missing"))
    storage = model_storage(b.store)
    planned = await look(storage, options(offline=offline, untagged_repositories=False))
    assert planned.summary.untagged == ("stream/a",)
    assert wanted(b.store, options(offline=offline)).untagged == {"stream/a"}
    assert planned.stops


async def test_tags_that_rules_take_were_in_the_store_to_be_chosen_among() -> None:
    """Retention that takes every tag of a repository is stopped by --max-delete, not here."""
    b = without_tags([])
    storage = model_storage(b.store)
    plan = GcOptions(policy=Policy.parse('delete_untagged = true\n[[rule]]\ndrop = ["**"]'), grace=DAY)
    run = replace(options(offline=True, untagged_repositories=False), plan=plan)
    assert (await collect(storage, run)).tags == 1


@crossed("whose, by", ["Harbor", "OpenShift"], ["--delete-untagged", "retention rules"], meeting=1)
async def test_tags_that_are_kept_elsewhere_too(whose: str, by: str) -> None:
    b = without_tags([])
    image = b.image(b.blob(b"an image that is tagged elsewhere"))
    b.push("team/app", image)
    storage = model_storage(b.store)
    before = registry(storage.store)
    run = options(offline=True, tags_in=whose, delete_untagged=by == "--delete-untagged")
    if by == "retention rules":
        run = replace(run, plan=GcOptions(policy=Policy.parse("[[rule]]\nkeep_newest = 1"), grace=DAY))
    with pytest.raises(Refused, match=rf"is {whose}'s, so {by} would .*--tags-are-complete$") as refused:
        await collect(storage, run)
    assert registry(storage.store) == before
    assert (await look(storage, run)).stops == [str(refused.value)]
    await collect(storage, replace(run, tags_complete=True))
    await collect(storage, options(offline=True, tags_in=whose, delete_untagged=False))  # links are all there


# -- no mark, and yet


def steady_blobs(days: int, *, manifests: bool = False, blobs: int = 4) -> ModelStore:
    """Links that are old, and blobs that came on each of some days since."""
    b = Builder(NOW - 60 * DAY)
    b.push("team/app", b.image(b.blob(b"config"), [b.blob(b"layer")]), "latest")
    for day in range(days):
        b.mtime = NOW - (40 - day) * DAY
        found = [b.blob(b"pushed on day %d: %d" % (day, number)) for number in range(blobs)]
        if manifests:
            b.image(found[0], found[1:])
    return b.store


@both
async def test_blobs_that_came_steadily_after_the_newest_link_may_be_a_databases(offline: bool) -> None:
    storage = model_storage(steady_blobs(9))
    before = registry(storage.store)
    run = options(offline=offline, unlinked_blobs=False)
    with pytest.raises(
        Refused, match=r"^36 blobs \(.*\) came on 9 days after the newest link .*--unlinked-blobs$"
    ) as no:
        await collect(storage, run)
    assert registry(storage.store) == before
    assert (await look(storage, run)).stops == [str(no.value)]
    assert (await collect(storage, replace(run, unlinked_blobs=True))).blobs == 36


@pytest.mark.parametrize(
    "store",
    [
        pytest.param(steady_blobs(9, manifests=True), id="repositories that were removed as folders"),
        pytest.param(steady_blobs(2, blobs=20), id="one bad day"),
        pytest.param(steady_blobs(9, blobs=1), id="single requests that were cut off"),
    ],
)
async def test_blobs_that_are_garbage_as_usual(store: ModelStore) -> None:
    storage = model_storage(store)
    assert (await collect(storage, options(offline=True, unlinked_blobs=False))).blobs > 8


async def test_doctor_sees_blobs_that_came_steadily() -> None:
    for store, state in ((steady_blobs(9), "warn"), (steady_blobs(2), None)):
        lines = {line.name: line for line in (await examine(model_storage(store))).lines}
        assert (lines["unlinked blobs"].state if "unlinked blobs" in lines else None) == state
        assert lines["metadata"].state == "ok"
