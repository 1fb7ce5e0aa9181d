"""Which snapshots stay. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from regstore.backup.format import Snapshot
from regstore.backup.options import Retention


@dataclass(frozen=True, kw_only=True)
class ForgetPlan:
    """kept: each with the rules that keep it. Both oldest first."""

    kept: tuple[tuple[Snapshot, tuple[str, ...]], ...]
    forgotten: tuple[Snapshot, ...]


def plan_forget(snapshots: Sequence[Snapshot], keep: Retention) -> ForgetPlan:
    """Each scope (source and patterns) by itself; of one, the newest snapshot always stays."""
    reasons: dict[str, list[str]] = {}
    for scope in {snapshot.scope for snapshot in snapshots}:
        newest_first = sorted((one for one in snapshots if one.scope == scope), key=_order, reverse=True)
        reasons.setdefault(newest_first[0].run, [])
        for rule, chosen in _chosen(newest_first, keep).items():
            for snapshot in chosen:
                reasons.setdefault(snapshot.run, []).append(rule)
        if not reasons[newest_first[0].run]:
            reasons[newest_first[0].run].append("newest")
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
        seen.setdefault(period(datetime.fromtimestamp(snapshot.begun / 1_000_000, UTC)), snapshot)
    return list(seen.values())[:count]
