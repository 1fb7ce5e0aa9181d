"""What time it is at the store, where every answer has a Date that anything between here and there may have written.

Ages are compared with the times that the store gives to objects, so its clock is the one that gives those. What a
storage has just put itself tells it: whoever lists it (or asks for its head) at the moment t of this computer's steady
clock, and is told the time m, knows that the store's clock had reached m at t. From then on `m + (now - t)` is never
later than the store's own time, and earlier by no more than what passed between the put and the look (a second more
where the store gives whole seconds). Too early is the safe side: nothing looks older than it is. Of several looks the
one counts that gives the earliest time, for the nodes of a store may differ.

Whether something may be too old is asked the other way round (`latest`): when the put was begun at the moment b, the
store's clock had not passed m yet, and at any later moment t it has not passed `m + (t - b)`.

Before anything was put there is the Date only. It is believed where it agrees with this computer's clock: two that know
nothing of each other. Where it does not, or there is none, a small object is put, looked at and deleted again; where
that can't be done (a store opened to be looked at only, credentials that may not write, a full bucket), the earlier
one counts, and it is said.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from regstore.errors import StorageError
from regstore.events import Notice, OnEvent
from regstore.layout import PROBE
from regstore.storage.base import ObjectInfo, Page

_SECOND: Final = 1_000_000
#: A Date and this computer's clock agree when they differ by no more: whole seconds, and a slow answer.
_AGREE: Final = 10 * _SECOND


def clock() -> float:
    """Seconds, counting those that the machine slept, where the system can tell."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class _Store(Protocol):
    @property
    def url(self) -> str: ...

    async def stat(self, key: str) -> ObjectInfo: ...

    async def put(self, key: str, data: bytes) -> None: ...

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]: ...


class StoreClock:
    """Of one storage. Times in microseconds since 1970."""

    def __init__(
        self, store: _Store, date: Callable[[], Awaitable[int | None]], *, read_only: bool, on_event: OnEvent
    ) -> None:
        self._store = store
        self._date = date
        self._read_only = read_only
        self._on_event = on_event
        #: The store's time when `clock` was 0.
        self._base: float | None = None
        #: A time that the store's clock had not passed then.
        self._bound: float | None = None
        #: A key that was put last, and not looked at since; and when the put began.
        self._written = ""
        self._begun = 0.0

    def wrote(self, key: str, begun: float) -> None:
        """begun: `clock` before the put."""
        self._written, self._begun = key, begun

    def deleted(self, keys: Iterable[str]) -> None:
        if self._written and self._written in keys:
            self._written = ""

    def listed(self, page: Page) -> None:
        """Call it as soon as the page is there."""
        if self._written and self._written in page.keys:
            self._saw(page.mtimes[page.keys.index(self._written)])

    def _saw(self, mtime: int) -> None:
        base = mtime - clock() * _SECOND
        self._base = base if self._base is None else min(base, self._base)
        bound = mtime + _SECOND - self._begun * _SECOND
        self._bound = bound if self._bound is None else min(bound, self._bound)
        self._written = ""

    async def latest(self) -> int:
        """The store's clock had not passed this when it was asked for. Requests as for `now`."""
        asked, now = clock(), await self.now()
        return now + _AGREE + _SECOND if self._bound is None else int(self._bound + asked * _SECOND)

    async def now(self) -> int:
        """No request where something that was put has been looked at, one as a rule."""
        if self._base is None and self._written:
            await self._look(self._written)
        if self._base is None:
            date, here = await self._date(), time.time_ns() // 1000
            if date is not None and abs(date - here) <= _AGREE:
                return date
            if not self._read_only:
                await self._probe()
            if self._base is None:
                return self._doubtful(date, here)
        return int(self._base + clock() * _SECOND)

    async def _look(self, key: str) -> None:
        with suppress(StorageError):  # then the Date, or its failure, tells
            self._saw((await self._store.stat(key)).mtime)
        self.deleted([key])

    async def _probe(self) -> None:
        key = f"{PROBE}{secrets.token_hex(8)}"
        with suppress(StorageError):
            try:
                await self._store.put(key, b"")
                await self._look(key)
            finally:
                await self._store.delete_many([key])

    def _doubtful(self, date: int | None, here: int) -> int:
        if date is None:
            raise StorageError(
                f"{self._store.url} is served without a Date, and nothing can be put: its clock is unknown"
            )
        ahead = (date - here) // _SECOND
        self._on_event(
            Notice(
                message=f"what answers for {self._store.url} has a clock {abs(ahead):,} s "
                f"{'ahead of' if ahead > 0 else 'behind'} this computer's, and the store itself could not be asked "
                "without writing to it: ages here are by the earlier of the two"
            )
        )
        return min(date, here)
