"""Files of an S3 Inventory report, each fetched, proved by its MD5 and decoded by the code of one process; and blobs of
the report, or such as it lacks, looked at again (`inventory.reported`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regstore.concurrency import in_thread
from regstore.errors import Refused
from regstore.inventory.inventory import Inventory
from regstore.inventory.reported import rows
from regstore.inventory.reported.again import Look, Way
from regstore.inventory.reported.place import place_in
from regstore.inventory.reported.report import BlobsFrom, Report, ReportFile
from regstore.spark.tasks.executing import StoreWork, telling
from regstore.spark.tasks.loading import small_inventory
from regstore.spark.tasks.rows import by_shard, row_batch, rows_of
from regstore.storage.base import Storage

if TYPE_CHECKING:
    import pyarrow as pa

#: A file that was read: `text` is its key; in `size` how many blobs it shows.
READ: Final = "report_read"
#: A blob to be looked at: `digest`; `size` and `mtime` as they are known, null where it is not known.
TO_LOOK_AT: Final = "to_look_at"
#: One that is not there.
ABSENT: Final = "absent"
#: A digest that lies in the trash.
TRASHED: Final = "trashed"
#: In `why` of a blob that was looked at: it is not as it was known.
OTHERWISE: Final = "otherwise"
_ROWS: Final = 1000


@dataclass(frozen=True, kw_only=True)
class ReportTask:
    """blobs_from: where the report lies, and bucket: that bucket; None where it is a folder, which all executors must
    see. root: as `rows.read` wants it."""

    blobs_from: BlobsFrom
    bucket: StoreWork | None
    report: Report
    root: str

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """In: files, `text` their keys, `size`, and in `why` their MD5. Out: `blob` (a report may show one twice),
        `unknown`, READ."""
        return telling(lambda: self._all(batches))

    def _all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            columns = [batch.column(name).to_pylist() for name in ("text", "size", "why")]
            for file in map(ReportFile, *columns):
                yield from self._one(file)

    def _one(self, file: ReportFile) -> Iterator[pa.RecordBatch]:
        with small_inventory() as inventory:
            rows.begin(inventory)
            if self.bucket is None:
                self._read_folder(inventory, file)
            else:
                self.bucket.run(partial(self._read, inventory=inventory, file=file))
            for relation in ("blob", "unknown"):
                yield from rows_of(inventory, relation)
            yield row_batch(READ, {"text": [file.key], "size": [inventory.count("blob")]})

    def _read_folder(self, inventory: Inventory, file: ReportFile) -> None:
        if not Path(self.blobs_from.manifest).is_file():
            raise Refused(
                f"an executor does not see {self.blobs_from.manifest}: a report that was downloaded must lie in a "
                "folder that all computers of the cluster share; or name the bucket that it was delivered to"
            )
        asyncio.run(self._read(None, inventory=inventory, file=file))

    async def _read(self, bucket: Storage | None, inventory: Inventory, file: ReportFile) -> None:
        async with place_in(self.blobs_from, bucket).file(file, inventory.folder) as path:
            await in_thread(partial(rows.read, inventory, self.report, file, path, root=self.root))


@dataclass(frozen=True, kw_only=True)
class LookAgainTask:
    """way: of all that are looked at. In: TO_LOOK_AT, each once, in shards that are ranges of digests. Out: of each
    either `blob`, as it is now, or ABSENT; with OTHERWISE where that is not what was known."""

    store: StoreWork
    way: Way

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return telling(lambda: self._all(batches))

    def _all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _, pieces in by_shard(batches):
            known: dict[bytes, tuple[int | None, int | None]] = {}
            for batch in pieces:
                digests, sizes, mtimes = (batch.column(name).to_pylist() for name in ("digest", "size", "mtime"))
                known |= zip(digests, zip(sizes, mtimes, strict=True), strict=True)
            # As `again.sql` has them: the order of their keys.
            order = sorted(known, key=lambda raw: (len(raw), raw))
            wanted = [(raw, known[raw][1]) for raw in order]
            found = {raw: (size, mtime) for raw, size, mtime in self.store.run(partial(self._look, wanted=wanted))}
            for start in range(0, len(order), _ROWS):
                yield from _told(order[start : start + _ROWS], known, found)

    async def _look(
        self, storage: Storage, wanted: Sequence[tuple[bytes, int | None]]
    ) -> list[tuple[bytes, int, int]]:
        look = Look(storage, self.way, concurrency=self.store.concurrency)
        await look.at(wanted)
        return look.taken()


def _told(
    some: Sequence[bytes],
    known: dict[bytes, tuple[int | None, int | None]],
    found: dict[bytes, tuple[int, int]],
) -> Iterator[pa.RecordBatch]:
    there = [raw for raw in some if raw in found]
    if there:
        yield row_batch(
            "blob",
            {
                "digest": there,
                "size": [found[raw][0] for raw in there],
                "mtime": [found[raw][1] for raw in there],
                "why": [None if found[raw] == known[raw] else OTHERWISE for raw in there],
            },
        )
    absent = [raw for raw in some if raw not in found]
    if absent:
        whys = [None if known[raw] == (None, None) else OTHERWISE for raw in absent]
        yield row_batch(ABSENT, {"digest": absent, "why": whys})


@dataclass(frozen=True, kw_only=True)
class UnpackTask:
    """In: digests that travel whole. Out: the same, TRASHED, a row each."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            for text in batch.column("rows").to_pylist():
                with pa.ipc.open_stream(text) as stream:
                    yield row_batch(TRASHED, {"digest": stream.read_all().column("digest").to_pylist()})
