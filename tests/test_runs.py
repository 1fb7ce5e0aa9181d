"""Names of runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regstore.runs import is_run, new_run, started_at

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
