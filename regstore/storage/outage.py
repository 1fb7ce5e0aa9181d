"""Damage or outage? One object that can't be read is damage of that object. When most can't, that is an outage, and
ends the run. Where the line runs is said here, once, for every command.

- What every request would meet (credentials, no bucket, no connection: `streams.is_fatal`) ends the run at once.
- An archived object is an object's own trouble, however many there are: `Archived` is never counted.
- Anything else that is no `NotFound` (403, a 5xx after all retries, EIO) is the one object's, at first. When
  `IN_A_ROW` have failed with none read in between, when `MANY` more have failed and more have failed than were read,
  or when all is over and not one was read, then up to `OTHERS` other objects, from all over the store, are asked for
  their first byte. Where fewer than half of them give it, or there are none and more than one has failed: `Outage`.
  Else the store does give what it has.

Asking others makes the rule sound where only the bad ones are read at all: manifests that are known from an earlier
run are not read again, so of those that are, all may fail. Nothing is asked while nothing fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import Archived, NotFound, Outage, StorageError
from regstore.storage.base import Storage
from regstore.storage.streams import is_fatal, verified_size

IN_A_ROW: Final = 20
MANY: Final = 100
OTHERS: Final = 10

#: Gives keys of the store, as many as are asked for where there are so many, none of those that failed.
Sample = Callable[[int, Sequence[str]], Iterable[str]]


class OutageWatch:
    """Told of every object that was to be read, and how it went. Safe to use from many tasks. failed: keys, without
    those that are archived."""

    def __init__(self, storage: Storage, others: Sample) -> None:
        self._storage = storage
        self._others = others
        self._asking = asyncio.Lock()
        self._read = self._in_a_row = self._since_asked = 0
        #: The latest failure since others were asked.
        self._unasked: StorageError | None = None
        self.failed: list[str] = []

    def good(self, count: int = 1) -> None:
        """So many were read, or the store said that they are not there."""
        self._read += count
        self._in_a_row = 0

    async def bad(self, key: str, error: StorageError) -> None:
        """One could not be read. Raises where that is no damage of it."""
        if isinstance(error, NotFound) or is_fatal(error):
            raise error
        if isinstance(error, Archived):
            return
        self.failed.append(key)
        self._unasked = error
        self._in_a_row += 1
        self._since_asked += 1
        async with self._asking:
            if self._is_suspicious():
                await self._ask(error)

    async def end(self) -> None:
        """All is over for now. Raises where nothing was read, nor others can be."""
        async with self._asking:
            if self._unasked is not None and not self._read:
                await self._ask(self._unasked)

    def _is_suspicious(self) -> bool:
        return self._in_a_row >= IN_A_ROW or (self._since_asked >= MANY and len(self.failed) > self._read)

    async def _ask(self, error: StorageError) -> None:
        keys = list(self._others(OTHERS, self.failed))
        withheld: list[str] = []

        async def ask(key: str) -> None:
            if not await self._gives(key):
                withheld.append(key)

        await for_each(keys, ask, concurrency=OTHERS)
        if len(withheld) * 2 > len(keys) or (not keys and len(self.failed) > 1):
            raise Outage(
                f"{len(self.failed):,} objects of {self._storage.url} can't be read, nor can {len(withheld)} of "
                f"{len(keys)} others: that is no damage of single objects; see what is wrong with the store, or with "
                f"the permissions, and run the command again ({error})"
            ) from error
        self._in_a_row = self._since_asked = 0
        self._unasked = None

    async def _gives(self, key: str) -> bool:
        try:
            async with self._storage.open_read(key, length=1) as handle:
                async for _ in handle:
                    pass
        except NotFound:
            return True
        except StorageError as error:
            if is_fatal(error):
                raise
            return isinstance(error, Archived)
        return True


async def error_of_source(
    source: Storage, key: str, digest: Digest, size: int, error: StorageError
) -> StorageError | None:
    """A copy failed: why the source does not give the blob, by reading it once more; None where it does, and so what
    failed was the target, or of the moment."""
    if isinstance(error, Archived):
        return error
    try:
        await verified_size(source, key, digest, size)
    except StorageError as again:
        return again
    return None
