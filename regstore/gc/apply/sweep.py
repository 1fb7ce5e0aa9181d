"""Blobs that nothing reaches go: to the trash, or for good; and nothing goes that a late push needs.

When it begins all links of the plan are gone, or known not to go. In order, a thousand blobs at a time:

1. where the last look at all links is too long ago, there is another (`gc.apply.looks`); what it reaches stays;
2. the lock is asked for, and the batch is journaled;
3. with the trash: the copies are made and *listed*, and only a blob whose copy was listed with its size goes on; on a
   disk the blob is moved, which is both at once. Copies take their time, so step 1 is asked once more;
4. the blobs are deleted, and the registry's cache is told.

Cut short between any two, a blob is where it was, or its copy is in the trash and the journal names it.

Copies may be made by worker processes (the scan's runner): they take nothing away, so they need no lock, and one that
was begun twice, for a worker died, has replaced its target with the same bytes before the trash is listed. Whatever
takes something away, deletes and the moves on a disk, is done here, beside the lock and the journal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regstore.concurrency import for_each, wait
from regstore.errors import NotFound, StorageError
from regstore.events import Progress
from regstore.gc.apply.application import BATCH, Application
from regstore.gc.apply.candidates import Blob, Candidates
from regstore.gc.apply.looks import Looks
from regstore.gc.heal import Healed
from regstore.state.journal import TRASHED, UNLINK, Entry
from regstore.storage.base import Page
from regstore.tasks.packing import unpack
from regstore.tasks.runner import Here, Runner
from regstore.tasks.trashing import CopyKeys, copy_keys

#: Blobs that a report names where they are not as planned.
_NAMED = 5
#: So many candidates make up for the start of processes.
_WORTH_WORKERS = 3_000
#: In one task of another process, at least.
_TASK_BLOBS = 50


@dataclass(frozen=True, kw_only=True)
class Swept:
    """blobs, blob_bytes: what went. vanished: how many somebody else had deleted when their turn came, and the digests
    of some of these. kept: candidates that came into use. healed: what came back meanwhile."""

    blobs: int
    blob_bytes: int
    vanished: int
    vanished_digests: tuple[str, ...]
    kept: int
    healed: Healed


class Sweep:
    """One sweep, by the plan of an application whose links have gone."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._candidates = Candidates(application.inventory)
        self._looks = Looks(application, self._candidates)
        self._blobs = 0
        self._blob_bytes = 0
        self._vanished: list[Blob] = []

    async def run(self) -> Swept:
        application = self._application
        # A tag that would not go still needs its blobs.
        unchanged = application.options.offline and not application.failures
        if not unchanged and len(self._candidates):
            await self._looks.before_blobs()
        await self._remove()
        return Swept(
            blobs=self._blobs,
            blob_bytes=self._blob_bytes,
            vanished=len(self._vanished),
            vanished_digests=tuple(blob.digest for blob in self._vanished[:_NAMED]),
            kept=self._looks.kept,
            healed=self._looks.healed,
        )

    async def settle(self) -> Healed:
        """A last look: what was linked while blobs were moved is given back."""
        application = self._application
        await wait(application.options.settle, "waiting before the last look", application.on_event)
        return await self._looks.last()

    async def _remove(self) -> None:
        """Every candidate, a thousand at a time in the order of their keys."""
        application, total = self._application, len(self._candidates)
        done = position = 0
        while batch := self._candidates.after(position, BATCH):
            position = batch[-1].position
            application.on_event(Progress(phase="removing blobs", done=done, total=total, unit="blobs"))
            done += len(batch)
            gone = await self._remove_some(batch)
            self._candidates.done(batch, gone)
            await application.cache.forget_blobs(blob.digest for blob in gone)
        application.on_event(Progress(phase="removing blobs", done=done, total=max(total, done), unit="blobs"))

    async def _remove_some(self, batch: Sequence[Blob]) -> list[Blob]:
        """Those that are not there any more: removed, or vanished."""
        known = len(self._vanished)
        taken: list[Blob] = []
        if dead := await self._still_dead(batch):
            taken = await (self._trash(dead) if self._application.options.trash else self._delete_for_good(dead))
        self._blobs += len(taken)
        self._blob_bytes += sum(blob.size for blob in taken)
        return [*taken, *self._vanished[known:]]

    async def _still_dead(self, batch: Sequence[Blob]) -> Sequence[Blob]:
        """Those that may go now."""
        return self._candidates.still(batch) if await self._looks.renew() else batch

    async def _delete_for_good(self, batch: Sequence[Blob]) -> list[Blob]:
        await self._application.lock.guard()
        await self._application.journal.write(Entry(UNLINK, blob.key, blob.size, blob.mtime) for blob in batch)
        return await self._delete(batch)

    async def _delete(self, batch: Sequence[Blob]) -> list[Blob]:
        outcomes = await self._application.lock.delete_many([blob.key for blob in batch])
        self._application.failures.note(outcomes)
        return [blob for blob in batch if outcomes[blob.key] is None]

    async def _trash(self, batch: Sequence[Blob]) -> list[Blob]:
        """A blob is deleted only after a listing has shown its copy with equal size."""
        application = self._application
        await application.lock.guard()
        await application.journal.write(Entry(TRASHED, blob.key, blob.size, blob.mtime) for blob in batch)
        if (await application.storage.capabilities()).atomic_rename:
            async with application.lock.batch():
                return await self._move(batch)
        # Copies take nothing away, and large ones take their time: only the deletes below need the lease.
        copied = await self._copy(batch)
        if not copied:
            return []
        safe = await self._listed_with_their_size(batch, copied)
        if safe:
            safe = list(await self._still_dead(safe))
        return await self._delete(safe)

    async def _move(self, batch: Sequence[Blob]) -> list[Blob]:
        """Move them to the trash; those for which that was done."""
        storage, trash = self._application.storage, self._application.journal.trash
        outcomes: dict[str, StorageError | None] = {}

        async def move(blob: Blob) -> None:
            try:
                await storage.move(blob.key, trash + blob.key, size=blob.size)
            except StorageError as error:
                outcomes[blob.key] = error
            else:
                outcomes[blob.key] = None

        await for_each(batch, move, concurrency=self._application.concurrency)
        return self._taken(batch, outcomes)

    async def _copy(self, batch: Sequence[Blob]) -> list[Blob]:
        """Copy them to the trash; those for which that was done."""
        application, trash = self._application, self._application.journal.trash
        outcomes: dict[str, StorageError | None] = {}
        runner, part, at_once = self._by_whom(len(batch))

        async def copy(blobs: Sequence[Blob]) -> None:
            work = CopyKeys(copies=[(blob.key, trash + blob.key, blob.size) for blob in blobs])
            found = await runner.run(copy_keys, work, application.storage, on_event=application.on_event)
            for key, packed in found.items():
                error = None if packed is None else unpack(packed)
                assert error is None or isinstance(error, StorageError)
                outcomes[key] = error

        parts = (batch[start : start + part] for start in range(0, len(batch), part))
        await for_each(parts, copy, concurrency=at_once)
        return self._taken(batch, outcomes)

    def _by_whom(self, blobs: int) -> tuple[Runner, int, int]:
        """Who copies, how many blobs in one task, and how many tasks at a time."""
        application = self._application
        runner = application.scan.runner
        if not runner.takes(len(self._candidates), _WORTH_WORKERS, application.storage):
            return Here(application.concurrency), max(blobs, 1), 1
        at_once = 2 * runner.size
        return runner, max(_TASK_BLOBS, -(-blobs // at_once)), at_once

    def _taken(self, batch: Sequence[Blob], outcomes: dict[str, StorageError | None]) -> list[Blob]:
        """Those that were; what had vanished, or was refused, is noted."""
        gone = {key for key, error in outcomes.items() if isinstance(error, NotFound)}
        self._vanished += (blob for blob in batch if blob.key in gone)
        self._application.failures.note({key: error for key, error in outcomes.items() if key not in gone})
        return [blob for blob in batch if outcomes[blob.key] is None]

    async def _listed_with_their_size(self, batch: Sequence[Blob], copied: Sequence[Blob]) -> list[Blob]:
        """Those of the copied whose copy is listed as it must be; the others stay, and are reported."""
        trash = self._application.journal.trash
        sizes = await self._sizes(trash, batch[0].key, batch[-1].key)
        safe = [blob for blob in copied if sizes.get(trash + blob.key) == blob.size]
        for blob in copied:
            if sizes.get(trash + blob.key) != blob.size:
                self._application.failures.add(
                    blob.key, "its copy in the trash was not listed with its size; it stays"
                )
        return safe

    async def _sizes(self, prefix: str, first: str, last: str) -> dict[str, int]:
        """Sizes of the keys from first to last below the prefix, by one listing of that range."""
        sizes: dict[str, int] = {}
        async for page in self._application.storage.list(prefix, start_after=prefix + first[:-1]):
            sizes |= dict(zip(page.keys, page.sizes, strict=True))
            if _passed(page, prefix + last):
                break
        return sizes


def _passed(page: Page, last: str) -> bool:
    return bool(page.keys) and page.keys[-1] >= last
