"""Which snapshots have a date that can't be right. Pure.

A snapshot is dated by the backup's clock when it was begun, and a clock may have been wrong by years. What tells: the
clock now; the time of the object, which no honest clock has put before the beginning; and the snapshots that
were begun later, each of which names those that stood there already though they are dated later (`Snapshot.after`).

Such a one may be older or newer than any other. So nothing is decided on its account: no rule counts it, none takes it
away, and `latest` and a time pass it over, and say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from regstore.backup.format import Snapshot

#: What the clocks of one store's servers may differ by, in microseconds.
SKEW: Final = 600 * 1_000_000


def doubtful(snapshots: Sequence[Snapshot], written: Mapping[str, int], now: int) -> dict[str, str]:
    """Of each run whose date can't be right, why. written: the mtime of each run's object; now: the backup's time."""
    found = {}
    for one in snapshots:
        if one.begun > now + SKEW:
            found[one.run] = f"is dated {_text(one.begun)}, and the backup's clock says {_text(now)}"
        elif one.begun > written[one.run] + SKEW:
            found[one.run] = f"is dated {_text(one.begun)}, but was there at {_text(written[one.run])}"
    for one in snapshots:
        for run in one.after:
            found.setdefault(run, f"is dated later than {one.run}, which was begun after it")
    return {one.run: found[one.run] for one in snapshots if one.run in found}


def _text(microseconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(microseconds // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return "beyond all calendars"
