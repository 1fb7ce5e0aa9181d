"""A listing by executors: ranges in rounds, until no rest is handed back."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from regstore import layout
from regstore.gc.stops import refuse_these
from regstore.spark.tasks.executing import StoreWork
from regstore.spark.tasks.listing import LISTED, REST, SYMLINK, ListTask
from regstore.spark.work_folder import WorkFolder, one_each, refuse_lost, union

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Pages of a range in the first round, and at most. Few at first: nobody else works while one long range is listed.
_FIRST: Final = 8
_MOST: Final = 256


def list_all(
    session: SparkSession, work: WorkFolder, store: StoreWork, prefix: str, name: str, *, ranges: int, shards: int
) -> DataFrame:
    """Rows as `ListTask` gives them, of all below the prefix. ranges: of digests to begin with, where blobs are listed
    (shards 0). Refused where symbolic links hide what lies behind them; RegstoreError as `refuse_lost`."""
    left = digest_ranges(ranges) if not shards else [("", "")]
    pages, frames, number = _FIRST, [], 0
    while left:
        task = ListTask(store=store, prefix=prefix, pages=pages, shards=shards)
        stage_name = f"{name}-{number}"
        ranges_left = one_each(session, [{"text": after, "why": last} for after, last in left])
        stage = work.stage(stage_name, ranges_left, task.__call__)
        of_ranges = f"('{REST}', '{LISTED}', '{SYMLINK}')"
        frames.append(stage.filter(f"relation not in {of_ranges}"))
        told = stage.filter(f"relation in {of_ranges}").select("relation", "text", "why").collect()
        refuse_lost(set(left), [(row.text, row.why) for row in told if row.relation == LISTED], stage_name)
        refuse_these(store.url, [row.text for row in told if row.relation == SYMLINK])
        left = [(row.text, row.why) for row in told if row.relation == REST]
        pages, number = min(pages * 4, _MOST), number + 1
    return union(session, frames)


def digest_ranges(number: int) -> list[tuple[str, str]]:
    """Of sha256 blobs, even; with what sorts before and behind them."""
    cuts = []
    for part in range(1, number):
        digits = f"{part * 2**32 // number:08x}"
        cuts.append(f"{layout.BLOBS}sha256/{digits[:2]}/{digits}")
    return list(pairwise(["", *cuts, ""]))
