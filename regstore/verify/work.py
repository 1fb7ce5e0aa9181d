"""One repair under way: what it was asked for, what it did so far, and the journal of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from regstore.errors import InputError
from regstore.events import OnEvent
from regstore.state.journal import Entry, Journal
from regstore.state.lock import Lock
from regstore.storage.base import PutOptions, Storage

#: A tag that was set within this time is not dropped: a push may be under way around it. Microseconds.
GRACE: Final = 3600 * 1_000_000


@dataclass(frozen=True, kw_only=True)
class RepairOptions:
    """restore_links: put back links which the other copy has and this store lost. put: how new objects are stored.
    drop_broken_tags: remove tags that can't be pulled whole, but none that was set within `grace` (microseconds)."""

    drop_broken_tags: bool = False
    grace: int = GRACE
    restore_links: bool = False
    put: PutOptions | None = None

    def __post_init__(self) -> None:
        if self.grace < 0:
            raise InputError("the grace can't be negative")


@dataclass(frozen=True, kw_only=True)
class Repairs:
    """What was put right. blobs by digest; links by key; dropped tags as `repository:tag`, and those that were spared,
    with why; why what failed did."""

    run: str
    rewritten: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    blob_bytes: int = 0
    restored: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        return not (self.rewritten or self.blobs or self.restored or self.dropped)


@dataclass
class Work:
    """Its lists fill up as it goes; `end` sums them up."""

    storage: Storage
    lock: Lock
    what: RepairOptions
    concurrency: int
    on_event: OnEvent
    rewritten: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    fetched_bytes: int = 0
    restored: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    spared: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    _begun: bool = False

    def __post_init__(self) -> None:
        self._journal = Journal(self.storage, self.lock.run)

    @property
    def changes(self) -> int:
        return sum(map(len, (self.rewritten, self.fetched, self.restored, self.dropped)))

    @property
    def aside(self) -> str:
        """Where damaged bytes are kept."""
        return f"{self._journal.trash}damaged/"

    async def write(self, entries: Sequence[Entry]) -> None:
        """Into the journal, which begins with the first change."""
        await self.lock.guard()
        if not self._begun:
            self._begun = True
            await self._journal.begin({"command": "verify --repair"})
        await self._journal.write(entries)

    async def end(self) -> Repairs:
        repairs = Repairs(
            run=self.lock.run,
            rewritten=tuple(sorted(self.rewritten)),
            blobs=tuple(sorted(self.fetched)),
            blob_bytes=self.fetched_bytes,
            restored=tuple(sorted(self.restored)),
            dropped=tuple(sorted(self.dropped)),
            spared=tuple(f"{tag}: {why}" for tag, why in sorted(self.spared.items())),
            failures=tuple(f"{key}: {why}" for key, why in sorted(self.failures.items())),
        )
        if self._begun:
            await self._journal.end(
                {
                    "rewritten_links": len(repairs.rewritten),
                    "blobs": len(repairs.blobs),
                    "restored_links": len(repairs.restored),
                    "dropped_tags": len(repairs.dropped),
                    "failures": len(repairs.failures),
                }
            )
        return repairs
