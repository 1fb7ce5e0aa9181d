"""What lies in the trash and takes space still: how much, why, and what frees it.

Pure, but for `look_at_trash`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from regstore.state.known_cache import KnownCache
from regstore.state.trashed import TrashedRun, find_trash
from regstore.storage.base import Storage
from regstore.words import Moment


class Obstacle(StrEnum):
    """What keeps the space, first what no time takes away."""

    CACHE = "cache"  # the registry's descriptor cache may still answer
    CUT_SHORT = "cut-short"  # deletes of the run may yet take effect
    PUSH = "push"  # a push may rely on it that began before the run ended
    AGE = "age"  # younger than --trash-days
    UNREAD = "unread"  # what can't be read may need it
    NOTHING = "nothing"  # it only has to be emptied
    VERSIONS = "versions"  # the bucket keeps what is deleted


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one obstacle keeps: runs, blobs, bytes. until: when it is over (microseconds), where time is all it takes.
    because, to_free: the same in words."""

    obstacle: Obstacle
    runs: tuple[str, ...]
    blobs: int
    blob_bytes: int
    because: str
    to_free: str
    until: Moment | None = None


@dataclass(frozen=True, kw_only=True)
class NotFreed:
    parts: tuple[Part, ...] = ()

    @property
    def blobs(self) -> int:
        return sum(part.blobs for part in self.parts)

    @property
    def blob_bytes(self) -> int:
        return sum(part.blob_bytes for part in self.parts)

    def with_versions(self, deleted: tuple[int, int] | None) -> NotFreed:
        """And so many blobs and bytes that were deleted in a bucket that keeps versions; None: in another."""
        if deleted is None or not deleted[0]:
            return self
        part = Part(
            obstacle=Obstacle.VERSIONS,
            runs=(),
            blobs=deleted[0],
            blob_bytes=deleted[1],
            because="the bucket keeps versions: nothing is free until noncurrent versions expire",
            to_free="a lifecycle rule of the bucket that expires them",
        )
        return NotFreed(parts=(*self.parts, part))


def not_freed(
    runs: Iterable[TrashedRun],
    known: KnownCache,
    *,
    now: int,
    older_than: int | None = None,
    offline: bool = False,
    held: Collection[str] = (),
) -> NotFreed:
    """Of these runs, those that left blobs. now: by the store's clock. older_than: what gc's --trash-days says, in
    microseconds; None where no run of gc is spoken of. held: runs that something unreadable may need. Each
    run counts once, for what stands in its way longest."""
    found: dict[Obstacle, list[TrashedRun]] = {}
    until: dict[Obstacle, int] = {}
    for run in runs:
        if not run.blobs:
            continue
        obstacle, at = _obstacle(run, known, now, older_than, offline)
        if obstacle is Obstacle.NOTHING and run.run in held:
            obstacle = Obstacle.UNREAD
        found.setdefault(obstacle, []).append(run)
        until[obstacle] = max(until.get(obstacle, 0), at)
    parts = []
    for obstacle in Obstacle:
        if some := found.get(obstacle):
            because, to_free = _words(obstacle, known, until[obstacle])
            parts.append(
                Part(
                    obstacle=obstacle,
                    runs=tuple(run.run for run in some),
                    blobs=sum(run.blobs for run in some),
                    blob_bytes=sum(run.blob_bytes for run in some),
                    because=because,
                    to_free=to_free,
                    until=until[obstacle] or None,
                )
            )
    return NotFreed(parts=tuple(parts))


async def look_at_trash(storage: Storage, known: KnownCache) -> NotFreed:
    """Of the whole trash, when no gc is under way. One LIST of the journals and one of the trash, two GETs a run."""
    now = await storage.now()
    return not_freed(await find_trash(storage), known.as_of(now), now=now)


def _obstacle(
    run: TrashedRun, known: KnownCache, now: int, older_than: int | None, offline: bool
) -> tuple[Obstacle, int]:
    """The first that is in the way, and when it ends by itself (0: never, or it is none)."""
    if not known.has_forgotten(run):
        return Obstacle.CACHE, 0
    may_go_at = run.may_go_at(quiet=offline or known.was_restarted_after(run))
    old_at = run.ended + (older_than or 0)
    if not run.settled and may_go_at > now:
        return Obstacle.CUT_SHORT, max(may_go_at, old_at)
    if older_than is not None and old_at > max(now, may_go_at):
        return Obstacle.AGE, old_at
    if may_go_at > now:
        return Obstacle.PUSH, may_go_at
    return Obstacle.NOTHING, 0


def _words(obstacle: Obstacle, known: KnownCache, until: int) -> tuple[str, str]:
    moment = f"{datetime.fromtimestamp(-(-until // 1_000_000), UTC):%Y-%m-%dT%H:%M:%SZ}"
    match obstacle:
        case Obstacle.CACHE:
            return known.because, known.to_free
        case Obstacle.CUT_SHORT:
            return (
                "the run was cut short, or not told the outcome of all that it deleted, which may yet take effect",
                f"run gc again from {moment} on",
            )
        case Obstacle.PUSH:
            return (
                "a push may rely on it that began before the run ended",
                f"run gc again from {moment} on, or with --offline where the registry is stopped or read-only",
            )
        case Obstacle.AGE:
            return (
                "it is younger than --trash-days",
                f"run gc again from {moment} on, or with fewer --trash-days, or `regstore trash empty`",
            )
        case Obstacle.UNREAD:
            return (
                "a repository from which it was taken holds what can't be read now, and that may need it",
                "see to what `regstore verify` names as unreadable; the next gc then frees it",
            )
        case _:
            return (
                "nobody has emptied the trash since",
                "`regstore trash empty`, or the next gc when it is older than --trash-days",
            )
