"""Read manifests by digest, verified and parsed: rows of `manifest` and `edge`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from regstore.manifest import MAX_SIZE
from regstore.spark.tasks.executing import StoreWork, telling
from regstore.spark.tasks.rows import row_batch
from regstore.storage.base import Storage
from regstore.storage.outage import OutageWatch
from regstore.tasks.manifests import ManifestRows, ReadManifests, ReadResult, read_manifests
from regstore.tasks.packing import unpack_of_store
from regstore.tasks.runner import Context

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE: Final = 2000


@dataclass(frozen=True, kw_only=True)
class ReadTask:
    """sample: keys of blobs from all over the store, to tell damage from outage."""

    store: StoreWork
    sample: tuple[str, ...]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """In: `digest`, and the blob's `size` where it was listed. Out: `manifest` and `edge`; of a sound manifest
        `mtime` says how many edges it has."""
        return telling(lambda: self._all(batches))

    def _all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            sizes = dict(zip(batch.column("digest").to_pylist(), batch.column("size").to_pylist(), strict=True))
            large = [(raw, size) for raw, size in sizes.items() if size is not None and size > MAX_SIZE]
            yield from _broken(
                [(raw, size, "too large", f"{size:,} bytes are too many for a manifest") for raw, size in large]
            )
            few = [raw for raw, size in sizes.items() if size is None or size <= MAX_SIZE]
            for start in range(0, len(few), _AT_ONCE):
                work = partial(self._read, digests=few[start : start + _AT_ONCE])
                for result in self.store.run(work):
                    yield from _rows(result)

    async def _read(self, storage: Storage, digests: Sequence[bytes]) -> list[ReadResult]:
        """Raises where what is not given is no damage of single ones."""
        context = Context(stores=(storage,), concurrency=self.store.concurrency)
        watch = OutageWatch(storage, lambda most, failed: [key for key in self.sample if key not in failed][:most])
        results = []
        left = list(digests)
        while left:
            result = await read_manifests(context, ReadManifests(left, [""] * len(left)))
            for _ in range(len(left) - len(result.left) - len(result.not_given)):
                watch.good()
            for raw, key, packed in result.not_given:
                error = unpack_of_store(packed)
                await watch.bad(key, error)
                result.broken.append((raw, 0, "unreadable", str(error)))
            results.append(result)
            left = result.left
        await watch.end()
        return results


def _rows(result: ReadResult) -> Iterator[pa.RecordBatch]:
    yield from _broken(result.broken)
    sound = result.sound
    if sound:
        digests, sizes, media_types, artifact_types, _, _ = map(list, zip(*sound.remembered, strict=True))
        yield row_batch(
            "manifest",
            {
                "digest": digests,
                "size": sizes,
                "text": ["ok"] * len(digests),
                "mtime": _edges_of(sound, digests),
                "media_type": media_types,
                "artifact_type": artifact_types,
            },
        )
    if sound.sources:
        yield row_batch(
            "edge",
            {"digest": sound.sources, "other": sound.targets, "kind": sound.kinds, "size": sound.sizes},
        )


def _edges_of(sound: ManifestRows, digests: Sequence[bytes]) -> list[int]:
    """How many edges each has, without such as are the same: they are kept in other files than the manifests."""
    edges = set(zip(sound.sources, sound.targets, sound.kinds, sound.sizes, strict=True))
    numbers = Counter(source for source, *_ in edges)
    return [numbers[digest] for digest in digests]


def _broken(rows: Sequence[tuple[bytes, int, str, str]]) -> Iterator[pa.RecordBatch]:
    if rows:
        digests, sizes, states, reasons = map(list, zip(*rows, strict=True))
        yield row_batch("manifest", {"digest": digests, "size": sizes, "text": states, "why": reasons})
