"""Reading blobs and hashing them, on all cores, with bounded memory, and remembering what was proved.

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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import (
    AccessDenied,
    AuthenticationFailed,
    NoSuchBucket,
    NotFound,
    StorageError,
    Unreachable,
    Unsupported,
)
from regstore.events import Notice, OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.layout import BlobKey
from regstore.reading.proofs import Proof, Proofs
from regstore.reading.read_data import ReadData
from regstore.storage.base import HashesObjects, KeepsChecksums, Storage
from regstore.verify.options import Checksums, VerifyOptions

#: What one worker takes at a time: so many blobs, or as many as have so many bytes.
_BATCH_BLOBS: Final = 256
_BATCH_BYTES: Final = 32 << 20
#: Bytes handed to a hashing thread at once; what is smaller in all is hashed in place.
_STEP: Final = 1 << 20
_SMALL: Final = 64 << 10
#: Streams at once. Each holds at most two steps.
_STREAMS: Final = 16
#: Errors that are not about the one blob.
OF_ALL: Final = (AccessDenied, AuthenticationFailed, NoSuchBucket, Unreachable)


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
    raw: bytes
    size: int
    mtime: int

    @property
    def digest(self) -> Digest:
        return Digest.from_raw(self.raw)

    @property
    def key(self) -> str:
        return layout.encode(BlobKey(self.digest))


def plan_reading(
    inventory: Inventory, read: ReadData | None, *, now: int, max_age: int | None = None, seed: int = 0
) -> None:
    """Make verify_pick(place, digest, size, mtime): the blobs to read, in order. Uses verify_proof(digest, size, mtime,
    proved) and, for what to look at first, verify_suspect(digest). seed orders those that were never proved.
    read None: the suspects only."""
    inventory.execute(
        """
        create or replace table verify_proved as
        select b.digest, b.size, b.mtime, nullif(p.proved, 0) as proved, m.digest is not null as manifest,
            s.digest is not null or coalesce(p.proved = 0, false) as suspect
        from blob b
        left join verify_proof p on p.digest = b.digest and p.size = b.size and p.mtime = b.mtime
        left join (select distinct digest from manifest where state in ('ok', 'invalid', 'mismatch')) m
            on m.digest = b.digest
        left join verify_suspect s on s.digest = b.digest
        """
    )
    # A digest is random by itself: its first bits make even parts.
    part = "true" if read is not None else "suspect"
    read = read or ReadData(share=1.0)
    if read.part is not None:
        number, of = read.part
        part = f"('0x' || hex(digest)[:12])::ubigint % {of} = {number - 1}"
    budget = read.size
    if read.share is not None:
        total = inventory.one("select coalesce(sum(size), 0)::bigint from verify_proved where not manifest")
        budget = -int(-total * read.share // 1) if read.share < 1 else None
    fresh = "true" if max_age is None else f"coalesce(proved < {now - max_age}, true)"
    inventory.execute(
        f"""
        create or replace table verify_pick as
        with chosen as (
            select digest, size, mtime,
                row_number() over (
                    order by suspect desc, proved nulls first, md5(hex(digest) || '{seed}')
                ) as place
            from verify_proved where not manifest and {part} and {fresh}
        ),
        running as (
            select *, sum(size) over (order by place rows unbounded preceding) - size as before from chosen
        )
        select place, digest, size, mtime from running
        where {"true" if budget is None else f"before < {budget}"}
        """
    )


class BlobReader:
    """Reads what `plan_reading` chose. `rotten` (read twice, the same wrong bytes both times), `unread` (not to be had,
    or other bytes each time), `gone` and `unstable` fill up as it goes."""

    def __init__(
        self,
        storage: Storage,
        inventory: Inventory,
        options: VerifyOptions,
        proofs: Proofs,
        on_event: OnEvent = ignore,
    ) -> None:
        self._storage = storage
        self._inventory = inventory
        self._options = options
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
        self.rotten: dict[bytes, str] = {}
        self.unread: dict[bytes, str] = {}
        self.gone: list[bytes] = []
        self.unstable: list[str] = []

    async def run(self, *, now: int, seed: int = 0) -> Reading:
        """Read, and leave verify_proven in the inventory. now: the store's time."""
        options, inventory = self._options, self._inventory
        started = time.monotonic()
        if options.time_limit is not None:
            self._deadline = started + options.time_limit
        self._load_proofs()
        plan_reading(inventory, options.read, now=now, max_age=options.max_age, seed=seed)
        self._now = now
        picked, total = inventory.all("select count(*), coalesce(sum(size), 0)::bigint from verify_pick")[0]
        self._total = total
        self._inventory.execute("create or replace table verify_done (digest blob, size bigint, mtime bigint)")
        await self._read()
        return self._reading(picked, total, now, time.monotonic() - started)

    def _load_proofs(self) -> None:
        run = self._inventory.execute
        run("create or replace table verify_proof (digest blob, size bigint, mtime bigint, proved bigint)")
        run("create table if not exists verify_suspect (digest blob)")
        for batch in self._proofs.load():
            self._insert_proofs("verify_proof", batch)
        if self._proofs.trouble:
            self._on_event(Notice(message=self._proofs.trouble))

    def _insert_proofs(self, table: str, batch: list[Proof]) -> None:
        columns: dict[str, tuple[str, Sequence[Any]]] = {
            "digest": ("binary", [one.digest for one in batch]),
            "size": ("int64", [one.size for one in batch]),
            "mtime": ("int64", [one.mtime for one in batch]),
        }
        if table == "verify_proof":
            columns["proved"] = ("int64", [one.proved for one in batch])
        self._inventory.insert(table, columns)

    async def _read(self) -> None:
        cores = os.cpu_count() or 1
        direct = isinstance(self._storage, HashesObjects)
        workers = cores + 1 if direct else min(_STREAMS, max(self._options.scan.concurrency, 1))
        with ThreadPoolExecutor(cores, thread_name_prefix="regstore-hash") as threads:
            self._threads = threads
            try:
                await for_each(
                    self._batches(), self._read_direct if direct else self._read_streams, concurrency=workers
                )
            finally:
                self._stopped = True
                self._flush()

    def _batches(self) -> Iterator[list[_Blob]]:
        """The picked blobs, until the time is over."""
        rows = self._inventory.connection.cursor()
        try:
            rows.execute("select digest, size, mtime from verify_pick order by place")
            batch: list[_Blob] = []
            taken = 0
            most = _BATCH_BYTES if isinstance(self._storage, HashesObjects) else _STEP
            while found := rows.fetchmany(_BATCH_BLOBS):
                for raw, size, mtime in found:
                    if batch and (taken + size > most or len(batch) >= _BATCH_BLOBS):
                        if self._over():
                            return
                        yield batch
                        batch, taken = [], 0
                    batch.append(_Blob(bytes(raw), size, mtime))
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
        wanted = {blob.key: blob for blob in batch}
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
            async with self._storage.open_read(blob.key) as stream:
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
        wrong = self._wrong(blob, outcome)
        if wrong:
            # Once more: what came over a bad line is not the store's fault, nor damage.
            again = await self._hash(blob)
            if again is None:  # the time is over: the next run looks there first
                self._proofs.save([Proof(blob.raw, blob.size, blob.mtime, 0)])
                return
            if isinstance(again, NotFound):
                return
            wrong_again = self._wrong(blob, again)
            if not wrong_again:
                self.unstable.append(f"{blob.digest}: {wrong} at first, then as it should be")
                wrong = ""
            elif isinstance(again, StorageError):
                self.unread[blob.raw] = wrong_again
            elif again == outcome:
                self.rotten[blob.raw] = wrong
            else:
                self.unread[blob.raw] = f"it reads differently each time: {wrong}, then {wrong_again}"
        elif isinstance(outcome, NotFound):
            self.gone.append(blob.raw)
            return
        self._blobs += 1
        if wrong:
            self._proofs.save([Proof(blob.raw, blob.size, blob.mtime, 0)])
        else:
            self._prove(blob)

    def _wrong(self, blob: _Blob, outcome: tuple[int, str] | StorageError) -> str:
        if isinstance(outcome, NotFound):
            return ""
        if isinstance(outcome, OF_ALL):
            raise outcome
        if isinstance(outcome, StorageError):
            return f"it can't be read: {outcome}"
        size, encoded = outcome
        if encoded == blob.digest.encoded:
            return ""
        return f"its {size:,} bytes have {blob.digest.algorithm}:{encoded}"

    def _prove(self, blob: _Blob) -> None:
        self._unsaved.append(Proof(blob.raw, blob.size, blob.mtime, self._now))
        if len(self._unsaved) >= 4096:
            self._flush()

    def _flush(self) -> None:
        ready, self._unsaved = self._unsaved, []
        self._proofs.save(ready)
        self._insert_proofs("verify_done", ready)

    def _progress(self) -> None:
        self._on_event(Progress(phase="reading blobs", done=self._bytes, total=self._total, unit="bytes"))

    async def _unvouched(self, batch: list[_Blob]) -> list[_Blob]:
        """Those that must be read: all, unless the server's checksums are trusted."""
        if self._options.checksums is Checksums.IGNORE or not isinstance(self._storage, KeepsChecksums):
            return batch
        left = []
        for blob in batch:
            try:
                kept = await self._storage.kept_sha256(blob.key)
            except (NotFound, Unsupported):
                kept = None
            agrees = kept == blob.raw
            self._checksums["absent" if kept is None else "agree" if agrees else "differ"] += 1
            if agrees and self._options.checksums is Checksums.TRUST:
                self._trusted += 1
            else:
                left.append(blob)
        return left

    def _reading(self, picked: int, total: int, now: int, seconds: float) -> Reading:
        inventory, options = self._inventory, self._options
        run = inventory.execute
        run("create or replace table verify_proven as select digest from verify_done")
        seen = self._blobs + self._trusted + len(self.gone)
        known = 0
        if options.max_age is not None:
            known = inventory.one(
                f"select count(*) from verify_proved where not manifest and proved >= {now - options.max_age}"
            )
        never, never_bytes, oldest = inventory.all(
            f"""
            select count(*) filter (last is null), coalesce(sum(size) filter (last is null), 0)::bigint, min(last)
            from (
                select p.size, case when p.manifest or d.digest is not null then {now} else p.proved end as last
                from verify_proved p left join verify_done d on d.digest = p.digest
            )
            """
        )[0]
        return Reading(
            blobs=self._blobs,
            bytes=self._bytes,
            manifests=inventory.one("select count(*) from verify_proved where manifest"),
            known=known,
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
