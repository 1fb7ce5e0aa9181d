"""Which snapshots stay, and that what stays, or is being made, never loses a blob."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from regstore.backup import Retention
from regstore.backup.format import Snapshot
from regstore.backup.retention import plan_forget
from regstore.errors import InputError, IntegrityError, LockHeld, LockLost, NotARegistry
from regstore.runs import new_run
from tests.backup import reader
from tests.backup.places import collect, memory, take
from tests.backup.test_interrupted import LATER, small
from tests.model.builder import Builder
from tests.model.random_registry import DAY, HOUR, NOW
from tests.model.store import ModelStore
from tests.storage.faulty import FaultyStorage, died


def snapshot(begun: int, source: str = "one") -> Snapshot:
    return Snapshot(run=new_run(begun), begun=begun, source=source)


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


async def test_create_withdraws_from_a_prune_and_prune_waits_for_a_create() -> None:
    backup = ModelStore()
    await take(memory(small()), memory(backup))
    seen = []

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
            seen.append("refused")

    pruning = FaultyStorage(memory(backup, now=NOW + LATER), before=create_meanwhile)
    await collect(pruning, last=1)
    assert seen[1:] == ["refused"]
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


class Backups(RuleBasedStateMachine):
    """Creates, whole, killed and with a prune in their middle; prunes, whole and killed; time goes on."""

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

    def storage(self, **more: Any) -> FaultyStorage:
        return FaultyStorage(memory(self.backup, now=self.now), **more)

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
