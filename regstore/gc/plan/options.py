"""What a plan is asked for, and the order in which the keys of a repository go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from regstore.gc.policy import BrokenScope, Policy

HOUR: Final = 3600 * 1_000_000


@dataclass(frozen=True, kw_only=True)
class GcOptions:
    """What to keep. Durations in microseconds."""

    delete_untagged: bool = False
    grace: int = 24 * HOUR
    uploads_older_than: int = 7 * 24 * HOUR
    policy: Policy | None = None
    drop_broken: tuple[BrokenScope, ...] = ()

    def __post_init__(self) -> None:
        if self.policy is not None and self.policy.delete_untagged:
            object.__setattr__(self, "delete_untagged", True)


def keeping_all(options: GcOptions) -> GcOptions:
    """For a later look: every link that still stands counts, whatever was planned for it: it came, or changed, or the
    store would not delete it."""
    return replace(options, policy=None, drop_broken=(), delete_untagged=False)


class Step(IntEnum):
    """The order in which a repository's keys go: whatever is cut short leaves garbage, never a link to nothing."""

    TAG = 1
    TAG_INDEX = 2
    REVISION = 3
    SIGNATURE = 4
    LAYER = 5
    UPLOAD = 6
    LITTER = 7
