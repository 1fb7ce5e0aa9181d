"""What a plan asks for beyond the listing, read of a shard: as `gc.planning.make_plan` reads it of a whole store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from regstore.events import ignore
from regstore.gc.confirm import confirm_broken
from regstore.gc.created import read_created
from regstore.gc.plan.question import Question
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions
from regstore.spark.tasks.executing import StoreWork, telling
from regstore.spark.tasks.loading import RECORD, PartScanner
from regstore.spark.tasks.planning import Shards
from regstore.spark.tasks.rows import TABLES, rows_of
from regstore.storage.base import Storage

if TYPE_CHECKING:
    import pyarrow as pa

#: When images were made, as their configs say; it travels whole.
CREATED: Final = "config_created"


@dataclass(frozen=True, kw_only=True)
class FurtherTask(Shards):
    """In: tables of a shard, with the manifests that it asked for. Out: the same, what seemed broken looked at again,
    and CREATED. Where shards read one manifest differently, each goes by what it has read: a blob that any of them
    keeps stays."""

    store: StoreWork

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return telling(lambda: self.each(batches, self._read))

    def _read(self, question: Question, shard: int, odd: list[bytes]) -> Iterator[pa.RecordBatch]:
        inventory, policy = question.inventory, self.options.policy
        self.store.run(partial(self._look, inventory=inventory))
        relations = [*TABLES, "manifest", "edge"]
        if policy is not None and policy.needs_time:
            relations.append(RECORD)
        if policy is not None and policy.needs_created:
            relations.append(CREATED)
        for relation in relations:
            yield from rows_of(inventory, relation, shard=shard)

    async def _look(self, storage: Storage, inventory: Inventory) -> None:
        policy, concurrency = self.options.policy, self.store.concurrency
        how = ScanOptions(concurrency=concurrency, cache_dir=None)
        if policy is not None:
            await read_created(storage, inventory, policy, how)
        scanner = PartScanner(storage, inventory, how, ignore)
        await confirm_broken(storage, inventory, scanner, self.options.drop_broken, concurrency=concurrency)
