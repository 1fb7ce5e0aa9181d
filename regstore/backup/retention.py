"""Which snapshots stay. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from regstore.backup.format import Snapshot
from regstore.backup.options import Retention


@dataclass(frozen=True, kw_only=True)
class ForgetPlan:
    """kept: each with the rules that keep it. Both oldest first."""

    kept: tuple[tuple[Snapshot, tuple[str, ...]], ...]
    forgotten: tuple[Snapshot, ...]


def keep_all(snapshots: Sequence[Snapshot], why: str, forgotten: Sequence[Snapshot] = ()) -> ForgetPlan:
    """All stay but the forgotten."""
    gone = {one.run for one in forgotten}
    ordered = sorted(snapshots, key=_order)
    return ForgetPlan(
        kept=tuple((one, (why,)) for one in ordered if one.run not in gone),
        forgotten=tuple(one for one in ordered if one.run in gone),
    )


def plan_forget(
    snapshots: Sequence[Snapshot], keep: Retention, *, doubtful: Mapping[str, str] | None = None
) -> ForgetPlan:
    """Each scope (place and patterns) by itself; of one, the newest snapshot always stays, and so does the newest that
    left nothing out: one that did may lack what everybody wants back. Of a day, week or month, too, the newest that
    left nothing out counts as the newest, where there is one.

    Those whose date can't be right (doubtful: run to reason) stay, and count for nothing; so do those that don't say
    which store they are of: they may be another's only ones."""
    doubtful = doubtful or {}
    reasons: dict[str, list[str]] = {}
    counted = []
    for one in snapshots:
        if one.run in doubtful:
            reasons[one.run] = [f"not counted: it {doubtful[one.run]}"]
        elif not one.place:
            reasons[one.run] = ["not counted: an older regstore did not say which store it is of"]
        else:
            counted.append(one)
    for scope in {snapshot.scope for snapshot in counted}:
        newest_first = sorted((one for one in counted if one.scope == scope), key=_order, reverse=True)
        for rule, chosen in _chosen(newest_first, keep).items():
            for snapshot in chosen:
                reasons.setdefault(snapshot.run, []).append(rule)
        reasons.setdefault(newest_first[0].run, ["newest"])
        complete = next((one for one in newest_first if not one.left_out), None)
        if complete is not None:
            reasons.setdefault(complete.run, ["newest complete"])
    ordered = sorted(snapshots, key=_order)
    return ForgetPlan(
        kept=tuple((one, tuple(reasons[one.run])) for one in ordered if one.run in reasons),
        forgotten=tuple(one for one in ordered if one.run not in reasons),
    )


def _order(snapshot: Snapshot) -> tuple[int, str]:
    return snapshot.begun, snapshot.run


def _chosen(newest_first: Sequence[Snapshot], keep: Retention) -> dict[str, list[Snapshot]]:
    since = newest_first[0].begun - keep.within
    return {
        "last": list(newest_first[: keep.last]),
        "daily": _newest_of_each(newest_first, lambda day: day.date(), keep.daily),
        "weekly": _newest_of_each(newest_first, lambda day: day.isocalendar()[:2], keep.weekly),
        "monthly": _newest_of_each(newest_first, lambda day: (day.year, day.month), keep.monthly),
        "within": [one for one in newest_first if keep.within and one.begun >= since],
    }


def _newest_of_each(
    newest_first: Sequence[Snapshot], period: Callable[[datetime], object], count: int
) -> list[Snapshot]:
    seen: dict[object, Snapshot] = {}
    for snapshot in newest_first:
        when = period(datetime.fromtimestamp(snapshot.begun / 1_000_000, UTC))
        if when not in seen or (seen[when].left_out and not snapshot.left_out):
            seen[when] = snapshot
    return list(seen.values())[:count]
