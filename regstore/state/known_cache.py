"""What is known of the registry's descriptor cache, and so of which runs nothing answers any more. Pure.

A cache answers for blobs that are gone (`gc.caches`), so the trash of a run may go only once it has forgotten them:
where there is none, at once; Redis, when it was told to; one in memory, when every registry process was started after
the run's end. What is not known counts as in memory.

An option's word is believed, and remembered in the store. So is a configuration's, but for one: where it now says
less than what is remembered of a cache, the registry may not have been restarted with it yet, and goes on as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from regstore.state.registry_state import CacheKind, CacheWord, RegistryState, Restart
from regstore.state.trashed import TrashedRun

SAY_ONCE: Final = (
    "say once to gc --registry-cache none, inmemory or redis, or --registry-config with the registry's own "
    "configuration: it is remembered"
)


@dataclass(frozen=True, kw_only=True)
class KnownCache:
    """kind: what to act by. word: who said so; None: nobody. remembered: what the store says.

    doubt: why nothing may be emptied on that, "" where nothing speaks against it; settle: what settles the doubt.
    restarted_after: every registry process was started after this time (microseconds by the store's clock).
    failed_restart: the restart command's last run, where it failed.
    """

    kind: CacheKind = "unknown"
    word: CacheWord | None = None
    remembered: CacheWord | None = None
    believed: bool = True
    doubt: str = ""
    settle: str = ""
    restarted_after: int | None = None
    failed_restart: Restart | None = None

    def has_forgotten(self, run: TrashedRun, restarted_after: int | None = None) -> bool:
        """Whether no cache answers any more for what the run removed; Redis: once it was told to forget it.
        restarted_after: as the operator says it, for this once."""
        if self.doubt:
            return False
        if self.kind in ("none", "redis"):
            return True
        return self.was_restarted_after(run, restarted_after)

    def was_restarted_after(self, run: TrashedRun, restarted_after: int | None = None) -> bool:
        """Whether every registry process was started after the run's end: no push that began before goes on."""
        return max(restarted_after or 0, self.restarted_after or 0) > run.ended

    def with_doubt(self, doubt: str, settle: str) -> KnownCache:
        """The first doubt stands."""
        return self if self.doubt else replace(self, doubt=doubt, settle=settle)

    def as_of(self, now: int) -> KnownCache:
        """Without a restart that has not come yet by the store's clock: that clock was wrong when it was noted."""
        return replace(self, restarted_after=None) if (self.restarted_after or 0) > now else self

    def to_remember(self) -> CacheWord | None:
        """What the store should say from now on; None where it does, to the day."""
        old, new = self.remembered, self.word
        if new is None or not self.believed:
            return None
        same = old is not None and (old.kind, old.source, old.day) == (new.kind, new.source, new.day)
        return None if same else new

    def __str__(self) -> str:
        """For reports: "none, as config.yml said on 2026-11-28"."""
        if self.word is None:
            return "not known, and taken for one in the registry's memory"
        old = self.remembered
        changed = old is not None and self.believed and old.kind != self.word.kind
        return f"{self.word}" + (f" (before: {old})" if changed else "")

    @property
    def because(self) -> str:
        """Why the trash of a run that it has not forgotten stays."""
        if self.doubt:
            return self.doubt
        if self.kind == "inmemory":
            failed = f": the restart command {self.failed_restart.outcome}" if self.failed_restart else ""
            return f"the registry's cache is in its memory, and the registry was not restarted since{failed}"
        return "the registry's cache is not known, and it may still answer for what went"

    @property
    def to_free(self) -> str:
        """What to do about that."""
        if self.doubt:
            return self.settle
        if self.kind == "inmemory":
            return (
                "give gc a --restart-command, or the --registry-debug-url of every process; or restart them all, and "
                "`regstore trash empty --restarted-after TIME`"
            )
        return SAY_ONCE


def judge_cache(told: CacheWord | None, state: RegistryState, *, by_option: bool = False) -> KnownCache:
    """Of what this command was told, and what the store remembers. by_option: an option said it, which settles it."""
    old, word = state.cache, told or state.cache
    if word is None:
        return KnownCache()
    # What was restarted may have been one of several parts of a cache that is not known.
    restart = state.restart if word.kind != "unknown" else None
    known = KnownCache(
        kind=word.kind,
        word=word,
        remembered=old,
        restarted_after=restart.began if restart is not None and restart.done else None,
        failed_restart=state.failed_restart,
    )
    if told is None:
        return known
    careful = old is None or old.kind in (told.kind, "none") or (old.kind, told.kind) == ("unknown", "inmemory")
    if by_option or careful:
        return known
    assert old is not None
    return replace(
        known,
        believed=False,
        doubt=f"{told.source} says that the registry's cache is {told.kind}, and {old.source} said {old.kind} on "
        f"{old.day}, with which a registry may still run that was not restarted since",
        settle=f"restart every registry process, and say once to gc --registry-cache {told.kind}",
    )
