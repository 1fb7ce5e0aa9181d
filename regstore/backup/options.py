"""What a backup command was asked to do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from regstore.backup.intent import LEASE
from regstore.errors import InputError
from regstore.state.holder import LONGEST_LEASE
from regstore.storage.base import PutOptions
from regstore.words import meant

HOUR: Final = 3600 * 1_000_000
DAY: Final = 24 * HOUR


@dataclass(frozen=True, kw_only=True)
class CreateOptions:
    """repositories, tags: glob patterns (`*` matches `/` too); none means all, and one that matches nothing is an
    InputError. put: how new objects are stored. lease: seconds, of the intent. concurrency: requests at once."""

    repositories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    put: PutOptions | None = None
    concurrency: int = 128
    lease: float = LEASE

    def __post_init__(self) -> None:
        if not 0 < self.lease <= LONGEST_LEASE:
            raise InputError(f"a lease of {self.lease} s is none of 0 to {LONGEST_LEASE:.0f} s")


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """snapshot: an ID, the beginning of one, `latest` or a time. repositories, tags: as for create.
    overwrite_tags: also tags that name something else in the store. verify_existing: read the blobs that the store
    has already, and replace those that are not what their digest says; else their size is believed."""

    snapshot: str = "latest"
    repositories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    overwrite_tags: bool = False
    verify_existing: bool = False
    put: PutOptions | None = None
    concurrency: int = 128


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How many snapshots of one scope stay: the last ones, the newest of each of so many days, weeks, months (UTC; the
    newest that left nothing out, where there is one), and all of the time `within` (microseconds) before the newest."""

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
    """keep: which snapshots stay; None: all. forget: IDs, or beginnings of some, of snapshots that go in any case, the
    unreadable too. grace: what nothing needs stays this long after it was written (microseconds)."""

    keep: Retention | None = None
    forget: tuple[str, ...] = ()
    grace: int = DAY
    concurrency: int = 128

    def __post_init__(self) -> None:
        if self.keep is None and not self.forget:
            raise InputError("say which snapshots to keep, such as --keep-last 7, or which to --forget")
        if self.grace < 0:
            raise InputError("the grace can't be negative")


def refuse_unmatched(what: str, patterns: Sequence[str], names: Collection[str], where: str) -> None:
    """InputError where a pattern matches none of the names: it is a mistake. what: what they are names of."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"{where} has no {what} {pattern}{meant(pattern, names) or ': correct the pattern, or leave it out'}"
            )
