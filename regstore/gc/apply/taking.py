"""A batch of blobs goes: to the trash, or for good. Who decides which, and until when, is told here (`Still`).

1. those that may not go now are left;
2. the lock is asked for, and the rest is journaled;
3. with the trash: the copies are made and *listed*, and only a blob whose copy was listed with its size goes on; on a
   disk the blob is moved, which is both at once. Copies take their time, so step 1 is asked once more;
4. the blobs are deleted.

Cut short between any two, a blob is where it was, or its copy is in the trash and the journal names it.

Copies may be made by worker processes (a runner): they take nothing away, so they need no lock, and one that was begun
twice, for a worker died, has replaced its target with the same bytes before the trash is listed. Whatever takes
something away, deletes and the moves on a disk, is done here, beside the lock and the journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from regstore.concurrency import for_each
from regstore.errors import NotFound, StorageError
from regstore.events import OnEvent, ignore
from regstore.gc.apply.candidates import Blob
from regstore.gc.failures import Failures
from regstore.state.journal import TRASHED, UNLINK, Entry, JournalWriter
from regstore.state.lock import Leave
from regstore.storage.base import Storage
from regstore.tasks.packing import unpack_of_store
from regstore.tasks.runner import HERE, Here, Runner
from regstore.tasks.sharing import WORTH_WORKERS
from regstore.tasks.trashing import CopyKeys, copy_keys

#: In one task of another process, at least.
_TASK_BLOBS: Final = 50
#: Of these blobs, those that may go now.
Still = Callable[[Sequence[Blob]], Awaitable[Sequence[Blob]]]


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What came of a batch; a blob that is in none of these was left. vanished: somebody else had deleted it. failed:
    what the store would not do, by key."""

    gone: Sequence[Blob] = ()
    vanished: Sequence[Blob] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Taking:
    """How blobs go in one process. failures: gets what the store would not do. trash: not for good. runner: who copies
    what is much; left: how many blobs may yet go."""

    storage: Storage
    lock: Leave
    journal: JournalWriter
    failures: Failures
    trash: bool
    concurrency: int
    still: Still
    runner: Runner = HERE
    left: Callable[[], int] = lambda: 0
    on_event: OnEvent = ignore

    async def take(self, batch: Sequence[Blob]) -> Taken:
        """In the order of their keys."""
        dead = await self.still(batch)
        if not dead:
            return Taken()
        await self.lock.guard()
        op = TRASHED if self.trash else UNLINK
        await self.journal.write(Entry(op, blob.key, blob.size, blob.mtime) for blob in dead)
        if not self.trash:
            return _taken(dead, await self._delete(dead))
        if (await self.storage.capabilities()).atomic_rename:
            async with self.lock.batch():
                moved = await self._move(dead)
            self._note(moved)
            return _taken(dead, moved)
        return await self._trash(dead)

    async def _trash(self, batch: Sequence[Blob]) -> Taken:
        """A blob is deleted only after a listing has shown its copy with equal size."""
        # Copies take nothing away, and large ones take their time: only the deletes below need the lease.
        copied = await self._copy(batch)
        self._note(copied)
        taken = _taken(batch, copied)
        if not taken.gone:
            return taken
        sizes = await self.copies(batch[0], batch[-1])
        safe: list[Blob] = []
        failed = dict(taken.failed)
        for blob in taken.gone:
            if sizes.get(blob.key) == blob.size:
                safe.append(blob)
            else:
                failed[blob.key] = "its copy in the trash was not listed with its size; it stays"
                self.failures.add(blob.key, failed[blob.key])
        if safe:
            safe = list(await self.still(safe))
        deleted = _taken(safe, await self._delete(safe))
        return Taken(gone=deleted.gone, vanished=taken.vanished, failed={**failed, **deleted.failed})

    def _note(self, outcomes: Mapping[str, StorageError | None]) -> None:
        self.failures.note({key: error for key, error in outcomes.items() if not isinstance(error, NotFound)})

    async def _delete(self, batch: Sequence[Blob]) -> dict[str, StorageError | None]:
        outcomes = await self.lock.delete_many([blob.key for blob in batch])
        self.failures.note(outcomes)
        return outcomes

    async def _move(self, batch: Sequence[Blob]) -> dict[str, StorageError | None]:
        """Move them to the trash."""
        outcomes: dict[str, StorageError | None] = {}

        async def move(blob: Blob) -> None:
            try:
                await self.storage.move(blob.key, self.journal.trash + blob.key, size=blob.size)
            except StorageError as error:
                outcomes[blob.key] = error
            else:
                outcomes[blob.key] = None

        await for_each(batch, move, concurrency=self.concurrency)
        return outcomes

    async def _copy(self, batch: Sequence[Blob]) -> dict[str, StorageError | None]:
        """Copy them to the trash."""
        trash = self.journal.trash
        outcomes: dict[str, StorageError | None] = {}
        runner, part, at_once = self._by_whom(len(batch))

        async def copy(blobs: Sequence[Blob]) -> None:
            work = CopyKeys(copies=[(blob.key, trash + blob.key, blob.size) for blob in blobs])
            found = await runner.run(copy_keys, work, self.storage, on_event=self.on_event)
            for key, packed in found.items():
                outcomes[key] = None if packed is None else unpack_of_store(packed)

        parts = (batch[start : start + part] for start in range(0, len(batch), part))
        await for_each(parts, copy, concurrency=at_once)
        return outcomes

    def _by_whom(self, blobs: int) -> tuple[Runner, int, int]:
        """Who copies, how many blobs in one task, and how many tasks at a time."""
        if not self.runner.takes(self.left(), WORTH_WORKERS, self.storage):
            return Here(self.concurrency), max(blobs, 1), 1
        at_once = 2 * self.runner.size
        return self.runner, max(_TASK_BLOBS, -(-blobs // at_once)), at_once

    async def copies(self, first: Blob, last: Blob) -> dict[str, int]:
        """Sizes of the copies in the trash of the keys from first to last, by the keys as they were; one listing of
        that range."""
        sizes: dict[str, int] = {}
        trash = self.journal.trash
        async for page in self.storage.list(trash, start_after=trash + first.key[:-1]):
            some = page.up_to(trash + last.key)
            sizes |= {key[len(trash) :]: size for key, size in zip(some.keys, some.sizes, strict=True)}
            if page.keys and page.keys[-1] >= trash + last.key:
                break
        return sizes


def _taken(batch: Sequence[Blob], outcomes: Mapping[str, StorageError | None]) -> Taken:
    """By what came of each key."""
    gone = [blob for blob in batch if outcomes[blob.key] is None]
    vanished = [blob for blob in batch if isinstance(outcomes[blob.key], NotFound)]
    left = {key: error for key, error in outcomes.items() if error is not None}
    failed = {key: str(error) for key, error in left.items() if not isinstance(error, NotFound)}
    return Taken(gone=gone, vanished=vanished, failed=failed)
