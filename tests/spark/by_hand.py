"""What a cluster does with a store, without an engine: the same tasks, and the joins between them in Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regstore.digest import Digest
from regstore.events import OnEvent
from regstore.gc.past import Past
from regstore.inventory.inventory import Inventory
from regstore.layout import BLOBS, REPOSITORIES, blob_key
from regstore.manifest import EdgeKind
from regstore.spark.tasks.bringing import ASKED_DIGEST, ASKED_NAME, REACHED, NamesTask, PartTask
from regstore.spark.tasks.executing import StoreWork, version
from regstore.spark.tasks.listing import LISTED, PAGE, REST, ListTask, shard_of_name
from regstore.spark.tasks.loading import ASK, WANTED, LoadTask
from regstore.spark.tasks.reading import ReadTask
from regstore.spark.tasks.rows import SCHEMA, TABLES, put_in, row_batch
from regstore.storage.base import Storage
from tests.model.memory import ModelStorage

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]


@dataclass(frozen=True)
class Address:
    """A store of this process."""

    storage: ModelStorage

    def __hash__(self) -> int:
        return id(self.storage)

    def open(self, concurrency: int, on_event: OnEvent) -> Storage:
        return self.storage


def work_on(storage: ModelStorage) -> StoreWork:
    return StoreWork(address=Address(storage), url=storage.url, place=storage.url, version=version(), concurrency=4)


def _batch(rows: Sequence[Row]) -> pa.RecordBatch:
    import pyarrow as pa

    columns = [[row.get(name) for row in rows] for name in SCHEMA]
    types = row_batch("none", {"shard": [None]}).schema
    return pa.RecordBatch.from_arrays(
        [pa.array(values, kind) for values, kind in zip(columns, types.types, strict=True)], names=list(SCHEMA)
    )


def _rows(batches: Iterable[pa.RecordBatch]) -> list[Row]:
    return [row for batch in batches for row in batch.to_pylist()]


class HandLook:
    """Blobs, links and manifests of a store, by shard. Outside of any event loop: tasks have one of their own."""

    def __init__(self, storage: ModelStorage, shards: int) -> None:
        self._shards = shards
        store = work_on(storage)
        blobs = _rows(self._list(store, BLOBS, 0))
        self.blobs = [row for row in blobs if row["relation"] == "blob"]
        pages = _rows(self._list(store, REPOSITORIES, shards))
        loaded = self._by_shard(LoadTask(store=store, record=False), pages)
        manifests = self._read(store, loaded)
        self.tables = [row for row in loaded if row["relation"] in TABLES] + self._ask(loaded, manifests)

    def _list(self, store: StoreWork, prefix: str, shards: int) -> Iterator[pa.RecordBatch]:
        task = ListTask(store=store, prefix=prefix, pages=100_000, shards=shards)
        for batch in task([row_batch(REST, {"text": [""], "why": [""]})]):
            if set(batch.column("relation").to_pylist()) == {LISTED}:
                continue
            assert shards == 0 or set(batch.column("relation").to_pylist()) == {PAGE}
            yield batch

    def _by_shard(self, task: Any, rows: Sequence[Row]) -> list[Row]:
        return _rows(task([_batch(sorted(rows, key=lambda row: row["shard"]))])) if rows else []

    def _read(self, store: StoreWork, loaded: Sequence[Row]) -> list[Row]:
        sizes = {row["digest"]: row["size"] for row in self.blobs}
        wanted = {row["digest"] for row in loaded if row["relation"] == WANTED}
        found: list[Row] = []
        done: set[bytes] = set()
        while wanted:
            asked = [{"relation": WANTED, "digest": raw, "size": sizes.get(raw)} for raw in sorted(wanted)]
            read = _rows(ReadTask(store=store, sample=self._sample())([_batch(asked)]))
            found += read
            done |= wanted
            wanted = {row["other"] for row in read if _names_manifest(row)} & sizes.keys() - done
        return found

    def _sample(self) -> tuple[str, ...]:
        """Without others to ask for, a few that can't be read are an outage."""
        return tuple(blob_key(Digest.from_raw(row["digest"])) for row in self.blobs if row["size"])

    def _ask(self, loaded: Sequence[Row], manifests: Sequence[Row]) -> list[Row]:
        given: list[Row] = []
        for shard in range(self._shards):
            asked: set[bytes] = set()
            front = {row["digest"] for row in loaded if row["relation"] == ASK and row["shard"] == shard}
            while front:
                asked |= front
                front = {r["other"] for r in manifests if _names_manifest(r) and r["digest"] in front} - asked
            given += [row | {"shard": shard} for row in manifests if row["digest"] in asked]
        return given

    def bring(self, past: Past, inventory: Inventory) -> None:
        """As `spark.healing` does."""
        names = past.of_repositories()
        standing = {row["digest"] for row in self.blobs}
        trash = {bytes(raw) for (raw,) in inventory.all("select digest from trash")}
        if not names and not trash:
            return
        named = self._by_shard(NamesTask(), self.tables)
        asked: list[Row] = [
            {"relation": ASKED_DIGEST, "shard": row["shard"], "digest": row["digest"]}
            for row in named
            if row["digest"] in trash - standing
        ]
        asked += [
            {"relation": ASKED_NAME, "shard": shard_of_name(name, self._shards), "text": name} for name in names
        ]
        concerned = {row["shard"] for row in (*asked, *self.tables) if row in asked or row["relation"] == "unknown"}
        some = [row for row in self.tables if row["shard"] in concerned]
        part = self._by_shard(PartTask(shards=self._shards), [*some, *asked])
        reached = {row["digest"] for row in part if row["relation"] == REACHED}
        once = {tuple(row.values()): row for row in part if row["relation"] != REACHED}
        brought = [*once.values(), *(row for row in self.blobs if row["digest"] in reached)]
        if brought:
            put_in(inventory, _batch(brought))


def _names_manifest(row: Row) -> bool:
    return bool(row["relation"] == "edge" and row["kind"] == EdgeKind.MANIFEST)
