"""What of the trash a run of gc empties, what it leaves and why, and the restart that lets the next run empty it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from regstore.events import OnEvent, Progress
from regstore.gc.caches import RegistryCache
from regstore.gc.restart import restart_registry
from regstore.gc.trash import Kept, without_held
from regstore.state import started_at
from regstore.state.journal import RunRecord
from regstore.state.lock import Lock
from regstore.state.not_freed import NotFreed, Obstacle, not_freed
from regstore.state.registry_state import Restart
from regstore.state.trashed import TrashedRun, find_trash
from regstore.storage.base import Storage


class Freeing:
    """expired: older runs whose trash goes with this run; held: those of which something that can't be read may need
    what they took; overdue: those old enough that the registry's cache may still answer for. Empty before `find`.

    older_than: microseconds since a run's end; None: nothing is emptied, and of older runs nothing is said.
    """

    def __init__(
        self, storage: Storage, cache: RegistryCache, *, older_than: int | None, offline: bool, command: str | None
    ) -> None:
        self._storage = storage
        self._known = cache.known
        self._older_than = older_than
        self._offline = offline
        self._command = command
        self._runs: list[TrashedRun] = []
        self._now = 0
        self._asked = 0.0
        self.expired: list[TrashedRun] = []
        self.held: list[Kept] = []
        self.overdue: tuple[str, ...] = ()

    async def find(self) -> None:
        if self._older_than is None:
            return
        self._set_clock(await self._storage.now())
        self._known = self._known.as_of(self._now)
        self._runs = await find_trash(self._storage)
        latest = self._now - self._older_than
        old = [run for run in self._runs if run.ended <= latest and self._may_go_at(run) <= self._now]
        self.expired = [run for run in old if self._known.has_forgotten(run)]
        self.overdue = tuple(run.run for run in old if not self._known.has_forgotten(run))

    def hold(self, held: Mapping[str, str]) -> None:
        """These runs stay, and why: something that can't be read may need them."""
        self.expired, kept = without_held(self.expired, held)
        self.held += kept

    def left(self, emptied: Collection[str] = (), *, versions: tuple[int, int] | None = None) -> NotFreed:
        """What is not free yet, without the emptied runs. versions: blobs and bytes that this run deleted in a bucket
        that keeps them."""
        runs = [run for run in self._runs if run.run not in emptied]
        left = not_freed(
            runs,
            self._known,
            now=self._clock(),
            older_than=self._older_than,
            offline=self._offline,
            held={kept.run for kept in self.held},
        )
        return left.with_versions(versions)

    def add(self, run: str, done: dict[str, Any], *, blobs: int, blob_bytes: int) -> None:
        """The run of this gc itself, which has just ended; done: its `done.json`."""
        if not self._now:
            self._set_clock(started_at(run))
        now = self._clock()
        self._runs.append(
            TrashedRun(
                run=run,
                started=started_at(run),
                ended=now,
                complete=True,
                command="gc",
                blobs=blobs,
                blob_bytes=blob_bytes,
                record=RunRecord(run=run, begun={}, done=done, parts=(), seen=(), written=now),
            )
        )

    async def restart(self, lock: Lock, on_event: OnEvent) -> Restart | None:
        """Run the restart command where anything in the trash waits for that."""
        left = self.left([run.run for run in self.expired])
        waiting = any(part.obstacle is Obstacle.CACHE for part in left.parts)
        if self._command is None or not waiting or self._known.kind != "inmemory" or self._known.doubt:
            return None
        on_event(Progress(phase="restarting the registry", done=0, unit="s"))
        restart = await restart_registry(self._storage, self._command, lock)
        if not restart.done:
            self._known = replace(self._known, failed_restart=restart)
        else:
            self._known = replace(self._known, restarted_after=self._clock())
        return restart

    def _may_go_at(self, run: TrashedRun) -> int:
        return run.may_go_at(quiet=self._offline or self._known.was_restarted_after(run))

    def _set_clock(self, now: int) -> None:
        self._now, self._asked = now, time.monotonic()

    def _clock(self) -> int:
        """About the store's time: for words, not for what goes."""
        return self._now + int((time.monotonic() - self._asked) * 1_000_000)
