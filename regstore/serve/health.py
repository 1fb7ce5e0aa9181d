"""How the store is: what doctor sees without listing it, what is in the trash, what ran last.

Asked of the store when it is looked at, and not again for a while.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from regstore.errors import RegstoreError
from regstore.state import started_at
from regstore.state.trashed import TrashedRun, find_trash
from regstore.storage.base import Storage
from regstore.verify.doctor import Line, examine

#: Seconds for which an answer is good.
_GOOD: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """lines: what was looked at. runs: newest first. now: the store's time, in microseconds; failure: why the runs are
    not known."""

    lines: tuple[Line, ...]
    runs: tuple[TrashedRun, ...] = ()
    now: int = 0
    failure: str = ""

    @property
    def trash_bytes(self) -> int:
        return sum(run.blob_bytes for run in self.runs)

    def last(self, command: str) -> int:
        """When the newest complete run of a command began, in microseconds; 0 for never."""
        return max((started_at(run.run) for run in self.runs if run.complete and run.command == command), default=0)


@dataclass(slots=True)
class HealthWatch:
    """The health of one store."""

    storage: Storage
    _health: Health | None = None
    _until: float = 0.0
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self) -> Health:
        async with self._asking:
            if self._health is None or time.monotonic() > self._until:
                self._health = await self._ask()
                self._until = time.monotonic() + _GOOD
            return self._health

    async def _ask(self) -> Health:
        lines = (await examine(self.storage, list_keys=False)).lines
        try:
            runs = tuple(reversed(await find_trash(self.storage)))
            return Health(lines=lines, runs=runs, now=await self.storage.now())
        except RegstoreError as error:
            return Health(lines=lines, failure=str(error))
