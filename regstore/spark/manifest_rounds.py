"""Manifests: those that an earlier run has read, the others read now, their children in further rounds; and which of
them each shard asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from regstore import layout
from regstore.digest import Digest
from regstore.manifest import PARSER_VERSION, EdgeKind
from regstore.spark.tasks.executing import StoreWork
from regstore.spark.tasks.loading import ASK, WANTED
from regstore.spark.tasks.reading import ReadTask
from regstore.spark.tasks.rows import SCHEMA
from regstore.spark.work_folder import WorkFolder, union

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

KEPT: Final = f"manifests-v{PARSER_VERSION}"
_SAMPLE: Final = 200
_READABLE: Final = "relation = 'manifest' and text = 'ok'"
_NAMES_MANIFEST: Final = f"relation = 'edge' and kind = {int(EdgeKind.MANIFEST)}"


def read_all(
    session: SparkSession,
    work: WorkFolder,
    store: StoreWork,
    loaded: DataFrame,
    *,
    blobs: Callable[[], DataFrame],
    complete: Callable[[DataFrame], None],
    name: str,
    tasks: int,
    before: DataFrame | None = None,
) -> DataFrame:
    """`manifest` and `edge` of all that links name as manifests, and of what these do. Each once. blobs: those that are
    known now; complete: sees to it that these digests are, where their blobs are there. name: begins those of the
    stages. before: what this run knows already; what else there is has come since, or was another, so it is not looked
    for among what earlier runs have read."""
    kept = work.kept(KEPT) if before is None else None
    sample = _sample(blobs())
    frames: list[DataFrame] = []
    if before is not None:
        frames.append(before)
        complete(_children(before))
    wanted = _first(loaded, _sizes(blobs()), before).persist()
    number = 0
    while not wanted.isEmpty():
        asked = as_rows(wanted.selectExpr(f"'{WANTED}' as relation", "digest", "blob_size as size"))
        found = []
        if kept is not None:
            known = _known(kept, wanted)
            asked = asked.join(known, "digest", "left_anti").select(*SCHEMA)
            same = sound(kept).join(known, "digest", "left_semi")
            once = ["relation", "digest", "other", "kind", "size"]
            found.append(work.stage(f"{name}known-{number}", same.select(*SCHEMA).dropDuplicates(once)))
        task = ReadTask(store=store, sample=sample)
        rows = asked.repartition(tasks, "digest")
        found.append(work.keep(KEPT, f"{name}{number}", rows, task.__call__))
        wanted.unpersist()
        frames += found
        children = _children(union(session, found))
        complete(children)
        wanted = _not_in(children, union(session, frames)).join(_sizes(blobs()), "digest").persist()
        number += 1
    wanted.unpersist()
    return union(session, frames)


def sound(manifests: DataFrame) -> DataFrame:
    """Of `manifest` and `edge`, those that need not be read again."""
    return manifests.filter(f"relation = 'edge' or {_READABLE}")


def _first(loaded: DataFrame, sizes: DataFrame, before: DataFrame | None) -> DataFrame:
    """`digest` and `blob_size` of what is to be read first: all that links name, whether its blob is known or not."""
    named = loaded.filter(f"relation = '{WANTED}'").select("digest").distinct()
    if before is None:
        return named.join(sizes, "digest", "left")
    children = _children(before).join(sizes, "digest")
    asked = _not_in(named, before).join(sizes, "digest", "left")
    return asked.unionByName(_not_in(children, before)).distinct()


def _children(manifests: DataFrame) -> DataFrame:
    return manifests.filter(_NAMES_MANIFEST).selectExpr("other as digest").distinct()


def _not_in(wanted: DataFrame, manifests: DataFrame) -> DataFrame:
    read = manifests.filter("relation = 'manifest'").select("digest")
    return wanted.join(read, "digest", "left_anti")


def _sizes(blobs: DataFrame) -> DataFrame:
    return blobs.filter("relation = 'blob'").selectExpr("digest", "size as blob_size").dropDuplicates(["digest"])


def _known(kept: DataFrame, wanted: DataFrame) -> DataFrame:
    """Digests of those that an earlier run has read, and whose edges are all there still: what removes old files from
    the work folder asks for no folder as a whole, and a manifest without its layers would make them garbage."""
    edges = kept.filter("relation = 'edge'").join(wanted.select("digest"), "digest", "left_semi")
    there = edges.select("digest", "other", "kind", "size").distinct().groupBy("digest").count()
    whole = (
        kept.filter(_READABLE)
        .selectExpr("digest", "size as blob_size", "mtime as edges")
        .join(there, "digest", "left")
        .filter("edges = coalesce(count, 0)")
    )
    return wanted.join(whole, ["digest", "blob_size"], "left_semi").select("digest")


def ask_all(loaded: DataFrame, manifests: DataFrame) -> DataFrame:
    """The rows of `manifest` and `edge` that each shard gets: of what it asks for first, and of what these name."""
    named = manifests.filter(_NAMES_MANIFEST).selectExpr("digest", "other").persist()
    front = loaded.filter(f"relation = '{ASK}'").select("shard", "digest")
    asked = front
    while True:
        # Two levels a time: few images go deeper, and each time costs a job.
        for _ in range(2):
            more = front.join(named, "digest").selectExpr("shard", "other as digest").distinct()
            front = more.join(asked, ["shard", "digest"], "left_anti").persist()
            asked = asked.unionByName(front)
        if front.isEmpty():
            break
    return manifests.drop("shard").join(asked, "digest").select(*SCHEMA)


def as_rows(frame: DataFrame) -> DataFrame:
    """With the columns that it lacks."""
    return frame.selectExpr(
        *(name if name in frame.columns else f"cast(null as {kind}) as {name}" for name, kind in SCHEMA.items())
    )


def _sample(blobs: DataFrame) -> tuple[str, ...]:
    rows = blobs.filter("relation = 'blob' and size > 0").select("digest").limit(_SAMPLE).collect()
    return tuple(layout.blob_key(Digest.from_raw(bytes(row.digest))) for row in rows)
