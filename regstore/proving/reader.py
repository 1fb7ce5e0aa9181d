"""Reading blobs and hashing them, on all cores, with bounded memory, and remembering what was proved: for stores and
backups alike.

An inventory's `blob` says what there is; what its `manifest` knows was read before. Blobs are taken in order: what was
wrong the last time, what was never proved, what was proved longest ago. The time limit is looked at every MiB.

Hashing runs in threads, for hashlib lets go of the interpreter while it works. Where the store can hash its own objects
(a disk), a thread reads and hashes; elsewhere chunks come through the event loop, and the next ones arrive while
a thread hashes the last.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from regstore.concurrency import for_each, task_group
from regstore.digest import Digest
from regstore.errors import Archived, NotFound, StorageError, Unsupported
from regstore.events import Notice, OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.inventory.sample import other_blobs
from regstore.proving.pick import CLOCKS_DIFFER, plan_reading
from regstore.proving.proofs import Proof, Proofs
from regstore.proving.read_data import Checksums, Wanted
from regstore.storage.base import Storage
from regstore.storage.optional import HashesObjects, KeepsChecksums, TellsChanges
from regstore.storage.outage import OutageWatch
from regstore.storage.streams import LARGE_STREAMS, RANGED, is_fatal, read_blob

#: What one worker takes at a time: so many blobs, or as many as have so many bytes.
_BATCH_BLOBS: Final = 256
_BATCH_BYTES: Final = 32 << 20
#: Files whose change is looked at in one call.
_CHANGES: Final = 1000
#: Bytes handed to a hashing thread at once; what is smaller in all is hashed in place.
_STEP: Final = 1 << 20
_SMALL: Final = 64 << 10
#: (blobs up to so many bytes, so many at a time). Few of the large ones, so that some are through when the time is
#: over; each of them is read in several ranges at a time.
_LANES: Final = ((1 << 20, 128), (RANGED, 16), (None, LARGE_STREAMS))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read, and what that says of the whole store. Sizes in bytes; proofs are of all runs so far.

    manifests: read by the scan. known: proved within max_age, so not read. trusted: vouched for by the server only,
    as asked. checksums: blobs whose server-side checksum agreed, those where it did not, and those without one.
    left: chosen, but the time was over. unstable: read wrong once and right the second time.
    oldest: the time of the oldest proof that counts, in microseconds; None where some blob was never proved.
    """

    blobs: int = 0
    bytes: int = 0
    manifests: int = 0
    known: int = 0
    known_bytes: int = 0
    trusted: int = 0
    checksums_agree: int = 0
    checksums_differ: int = 0
    checksums_absent: int = 0
    left: int = 0
    left_bytes: int = 0
    unstable: tuple[str, ...] = ()
    never_proved: int = 0
    never_proved_bytes: int = 0
    oldest: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Blob:
    """time: of the last change, as far as the store tells it, in microseconds."""

    raw: bytes
    size: int
    time: int

    @property
    def digest(self) -> Digest:
        return Digest.from_raw(self.raw)


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
    ) -> None:
        self._storage = storage
        self._inventory = inventory
        self._wanted = wanted
        self._key_of = key_of
        self._proofs = proofs
        self._on_event = on_event
        self._lock = threading.Lock()
        self._bytes = 0
        self._blobs = 0
        self._deadline = float("inf")
        self._stopped = False
        self._unsaved: list[Proof] = []
        self._checksums = {"agree": 0, "differ": 0, "absent": 0}
        self._trusted = 0
        self._watch = OutageWatch(storage, other_blobs(inventory, key_of))
        self.rotten: dict[bytes, str] = {}
        self.unread: dict[bytes, str] = {}
        self.gone: list[bytes] = []
        self.unstable: list[str] = []

    async def run(self, *, now: int, seed: int = 0) -> Reading:
        """Read, and leave reading_done(digest), what was right, in the inventory. now: the store's time."""
        wanted, inventory = self._wanted, self._inventory
        started = time.monotonic()
        if wanted.time_limit is not None:
            self._deadline = started + wanted.time_limit
        self._load_proofs()
        await self._look_for_changes()
        plan_reading(inventory, wanted.read, now=now, max_age=wanted.max_age, seed=seed)
        self._now = now
        picked, total = inventory.all("select count(*), coalesce(sum(size), 0)::bigint from reading_pick")[0]
        self._total = total
        self._inventory.execute("create or replace table reading_done (digest blob)")
        await self._read()
        return self._reading(picked, total, now, time.monotonic() - started)

    def _load_proofs(self) -> None:
        run = self._inventory.execute
        run("create or replace table reading_proof (digest blob, size bigint, time bigint, proved bigint)")
        run("create table if not exists reading_suspect (digest blob)")
        for batch in self._proofs.load():
            self._inventory.insert(
                "reading_proof",
                {
                    "digest": ("binary", [one.digest for one in batch]),
                    "size": ("int64", [one.size for one in batch]),
                    "time": ("int64", [one.time for one in batch]),
                    "proved": ("int64", [one.proved for one in batch]),
                },
            )
        if self._proofs.trouble:
            self._on_event(Notice(message=self._proofs.trouble))

    async def _look_for_changes(self) -> None:
        """When the files themselves were changed, of those that were proved: `cp -a` keeps an mtime."""
        inventory = self._inventory
        inventory.execute("create or replace table reading_changed (digest blob, time bigint)")
        if not isinstance(self._storage, TellsChanges):
            return
        rows = inventory.connection.cursor()
        try:
            rows.execute("select digest from blob where digest in (select digest from reading_proof)")
            while found := rows.fetchmany(_CHANGES):
                digests = [bytes(raw) for (raw,) in found]
                times = await self._storage.changed_at([self._key_of(Digest.from_raw(raw)) for raw in digests])
                inventory.insert("reading_changed", {"digest": ("binary", digests), "time": ("int64", times)})
        finally:
            rows.close()

    async def _read(self) -> None:
        cores = os.cpu_count() or 1
        with ThreadPoolExecutor(cores, thread_name_prefix="regstore-hash") as threads:
            self._threads = threads
            try:
                if isinstance(self._storage, HashesObjects):
                    await for_each(self._batches(), self._read_direct, concurrency=cores + 1)
                else:
                    await self._read_lanes()
                await self._watch.end()
            finally:
                self._stopped = True
                self._flush()

    async def _read_lanes(self) -> None:
        async with task_group() as group:
            least = -1
            for most, streams in _LANES:
                lane = f"size > {least}" + ("" if most is None else f" and size <= {most}")
                streams = min(streams, max(self._wanted.concurrency, 1))
                group.create_task(for_each(self._batches(lane, 1), self._read_streams, concurrency=streams))
                least = most or 0

    def _batches(self, lane: str = "true", blobs: int = _BATCH_BLOBS) -> Iterator[list[_Blob]]:
        """The picked blobs of a lane in order, at most so many at a time, until the time is over."""
        rows = self._inventory.connection.cursor()
        try:
            rows.execute(f"select digest, size, time from reading_pick where {lane} order by place")
            batch: list[_Blob] = []
            taken = 0
            while found := rows.fetchmany(_BATCH_BLOBS):
                for raw, size, changed in found:
                    if batch and (taken + size > _BATCH_BYTES or len(batch) >= blobs):
                        if self._over():
                            return
                        yield batch
                        batch, taken = [], 0
                    batch.append(_Blob(bytes(raw), size, changed))
                    taken += size
            if batch and not self._over():
                yield batch
        finally:
            rows.close()

    def _over(self) -> bool:
        return self._stopped or time.monotonic() >= self._deadline

    def _count(self, read: int) -> None:
        with self._lock:
            self._bytes += read

    async def _read_direct(self, batch: list[_Blob]) -> None:
        assert isinstance(self._storage, HashesObjects)
        batch = await self._unvouched(batch)
        if isinstance(self._storage, TellsChanges):  # before it is read: what changes meanwhile is not proved
            times = await self._storage.changed_at([self._key_of(blob.digest) for blob in batch])
            batch = [_Blob(blob.raw, blob.size, changed) for blob, changed in zip(batch, times, strict=True)]
        wanted = {self._key_of(blob.digest): blob for blob in batch}
        found = await self._storage.hash_objects(
            [(key, blob.digest.algorithm) for key, blob in wanted.items()], on_bytes=self._count, stopped=self._over
        )
        for key, outcome in found.items():
            await self._judge(wanted[key], outcome)
        self._progress()

    async def _read_streams(self, batch: list[_Blob]) -> None:
        for blob in await self._unvouched(batch):
            if self._over():
                return
            outcome = await self._hash(blob)
            if outcome is None:
                return
            await self._judge(blob, outcome)
            self._progress()

    async def _hash(self, blob: _Blob) -> tuple[int, str] | StorageError | None:
        """Bytes and hash of one stream, or why there is none; None when the time was over."""
        running = hashlib.new(blob.digest.algorithm)
        loop = asyncio.get_running_loop()
        pending: asyncio.Future[None] | None = None
        chunks: list[bytes] = []
        gathered = size = 0

        def update(pieces: list[bytes]) -> None:
            for piece in pieces:
                running.update(piece)

        try:
            # As a stream, whatever its size: `get` is for what is wanted whole.
            size_said = max(blob.size, _STEP + 1)
            async with aclosing(read_blob(self._storage, self._key_of(blob.digest), size_said)) as stream:
                async for chunk in stream:
                    chunks.append(chunk)
                    gathered += len(chunk)
                    size += len(chunk)
                    self._count(len(chunk))
                    if gathered >= _STEP:
                        if pending is not None:
                            await pending
                        pending = loop.run_in_executor(self._threads, update, chunks)
                        chunks, gathered = [], 0
                        if self._over():
                            return None
                        self._progress()
        except StorageError as error:
            return error
        finally:
            if pending is not None:
                await asyncio.wait([pending])
        if gathered > _SMALL:
            await loop.run_in_executor(self._threads, update, chunks)
        else:
            update(chunks)
        return size, running.hexdigest()

    async def _judge(self, blob: _Blob, outcome: tuple[int, str] | StorageError) -> None:
        key = self._key_of(blob.digest)
        wrong = self._wrong(blob, outcome)
        if isinstance(outcome, Archived):
            self.unread[blob.raw] = wrong
            self._inventory.note_archived(key)
        elif wrong:
            # Once more: what came over a bad line is not the store's fault, nor damage.
            again = await self._hash(blob)
            if again is None:  # the time is over: the next run looks there first
                self._proofs.save([Proof(blob.raw, blob.size, blob.time, 0)])
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
            self._proofs.save([Proof(blob.raw, blob.size, blob.time, 0)])
        else:
            self._prove(blob)

    def _wrong(self, blob: _Blob, outcome: tuple[int, str] | StorageError) -> str:
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

    def _prove(self, blob: _Blob) -> None:
        self._unsaved.append(Proof(blob.raw, blob.size, blob.time, self._now))
        if len(self._unsaved) >= 4096:
            self._flush()

    def _flush(self) -> None:
        ready, self._unsaved = self._unsaved, []
        self._proofs.save(ready)
        self._inventory.insert("reading_done", {"digest": ("binary", [one.digest for one in ready])})

    def _progress(self) -> None:
        self._on_event(Progress(phase="reading blobs", done=self._bytes, total=self._total, unit="bytes"))

    async def _unvouched(self, batch: list[_Blob]) -> list[_Blob]:
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

    def _reading(self, picked: int, total: int, now: int, seconds: float) -> Reading:
        inventory, wanted = self._inventory, self._wanted
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
            left_bytes=max(0, total - self._bytes) if picked > seen else 0,
            unstable=tuple(self.unstable),
            never_proved=never,
            never_proved_bytes=never_bytes,
            oldest=None if never else oldest,
            seconds=seconds,
        )
