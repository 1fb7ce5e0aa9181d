"""gc's links and blobs go by tasks in other processes: the same goes, whichever of these dies, and nothing alive."""

from __future__ import annotations

import asyncio
import gzip
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstore.errors import LockLost, NotARegistry, Refused
from regstore.gc.apply.fate import Fate
from regstore.gc.apply.unlink import NOTHING_UNLINKED, Unlinked
from regstore.gc.heal import HealOptions, heal_store
from regstore.gc.run import GcRunOptions
from regstore.inventory.scan import ScanOptions
from regstore.layout import BlobKey, LayerLinkKey, RevisionLinkKey, TagCurrentKey, decode, encode
from regstore.state import RUNS, TRASH, new_run
from regstore.state.journal import UNLINK, AttemptJournal, Entry, Journal, find_runs
from regstore.state.lock import break_locks, hold_lock
from regstore.testing.faulty import died
from tests.examples import examples, points
from tests.gc.by_tasks import Dying, TaskHands, collect_by_tasks
from tests.gc.scenes import (
    Watch,
    both,
    collect,
    collect_again,
    model_storage,
    options,
    registry,
    serving,
    small_registry,
    trash,
    wanted,
)
from tests.gc.test_killed import check_after_death, check_end
from tests.model.builder import Builder
from tests.model.random_registry import DAY, GRACES, NOW, registries
from tests.model.store import ModelStore


@both
async def test_the_same_goes_as_in_one_process(offline: bool) -> None:
    before, run = small_registry(), options(offline=offline, concurrency=1)
    storage, runner = model_storage(before), Dying()
    done = await collect_by_tasks(storage, run, runner)
    dead = wanted(before, run).dead
    await check_end(storage, storage.store, before, dead)
    assert done.fates == dict.fromkeys(dead & done.fates.keys(), Fate.TAKEN)
    told = BlobKey | LayerLinkKey | RevisionLinkKey | TagCurrentKey
    assert not any(isinstance(decode(key), told) for key in dead - done.fates.keys())
    (record,) = await find_runs(storage)
    assert record.settled and done.report.blobs == sum(isinstance(decode(key), BlobKey) for key in dead)
    names = {part.rpartition("/")[2].split("-")[1] for part in record.parts if "-" in part.rpartition("/")[2]}
    assert names == {"unlink", "sweep"}


async def test_the_journal_comes_before_every_change() -> None:
    before, run = small_registry(), options(offline=False, concurrency=1)
    storage = model_storage(before)
    journaled: set[str] = set()
    listed_copies: set[str] = set()
    deletes = 0

    def look(operation: str, key: str) -> None:
        nonlocal deletes
        for part in [key for key in storage.store if key.startswith(RUNS) and key.endswith(".jsonl.gz")]:
            lines = gzip.decompress(storage.store.objects[part][0]).splitlines()
            journaled.update(json.loads(line)["key"] for line in lines)
        if operation == "list" and key.startswith(TRASH):
            listed_copies.update(name.partition("/docker/")[2] for name in storage.store if name.startswith(TRASH))
        if operation in ("delete", "copy"):
            assert key in journaled, key
        if operation == "delete" and isinstance(decode(key), BlobKey):
            deletes += 1
            assert key.removeprefix("docker/") in listed_copies

    await collect_by_tasks(storage, run, Dying(before=look))
    assert deletes > 5


@pytest.mark.long
@serving
async def test_a_process_that_dies_is_tried_again(offline: bool, request: pytest.FixtureRequest) -> None:
    before, run = small_registry(), options(offline=offline, concurrency=1)
    dead, watch = wanted(before, run).dead, Watch(before)
    counted = Dying()
    await collect_by_tasks(model_storage(before), run, counted)
    total = len(counted.mutations)
    for number in points(total, 3):
        storage, runner = model_storage(before), Dying(number)
        done = await collect_by_tasks(storage, run, runner)
        where = f"died after change {number} of {total}: {counted.mutations[number - 1]}"
        assert runner.deaths == 1, where
        await check_after_death(storage, storage.store, before, watch)
        assert registry(storage.store).bodies() == before.without(dead).bodies(), where
        assert set(done.fates.values()) == {Fate.TAKEN}, where
        (record,) = await find_runs(storage)
        assert not record.settled and record.is_acting(NOW), where
        assert record.done is not None and record.done["blobs"] == done.report.blobs
        await collect_again(storage, run)
        await check_end(storage, storage.store, before, dead)


@pytest.mark.long
@serving
async def test_where_the_run_dies_with_its_processes_the_next_one_ends_it(offline: bool) -> None:
    before, run = small_registry(), options(offline=offline, concurrency=1)
    dead, watch = wanted(before, run).dead, Watch(before)
    counted = Dying()
    await collect_by_tasks(model_storage(before), run, counted)
    for number in points(len(counted.mutations), 3):
        storage = model_storage(before)
        assert await died(collect_by_tasks(storage, run, Dying(number, tries=1)))
        await check_after_death(storage, storage.store, before, watch)
        await collect_again(storage, run)
        await check_end(storage, storage.store, before, dead)


@pytest.mark.parametrize("part", ["unlink", "sweep"])
async def test_a_task_whose_run_has_lost_its_lock_changes_nothing_more(part: str) -> None:
    before, run = small_registry(), options(offline=False, concurrency=1)
    storage = model_storage(before)
    broken: list[str] = []

    async def take_away(operation: str, key: str) -> None:
        if operation == "put" and f"-{part}-" in key and not broken:
            broken.append(key)
            await break_locks(storage)

    runner = Dying(before=take_away)
    with pytest.raises(LockLost):
        await collect_by_tasks(storage, run, runner)
    began = next(n for n, change in enumerate(runner.mutations) if f"-{part}-" in change.key)
    assert {change.operation for change in runner.mutations[began:]} <= {"put", "copy"}, (
        "neither takes anything away"
    )
    Watch(before).check(storage.store)
    await collect_again(storage, run)
    await check_end(storage, storage.store, before, wanted(before, run).dead)


async def test_what_an_earlier_attempt_took_comes_back_where_it_is_needed() -> None:
    """Between the two a client pushes by digest what had been in the repository."""
    before, run = small_registry(), options(offline=False, concurrency=1)
    counted = Dying()
    await collect_by_tasks(model_storage(before), run, counted)
    layers = [
        n for n, one in enumerate(counted.mutations, 1) if one.operation == "delete" and "/a/_layers/" in one.key
    ]
    storage, runner = model_storage(before), Dying(layers[-1])
    revisions = {
        key: body
        for key, (body, _) in before.objects.items()
        if isinstance(decode(key), RevisionLinkKey) and key in wanted(before, run).dead
    }

    def push() -> None:
        """All of the manifests that went: their links are as young as a push's."""
        for key, body in revisions.items():
            storage.store.objects[key] = (body, NOW)

    runner.between = push
    done = await collect_by_tasks(storage, run, runner)
    assert runner.deaths == 1
    assert done.unlinked.healed.links, "at once, not by the last look only"
    Watch(before).check(storage.store)
    for key, (body, _) in before.objects.items():
        if isinstance(decode(key), RevisionLinkKey):
            assert storage.store.body(key) == body
    needed = {key for key in before if isinstance(decode(key), BlobKey) and b"mediaType" in before.objects[key][0]}
    assert needed <= set(storage.store)


async def test_what_a_lost_process_took_unseen_comes_back_by_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the one that was told of, which found it gone and so took nothing. And then a client pushed by digest."""
    before, run = small_registry(), options(offline=False, concurrency=1)
    storage = model_storage(before)
    revisions = {
        key: body
        for key, (body, _) in before.objects.items()
        if isinstance(decode(key), RevisionLinkKey) and key in wanted(before, run).dead
    }
    unlink = TaskHands.unlink

    async def lost(hands: TaskHands) -> Unlinked:
        await unlink(hands)
        assert not revisions.keys() & storage.store.objects.keys()
        for key, body in revisions.items():
            storage.store.objects[key] = (body, NOW)
        storage.counters.repeated_deletes += 1
        return NOTHING_UNLINKED

    monkeypatch.setattr(TaskHands, "unlink", lost)
    monkeypatch.setattr("tests.gc.by_tasks.SOME", 0)  # no blob goes
    done = await collect_by_tasks(storage, run, Dying())
    assert not done.report.blobs and done.report.healed.links
    Watch(before).check(storage.store)
    (record,) = await find_runs(storage)
    assert not record.settled


@pytest.mark.parametrize("attempts", [(0, 1), (0, 0)])
async def test_what_one_attempt_did_not_come_to_says_nothing_of_another(attempts: tuple[int, int]) -> None:
    """An attempt takes layer links after all tags of its plan; a later one had planned a tag more, and died before it
    took that. By itself, the one with both has not come to the layer."""
    b = Builder(NOW - 30 * DAY)
    layer = b.blob(b"layer")
    b.push("a", b.image(b.blob(b"config"), [layer]), "latest")
    storage = model_storage(b.store)
    link, tag = encode(LayerLinkKey("a", layer)), encode(TagCurrentKey("a", "latest"))
    storage.clock = NOW - 3 * DAY
    run = new_run(storage.clock)
    await Journal(storage, run).begin({"command": "gc"})
    for key, attempt in zip((link, tag), attempts, strict=True):
        journal = AttemptJournal(storage, run, shard=0, step="unlink", attempt=attempt)
        body, mtime = storage.store.objects[key]
        await journal.write([Entry(UNLINK, key, len(body), mtime, body)])
    del storage.store.objects[link]
    storage.clock = NOW
    async with hold_lock(storage, command="heal") as lock:
        healed = await heal_store(storage, HealOptions(scan=ScanOptions(concurrency=1)), lock)
    assert (link in healed.links) == (link in storage.store) == (attempts == (0, 1))


@pytest.mark.long
@settings(
    max_examples=examples(6),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
@given(registries(disk=False), st.booleans(), st.booleans(), st.sampled_from(GRACES))
def test_of_any_registry_the_same_goes(store: ModelStore, offline: bool, delete_untagged: bool, grace: int) -> None:
    """A process that has only what goes of a repository, and none of the blobs, plans it again as the run does."""
    run = options(offline=offline, delete_untagged=delete_untagged, grace=grace, concurrency=1, allow_empty=True)
    asyncio.run(_compare(store, run))


async def _compare(store: ModelStore, run: GcRunOptions) -> None:
    one, many = model_storage(store), model_storage(store)
    try:
        await collect(one, run)
    except (Refused, NotARegistry) as refused:
        with pytest.raises(type(refused), match=re.escape(str(refused)[:40])):
            await collect_by_tasks(many, run, Dying())
        return
    done = await collect_by_tasks(many, run, Dying())
    assert registry(many.store).bodies() == registry(one.store).bodies()
    assert trash(many.store) == trash(one.store)
    assert set(done.fates.values()) <= {Fate.TAKEN}
