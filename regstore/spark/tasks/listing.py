"""List ranges of keys. What is left of one goes back, cut into parts, for a further round."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regstore import layout
from regstore.inventory.inventory import Inventory
from regstore.inventory.listing import cut_rest
from regstore.spark.tasks.executing import StoreWork, telling
from regstore.spark.tasks.rows import packed, row_batch, rows_of
from regstore.storage.base import Page, Storage
from regstore.tasks.listing import ListRange, list_range
from regstore.tasks.runner import Context

if TYPE_CHECKING:
    import pyarrow as pa

#: Pages that become rows together.
_PAGES: Final = 8
#: Into how many parts the rest of a range is cut.
_PARTS: Final = 8
REST: Final = "rest"
#: A range that was listed, as it was given: its rows stand in the same task's files.
LISTED: Final = "listed"
PAGE: Final = "page"
#: `text`: the key of a symbolic link that the listing passed over.
SYMLINK: Final = "symlink"


@dataclass(frozen=True, kw_only=True)
class ListTask:
    """pages: of each range, at most. shards: of repositories; 0 where blobs are listed, which are decoded at once."""

    store: StoreWork
    prefix: str
    pages: int
    shards: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """In: rows with a range, `text` and `why`: behind which key, up to which. Out: `REST` and `LISTED`, the same;
        `PAGE`, or the relations of blobs."""
        return telling(lambda: self._all(batches))

    def _all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            ranges = zip(batch.column("text").to_pylist(), batch.column("why").to_pylist(), strict=True)
            for after, last in ranges:
                yield from self._one(after or "", last or "")

    def _one(self, after: str, last: str) -> Iterator[pa.RecordBatch]:
        pages, symlinks = self.store.run(lambda storage: self._pages(storage, after, last))
        if symlinks:
            yield row_batch(SYMLINK, {"text": symlinks})
        for page in pages:
            yield from self._rows(page)
        yield row_batch(LISTED, {"text": [after], "why": [last]})
        if pages[-1].complete:
            return
        keys = next((page.keys for page in reversed(pages) if page.keys), [])
        parts = (
            cut_rest(self.prefix, keys[-1000:], last, hands=_PARTS, pages=self.pages) if keys else [(after, last)]
        )
        yield row_batch(REST, {"text": [one for one, _ in parts], "why": [end for _, end in parts]})

    async def _pages(self, storage: Storage, after: str, last: str) -> tuple[list[Page], list[str]]:
        context = Context(stores=(storage,), concurrency=self.store.concurrency)
        pages: list[Page] = []
        for begun in range(0, self.pages, _PAGES):
            some = min(_PAGES, self.pages - begun)
            pages.append(
                await list_range(context, ListRange(prefix=self.prefix, after=after, last=last, pages=some))
            )
            if pages[-1].complete:
                break
            after = pages[-1].keys[-1] if pages[-1].keys else after
        return pages, sorted(storage.symlinks)

    def _rows(self, page: Page) -> Iterator[pa.RecordBatch]:
        if not page.keys:
            return
        if not self.shards:
            with Inventory() as inventory:
                inventory.ingest([page])
                for relation in ("blob", "litter", "unknown"):
                    yield from rows_of(inventory, relation)
            return
        import pyarrow as pa

        whose: dict[int, list[int]] = {}
        for number, key in enumerate(page.keys):
            whose.setdefault(shard_of(key, self.shards), []).append(number)
        table = pa.RecordBatch.from_pydict(
            {
                "key": pa.array(page.keys, pa.string()),
                "size": pa.array(page.sizes, pa.int64()),
                "etag": pa.array(page.etags, pa.string()),
                "mtime": pa.array(page.mtimes, pa.int64()),
            }
        )
        chunks = [(shard, packed(table.take(pa.array(numbers)))) for shard, numbers in whose.items()]
        yield row_batch(PAGE, {"shard": [shard for shard, _ in chunks], "rows": [rows for _, rows in chunks]})


def shard_of(key: str, shards: int) -> int:
    """Of the repository in whose folders a key stands, also where litter stands beside a link."""
    beside, _, _ = key.partition("@eaDir")
    return shard_of_name(layout.repository_around(beside), shards)


def shard_of_name(name: str, shards: int) -> int:
    return zlib.crc32(name.encode(errors="surrogatepass")) % shards
