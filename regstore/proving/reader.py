"""Reading blobs and hashing them, on all cores, with bounded memory, and remembering what was proved: for stores and
backups alike.

An inventory's `blob` says what there is; what its `manifest` knows was read before. Blobs are taken in order: what was
wrong the last time, what was never proved, what was proved longest ago. The time limit is looked at every MiB.

Where the store can hash its own objects (a disk), a thread reads and hashes: the interpreter's lock is let go for
nearly all of it, so that worker processes, which start in some tenths of a second, have nothing to add; other
computers have. Elsewhere chunks come through an event loop, which keeps a core busy: what is much goes to the
runner's, in batches (`tasks`). What was wrong is read once more here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import Archived, NotFound, StorageError, Unsupported
from regstore.events import Event, Notice, OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.inventory.sample import other_blobs
from regstore.machine import usable_cores
from regstore.proving.memory import Blob, Memory
from regstore.proving.pick import CLOCKS_DIFFER, plan_reading
from regstore.proving.proofs import Proofs
from regstore.proving.read_data import Checksums, Wanted
from regstore.proving.result import Reading
from regstore.storage.base import Storage
from regstore.storage.optional import HashesObjects, KeepsChecksums, TellsChanges
from regstore.storage.outage import OutageWatch
from regstore.storage.sizes import RANGED
from regstore.storage.streams import is_fatal
from regstore.storage.transfer import READ, Lane, each_blob, read_by
from regstore.tasks.hashing import PHASE, HashBlobs, Hasher, hash_blobs
from regstore.tasks.packing import unpack_of_store
from regstore.tasks.sharing import WORTH_WORKERS, times

#: What one worker takes at a time: so many blobs, or as many as have so many bytes.
_BATCH_BLOBS: Final = 256
_BATCH_BYTES: Final = 32 << 20
#: In one task of another process, of small blobs.
_TASK_BLOBS: Final = 64
_TASK_BYTES: Final = 8 << 20
#: So many bytes make up for the start of processes.
_WORTH_BYTES: Final = 512 << 20


class BlobReader:
    """Reads what `plan_reading` chose. `rotten` (read twice, the same wrong bytes both times), `unread` (not to be had,
    or other bytes each time), `gone` and `unstable` fill up as it goes."""

    def __init__(
        self,
        storage: Storage,
        inventory: Inventory,
        wanted: Wanted,
        proofs: Proofs,
        key_of: Callable[[Digest], str],
        on_event: OnEvent = ignore,
        *,
        now: int,
    ) -> None:
        """now: the store's time, in microseconds."""
        self._storage = storage
        self._inventory = inventory
        self._wanted = wanted
        self._key_of = key_of
        self._proofs = proofs
        self._on_event = on_event
        self._now = now
        self._memory = Memory(storage, inventory, proofs, key_of, now=now)
        self._lock = threading.Lock()
        self._total = 0
        self._bytes = 0
        self._blobs = 0
        self._deadline = float("inf")
        self._stopped = False
        self._checksums = {"agree": 0, "differ": 0, "absent": 0}
        self._trusted = 0
        self._watch = OutageWatch(storage, other_blobs(inventory, key_of))
        self._hasher = Hasher(storage, on_bytes=self._count, on_step=self._progress, stopped=self._over)
        self.rotten: dict[bytes, str] = {}
        self.unread: dict[bytes, str] = {}
        self.gone: list[bytes] = []
        self.unstable: list[str] = []

    async def run(self, *, seed: int = 0) -> Reading:
        """Read, once, and leave reading_done(digest), what was right, in the inventory."""
        wanted, inventory = self._wanted, self._inventory
        started = time.monotonic()
        if wanted.time_limit is not None:
            self._deadline = started + wanted.time_limit
        await self._memory.load()
        if self._proofs.trouble:
            self._on_event(Notice(message=self._proofs.trouble))
        plan_reading(inventory, wanted.read, now=self._now, max_age=wanted.max_age, seed=seed)
        picked, self._total = inventory.all("select count(*), coalesce(sum(size), 0)::bigint from reading_pick")[0]
        await self._read(picked)
        return self._reading(picked, time.monotonic() - started)

    async def _read(self, picked: int) -> None:
        concurrency = max(self._wanted.concurrency, 1)
        try:
            if isinstance(self._storage, HashesObjects) and not (
                self._wanted.runner.is_far and self._is_much(picked)
            ):
                batches = self._batches(Lane(), _BATCH_BLOBS, _BATCH_BYTES)
                await for_each(batches, self._read_direct, concurrency=usable_cores() + 1)
            elif self._is_much(picked):
                road = read_by(self._wanted.runner.size)
                await each_blob(road, self._tasks_of, self._read_elsewhere, concurrency=concurrency)
            else:
                await each_blob(READ, self._one_by_one, self._read_streams, concurrency=concurrency)
            await self._watch.end()
        finally:
            self._stopped = True
            self._memory.flush()

    def _is_much(self, picked: int) -> bool:
        """Whether it is worth the start of processes."""
        runner, storage = self._wanted.runner, self._storage
        return runner.takes(picked, WORTH_WORKERS, storage) or runner.takes(self._total, _WORTH_BYTES, storage)

    def _one_by_one(self, lane: Lane) -> Iterator[list[Blob]]:
        return self._batches(lane, 1, _BATCH_BYTES)

    def _tasks_of(self, lane: Lane) -> Iterator[list[Blob]]:
        larger = times(self._wanted.runner)
        alone = lane.over >= (RANGED if larger > 1 else 0)
        return self._batches(lane, 1 if alone else _TASK_BLOBS * larger, _TASK_BYTES * larger)

    def _batches(self, lane: Lane, blobs: int, size: int) -> Iterator[list[Blob]]:
        """The picked blobs of a lane in order, at most so many at a time, or of so many bytes, until the time is
        over."""
        rows = self._inventory.connection.cursor()
        try:
            rows.execute(
                "select digest, size, time from reading_pick where size > ? and size <= ? order by place",
                [lane.over, lane.most],
            )
            batch: list[Blob] = []
            taken = 0
            while found := rows.fetchmany(_BATCH_BLOBS):
                for raw, length, changed in found:
                    if batch and (taken + length > size or len(batch) >= blobs):
                        if self._over():
                            return
                        yield batch
                        batch, taken = [], 0
                    batch.append(Blob(bytes(raw), length, changed))
                    taken += length
            if batch and not self._over():
                yield batch
        finally:
            rows.close()

    def _over(self) -> bool:
        return self._stopped or time.monotonic() >= self._deadline

    def _count(self, read: int) -> None:
        with self._lock:
            self._bytes += read

    async def _read_direct(self, batch: list[Blob]) -> None:
        assert isinstance(self._storage, HashesObjects)
        batch = await self._changed(await self._unvouched(batch))
        wanted = {self._key_of(blob.digest): blob for blob in batch}
        found = await self._storage.hash_objects(
            [(key, blob.digest.algorithm) for key, blob in wanted.items()], on_bytes=self._count, stopped=self._over
        )
        for key, outcome in found.items():
            await self._judge(wanted[key], outcome)
        self._progress()

    async def _read_streams(self, batch: list[Blob]) -> None:
        for blob in await self._unvouched(batch):
            if self._over():
                return
            outcome = await self._hash(blob)
            if outcome is None:
                return
            await self._judge(blob, outcome)
            self._progress()

    async def _read_elsewhere(self, batch: list[Blob]) -> None:
        """By tasks. Of a batch that stopped, since too much was not given, the rest is another task."""
        batch = await self._changed(await self._unvouched(batch))
        left = {self._key_of(blob.digest): blob for blob in batch}
        while left and not self._over():
            counted = 0

            def count(read: int) -> None:
                nonlocal counted
                self._count(read - counted)  # an attempt that died may have been further
                counted = read
                self._progress()

            def tell(event: Event, count: Callable[[int], None] = count) -> None:
                if isinstance(event, Progress):
                    count(event.done)
                else:
                    self._on_event(event)

            seconds = None if self._deadline == float("inf") else self._deadline - time.monotonic()
            work = HashBlobs(
                blobs=[(key, blob.digest.algorithm, blob.size) for key, blob in left.items()], seconds=seconds
            )
            found = await self._wanted.runner.run(hash_blobs, work, self._storage, on_event=tell)
            count(found.bytes)
            for key, outcome in found.outcomes.items():
                if isinstance(outcome, tuple):
                    await self._judge(left[key], outcome)
                else:
                    await self._judge(left[key], unpack_of_store(outcome))
            left = {key: left[key] for key in found.left}

    async def _hash(self, blob: Blob) -> tuple[int, str] | StorageError | None:
        return await self._hasher.hash(self._key_of(blob.digest), blob.digest.algorithm, blob.size)

    async def _judge(self, blob: Blob, outcome: tuple[int, str] | StorageError) -> None:
        key = self._key_of(blob.digest)
        wrong = self._wrong(blob, outcome)
        if isinstance(outcome, Archived):
            self.unread[blob.raw] = wrong
            self._inventory.note_archived(key)
        elif wrong:
            # Once more: what came over a bad line is not the store's fault, nor damage.
            again = await self._hash(blob)
            if again is None:  # the time is over: the next run looks there first
                self._memory.wrong(blob)
                return
            if isinstance(again, NotFound):
                return
            wrong_again = self._wrong(blob, again)
            if not wrong_again:
                self.unstable.append(f"{blob.digest}: {wrong} at first, then as it should be")
                wrong = ""
            elif isinstance(again, StorageError):
                await self._watch.bad(key, again)
                self.unread[blob.raw] = wrong_again
            elif again == outcome:
                self.rotten[blob.raw] = wrong
            else:
                self.unread[blob.raw] = f"it reads differently each time: {wrong}, then {wrong_again}"
        elif isinstance(outcome, NotFound):
            self.gone.append(blob.raw)
            return
        if blob.raw not in self.unread:
            self._watch.good()
        self._blobs += 1
        if wrong:
            self._memory.wrong(blob)
        else:
            self._memory.right(blob)

    def _wrong(self, blob: Blob, outcome: tuple[int, str] | StorageError) -> str:
        if isinstance(outcome, NotFound):
            return ""
        if isinstance(outcome, StorageError):
            if is_fatal(outcome):
                raise outcome
            return f"it can't be read: {outcome}"
        size, encoded = outcome
        if encoded == blob.digest.encoded:
            return ""
        return f"its {size:,} bytes have {blob.digest.algorithm}:{encoded}"

    def _progress(self) -> None:
        self._on_event(Progress(phase=PHASE, done=self._bytes, total=self._total, unit="bytes"))

    async def _unvouched(self, batch: list[Blob]) -> list[Blob]:
        """Those that must be read: all, unless the server's checksums are trusted."""
        if self._wanted.checksums is Checksums.IGNORE or not isinstance(self._storage, KeepsChecksums):
            return batch
        left = []
        for blob in batch:
            try:
                kept = await self._storage.kept_sha256(self._key_of(blob.digest))
            except (NotFound, Unsupported):
                kept = None
            agrees = kept == blob.raw
            self._checksums["absent" if kept is None else "agree" if agrees else "differ"] += 1
            if agrees and self._wanted.checksums is Checksums.TRUST:
                self._trusted += 1
            else:
                left.append(blob)
        return left

    async def _changed(self, batch: list[Blob]) -> list[Blob]:
        """With the times of their last change, as far as the store knows more of it than a listing says. Asked before
        they are read: what changes meanwhile is not proved."""
        if not isinstance(self._storage, TellsChanges):
            return batch
        found = await self._storage.changed_at([self._key_of(blob.digest) for blob in batch])
        return [Blob(blob.raw, blob.size, changed) for blob, changed in zip(batch, found, strict=True)]

    def _reading(self, picked: int, seconds: float) -> Reading:
        inventory, wanted, now = self._inventory, self._wanted, self._now
        seen = self._blobs + self._trusted + len(self.gone)
        known = known_bytes = 0
        if wanted.max_age is not None:
            known, known_bytes = inventory.all(
                "select count(*), coalesce(sum(size), 0)::bigint from reading_blob"
                f" where not manifest and proved between {now - wanted.max_age} and {now + CLOCKS_DIFFER}"
            )[0]
        never, never_bytes, oldest = inventory.all(
            f"""
            select count(*) filter (last is null), coalesce(sum(size) filter (last is null), 0)::bigint, min(last)
            from (
                select p.size, case when p.manifest or d.digest is not null then {now} else p.proved end as last
                from reading_blob p left join reading_done d on d.digest = p.digest
            )
            """
        )[0]
        return Reading(
            blobs=self._blobs,
            bytes=self._bytes,
            manifests=inventory.one("select count(*) from reading_blob where manifest"),
            known=known,
            known_bytes=known_bytes,
            trusted=self._trusted,
            checksums_agree=self._checksums["agree"],
            checksums_differ=self._checksums["differ"],
            checksums_absent=self._checksums["absent"],
            left=max(0, picked - seen),
            left_bytes=max(0, self._total - self._bytes) if picked > seen else 0,
            unstable=tuple(self.unstable),
            never_proved=never,
            never_proved_bytes=never_bytes,
            oldest=None if never else oldest,
            seconds=seconds,
        )
