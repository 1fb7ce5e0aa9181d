"""What came of a planned key, where each is told: by tasks in other processes."""

from __future__ import annotations

from enum import StrEnum


class Fate(StrEnum):
    TAKEN = "taken"
    #: Somebody else had deleted it.
    VANISHED = "vanished"
    #: It is not as it was planned, or in use, or stands behind what failed: it was left alone.
    KEPT = "kept"
    #: The store would not do it; it stands.
    FAILED = "failed"
    #: The look at all links stood no longer when its turn came; it stands.
    LATE = "late"
