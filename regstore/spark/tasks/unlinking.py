"""Links and uploads of a shard's repositories go, by the plan that was made of it."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from regstore.gc.apply.fate import Fate
from regstore.gc.apply.going import Going, dead_uploads, groups
from regstore.gc.apply.unlink import Unlinked
from regstore.gc.apply.unlink_repositories import UnlinkedRepositories, UnlinkWork, unlink_group
from regstore.gc.plan.question import Question
from regstore.inventory.inventory import Inventory
from regstore.spark.tasks.attempts import WhichAttempt, context_of
from regstore.spark.tasks.executing import StoreWork, telling
from regstore.spark.tasks.loading import small_inventory
from regstore.spark.tasks.rows import by_shard, put_in, row_batch
from regstore.storage.base import Storage

if TYPE_CHECKING:
    import pyarrow as pa

#: `UnlinkedGroup`, pickled; `shard` is the number of its work.
UNLINKED: Final = "unlinked"
#: A key that was planned, in `text`, and its `Fate`, in `why`.
FATE: Final = "fate"
_ROWS: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class UnlinkedGroup:
    """What came of some repositories, but for the fates. failures: by key."""

    unlinked: Unlinked
    failures: Mapping[str, str]
    repeated_deletes: int


@dataclass(frozen=True, kw_only=True)
class UnlinkTask:
    """work: of which each handful of repositories gets a number of its own. shards: of all. In: tables of a shard, with
    its manifests; of these APPLIED as the plan has them. Out: UNLINKED, FATE."""

    store: StoreWork
    work: UnlinkWork
    shards: int
    attempt: WhichAttempt

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return telling(lambda: self._all(batches))

    def _all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for shard, pieces in by_shard(batches):
            with small_inventory() as inventory:
                Question(inventory, self.work.plan, self.work.scanned_at).make_tables("links")
                for batch in pieces:
                    put_in(inventory, batch)
                for number, result in self.store.run(partial(self._unlink, inventory=inventory, shard=shard)):
                    yield from _rows(number, result)

    async def _unlink(
        self, storage: Storage, inventory: Inventory, shard: int
    ) -> list[tuple[int, UnlinkedRepositories]]:
        """The handfuls are the same in every attempt, for they go by the plan alone."""
        found = []
        for index, group in enumerate(groups(inventory)):
            work = replace(self.work, shard=index * self.shards + shard)
            context = await context_of(
                self.store, storage, self.attempt(), run=work.run, shard=work.shard, step="unlink"
            )
            going = Going(inventory, group)
            going.choose()
            uploads = dead_uploads(inventory, group.ids)
            found.append(
                (work.shard, await unlink_group(context, work, inventory, group, going, uploads)),
            )
        return found


def _rows(number: int, result: UnlinkedRepositories) -> Iterator[pa.RecordBatch]:
    told = UnlinkedGroup(
        unlinked=result.unlinked, failures=result.failures, repeated_deletes=result.repeated_deletes
    )
    yield row_batch(UNLINKED, {"shard": [number], "rows": [pickle.dumps(told)]})
    fates: list[tuple[str, Fate]] = list(result.fates.items())
    for start in range(0, len(fates), _ROWS):
        keys, some = map(list, zip(*fates[start : start + _ROWS], strict=True))
        yield row_batch(FATE, {"shard": [number] * len(keys), "text": keys, "why": [str(fate) for fate in some]})
