"""Which snapshots stay, and that what stays, or is being made, never loses a blob."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from regstore.backup import (
    CreateOptions,
    CreateResult,
    PruneOptions,
    PruneResult,
    RestoreResult,
    Retention,
    plan_prune,
)
from regstore.backup.format import LeftOut, Snapshot, blob_key, intent_key, pack_key
from regstore.backup.retention import plan_forget
from regstore.digest import Digest
from regstore.errors import (
    AccessDenied,
    InputError,
    IntegrityError,
    LockHeld,
    LockLost,
    NotARegistry,
    Refused,
    StorageError,
)
from regstore.state import new_run
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage, died
from tests.backup import reader
from tests.backup.oracle import incomplete_tags
from tests.backup.places import collect, contents, give_back, memory, read_all, take
from tests.backup.test_interrupted import LATER, small
from tests.model.builder import Builder
from tests.model.random_registry import DAY, HOUR, NOW
from tests.model.store import ModelStore


def snapshot(begun: int, source: str = "one", *, complete: bool = True) -> Snapshot:
    left_out = () if complete else (LeftOut(repository="a", tag="1", what="tag 1", reason="was left out"),)
    return Snapshot(run=new_run(begun), begun=begun, source=source, place=source, left_out=left_out)


def kept(snapshots: list[Snapshot], **keep: int) -> list[int]:
    plan = plan_forget(snapshots, Retention(**keep))
    assert len(plan.kept) + len(plan.forgotten) == len(snapshots)
    return [one.begun for one, _ in plan.kept]


def test_the_last_and_the_newest_of_each_day_week_and_month() -> None:
    every_six_hours = [snapshot(NOW - number * 6 * HOUR) for number in range(400)]
    times = [one.begun for one in every_six_hours]
    assert kept(every_six_hours, last=3) == sorted(times[:3])
    days = kept(every_six_hours, daily=5)
    assert len(days) == len({time // DAY for time in days}) == 5
    assert max(days) == NOW
    assert all(time == max(other for other in times if other // DAY == time // DAY) for time in days)
    assert len(kept(every_six_hours, weekly=4)) == 4
    assert len(kept(every_six_hours, monthly=3)) == 3
    assert kept(every_six_hours, within=DAY) == sorted(times[:5])
    both = kept(every_six_hours, last=2, monthly=3)
    assert set(both) == set(kept(every_six_hours, last=2)) | set(kept(every_six_hours, monthly=3))


@given(
    st.lists(st.tuples(st.integers(0, 100), st.sampled_from("ab")), min_size=1, max_size=20),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_each_source_keeps_its_newest(rows: list[tuple[int, str]], last: int, daily: int) -> None:
    snapshots = [snapshot(NOW + hours * HOUR, source) for hours, source in rows]
    if not last and not daily:
        with pytest.raises(InputError):
            Retention(last=last, daily=daily)
        return
    plan = plan_forget(snapshots, Retention(last=last, daily=daily))
    for source in {source for _, source in rows}:
        newest = max(one.begun for one in snapshots if one.source == source)
        assert newest in [one.begun for one, _ in plan.kept if one.source == source]
        assert sum(one.source == source for one, _ in plan.kept) <= last + daily


def test_the_newest_complete_one_stays_whatever_came_after_it() -> None:
    rows = [(True, 0), (True, 1), (False, 2), (False, 3)]
    snapshots = [snapshot(NOW + hours * HOUR, complete=complete) for complete, hours in rows]
    for keep in ({"last": 1}, {"last": 2}, {"within": HOUR}):
        assert NOW + HOUR in kept(snapshots, **keep), keep
        assert NOW not in kept(snapshots, **keep)
    # Of a day, the newest complete one; and the newest of all.
    assert kept(snapshots, daily=3) == [NOW + HOUR, NOW + 3 * HOUR]
    # One that is complete again ends that.
    assert kept([*snapshots, snapshot(NOW + 4 * HOUR)], last=1) == [NOW + 4 * HOUR]
    # What was never complete is counted as ever.
    assert kept([snapshot(NOW + hours * HOUR, complete=False) for hours in range(4)], last=1) == [NOW + 3 * HOUR]


async def test_nothing_is_deleted_where_there_is_no_marker() -> None:
    store = ModelStore({"blobs/sha256/ab/of-something-else": (b"", 0)})
    with pytest.raises(NotARegistry):
        await collect(memory(store), last=1)
    assert "blobs/sha256/ab/of-something-else" in store


async def test_the_grace_keeps_what_is_young() -> None:
    backup = ModelStore()
    await take(memory(small()), memory(backup))
    await take(memory(small(extra=True)), memory(backup, now=NOW + HOUR))
    result = await collect(memory(backup, now=NOW + 2 * HOUR), last=1, grace=DAY)
    assert (result.snapshots, result.blobs, result.plan.young) == (1, 0, 3)
    assert (await collect(memory(backup, now=NOW + LATER), last=1, grace=DAY)).blobs == 2


async def two_snapshots() -> tuple[ModelStore, CreateResult, CreateResult]:
    backup = ModelStore()
    one = await take(memory(small()), memory(backup))
    return backup, one, await take(memory(small(extra=True)), memory(backup, now=NOW + DAY))


@pytest.mark.parametrize("what", ["snapshot", "pack", "blob"])
async def test_what_is_damaged_displaces_nothing_and_goes_by_name(what: str) -> None:
    backup, one, two = await two_snapshots()
    blob = blob_key(Digest.of(b"third layer"))
    key = {"snapshot": two.key, "pack": pack_key(two.snapshot.repositories["b/c"].pack), "blob": blob}[what]
    body, mtime = backup.objects[key]
    backup.objects[key] = (body[:-5], mtime)
    before = {key for key in backup if not key.startswith("regstore/")}
    later = memory(backup, now=NOW + LATER)
    refused = await collect(later, last=1)
    assert refused.partial and "--forget" in refused.plan.blocked
    assert (refused.snapshots, refused.packs, refused.blobs) == (0, 0, 0)
    assert before == {key for key in backup if not key.startswith("regstore/")}
    options = PruneOptions(forget=(two.snapshot.run,), grace=0)
    plan = await plan_prune(later, options)
    assert [run.run for run in plan.forget.forgotten] == ([] if what == "snapshot" else [two.snapshot.run])
    assert plan.unreadable == ((two.key,) if what == "snapshot" else ())
    assert not plan.partial
    assert before == set(backup), "a plan writes nothing"
    done = await collect(later, forget=(two.snapshot.run,))
    assert (done.snapshots, done.packs, done.blobs) == (1, 1, 2)
    assert reader.snapshots(backup.bodies()) == [one.key]
    assert not reader.problems(backup.bodies())
    assert not (await read_all(later)).damage


async def test_forget_by_name_keeps_the_rest_and_never_forgets_all() -> None:
    backup, one, two = await two_snapshots()
    later = memory(backup, now=NOW + LATER)
    for wrong, says in (("20200101", "no snapshot '20200101'"), ("202311", "2 snapshots"), ("", "no snapshot")):
        with pytest.raises(InputError, match=says):
            await collect(later, forget=(wrong,))
    with pytest.raises(Refused, match="no whole snapshot"):
        await collect(later, forget=(one.snapshot.run, two.snapshot.run))
    with pytest.raises(InputError, match="--keep-last"):
        PruneOptions()
    third = await take(memory(small()), memory(backup, now=NOW + 2 * DAY))
    done = await collect(later, forget=(two.snapshot.run[:17],), last=1)
    assert done.snapshots == 2
    assert reader.snapshots(backup.bodies()) == [third.key]


async def test_what_is_no_damage_and_no_part_of_a_backup() -> None:
    backup, _, two = await two_snapshots()
    names = (".regstore-1", "snapshots/.regstore-2", "intents/x/.regstore-3", "regstore/locks/.regstore-4")
    for key in ("", "snapshots/", "blobs/", "packs/ab/", *names, "blobs/sha256/ab/.regstore-5"):
        backup.objects[key] = (b"", NOW)
    assert not (await read_all(memory(backup))).damage
    done = await collect(memory(backup, now=NOW + LATER), last=1)
    assert not done.partial
    assert reader.snapshots(backup.bodies()) == [two.key]
    assert not [key for key in backup if ".regstore-" in key]
    assert {"", "snapshots/", "blobs/", "packs/ab/"} <= set(backup)


async def test_a_temporary_file_of_just_now_may_be_one_that_is_being_written() -> None:
    backup, _, _ = await two_snapshots()
    backup.objects["regstore/locks/.regstore-1"] = (b"", NOW + LATER)
    await collect(memory(backup, now=NOW + LATER), last=1)
    assert "regstore/locks/.regstore-1" in backup


async def test_no_folder_of_an_intent_stays_on_a_disk(tmp_path: Path) -> None:
    backup = DiskStorage(tmp_path / "backup", create=True)
    await take(memory(small()), backup)
    assert list((tmp_path / "backup/intents").iterdir())
    await collect(backup, last=1)
    assert not (tmp_path / "backup/intents").exists()


NONSENSE = ["Infinity", "NaN", "-1", "1e400", "1" + "0" * 400, "1e12", "[]", '"x"']


@pytest.mark.parametrize("lease", NONSENSE)
async def test_an_intent_that_says_nonsense_counts_for_a_while(lease: str) -> None:
    backup, _, _ = await two_snapshots()
    backup.objects[intent_key(new_run(NOW + DAY), 1)] = (b'{"lease": %s}' % lease.encode(), NOW + DAY)
    assert (await collect(memory(backup, now=NOW + DAY + 1), last=1)).partial
    done = await collect(memory(backup, now=NOW + 4 * DAY), last=1)
    assert not done.partial
    assert not [key for key in backup if key.startswith("intents/")]


def test_a_lease_is_bounded() -> None:
    for lease in (0.0, -1.0, 1e6, float("inf"), float("nan")):
        with pytest.raises(InputError, match="lease"):
            CreateOptions(lease=lease)


async def test_a_restore_keeps_prune_from_collecting() -> None:
    backup, one, _ = await two_snapshots()
    seen: list[PruneResult] = []
    begun: list[str] = []

    async def prune_meanwhile(operation: str, key: str) -> None:
        if operation == "get" and key.startswith("blobs/") and not begun:
            begun.append(key)
            seen.append(await collect(memory(backup, now=NOW + DAY + HOUR // 10), last=1))

    target = ModelStore()
    source = FaultyStorage(memory(backup, now=NOW + DAY), before=prune_meanwhile)
    restored = await give_back(source, memory(target), snapshot=one.snapshot.run)
    assert not restored.partial
    assert "a restore" in seen[0].plan.blocked and seen[0].partial
    assert not incomplete_tags(await contents(memory(target)))
    assert not [key for key in backup if key.startswith("intents/")]


async def test_a_restore_from_a_backup_that_may_only_be_read_sees_what_prune_forgot() -> None:
    for beginning in ("blobs/", "packs/"):
        backup, one, _ = await two_snapshots()
        begun: list[str] = []

        async def meanwhile(
            operation: str,
            key: str,
            backup: ModelStore = backup,
            begun: list[str] = begun,
            beginning: str = beginning,
        ) -> None:
            _no_writes(operation, key)
            if operation == "get" and key.startswith(beginning) and not begun:
                begun.append(key)
                assert (await collect(memory(backup, now=NOW + LATER), last=1)).blobs

        source = FaultyStorage(memory(backup), before=meanwhile)
        with pytest.raises(StorageError, match="forgotten meanwhile"):
            await give_back(source, memory(), snapshot=one.snapshot.run)
    # Nothing of it is needed where nobody prunes.
    backup, _, _ = await two_snapshots()
    denied = FaultyStorage(memory(backup), before=_no_writes)
    assert not (await give_back(denied, memory())).partial


async def test_a_prune_under_way_does_not_keep_anybody_from_restoring_what_it_leaves() -> None:
    backup, one, two = await two_snapshots()
    restored: list[RestoreResult] = []

    async def restore_meanwhile(operation: str, key: str) -> None:
        if operation == "delete" and key.startswith("packs/") and not restored:
            again = memory(backup, now=NOW + LATER)
            restored.append(await give_back(again, memory(), snapshot=two.snapshot.run))
            with pytest.raises(InputError, match="no snapshot"):
                await give_back(again, memory(), snapshot=one.snapshot.run)

    done = await collect(FaultyStorage(memory(backup, now=NOW + LATER), before=restore_meanwhile), last=1)
    assert (done.snapshots, done.blobs, done.partial) == (1, 2, False)
    assert (restored[0].tags, restored[0].partial) == (2, False)


def _no_writes(operation: str, key: str) -> None:
    if operation not in ("get", "list", "stat", "open_read"):
        raise AccessDenied(f"{operation} {key}")


async def test_create_withdraws_from_a_prune_and_prune_waits_for_a_create() -> None:
    backup = ModelStore()
    await take(memory(small()), memory(backup))
    seen: list[PruneResult] = []
    refused: list[str] = []

    async def prune_meanwhile(operation: str, key: str) -> None:
        if operation == "put" and key.startswith("snapshots/"):
            seen.append(await collect(memory(backup, now=NOW + LATER // 1000), last=1))

    await take(memory(small(extra=True)), FaultyStorage(memory(backup, now=NOW + HOUR), before=prune_meanwhile))
    assert "create runs" in seen[0].plan.blocked
    assert not reader.problems(backup.bodies())

    async def create_meanwhile(operation: str, key: str) -> None:
        if operation == "delete" and key.startswith("snapshots/"):
            with pytest.raises(LockHeld):
                await take(memory(small()), memory(backup, now=NOW + LATER))
            refused.append(key)

    pruning = FaultyStorage(memory(backup, now=NOW + LATER), before=create_meanwhile)
    await collect(pruning, last=1)
    assert len(seen) == len(refused) == 1
    assert not reader.problems(backup.bodies())
    assert len(reader.snapshots(backup.bodies())) == 1


async def test_a_create_whose_intent_is_gone_publishes_nothing() -> None:
    backup = ModelStore()

    def clear(operation: str, key: str) -> None:
        if operation == "put" and key.startswith("packs/"):
            for intent in [key for key in backup if key.startswith("intents/")]:
                del backup.objects[intent]

    with pytest.raises(LockLost):
        await take(memory(small()), FaultyStorage(memory(backup), before=clear))
    assert not reader.snapshots(backup.bodies())


MINUTE = 60_000_000
SKEWS = st.tuples(st.sampled_from([0, 5, -5]), st.sampled_from([0, 5, -5])).filter(
    lambda pair: abs(pair[0] - pair[1]) < 10
)


class Backups(RuleBasedStateMachine):
    """Creates, whole, killed, two at once and with a prune in their middle; prunes, whole, killed and with a create in
    their middle; time goes on, and the clocks of those who write differ by some minutes."""

    def __init__(self) -> None:
        super().__init__()
        self.backup = ModelStore()
        self.now = NOW
        self.images: list[int] = [0]
        self.made = 0

    def registry(self) -> ModelStore:
        b = Builder(NOW - DAY)
        for number in self.images:
            config = b.blob(b"config %d" % (number % 2))
            b.push(f"r{number % 2}", b.image(config, [b.blob(b"layer %d" % number)]), f"t{number}")
        return b.store

    def storage(self, skew: int = 0, **more: Any) -> FaultyStorage:
        """skew: minutes that the clock of what is written and asked through it is ahead."""
        return FaultyStorage(memory(self.backup, now=self.now + skew * MINUTE), **more)

    def running(self, at: int, meanwhile: Callable[[], Coroutine[Any, Any, object]], skew: int) -> FaultyStorage:
        """Another run has its turn before the change of this number. It may be refused."""
        begun: list[str] = []

        async def hook(operation: str, key: str) -> None:
            if operation in ("put", "delete") and len(storage.mutations) >= at and not begun:
                begun.append(key)
                try:
                    await meanwhile()
                except (LockHeld, LockLost):
                    pass

        storage = self.storage(skew, before=hook)
        return storage

    @rule(number=st.integers(0, 5))
    def push(self, number: int) -> None:
        self.images = sorted({*self.images, number})

    @rule(number=st.integers(0, 5))
    def delete(self, number: int) -> None:
        self.images = [one for one in self.images if one != number] or [0]

    @rule(hours=st.sampled_from([0, 1, 3, 30]))
    def wait(self, hours: int) -> None:
        self.now += hours * HOUR + 1_000_000

    @rule()
    def create(self) -> None:
        self.now += 1_000_000
        asyncio.run(take(memory(self.registry()), self.storage()))
        self.made += 1

    @rule(at=st.integers(1, 12))
    def create_killed(self, at: int) -> None:
        self.now += 1_000_000
        asyncio.run(died(take(memory(self.registry()), self.storage(die_at=at, when="after"))))

    @rule(at=st.integers(1, 12), hours=st.sampled_from([0, 2]), last=st.integers(1, 2))
    def create_with_a_prune_in_its_middle(self, at: int, hours: int, last: int) -> None:
        """After some hours of waiting at that point: its intent may have expired."""
        self.now += 1_000_000
        pruned = False

        async def meanwhile(operation: str, key: str) -> None:
            nonlocal pruned
            if operation in ("put", "delete") and len(storage.mutations) >= at and not pruned:
                pruned = True
                # A snapshot that is being put is cut off long before the intent expires.
                late = 0 if key.startswith("snapshots/") else hours
                await collect(memory(self.backup, now=self.now + late * HOUR), last=last)

        storage = self.storage(before=meanwhile)
        try:
            asyncio.run(take(memory(self.registry()), storage))
        except (LockHeld, LockLost, IntegrityError):
            pass  # nothing was published
        self.now += hours * HOUR

    @rule(at=st.integers(0, 12), skews=SKEWS)
    def create_with_another_in_its_middle(self, at: int, skews: tuple[int, int]) -> None:
        self.now += 1_000_000
        before = len(reader.snapshots(self.backup.bodies()))
        first, second = self.registry(), self.registry()
        storage = self.running(at, lambda: take(memory(second), self.storage(skews[0])), skews[1])
        asyncio.run(take(memory(first), storage))
        begun = len(storage.mutations) > at
        assert len(reader.snapshots(self.backup.bodies())) == before + 1 + begun
        self.made += 1

    @rule(at=st.integers(0, 12), skews=SKEWS, last=st.integers(1, 2))
    def prune_with_a_create_in_its_middle(self, at: int, skews: tuple[int, int], last: int) -> None:
        if self.made:
            self.now += 1_000_000
            registry = self.registry()
            storage = self.running(at, lambda: take(memory(registry), self.storage(skews[0])), skews[1])
            asyncio.run(collect(storage, last=last))

    @rule(last=st.integers(1, 2), grace=st.sampled_from([0, DAY]))
    def prune(self, last: int, grace: int) -> None:
        if self.made:
            asyncio.run(collect(self.storage(), last=last, grace=grace))
            assert len(reader.snapshots(self.backup.bodies())) >= 1

    @rule(at=st.integers(1, 12))
    def prune_killed(self, at: int) -> None:
        if self.made:
            asyncio.run(died(collect(self.storage(die_at=at, when="after"), last=1)))
            self.now += HOUR  # its lock is this process's, which lives

    @invariant()
    def every_listed_snapshot_is_whole(self) -> None:
        assert not reader.problems(self.backup.bodies())


TestBackups = Backups.TestCase
TestBackups.settings = settings(
    max_examples=6, stateful_step_count=8, deadline=None, phases=(Phase.explicit, Phase.generate)
)
