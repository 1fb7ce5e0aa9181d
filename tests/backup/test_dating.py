"""Snapshots that a wrong clock has dated: no rule counts them, none takes them away, and `latest` says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regstore.backup import CreateResult, Retention, list_snapshots
from regstore.backup.dating import SKEW, doubtful
from regstore.backup.format import Snapshot
from regstore.backup.retention import plan_forget
from tests.backup import reader
from tests.backup.places import collect, give_back, memory, read_all, take
from tests.backup.test_interrupted import small
from tests.backup.test_prune import snapshot
from tests.model.random_registry import DAY, HOUR, NOW
from tests.model.store import ModelStore

YEARS = 4 * 365 * DAY


async def dated(backup: ModelStore, now: int, *, extra: bool = False) -> CreateResult:
    return await take(memory(small(extra=extra)), memory(backup, now=now))


async def with_one_of_the_future(ahead: int) -> tuple[ModelStore, CreateResult, list[CreateResult]]:
    """The backup's clock was wrong in the second of five nights."""
    backup = ModelStore()
    real = [await dated(backup, NOW)]
    odd = await dated(backup, NOW + DAY + ahead, extra=True)
    real += [await dated(backup, NOW + night * DAY) for night in (2, 3, 4)]
    return backup, odd, real


@pytest.mark.parametrize("ahead", [YEARS, 25 * HOUR], ids=["years", "a day, which is over by now"])
async def test_a_snapshot_of_the_future_makes_no_rule_forget_the_real_ones(ahead: int) -> None:
    chosen: tuple[dict[str, Any], ...] = ({"within": 2 * DAY}, {"last": 3}, {"daily": 3})
    for rules in chosen:
        backup, odd, real = await with_one_of_the_future(ahead)
        done = await collect(memory(backup, now=NOW + 4 * DAY + HOUR), **rules)
        left = {one.run: why for one, why in done.plan.forget.kept}
        assert left.keys() == {odd.snapshot.run, *(one.snapshot.run for one in real[1:])}, rules
        assert left[odd.snapshot.run][0].startswith("not counted: it is dated")
        assert (done.snapshots, done.partial) == (1, False)
        assert not reader.problems(backup.bodies())
    # By name it goes.
    assert (await collect(memory(backup, now=NOW + 4 * DAY + HOUR), forget=(odd.snapshot.run,))).snapshots == 1


@pytest.mark.parametrize("ahead", [YEARS, 25 * HOUR])
async def test_latest_and_a_time_pass_over_a_snapshot_of_the_future_and_say_so(ahead: int) -> None:
    backup, odd, real = await with_one_of_the_future(ahead)
    if ahead == 25 * HOUR:  # nothing later than it by its date
        del backup.objects[real.pop().key]
        del backup.objects[real.pop().key]
    for text in ("latest", "2023-11-18T23:00:00", "2030-01-01"):
        now = memory(backup, now=NOW + 4 * DAY + HOUR)
        restored = await give_back(now, memory(), snapshot=text)
        assert restored.snapshot.run == real[-1].snapshot.run
        assert restored.partial
        assert odd.snapshot.run in restored.damaged[0] and "is dated" in restored.damaged[0]
    by_name = await give_back(memory(backup), memory(), snapshot=odd.snapshot.run)
    assert (by_name.snapshot.run, by_name.partial) == (odd.snapshot.run, False)
    assert odd.snapshot.run in (await read_all(memory(backup, now=NOW + 5 * DAY))).notes[0]


async def test_the_only_snapshot_is_taken_though_its_date_is_odd() -> None:
    backup = ModelStore()
    odd = await dated(backup, NOW + YEARS)
    restored = await give_back(memory(backup, now=NOW), memory())
    assert restored.snapshot.run == odd.snapshot.run
    assert "there is no other" in restored.damaged[0]
    assert not (await collect(memory(backup, now=NOW), last=1)).snapshots


async def test_the_clock_of_the_backup_fell_behind_and_nothing_is_lost() -> None:
    """A computer without a battery, after a power failure: 1970, and all snapshots are of the future."""
    backup = ModelStore()
    real = [await dated(backup, NOW + night * DAY) for night in range(3)]
    behind = await dated(backup, DAY, extra=True)
    assert behind.snapshot.after == tuple(one.snapshot.run for one in real)
    for now in (2 * DAY, NOW + 3 * DAY):
        done = await collect(memory(backup, now=now), last=1)
        assert done.snapshots == 0
    # It was made last, and is told apart from those that are dated later.
    restored = await give_back(memory(backup, now=NOW + 3 * DAY), memory())
    assert restored.snapshot.run == behind.snapshot.run
    assert restored.partial and len(restored.damaged) == 3


async def test_servers_whose_clocks_differ_by_minutes_still_give_snapshots_in_order() -> None:
    backup = ModelStore()
    runs = []
    for minutes in (0, 7, 2, 9, 3):
        taken = await dated(backup, NOW + minutes * 60_000_000)
        assert not taken.snapshot.after
        runs.append(taken.snapshot.run)
    assert runs == sorted(set(runs))
    assert not (await list_snapshots(memory(backup))).doubtful


def test_what_tells_that_a_date_is_wrong() -> None:
    one, two = snapshot(NOW), snapshot(NOW + DAY)
    later = Snapshot(run="x", begun=NOW + 1, source="one", place="one", after=(two.run, "forgotten"))
    written = {one.run: NOW + 1, two.run: NOW + DAY + 1, "x": NOW + 2}
    assert doubtful([one, two], written, NOW + 2 * DAY) == {}
    assert list(doubtful([one, two], written, NOW)) == [two.run]
    assert list(doubtful([one, two], written | {two.run: NOW}, NOW + 2 * DAY)) == [two.run]
    assert list(doubtful([one, two, later], written, NOW + 2 * DAY)) == [two.run]
    assert doubtful([one, two], written, NOW + DAY - SKEW) == {}, "clocks differ a little"
    plan = plan_forget([one, two], Retention(within=HOUR), doubtful={two.run: "is odd"})
    assert [why for _, why in plan.kept] == [("within",), ("not counted: it is odd",)]


async def test_what_was_proved_in_times_to_come_is_read_again(tmp_path: Path) -> None:
    backup = ModelStore()
    await dated(backup, NOW)
    known: dict[str, Any] = {"proofs": tmp_path, "max_age": DAY}
    first = await read_all(memory(backup, now=NOW + YEARS), **known)
    assert first.read_blobs and not first.known_blobs
    again = await read_all(memory(backup, now=NOW + HOUR), **known)
    assert (again.read_blobs, again.known_blobs) == (first.read_blobs, 0)
    assert (await read_all(memory(backup, now=NOW + HOUR), **known)).known_blobs == first.read_blobs


@pytest.mark.parametrize("date", ["99999999T999999Z", "20270230T000000Z"])
async def test_a_name_with_a_date_that_there_is_not_stops_no_create(date: str) -> None:
    backup = ModelStore()
    await dated(backup, NOW)
    key = f"snapshots/{date}-00000000-{'0' * 64}.json"
    backup.objects[key] = (b"{}", NOW)
    again = await dated(backup, NOW + DAY)
    assert again.snapshot.run in {one.run for one in (await list_snapshots(memory(backup))).snapshots}
    assert key in (await list_snapshots(memory(backup))).damaged
    assert (await collect(memory(backup, now=NOW + 9 * DAY), last=1)).snapshots == 0
