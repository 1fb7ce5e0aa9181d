"""The intent of a running `create` or `restore`: what keeps `prune` from collecting, and a late publication from
happening."""

from __future__ import annotations

import asyncio
import json
import os
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from regstore.backup.format import INTENTS, intent_key, parse_intent_key, parse_snapshot_key
from regstore.errors import LockHeld, LockLost, StorageError
from regstore.state.holder import sane_lease
from regstore.state.lock import find_locks
from regstore.storage.base import PutOptions, Storage
from regstore.storage.clock import clock
from regstore.storage.limit import limited

LEASE: Final = 1800.0
_SECOND: Final = 1_000_000
#: An intent counts for this many leases: a request that its run sent late may still arrive.
_COUNTS_FOR: Final = 2


class Intent:
    """Held by `hold_intent`. Every file of it is a new key: credentials that can't overwrite suffice."""

    def __init__(self, storage: Storage, run: str, command: str, lease: float, put: PutOptions | None) -> None:
        self._storage = storage
        self._lease = lease
        self._put = put
        self._number = 0
        self._written = 0.0
        self._command = command
        self.run: Final = run
        self.keys: list[str] = []

    async def write(self) -> None:
        started = clock()
        self._number += 1
        key = intent_key(self.run, self._number)
        body = {
            "run": self.run,
            "command": self._command,
            "lease": self._lease,
            "host": platform.node(),
            "pid": os.getpid(),
        }
        await self._storage.put(key, json.dumps(body).encode() + b"\n", options=self._put)
        self.keys.append(key)
        self._written = started

    async def keep(self) -> None:
        """Renew it four times a lease, until cancelled."""
        while True:
            await asyncio.sleep(self._lease / 4)
            if clock() - self._written > self._lease * 0.8:
                return  # too late: `publish` refuses
            try:
                await self.write()
            except StorageError:
                continue

    async def publish(self, key: str, body: bytes) -> None:
        """Write the snapshot, if this intent still stands; LockLost otherwise, with nothing written.

        Where the intent stands after that, too, every prune that took it for expired sees the snapshot: it clears such
        intents before it lists snapshots. Where it does not, LockLost says that the snapshot may not be whole.
        """
        if not await self._is_listed():
            raise self._expired()
        self._check_age()
        try:
            with limited(self._check_age):
                async with asyncio.timeout(self._left()):
                    await self._storage.put(key, body, options=self._put)
        except TimeoutError as error:
            raise LockLost(f"snapshot {self.run} could not be published in time; run create again") from error
        if not await self._is_listed():
            # Not taken back: a prune that has seen it may have forgotten others for it.
            raise LockLost(
                f"while snapshot {self.run} was being published, its intent was removed as if it had expired: a prune "
                "may have deleted what it needs; see `regstore backup check`, and run create again"
            )

    async def _is_listed(self) -> bool:
        async for page in self._storage.list(f"{INTENTS}{self.run}/"):
            if page.keys:
                return True
        return False

    def _left(self) -> float:
        """Seconds in which the snapshot may still be written."""
        return self._lease * 0.9 - (clock() - self._written)

    def _check_age(self) -> None:
        if self._left() <= 0:
            raise self._expired()

    def _expired(self) -> LockLost:
        return LockLost(
            f"snapshot {self.run} is not published: its intent expired while the run was suspended, or the store "
            "did not answer; run create again, what was copied stays"
        )


@asynccontextmanager
async def hold_intent(
    storage: Storage, run: str, *, command: str = "create", lease: float = LEASE, put: PutOptions | None = None
) -> AsyncIterator[Intent]:
    """An intent in the backup until the block ends; LockHeld where a `prune` is under way.

    At the end it is removed if the credentials may do that; `prune` clears what stays.
    """
    intent = Intent(storage, run, command, lease, put)
    await intent.write()
    try:
        await _refuse_locks(storage, command)
        keeper = asyncio.create_task(intent.keep())
        try:
            yield intent
        finally:
            keeper.cancel()
    finally:
        await asyncio.shield(_remove(storage, intent.keys))


async def _remove(storage: Storage, keys: list[str]) -> None:
    try:
        await storage.delete_many(keys)
    except StorageError:
        pass  # append-only credentials


async def _refuse_locks(storage: Storage, command: str) -> None:
    locks = [lock for lock in await find_locks(storage) if not lock.holder.is_dead]
    if not locks:
        return
    now = await storage.now()
    for lock in locks:
        if lock.expires >= now:
            raise LockHeld(
                f"the backup {storage.url} is locked by `{lock.holder.command}` of {lock.holder.user} on "
                f"{lock.holder.host} (run {lock.holder.run}): {command} again when that has ended"
            )


async def find_intents(storage: Storage) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Of each run with an intent: the mtime of its newest file, and its keys."""
    newest: dict[str, int] = {}
    keys: dict[str, list[str]] = {}
    async for page in storage.list(INTENTS):
        for info in page.objects():
            run = parse_intent_key(info.key)
            if run is not None:
                newest[run] = max(newest.get(run, 0), info.mtime)
                keys.setdefault(run, []).append(info.key)
    return newest, keys


async def lease_of(storage: Storage, keys: list[str]) -> float:
    """The longest lease that these files say, in seconds, as a lock may have it; the default where they can't be read
    or say nonsense."""
    leases = [0.0]
    for key in keys:
        try:
            leases.append(sane_lease(json.loads(await storage.get(key))["lease"], 0.0))
        except (StorageError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return max(leases) or LEASE


async def live_intents(storage: Storage, now: int) -> tuple[list[str], list[str]]:
    """The runs whose intents count at this time of the backup's clock; the keys of those that have expired.

    That its process is dead ends no intent: what it sent last may still be on its way to the store. One of a listed
    snapshot counts no more, and stays until it expires: its run looks for it after it has published.
    """
    newest, keys = await find_intents(storage)
    finished = set()
    if newest:
        async for page in storage.list("snapshots/"):
            finished |= {run for key in page.keys if (run := parse_snapshot_key(key)) is not None}
    live, stale = [], []
    for run, written in sorted(newest.items()):
        lease = await lease_of(storage, keys[run])
        if written + int(_COUNTS_FOR * lease * _SECOND) < now:
            stale += keys[run]
        elif run not in finished:
            live.append(run)
    return live, stale
