"""Work in another process than the one that holds the store's lock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final

from regstore.concurrency import task_group
from regstore.errors import LockLost
from regstore.state.lock_view import LockView
from regstore.storage.base import Storage
from regstore.storage.clock import clock
from regstore.storage.limit import limited

#: Seconds that a look at the locks holds good.
_LOOK_AGAIN: Final = 1.0


@dataclass(frozen=True, slots=True)
class HeldLock:
    """lease: in seconds."""

    run: str
    lease: float


class UnderLock:
    """Looks at a lock once a second while work is done by it."""

    def __init__(self, storage: Storage, held: HeldLock) -> None:
        self._view = LockView(storage, held.run, held.lease)
        self._looking = asyncio.Lock()
        self._looked = clock()
        self._first = True

    async def run(self, work: Awaitable[object]) -> None:
        """The work, as long as the lock stands; LockLost, with the work cancelled, where it does no more. Nothing is
        sent from here later than half a lease after the last look, as after a sleep of the machine."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(_LOOK_AGAIN)
                await self.check()

        self._looked = clock()
        with limited(self._check_age):
            async with task_group() as group:
                keeper = group.create_task(keep())
                await work
                keeper.cancel()

    async def check(self) -> None:
        """Before each change."""
        if not self._first and clock() - self._looked < _LOOK_AGAIN:
            return
        async with self._looking:
            if self._first or clock() - self._looked >= _LOOK_AGAIN:
                asked = clock()
                await self._view.guard()
                self._first, self._looked = False, asked

    def _check_age(self) -> None:
        if clock() - self._looked > self._view.lease / 2:
            raise LockLost(
                f"run {self._view.run} stopped before its next change: its lock was not looked at for half its lease; "
                "run the command again"
            )
