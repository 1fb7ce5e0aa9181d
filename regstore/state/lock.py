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
import os
import platform
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Final

from regstore.concurrency import for_each
from regstore.errors import InputError, LockHeld, LockLost, NotFound, StorageError
from regstore.state import LOCKS, is_run, new_run, started_at
from regstore.state.process import is_certainly_dead, this_process
from regstore.storage.base import ObjectInfo, Storage
from regstore.storage.clock import clock
from regstore.storage.limit import limited

LEASE: Final = 600.0
#: No lock, and no intent of a backup, counts as if it had a longer lease, whatever it says. Seconds.
LONGEST_LEASE: Final = 86400.0
#: Bytes of a lock that are worth reading, and characters of what it says.
_LONGEST: Final = 65536
_LONGEST_WORD: Final = 200
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


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock. lease in seconds; process names one process of one machine, "" where that can't be told."""

    run: str
    command: str
    user: str
    host: str
    pid: int
    process: str
    lease: float

    @classmethod
    def this(cls, run: str, command: str, lease: float) -> Holder:
        pid = os.getpid()
        user = os.environ.get("USER") or os.environ.get("LOGNAME") or str(os.getuid())
        return cls(
            run=run, command=command, user=user, host=platform.node(), pid=pid, process=this_process(), lease=lease
        )

    @classmethod
    def parse(cls, run: str, body: bytes) -> Holder:
        """Never raises: a lock that can't be read is a lock all the same, with the usual lease."""
        try:
            known = json.loads(body)
        except (ValueError, RecursionError):
            known = None
        if not isinstance(known, dict):
            known = {}

        def word(name: str, otherwise: str = "?") -> str:
            value = known.get(name)
            # What JSON can write and UTF-8 can't would break what shows it.
            return value[:_LONGEST_WORD].encode(errors="replace").decode() if isinstance(value, str) else otherwise

        pid = known.get("pid")
        return cls(
            run=run,
            command=word("command"),
            user=word("user"),
            host=word("host"),
            pid=pid if type(pid) is int and 0 < pid < 1 << 31 else 0,
            process=word("process", ""),
            lease=sane_lease(known.get("lease"), LEASE),
        )

    @property
    def is_dead(self) -> bool:
        """Certainly gone, as far as this machine can tell."""
        return is_certainly_dead(self.process)


@dataclass(frozen=True, kw_only=True)
class FoundLock:
    """A lock in the store. Times in microseconds by the store's clock."""

    holder: Holder
    key: str
    written: int
    expires: int


class Lock:
    """A lock that this process holds; made by `hold_lock`."""

    def __init__(self, storage: Storage, holder: Holder) -> None:
        self._storage = storage
        self._holder = holder
        self.run: Final = holder.run
        self._key: Final = LOCKS + holder.run
        self._written = 0.0
        self._lost = ""
        #: Writes of the lock that were begun, and that are under way.
        self._writes = 0
        self._writing = 0
        #: Other locks that no listing since the last write was without. None: there was no such listing yet.
        self._beside: frozenset[str] | None = None
        self._read: dict[ObjectInfo, FoundLock] = {}

    async def guard(self) -> None:
        """Return only while changes may be made: call it before each batch. LockLost otherwise, for good."""
        while True:
            others: list[FoundLock] = []
            if not self._lost and clock() - self._written > self._holder.lease / 2:
                # Expired or nearly: another run may believe so already, and a renewal now could come too late.
                others = await self._renew_if_young()
            if not self._lost and not others:
                others = await self._look()
            self._check_age(others)
            if not others:
                return
            if any(other.key in (self._beside or ()) for other in others):
                self._lost = f"{_named(others[0])} holds a lock beside its own"
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
                f"run {self.run} stopped: {self._lost} of {self._holder.lease:.0f} s; the store is too slow"
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

    def _check_age(self, others: Sequence[FoundLock] = ()) -> None:
        if not self._lost and self._remaining() <= 0:
            self._lost = "its lease ended before it came to that"
        if self._lost and others:
            self._lost += f"; {_named(others[0])} had a lock beside its own"
        if self._lost:
            raise LockLost(f"run {self.run} stopped before its next change: {self._lost}; run the command again")

    def _remaining(self) -> float:
        """Seconds in which a batch may still run."""
        return self._holder.lease * 0.9 - (clock() - self._written)

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
                f"{self._storage.url} is locked by {_named(standing[0])} until "
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
            await asyncio.sleep(min(_LOOK_AGAIN, self._holder.lease / 4) if others else self._holder.lease / 4)
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
        if not self._lost and clock() - self._written > self._holder.lease * 0.8:
            self._lost = "its lease ended while it was suspended, or the store did not answer"
        return not self._lost

    async def _look(self) -> list[FoundLock]:
        """The locks beside the own one that count. The run has lost its own where that is not listed."""
        return [lock for lock in await self._list() if not await self._is_over(lock)]

    async def _list(self) -> list[FoundLock]:
        for tries_left in reversed(range(_LISTINGS)):
            writes, is_quiet = self._writes, not self._writing
            infos = [info async for page in self._storage.list(LOCKS) for info in page.objects()]
            others = [info for info in infos if info.key != self._key and is_run(info.key[len(LOCKS) :])]
            if self._key not in {info.key for info in infos}:
                self._lost = "its lock is gone (another run expired or broke it)"
                break
            keys = frozenset(info.key for info in others)
            if is_quiet and writes == self._writes:
                self._beside = keys if self._beside is None else self._beside & keys
            for info in others:
                if info not in self._read:
                    lock = await _read(self._storage, info)
                    if lock is None and tries_left:
                        break  # gone meanwhile, and the own may be gone with it: this listing proves nothing any more
                    # What is listed again and again, and is not there to be read, counts until it expires.
                    self._read[info] = lock or _found(info, Holder.parse(info.key[len(LOCKS) :], b""))
            else:
                return [self._read[info] for info in others]
        return []

    async def _is_over(self, lock: FoundLock) -> bool:
        return lock.holder.is_dead or lock.expires < await self._storage.now()


async def find_locks(storage: Storage) -> list[FoundLock]:
    """Every lock in the store, expired ones too, oldest first."""
    found = []
    async for page in storage.list(LOCKS):
        for info in page.objects():
            lock = await _read(storage, info)
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


def _named(lock: FoundLock) -> str:
    holder = lock.holder
    return f"`{holder.command}` of {holder.user} on {holder.host} (pid {holder.pid}, run {holder.run})"


def sane_lease(value: object, otherwise: float) -> float:
    """A lease as a file says it, in seconds: at most `LONGEST_LEASE`; otherwise where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 or value == math.inf:
        return otherwise
    return float(min(value, LONGEST_LEASE))


async def _read(storage: Storage, info: ObjectInfo) -> FoundLock | None:
    run = info.key[len(LOCKS) :]
    if not is_run(run):
        return None
    try:
        holder = Holder.parse(run, await storage.get(info.key) if info.size <= _LONGEST else b"")
    except NotFound:
        return None
    return _found(info, holder)


def _found(info: ObjectInfo, holder: Holder) -> FoundLock:
    return FoundLock(
        holder=holder, key=info.key, written=info.mtime, expires=info.mtime + int(holder.lease * _SECOND)
    )
