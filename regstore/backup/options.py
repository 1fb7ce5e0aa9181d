"""What a backup command was asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from regstore.backup.intent import LEASE
from regstore.errors import InputError
from regstore.storage.base import PutOptions

HOUR: Final = 3600 * 1_000_000
DAY: Final = 24 * HOUR


@dataclass(frozen=True, kw_only=True)
class CreateOptions:
    """repositories, tags: glob patterns (`*` matches `/` too); none means all. put: how new objects are stored.
    lease: seconds for which an intent counts. concurrency: requests at once."""

    repositories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    put: PutOptions | None = None
    concurrency: int = 128
    lease: float = LEASE


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """snapshot: an ID, the beginning of one, `latest` or a time. repositories, tags: as for create.
    overwrite_tags: also tags that name something else in the store."""

    snapshot: str = "latest"
    repositories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    overwrite_tags: bool = False
    put: PutOptions | None = None
    concurrency: int = 128


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How many snapshots of one scope stay: the last ones, the newest of each of so many days, weeks, months (UTC),
    and all of the time `within` (microseconds) before the newest."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    within: int = 0

    def __post_init__(self) -> None:
        rules = (self.last, self.daily, self.weekly, self.monthly, self.within)
        if min(rules) < 0:
            raise InputError("how many snapshots to keep can't be negative")
        if not any(rules):
            raise InputError(
                "say which snapshots to keep: --keep-last, --keep-daily, --keep-weekly, --keep-monthly, --keep-within"
            )


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """grace: what nothing needs stays this long after it was written (microseconds)."""

    keep: Retention
    grace: int = DAY
    concurrency: int = 128

    def __post_init__(self) -> None:
        if self.grace < 0:
            raise InputError("the grace can't be negative")
