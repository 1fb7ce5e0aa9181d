"""Blobs that nothing reaches go: to the trash, or for good; and nothing goes that a late push needs.

When it begins all links of the plan are gone, or known not to go. In order, a thousand blobs at a time:

1. where the last look at all links is too long ago, there is another (`gc.apply.looks`); what it reaches stays;
2. the lock is asked for, and the batch is journaled;
3. with the trash: the copies are made and *listed*, and only a blob whose copy was listed with its size goes on; on a
   disk the blob is moved, which is both at once. Copies take their time, so step 1 is asked once more;
4. the blobs are deleted, and the registry's cache is told.

Cut short between any two, a blob is where it was, or its copy is in the trash and the journal names it.
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

#: Blobs that a report names where they are not as planned.
_NAMED = 5


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
                return await self._take(batch, rename=True)
        # Copies take nothing away, and large ones take their time: only the deletes below need the lease.
        copied = await self._take(batch, rename=False)
        if not copied:
            return []
        safe = await self._listed_with_their_size(batch, copied)
        if safe:
            safe = list(await self._still_dead(safe))
        return await self._delete(safe)

    async def _take(self, batch: Sequence[Blob], *, rename: bool) -> list[Blob]:
        """Move or copy them to the trash; those for which that was done."""
        storage, trash = self._application.storage, self._application.journal.trash
        taken: list[Blob] = []
        outcomes: dict[str, StorageError | None] = {}

        async def take(blob: Blob) -> None:
            try:
                if rename:
                    await storage.move(blob.key, trash + blob.key, size=blob.size)
                else:
                    await storage.copy(blob.key, trash + blob.key, size=blob.size)
            except NotFound:
                self._vanished.append(blob)
                return
            except StorageError as error:
                outcomes[blob.key] = error
                return
            outcomes[blob.key] = None
            taken.append(blob)

        await for_each(batch, take, concurrency=self._application.concurrency)
        self._application.failures.note(outcomes)
        return taken

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
