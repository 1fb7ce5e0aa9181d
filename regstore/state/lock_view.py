"""Leave to change a store by a lock that another process holds, on this machine or on another one.

A run that works in many processes has one lock, which one of them writes. The others only look at it, as its holder
does before each batch of changes (`lock`), and go on only while the key of the run is listed, was written less than
half a lease ago, and no other lock that counts stands beside it. Otherwise the work is over in this process, for good.

How long ago it was written is told by its time as listed and by `latest`, no earlier than the store's own; from there
on by a clock that counts this machine's sleep. Beside another's lock the same reasoning holds as for the holder, where
a changed time stands for a write: while the time is as in a listing that did not show the other's, that one came
later, and it gives way, or takes this one away before it changes anything. So this one waits, for half a lease at most.

Nothing is written here. A holder that is gone writes no more, so half a lease later no process begins a change.
"""

from __future__ import annotations

from regstore.state.holder import FoundLock
from regstore.state.lock import Leave
from regstore.storage.base import ObjectInfo, Storage
from regstore.storage.clock import clock
from regstore.storage.optional import latest

_SECOND = 1_000_000


class LockView(Leave):
    """lease: of the lock, in seconds. Nothing is looked at before the first `guard`."""

    def __init__(self, storage: Storage, run: str, lease: float) -> None:
        super().__init__(storage, run, lease)
        #: As it was listed last.
        self._own: ObjectInfo | None = None

    async def _ask(self) -> list[FoundLock]:
        if self._lost:
            return []
        others = await self._look()
        if not self._lost and self._own is not None:
            written = self._own.mtime
            asked = clock()
            self._written = asked - (await latest(self._storage) - written) / _SECOND
            # Asked anew: the machine may have slept while the answer was on its way.
            age = clock() - self._written
            if age > self.lease / 2:
                self._lost = f"its lock was written {age:.0f} s ago, and whoever holds it may be gone"
        return others

    def _token(self) -> None:
        """The time of the own lock tells."""

    def _note(self, own: ObjectInfo, others: frozenset[str], token: object) -> None:
        if self._own is None or own.mtime != self._own.mtime:
            self._beside = None
        self._own = own
        self._note_beside(others)
