"""The lock that every command takes before it removes anything.

It needs no conditional write: several servers accept those and ignore them. A run creates `locks/<run>`, then
lists `locks/`, and withdraws when another unexpired one is there. Of two that start together at least one sees the
other (a store that lists what was written is all it takes), so never do both go on; both may withdraw.

A lock expires a lease after it was last written, by the store's clock. Its holder rewrites it as it goes, and before
each batch of changes asks `guard`: the key must still be listed, and less than half the lease may have passed, by
a clock that counts the machine's sleep. So a run that was suspended, or whose lock was broken, changes nothing more.
The batch itself is cut off before the lease ends, and asks that clock before each request that it sends. A lock that
may have expired is never written again: a renewal that took too long is taken back, and the run has lost its lock.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Final

from regstore.concurrency import for_each
from regstore.errors import LockHeld, LockLost, NotFound, StorageError
from regstore.runs import LOCKS, is_run, new_run
from regstore.runs.process import is_certainly_dead, this_process
from regstore.storage.base import ObjectInfo, Storage
from regstore.storage.limit import limited

LEASE: Final = 600.0
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
        """Never raises: a lock that can't be read is a lock all the same."""
        try:
            known = json.loads(body)
            return cls(
                run=run,
                command=str(known["command"]),
                user=str(known["user"]),
                host=str(known["host"]),
                pid=int(known["pid"]),
                process=str(known["process"]),
                lease=float(known["lease"]),
            )
        except (ValueError, KeyError, TypeError):
            return cls(run=run, command="?", user="?", host="?", pid=0, process="", lease=LEASE)

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

    async def guard(self) -> None:
        """Return only while changes may be made: call it before each batch. LockLost otherwise, for good."""
        if not self._lost:
            if clock() - self._written > self._holder.lease / 2:
                # Expired or nearly: another run may believe so already, and a renewal now could come too late.
                await self._renew_if_young()
            else:
                await self._check_listed()
        self._check_age()

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

    def _check_age(self) -> None:
        if not self._lost and self._remaining() <= 0:
            self._lost = "its lease ended before it came to that"
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
        await self._storage.put(self._key, json.dumps(asdict(self._holder)).encode())

    async def keep(self) -> None:
        """Rewrite the lock four times a lease, until cancelled."""
        while not self._lost:
            await asyncio.sleep(self._holder.lease / 4)
            try:
                await self._renew_if_young()
            except (StorageError, LockLost):
                continue  # the lease tells, in guard

    async def release(self) -> None:
        await self._storage.delete_many([self._key])

    async def _renew_if_young(self) -> None:
        if self._is_young():
            await self._check_listed()
        # Asked anew: the machine may have slept while the answer was on its way.
        if self._lost or not self._is_young():
            return
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

    def _is_young(self) -> bool:
        if not self._lost and clock() - self._written > self._holder.lease * 0.8:
            self._lost = "its lease ended while it was suspended, or the store did not answer"
        return not self._lost

    async def _check_listed(self) -> None:
        async for page in self._storage.list(self._key):
            if self._key in page.keys:
                return
        self._lost = "its lock is gone (another run expired or broke it)"


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
    holder = Holder.this(new_run(await storage.now()), command, lease)
    lock = Lock(storage, holder)
    try:
        await lock.write()
        await _clear_others(storage, lock.run)
        keeper = asyncio.create_task(lock.keep())
        try:
            yield lock
        finally:
            keeper.cancel()
    finally:
        await asyncio.shield(lock.release())


async def _clear_others(storage: Storage, run: str) -> None:
    others = [lock for lock in await find_locks(storage) if lock.holder.run != run]
    now = await storage.now()
    stale = [lock for lock in others if lock.expires < now or lock.holder.is_dead]
    standing = [lock for lock in others if lock not in stale]
    if standing:
        first = standing[0].holder
        raise LockHeld(
            f"{storage.url} is locked by `{first.command}` of {first.user} on {first.host} (pid {first.pid}, run "
            f"{first.run}) until {(standing[0].expires - now) // _SECOND} s from now unless it goes on; wait, or if "
            "it is certainly dead: --break-lock"
        )
    await storage.delete_many([lock.key for lock in stale])


async def _read(storage: Storage, info: ObjectInfo) -> FoundLock | None:
    run = info.key[len(LOCKS) :]
    if not is_run(run):
        return None
    try:
        holder = Holder.parse(run, await storage.get(info.key))
    except NotFound:
        return None
    return FoundLock(
        holder=holder, key=info.key, written=info.mtime, expires=info.mtime + int(holder.lease * _SECOND)
    )


def clock() -> float:
    """Seconds, counting those that the machine slept, where the system can tell."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
