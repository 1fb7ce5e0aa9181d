"""Blobs from one storage to another, hashed on the way, with a bound on memory by their size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Final

from regstore.concurrency import for_each, task_group
from regstore.digest import Digest
from regstore.storage.base import PutOptions, Storage
from regstore.storage.streams import read_blob

_MiB: Final = 1024 * 1024
#: (blobs up to so many bytes, so many at a time)
_LANES: Final = ((_MiB, 128), (16 * _MiB, 6), (None, 3))
#: So many failed in a row, and it is not the blobs that are at fault.
FAILURES_IN_A_ROW: Final = 20


async def copy_blob(
    source: Storage,
    key: str,
    target: Storage,
    target_key: str,
    *,
    digest: Digest,
    size: int,
    put: PutOptions | None,
) -> None:
    """SourceGone when it is absent there; IntegrityError, and nothing visible at the target, when its bytes are not
    those of the digest."""
    async with aclosing(read_blob(source, key, size)) as chunks:
        await target.put_stream(target_key, chunks, size=size, digest=digest, options=put)


async def in_lanes(
    blobs: Iterable[tuple[Digest, int]],
    work: Callable[[tuple[Digest, int]], Awaitable[object]],
    *,
    concurrency: int,
) -> None:
    """Await work((digest, size)) for each, large ones a few at a time beside the small ones, largest first."""
    ordered = sorted(blobs, key=lambda blob: -blob[1])
    async with task_group() as group:
        least = -1
        for most, at_once in _LANES:
            lane = [blob for blob in ordered if blob[1] > least and (most is None or blob[1] <= most)]
            if lane:
                group.create_task(for_each(lane, work, concurrency=min(at_once, concurrency)))
            least = most if most is not None else least
