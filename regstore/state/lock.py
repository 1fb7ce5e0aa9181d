"""The lock that every command takes before it removes anything.

It needs no conditional write: several servers accept those and ignore them. A run creates `locks/<run>`, then
lists `locks/`, and withdraws when another unexpired one is there. Of two that start together at least one sees the
other (a store that lists what was written is all it takes), so never do both go on; both may withdraw.

A lock expires a lease after it was last written, by the store's clock: the time of the lock just written tells it, no
Date. Its holder rewrites it as it goes, and before each batch of changes asks `guard`, which lists all locks: less than
half the lease may have passed, by a clock that counts the machine's sleep; the own key must be there, and no other that
counts. So a run that was suspended, or whose lock was broken, changes nothing more.
The batch itself is cut off before the lease ends, and asks that clock before each request that it sends. A lock that
may have expired is never written again: a renewal that took too long is taken back, and the run has lost its lock.

**When another's lock stands beside the own**, nobody goes on, and one of the two gives way:

- If a listing since the own lock was last written did not show the other's, that one came later. The own key is there
  and was not written since, so it stood all the time, and the other's run saw it when it looked: it withdraws, or it
  takes the own lock for dead and deletes it before it changes anything. So `guard` waits, and does not write its lock
  meanwhile: when the other's is gone and the own key stands, that run never held the store, and this one goes on.
- Otherwise the own lock may have been cleared away and be there again by a renewal that was on its way: the other may
  hold the store. This run gives way at once, for good.

Of two that see each other, one at least gives way: A goes on waiting only if it listed B's lock absent after its own
last write, and B likewise; the later of these two listings was made with the other's lock standing. And none passes
while the other may: who passes has a listing, later than all its writes, without the other's lock.
What this leaves, when a lock is broken or taken for expired by a wrong clock: the batch that is under way then; and a
run whose renewal is on its way for all the time that the other one takes, from its first request to its last.
"""

from __future__ import annotations

import asyncio
import json
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Final

from regstore.concurrency import for_each
from regstore.errors import InputError, LockHeld, LockLost, StorageError
from regstore.state import LOCKS, is_run, new_run, started_at
from regstore.state.holder import LEASE, LONGEST_LEASE, FoundLock, Holder, found_lock, read_lock
from regstore.storage.base import ObjectInfo, Storage
from regstore.storage.clock import clock
from regstore.storage.limit import limited

#: Listings until one counts that shows what can't be read.
_LISTINGS: Final = 4
#: Seconds until a lock beside the own one is looked at again.
_LOOK_AGAIN: Final = 0.5
#: Seconds by which the time in a run's name may be off the store's clock.
_WELL_NAMED: Final = 10
_SECOND: Final = 1_000_000
#: Keys that are deleted after one guard, and such batches at a time.
_BATCH: Final = 1000
_BATCHES: Final = 3


class Leave(ABC):
    """Leave to change the store, as long as a run's lock stands: that of this process (`Lock`), or of another one
    (`lock_view`)."""

    def __init__(self, storage: Storage, run: str, lease: float) -> None:
        self._storage = storage
        self.run: Final = run
        self.lease: Final = lease
        self._key: Final = LOCKS + run
        #: By this machine's clock: the lock was written no earlier.
        self._written = -math.inf
        self._lost = ""
        #: Other locks that no listing since the last write was without. None: there was no such listing yet.
        self._beside: frozenset[str] | None = None
        self._read: dict[ObjectInfo, FoundLock] = {}

    async def guard(self) -> None:
        """Return only while changes may be made: call it before each batch. LockLost otherwise, for good."""
        while True:
            others = await self._ask()
            self._check_age(others)
            if not others:
                return
            if any(other.key in (self._beside or ()) for other in others):
                self._lost = f"{others[0]} holds a lock beside its own"
                self._check_age()
            await asyncio.sleep(_LOOK_AGAIN)

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """Guard, then run a batch of changes that is cut off before the lease ends."""
        await self.guard()
        try:
            with limited(self._check_age):
                async with asyncio.timeout(self._remaining()):
                    yield
        except TimeoutError as error:
            self._lost = "a batch of changes took as long as the lease"
            raise LockLost(
                f"run {self.run} stopped: {self._lost} of {self.lease:.0f} s; the store is too slow"
            ) from error

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        """The storage's `delete_many`, a thousand keys a batch."""
        outcomes: dict[str, StorageError | None] = {}

        async def delete(keys: Sequence[str]) -> None:
            async with self.batch():
                outcomes.update(await self._storage.delete_many(keys))

        batches = [keys[start : start + _BATCH] for start in range(0, len(keys), _BATCH)]
        await for_each(batches, delete, concurrency=_BATCHES if self._storage.serves_in_parallel else 1)
        return outcomes

    @abstractmethod
    async def _ask(self) -> list[FoundLock]:
        """See whether the lock stands, and may stand a while (`_lost` says where not); others beside it that count."""

    @abstractmethod
    def _token(self) -> object:
        """Of the time before a listing, for `_note`."""

    @abstractmethod
    def _note(self, own: ObjectInfo, others: frozenset[str], token: object) -> None:
        """What a listing showed. It is for `_note_beside` where no write of the lock came between it and the last."""

    def _note_beside(self, others: frozenset[str]) -> None:
        self._beside = others if self._beside is None else self._beside & others

    def _check_age(self, others: Sequence[FoundLock] = ()) -> None:
        if not self._lost and self._remaining() <= 0:
            self._lost = "its lease ended before it came to that"
        if self._lost and others:
            self._lost += f"; {others[0]} had a lock beside its own"
        if self._lost:
            raise LockLost(f"run {self.run} stopped before its next change: {self._lost}; run the command again")

    def _remaining(self) -> float:
        """Seconds in which a batch may still run."""
        return self.lease * 0.9 - (clock() - self._written)

    async def _look(self) -> list[FoundLock]:
        """The locks beside the own one that count. The run has lost its own where that is not listed."""
        return [lock for lock in await self._list() if not await self._is_over(lock)]

    async def _list(self) -> list[FoundLock]:
        for tries_left in reversed(range(_LISTINGS)):
            token = self._token()
            infos = {info.key: info async for page in self._storage.list(LOCKS) for info in page.objects()}
            own = infos.pop(self._key, None)
            if own is None:
                self._lost = "its lock is gone (another run expired or broke it)"
                break
            others = [info for info in infos.values() if is_run(info.key[len(LOCKS) :])]
            self._note(own, frozenset(info.key for info in others), token)
            for info in others:
                if info not in self._read:
                    lock = await read_lock(self._storage, info)
                    if lock is None and tries_left:
                        break  # gone meanwhile, and the own may be gone with it: this listing proves nothing any more
                    # What is listed again and again, and is not there to be read, counts until it expires.
                    self._read[info] = lock or found_lock(info, Holder.parse(info.key[len(LOCKS) :], b""))
            else:
                return [self._read[info] for info in others]
        return []

    async def _is_over(self, lock: FoundLock) -> bool:
        return lock.holder.is_dead or lock.expires < await self._storage.now()


class Lock(Leave):
    """A lock that this process holds; made by `hold_lock`."""

    def __init__(self, storage: Storage, holder: Holder) -> None:
        super().__init__(storage, holder.run, holder.lease)
        self._holder = holder
        #: Writes of the lock that were begun, and that are under way.
        self._writes = 0
        self._writing = 0

    async def _ask(self) -> list[FoundLock]:
        others: list[FoundLock] = []
        if not self._lost and clock() - self._written > self.lease / 2:
            # Expired or nearly: another run may believe so already, and a renewal now could come too late.
            others = await self._renew_if_young()
        if not self._lost and not others:
            others = await self._look()
        return others

    def _token(self) -> object:
        return None if self._writing else self._writes

    def _note(self, own: ObjectInfo, others: frozenset[str], token: object) -> None:
        if token == self._writes:
            self._note_beside(others)

    async def write(self) -> None:
        """For the first time."""
        started = clock()
        await self._put()
        self._written = started

    async def _put(self) -> None:
        self._writes += 1
        self._writing += 1
        self._beside = None
        try:
            await self._storage.put(self._key, json.dumps(asdict(self._holder)).encode())
        finally:
            self._writing -= 1

    async def clear_others(self) -> None:
        """Remove the locks that count no more; LockHeld where one does. Once, after the first `write`."""
        others = await self._list()
        standing = [lock for lock in others if not await self._is_over(lock)]
        if standing:
            now = await self._storage.now()
            raise LockHeld(
                f"{self._storage.url} is locked by {standing[0]} until "
                f"{(standing[0].expires - now) // _SECOND} s from now unless it goes on; wait, or if "
                "it is certainly dead: --break-lock"
            )
        self._check_age()
        outcomes = await self._storage.delete_many([lock.key for lock in others])
        for error in filter(None, outcomes.values()):
            raise error

    async def keep(self) -> None:
        """Rewrite the lock four times a lease, until cancelled."""
        others: Sequence[FoundLock] = ()
        while not self._lost:
            await asyncio.sleep(min(_LOOK_AGAIN, self.lease / 4) if others else self.lease / 4)
            try:
                others = await self._renew_if_young()
            except (StorageError, LockLost):
                continue  # the lease tells, in guard

    async def release(self) -> None:
        await self._storage.delete_many([self._key])

    async def _renew_if_young(self) -> list[FoundLock]:
        """Not beside another's lock: these are returned."""
        if self._is_young():
            others = await self._look()
            if others:
                return others
        # Asked anew: the machine may have slept while the answer was on its way.
        if self._lost or not self._is_young():
            return []
        started = clock()
        with limited(self._check_age):
            await self._put()
        if self._remaining() <= 0:
            # Meanwhile another run may have found it expired and cleared it away, and this has made it again.
            self._lost = "the store took too long to renew its lock"
            with suppress(StorageError):
                await self.release()
        else:
            self._written = max(self._written, started)
        return []

    def _is_young(self) -> bool:
        if not self._lost and clock() - self._written > self.lease * 0.8:
            self._lost = "its lease ended while it was suspended, or the store did not answer"
        return not self._lost


async def find_locks(storage: Storage) -> list[FoundLock]:
    """Every lock in the store, expired ones too, oldest first."""
    found = []
    async for page in storage.list(LOCKS):
        for info in page.objects():
            lock = await read_lock(storage, info)
            if lock is not None:
                found.append(lock)
    return found


async def break_locks(storage: Storage) -> list[FoundLock]:
    """Remove every lock. A run that holds one stops before its next change."""
    found = await find_locks(storage)
    await storage.delete_many([lock.key for lock in found])
    return found


@asynccontextmanager
async def hold_lock(storage: Storage, *, command: str, lease: float = LEASE) -> AsyncIterator[Lock]:
    """Hold the store's lock; LockHeld, with nothing left behind, when somebody else does.

    Expired locks, and those of processes of this machine that are certainly gone, are cleared away.
    """
    if not 0 < lease <= LONGEST_LEASE:
        raise InputError(f"a lease is more than 0 and at most {LONGEST_LEASE:.0f} s, not {lease}")
    lock = Lock(storage, Holder.this(new_run(await storage.now()), command, lease))
    named = clock()
    try:
        await lock.write()
        await lock.clear_others()
        off = await storage.now() - started_at(lock.run)
        if not -_WELL_NAMED <= off / _SECOND - (clock() - named) <= _WELL_NAMED:
            # Its name has the time of something between here and the store. Only now is the store's own known.
            await lock.release()
            lock = Lock(storage, Holder.this(new_run(await storage.now()), command, lease))
            await lock.write()
            await lock.clear_others()
        keeper = asyncio.create_task(lock.keep())
        try:
            yield lock
        finally:
            keeper.cancel()
    finally:
        await asyncio.shield(lock.release())
