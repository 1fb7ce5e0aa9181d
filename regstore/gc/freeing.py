"""What of the trash a run of gc empties, what it leaves and why, and the restart that lets the next run empty it."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from regstore.concurrency import in_thread
from regstore.events import OnEvent, Progress
from regstore.gc.caches import RegistryCache
from regstore.gc.restart import restart_registry
from regstore.gc.run_options import GcRunOptions
from regstore.gc.trash import Kept, without_held
from regstore.gc.unread_needs import held_for_unread
from regstore.inventory.inventory import Inventory
from regstore.state import started_at
from regstore.state.journal import RunRecord
from regstore.state.known_cache import KnownCache
from regstore.state.lock import Lock
from regstore.state.not_freed import NotFreed, Obstacle, not_freed
from regstore.state.registry_state import Restart
from regstore.state.trashed import TrashedRun, find_trash
from regstore.storage.base import Storage


async def find_freeing(storage: Storage, cache: RegistryCache, options: GcRunOptions, *, run: str) -> Freeing:
    """What this run may empty. Where the options empty nothing, of older runs nothing is said, and no request made."""
    if options.trash_older_than is None:
        return Freeing(cache.known, [], options, now=started_at(run))
    now = await storage.now()
    return Freeing(cache.known.as_of(now), await find_trash(storage), options, now=now)


class Freeing:
    """expired: older runs whose trash goes with this run; held: those of which something that can't be read may need
    what they took; overdue: those old enough that the registry's cache may still answer for. now: by the store's
    clock, in microseconds."""

    def __init__(self, known: KnownCache, runs: Sequence[TrashedRun], options: GcRunOptions, *, now: int) -> None:
        self._known = known
        self._runs = list(runs)
        self._options = options
        self._found_at, self._found = now, time.monotonic()
        latest = now - (options.trash_older_than or 0)
        old = [run for run in self._runs if run.ended <= latest and self._may_go_at(run) <= now]
        self.expired = [run for run in old if known.has_forgotten(run)]
        self.held: list[Kept] = []
        self.overdue = tuple(run.run for run in old if not known.has_forgotten(run))

    async def hold_for_unread(self, inventory: Inventory) -> None:
        """Runs stay that took what something may need which can't be read. The inventory as `held_for_unread` has it:
        it is told after each look that healed."""
        if self.expired:
            self.expired, kept = without_held(self.expired, await in_thread(held_for_unread, inventory))
            self.held += kept

    def left(self, emptied: Collection[str] = (), *, versions: tuple[int, int] | None = None) -> NotFreed:
        """What is not free yet, without the emptied runs. versions: blobs and bytes that this run deleted in a bucket
        that keeps them."""
        runs = [run for run in self._runs if run.run not in emptied]
        left = not_freed(
            runs,
            self._known,
            now=self._clock(),
            older_than=self._options.trash_older_than,
            offline=self._options.offline,
            held={kept.run for kept in self.held},
        )
        return left.with_versions(versions)

    def add(self, run: str, done: dict[str, Any], *, blobs: int, blob_bytes: int) -> None:
        """The run of this gc itself, which has just ended; done: its `done.json`."""
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

    async def restart(self, storage: Storage, lock: Lock, on_event: OnEvent) -> Restart | None:
        """Run the restart command where anything in the trash waits for that."""
        command = self._options.restart_command
        left = self.left([run.run for run in self.expired])
        waiting = any(part.obstacle is Obstacle.CACHE for part in left.parts)
        if command is None or not waiting or self._known.kind != "inmemory" or self._known.doubt:
            return None
        on_event(Progress(phase="restarting the registry", done=0, unit="s"))
        restart = await restart_registry(storage, command, lock)
        if not restart.done:
            self._known = replace(self._known, failed_restart=restart)
        else:
            self._known = replace(self._known, restarted_after=self._clock())
        return restart

    def _may_go_at(self, run: TrashedRun) -> int:
        return run.may_go_at(quiet=self._options.offline or self._known.was_restarted_after(run))

    def _clock(self) -> int:
        """About the store's time: for words, not for what goes."""
        return self._found_at + int((time.monotonic() - self._found) * 1_000_000)
