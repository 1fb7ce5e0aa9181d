"""Blobs of ranges of digests go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from regstore.gc.apply.sweep_range import SweepRange, SweptRange, sweep_range
from regstore.spark.tasks.attempts import WhichAttempt, context_of
from regstore.spark.tasks.executing import StoreWork, telling
from regstore.spark.tasks.rows import by_shard, row_batch
from regstore.storage.base import Storage

if TYPE_CHECKING:
    import pyarrow as pa

#: A blob that may go: `digest`, `size`, `mtime`, and in `shard` the number of the work that it is part of.
CANDIDATE: Final = "candidate"
#: The same, with its `Fate` in `text`, and in `why` why it failed.
SWEPT: Final = "swept"
#: Of each work: in `size` how many deletes may have been sent twice.
REPEATED: Final = "repeated"
_COLUMNS: Final = ("digest", "size", "mtime")


@dataclass(frozen=True, kw_only=True)
class SweepTask:
    """work: of which each range is one, with a number of its own. In: CANDIDATE, by number. Out: SWEPT, REPEATED."""

    store: StoreWork
    work: SweepRange
    attempt: WhichAttempt

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return telling(lambda: self._all(batches))

    def _all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number, pieces in by_shard(batches):
            columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
            for batch in pieces:
                for name in _COLUMNS:
                    columns[name] += batch.column(name).to_pylist()
            result = self.store.run(partial(self._sweep, number=number, columns=columns))
            count = len(columns["digest"])
            reasons = [result.reasons.get(digest) for digest in columns["digest"]]
            fates = [str(fate) for fate in result.fates]
            yield row_batch(SWEPT, {"shard": [number] * count, "text": fates, "why": reasons, **columns})
            yield row_batch(REPEATED, {"shard": [number], "size": [result.repeated_deletes]})

    async def _sweep(self, storage: Storage, number: int, columns: dict[str, list[Any]]) -> SweptRange:
        work = replace(
            self.work, shard=number, digests=columns["digest"], sizes=columns["size"], mtimes=columns["mtime"]
        )
        context = await context_of(self.store, storage, self.attempt(), run=work.run, shard=number, step="sweep")
        return await sweep_range(context, work)
