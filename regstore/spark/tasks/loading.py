"""From listed keys to the tables of a shard of repositories: decoded, and with every link's body that can be known."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from regstore import layout
from regstore.events import OnEvent
from regstore.gc.children import read_children
from regstore.gc.counts import count_inventory
from regstore.gc.plan.shards import ask_for_manifests
from regstore.inventory.inventory import Inventory
from regstore.inventory.manifests import linked_manifests
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.inventory.tag_times import load_record
from regstore.spark.tasks.executing import StoreWork, telling
from regstore.spark.tasks.listing import PAGE
from regstore.spark.tasks.rows import TABLES, by_shard, row_batch, rows_of, selected
from regstore.state.counts import Counts
from regstore.storage.base import MultipartUpload, Page, Storage

if TYPE_CHECKING:
    import pyarrow as pa

#: An unfinished multipart upload: `text` its key, `why` its id, `size`, `mtime` of its newest part.
UPLOAD: Final = "upload"
#: What manifests the shard's links name; what it asks for first; layer links by other algorithms than sha256.
WANTED: Final = "wanted"
ASK: Final = "ask"
ODD_LINK: Final = "odd_link"
#: `Loaded` of a shard, pickled.
LOADED: Final = "loaded"
RECORD: Final = "migrate_record"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a shard holds. shard: its number. keys: of all kinds; outside: of these litter and unknown ones. odd: links
    by other algorithms than sha256."""

    shard: int
    counts: Counts
    keys: int
    outside: int
    odd: int


@dataclass(frozen=True, kw_only=True)
class LoadTask:
    """record: rules ask when tags were set, so the record of migrate is read, too."""

    store: StoreWork
    record: bool

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """In: PAGE and UPLOAD, by shard. Out: the tables of each shard, and what else is named here."""
        return telling(lambda: self._all(batches))

    def _all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for shard, pieces in by_shard(batches):
            with small_inventory() as inventory:
                self.store.run(partial(self._load, inventory=inventory, pieces=pieces))
                yield from self._rows(inventory, shard)

    async def _load(self, storage: Storage, inventory: Inventory, pieces: Iterable[pa.RecordBatch]) -> None:
        uploads: list[dict[str, Any]] = []
        for batch in pieces:
            for row in batch.select(["relation", "rows", "text", "why", "size", "mtime"]).to_pylist():
                if row["relation"] == PAGE:
                    inventory.ingest([_page(row["rows"])])
                else:
                    uploads.append(row)
        scanner = Scanner(storage, inventory, ScanOptions(concurrency=self.store.concurrency, cache_dir=None))
        scanner.add_multipart_uploads([_upload(row) for row in uploads])
        await scanner.resolve_links()
        if self.record:
            await load_record(storage, inventory)
            inventory.execute(f"delete from {RECORD} where repository not in (select name from repository)")

    def _rows(self, inventory: Inventory, shard: int) -> Iterator[pa.RecordBatch]:
        for relation in (*TABLES, RECORD) if self.record else TABLES:
            yield from rows_of(inventory, relation, shard=shard)
        odd = "from layer_link where not is_sha256(digest)"
        yield from selected(inventory, ODD_LINK, odd, {"digest": "digest"}, shard=shard)
        for relation, digests in ((WANTED, linked_manifests(inventory)), (ASK, ask_for_manifests(inventory, 1))):
            for start in range(0, len(digests), 10_000):
                some = digests[start : start + 10_000]
                yield row_batch(relation, {"shard": [shard] * len(some), "digest": some})
        found = Loaded(
            shard=shard,
            counts=count_inventory(inventory, runs=()),
            keys=inventory.key_count(),
            outside=sum(inventory.counts("litter", "unknown").values()),
            odd=inventory.one("select count(*) from layer_link where not is_sha256(digest)"),
        )
        yield row_batch(LOADED, {"shard": [shard], "rows": [pickle.dumps(found)]})


class PartScanner:
    """Reads the manifests that an inventory lacks, also where their blobs are not in it."""

    def __init__(self, storage: Storage, inventory: Inventory, options: ScanOptions, on_event: OnEvent) -> None:
        self._storage = storage
        self._inventory = inventory
        self._concurrency = options.concurrency
        self._scanner = Scanner(storage, inventory, options, on_event)

    async def read_manifests(self) -> None:
        await self._scanner.read_manifests()
        await read_children(self._storage, self._inventory, self._scanner, concurrency=self._concurrency)


def small_inventory() -> Inventory:
    """Of a task, which has one core."""
    inventory = Inventory()
    inventory.execute("set threads = 1")
    return inventory


def _page(rows: bytes) -> Page:
    import pyarrow as pa

    with pa.ipc.open_stream(rows) as stream:
        columns = stream.read_all().to_pydict()
    return Page(columns["key"], columns["size"], columns["etag"], columns["mtime"], True)


def _upload(row: dict[str, Any]) -> tuple[layout.UploadKey, MultipartUpload]:
    key = layout.decode(row["text"])
    assert isinstance(key, layout.UploadKey)
    return key, MultipartUpload(row["text"], row["why"], row["mtime"], row["size"])
