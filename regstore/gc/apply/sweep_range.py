"""A task: blobs of a range go, in whatever process.

Whoever asks holds the lock, has made a look at all links, and says until when that stands; what the task does not come
to in time is `LATE`, to be asked for again after another look. A batch's blobs are looked at again first, and one that
is not as it was planned is left alone. The rest is as in one process (`taking`): the journal first, in parts of this
attempt; then the copies, which are listed; then the deletes.

A further attempt does all of this again. What it finds gone, with a copy in the run's trash, an earlier one took. What
that one had asked for may yet be done, so its deletes count as repeated, and the run as not settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import NotFound
from regstore.gc.apply.application import BATCH
from regstore.gc.apply.candidates import Blob
from regstore.gc.apply.fate import Fate
from regstore.gc.apply.taking import Taking
from regstore.gc.failures import Failures
from regstore.state.journal import AttemptJournal
from regstore.state.lock_view import LockView
from regstore.storage.base import ObjectInfo
from regstore.storage.clock import clock
from regstore.storage.optional import latest
from regstore.tasks.runner import Context

#: Pages of a range, some 10^4 keys, that are listed for a batch. A wider one costs more than to ask for each blob.
_PAGES: Final = 20
_SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRange:
    """Blobs that may go, as columns: digests (the hash's own bytes), sizes, and times in microseconds, as they were
    listed. run, lease: of the lock that stands. shard: no other work of the run has it. trash: not for good. until: by
    the store's clock, when the last look at all links stands no longer."""

    run: str
    lease: float
    shard: int
    trash: bool
    until: int
    digests: Sequence[bytes]
    sizes: Sequence[int]
    mtimes: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptRange:
    """fates: of each blob, in the order in which they were given. reasons: why some failed, by digest.
    repeated_deletes: as `Counters` has it, of this task; for whoever is not told of these otherwise."""

    fates: Sequence[Fate]
    reasons: dict[bytes, str]
    repeated_deletes: int


async def sweep_range(context: Context, work: SweepRange) -> SweptRange:
    """LockLost where the lock is; what was done until then, the journal says."""
    return await _Range(context, work).sweep()


class _Range:
    def __init__(self, context: Context, work: SweepRange) -> None:
        self._storage: Final = context.store
        self._concurrency: Final = context.concurrency
        self._is_again: Final = context.is_again
        self._work: Final = work
        self._journal = AttemptJournal(
            self._storage, work.run, shard=work.shard, step="sweep", attempt=context.attempt
        )
        self._taking = Taking(
            storage=self._storage,
            lock=LockView(self._storage, work.run, work.lease),
            journal=self._journal,
            failures=Failures(self._storage.url),
            trash=work.trash,
            concurrency=context.concurrency,
            still=self._still,
        )
        self._fates: dict[str, Fate] = {}
        self._looked_at: set[str] = set()
        self._due_at = 0.0

    async def sweep(self) -> SweptRange:
        work, counters = self._work, self._storage.counters
        before = counters.repeated_deletes
        if self._is_again:
            counters.repeated_deletes += len(work.digests)
        asked = clock()
        self._due_at = asked + (work.until - await latest(self._storage)) / _SECOND
        blobs = self._blobs()
        in_order = sorted(blobs, key=lambda blob: blob.key)
        reasons: dict[bytes, str] = {}
        for start in range(0, len(in_order), BATCH):
            batch = in_order[start : start + BATCH]
            taken = await self._taking.take(batch)
            self._fates |= {blob.key: Fate.TAKEN for blob in taken.gone}
            self._fates |= {blob.key: Fate.VANISHED for blob in taken.vanished}
            self._fates |= dict.fromkeys(taken.failed, Fate.FAILED)
            reasons |= {blob.raw: taken.failed[blob.key] for blob in batch if blob.key in taken.failed}
        return SweptRange(
            fates=[self._fates[blob.key] for blob in blobs],
            reasons=reasons,
            repeated_deletes=counters.repeated_deletes - before,
        )

    def _blobs(self) -> list[Blob]:
        work = self._work
        rows = zip(work.digests, work.sizes, work.mtimes, strict=True)
        return [
            Blob(position, layout.blob_key(Digest.from_raw(raw)), raw, size, mtime)
            for position, (raw, size, mtime) in enumerate(rows)
        ]

    async def _still(self, batch: Sequence[Blob]) -> Sequence[Blob]:
        """Those that are as they were planned, while the look stands. Asked once more, only whether it does."""
        if all(blob.key in self._looked_at for blob in batch):
            unchanged = list(batch)
        else:
            unchanged = await self._unchanged(batch)
        if clock() >= self._due_at:
            self._fates |= {blob.key: Fate.LATE for blob in unchanged}
            return []
        return unchanged

    async def _unchanged(self, batch: Sequence[Blob]) -> list[Blob]:
        found = await self._found(batch)
        gone = [blob for blob in batch if blob.key not in found]
        if gone:
            taken = await self._taken_before(gone)
            self._fates |= {blob.key: Fate.TAKEN if blob.key in taken else Fate.VANISHED for blob in gone}
        unchanged = []
        for blob in batch:
            info = found.get(blob.key)
            if info is not None and _is_same(info, blob):
                unchanged.append(blob)
            elif info is not None:
                self._fates[blob.key] = Fate.KEPT
        self._looked_at |= {blob.key for blob in batch}
        return unchanged

    async def _taken_before(self, gone: Sequence[Blob]) -> set[str]:
        """Keys of those that this run has taken."""
        if not self._work.trash:
            return {entry.key for entry in await self._journal.written_before()} if self._is_again else set()
        copies = await self._taking.copies(gone[0], gone[-1])
        return {blob.key for blob in gone if copies.get(blob.key) == blob.size}

    async def _found(self, batch: Sequence[Blob]) -> dict[str, ObjectInfo]:
        """Those that stand now."""
        wanted, last = {blob.key for blob in batch}, batch[-1].key
        found: dict[str, ObjectInfo] = {}
        pages = 0
        async for page in self._storage.list(layout.BLOBS, start_after=batch[0].key[:-1]):
            found |= {info.key: info for info in page.objects() if info.key in wanted}
            pages += 1
            if page.keys and page.keys[-1] >= last:
                return found
            if pages == _PAGES:
                behind = page.keys[-1] if page.keys else ""
                await self._ask_for([blob for blob in batch if blob.key > behind], found)
                return found
        return found

    async def _ask_for(self, blobs: Sequence[Blob], found: dict[str, ObjectInfo]) -> None:
        async def ask(blob: Blob) -> None:
            try:
                info = await self._storage.stat(blob.key)
            except NotFound:
                return
            found[blob.key] = info

        await for_each(blobs, ask, concurrency=self._concurrency)


def _is_same(info: ObjectInfo, blob: Blob) -> bool:
    """Whether this is the blob that was planned. A server may tell parts of a second in a listing, and not otherwise;
    and where the plan goes by what it told otherwise, that was taken for as late as it may be (`reported.again`). What
    was written again later in the same second has a later time."""
    same_second = info.mtime // _SECOND == blob.mtime // _SECOND
    return info.size == blob.size and same_second and info.mtime <= blob.mtime
