"""Names of runs, and of what they leave in a store."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import regstore
from regstore import layout, state
from regstore.state import is_run, new_run, started_at
from regstore.state.journal import Journal, find_runs
from tests.model.memory import ModelStorage
from tests.model.store import ModelStore

times = st.integers(0, 4_000_000_000_000_000)


@given(times, times)
def test_they_sort_by_time(one: int, other: int) -> None:
    first, second = sorted([one, other])
    if second - first > 1_000_000 // 3000 + 1:
        assert new_run(first) < new_run(second)


@given(times)
def test_behind_another(now: int) -> None:
    first = new_run(now)
    second = new_run(now, after=first)
    assert first < second < new_run(now, after=second)
    assert all(map(is_run, (first, second)))
    assert started_at(first) == started_at(second) == now // 1_000_000 * 1_000_000


class Reading(ModelStorage):
    """Knows how many GETs were under way at once."""

    reading = most = 0

    async def get(self, key: str) -> bytes:
        self.reading += 1
        self.most = max(self.most, self.reading)
        await asyncio.sleep(0)
        self.reading -= 1
        return await super().get(key)


async def test_records_are_read_at_the_same_time_and_come_in_order() -> None:
    storage = Reading(ModelStore(), now=0)
    runs = [new_run(second * 1_000_000) for second in range(40)]
    for run in runs:
        journal = Journal(storage, run)
        await journal.begin({"of": run})
        await journal.end({"failures": 0})
    found = await find_runs(storage)
    assert [record.run for record in found] == runs
    assert [record.begun["of"] for record in found] == runs
    assert all(record.settled for record in found)
    assert 8 <= storage.most <= 16


def test_the_map_has_every_key_of_ours() -> None:
    drawn = set(re.findall(r"^  (\w[^<*\s]*?)(?=-?[<*\s])", state.__doc__ or "", re.MULTILINE))
    known = {
        value.removeprefix(layout.STATE)
        for value in vars(layout).values()
        if isinstance(value, str) and value.startswith(layout.STATE) and value != layout.STATE
    }
    assert len(known) >= 9
    for key in known:
        assert any(line.startswith(key.rstrip("-")) for line in drawn), f"{key} is not on the map"
    for line in drawn:
        assert any(line.startswith(key.rstrip("-")) for key in known), f"{line} has no constant in layout.py"


def test_no_other_module_makes_up_keys_of_ours() -> None:
    made_up = re.compile(r"""\bSTATE\}[^"'\s/]|\bSTATE \+|["']regstore/""")
    for path in sorted(Path(regstore.__file__).parent.rglob("*.py")):
        if path.name != "layout.py" and path.parent.name != "testing":
            assert not made_up.findall(path.read_text()), path
