"""Many blobs at a time, with a bound on memory by their size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from regstore.concurrency import for_each, task_group
from regstore.digest import Digest
from regstore.storage.base import Storage
from regstore.storage.streams import LARGE_STREAMS, ONE_REQUEST, STREAMS

_MiB: Final = 1024 * 1024
#: (blobs up to so many bytes, so many at a time)
_LANES: Final = ((_MiB, 128), (16 * _MiB, 6), (None, LARGE_STREAMS))
_LANES_TO_S3: Final = ((_MiB, 128), (ONE_REQUEST, STREAMS), (None, LARGE_STREAMS))
#: So many failed in a row, and it is not the blobs that are at fault.
FAILURES_IN_A_ROW: Final = 20


async def in_lanes(
    blobs: Iterable[tuple[Digest, int]],
    work: Callable[[tuple[Digest, int]], Awaitable[object]],
    *,
    concurrency: int,
    target: Storage | None = None,
) -> None:
    """Await work((digest, size)) for each, large ones a few at a time beside the small ones, largest first.
    target: where they are written to."""
    ordered = sorted(blobs, key=lambda blob: -blob[1])
    async with task_group() as group:
        least = -1
        for most, at_once in _LANES_TO_S3 if target is not None and target.serves_in_parallel else _LANES:
            lane = [blob for blob in ordered if blob[1] > least and (most is None or blob[1] <= most)]
            if lane:
                group.create_task(for_each(lane, work, concurrency=min(at_once, concurrency)))
            least = most if most is not None else least
