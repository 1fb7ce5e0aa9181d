"""Blobs as an S3 Inventory report has them, in place of their listing by executors: candidates only, older than the
links. The rules are those of one process (`inventory.reported`, `gc.reported`).

A task reads a file of the report, whole and proved, or the run ends. What has to be looked at again, tasks look at, by
ranges of digests, and what they find counts from there on: children of manifests that the report lacks, as manifests
are read; and what a plan goes by, once it is made. Manifests that an earlier run has read are known by digest and size:
so what a look finds gone, or of another size, is asked for anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regstore.errors import RegstoreError
from regstore.inventory.inventory import Inventory, ReportedAt
from regstore.inventory.reported.again import Way
from regstore.inventory.reported.blobs import reported_at, root_of
from regstore.inventory.reported.place import open_place, read_report
from regstore.inventory.reported.report import BlobsFrom
from regstore.spark.cluster import Cluster
from regstore.spark.flow import Flow
from regstore.spark.manifest_rounds import as_rows
from regstore.spark.tasks.executing import store_work
from regstore.spark.tasks.reporting import (
    OTHERWISE,
    READ,
    TO_LOOK_AT,
    TRASHED,
    LookAgainTask,
    ReportTask,
    UnpackTask,
)
from regstore.spark.tasks.rows import DDL, SCHEMA, whole_rows
from regstore.spark.work_folder import one_each, refuse_lost, union
from regstore.storage.base import Storage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Digests that a task looks at together.
_SOME: Final = 50_000
#: Thousands of digests on their way to executors at a time.
_PACKS: Final = 1000


class ReportedBlobs:
    """`Blobs` of a report. numbers: as the report has them."""

    by_report: Final = True

    def __init__(self, blobs: DataFrame, others: DataFrame, at: ReportedAt, unknown: int) -> None:
        self.at: Final = at
        self.numbers: Final[Mapping[str, int]] = {"blob": at.blobs} | ({"unknown": unknown} if unknown else {})
        self._report = blobs
        self._others = others
        #: What looks have shown: of each blob that was looked at `blob` or ABSENT. What is there is looked at once.
        self._looks: list[DataFrame] = []
        #: The first of those whose absences count yet.
        self._fresh = 0
        #: `digest` of what lay in the trash when the run began.
        self._trashed: DataFrame | None = None
        #: What came of those that were asked for last.
        self._manifests: DataFrame | None = None

    @property
    def rows(self) -> DataFrame:
        """As the store is, as far as that is known."""
        found, rest = self._found, self._report
        if self._looks:
            rest = _without(rest, union(self._report.sparkSession, self._looks))
        if self._trashed is not None:
            rest = _without(rest, self._trashed)
        rows = rest if found is None else rest.unionByName(found)
        if self._manifests is not None:
            rows = _without(rows, self._manifests.filter("relation = 'manifest' and text = 'missing'"))
        return rows.unionByName(self._others)

    @property
    def _found(self) -> DataFrame | None:
        """Each once: what was found is not looked at again."""
        return union(self._report.sparkSession, self._looks).filter("relation = 'blob'") if self._looks else None

    def look_anew(self) -> None:
        """Links are listed anew: what was not there may have come since."""
        self._fresh = len(self._looks)

    def beside(self, flow: Flow, digests: Sequence[bytes]) -> ReportedBlobs:
        """These are looked for where a manifest names them."""
        return self

    def note(self, manifests: DataFrame) -> None:
        """Manifests were asked for: the blobs of those that are missing are none."""
        self._manifests = manifests

    def leave_trashed(self, flow: Flow, inventory: Inventory) -> None:
        """What lies in the trash, by the inventory, is no blob unless somebody has looked."""
        stages: list[DataFrame] = []
        packs = whole_rows(inventory, TRASHED, "select distinct digest from trash")
        while some := [tuple(row.values()) for batch in islice(packs, _PACKS) for row in batch.to_pylist()]:
            rows = flow.session.createDataFrame(some, DDL)
            stages.append(flow.work.stage(f"{flow.look}trashed-{len(stages)}", rows, UnpackTask().__call__))
        if stages:
            self._trashed = union(flow.session, stages).select("digest")

    def complete(self, flow: Flow, digests: DataFrame) -> None:
        """Look for those of them that are not known."""
        lacking = self._not_known(_without_digests(digests, self.rows.filter("relation = 'blob'")))
        self._look(
            flow, lacking.selectExpr("digest", "cast(null as bigint) as size", "cast(null as bigint) as mtime")
        )

    def see(self, flow: Flow, inventory: Inventory) -> None:
        """Blobs that the inventory has, and that lie in the trash, too: they stand, or came back."""
        rows = inventory.all("select digest from blob semi join trash using (digest)")
        if rows:
            self.look(flow, flow.small("standing", {"digest": [bytes(raw) for (raw,) in rows]}))

    def look(self, flow: Flow, digests: DataFrame) -> int:
        """At those of these blobs that were not looked at before; how many are otherwise than was known."""
        blobs = self.rows.filter("relation = 'blob'").select("digest", "size", "mtime")
        return self._look(flow, self._not_known(digests).join(blobs, "digest", "left"))

    def unchanged(self, manifests: DataFrame) -> DataFrame:
        """Of these, all but such as the last look found otherwise."""
        return _without(manifests, self._looks[-1].filter(f"why = '{OTHERWISE}'"))

    def _not_known(self, digests: DataFrame) -> DataFrame:
        """Those of them that no look was at which counts yet."""
        old, fresh = self._looks[: self._fresh], self._looks[self._fresh :]
        known = [look.filter("relation = 'blob'") for look in old] + fresh
        wanted = digests.select("digest").distinct()
        return _without_digests(wanted, union(digests.sparkSession, known)) if known else wanted

    def _look(self, flow: Flow, wanted: DataFrame) -> int:
        """wanted: `digest` of each once, with `size` and `mtime` as they are known. How many are otherwise."""
        wanted = wanted.persist()
        number = wanted.count()
        if not number:
            wanted.unpersist()
            return 0
        flow.tell("looking again at blobs")
        ranges = max(flow.shards, number // _SOME)
        begin = "cast(conv(hex(substring(digest, 1, 4)), 16, 10) as bigint)"
        shard = f"cast({begin} * {ranges} div {2**32} as int)"
        rows = as_rows(
            wanted.selectExpr(f"'{TO_LOOK_AT}' as relation", f"{shard} as shard", "digest", "size", "mtime")
        )
        task = LookAgainTask(store=flow.store, way=Way(wanted=number, blobs=self.at.blobs))
        stage = flow.run(f"again-{len(self._looks)}", rows, task)
        wanted.unpersist()
        self._looks.append(stage)
        counted = stage.groupBy("relation", "why").count().collect()
        told = sum(row["count"] for row in counted)
        if told != number:
            raise RegstoreError(
                f"of {number:,} blobs that were looked at again {told:,} are in the work folder (--work): nothing else "
                "may remove files there; run this again"
            )
        return sum(row["count"] for row in counted if row.why == OTHERWISE)


async def read_reported(cluster: Cluster, storage: Storage, blobs_from: BlobsFrom) -> ReportedBlobs:
    """The errors are those of `inventory.reported.Reported.load`; Unsupported where executors can't open the report's
    bucket, Refused where they don't see its folder."""
    flow = cluster.flow
    async with open_place(blobs_from) as place:
        report = await read_report(place)
    root = root_of(storage, report, now=flow.now)
    bucket = None
    if blobs_from.bucket is not None:
        async with blobs_from.open(blobs_from.bucket) as opened:
            bucket = await store_work(opened, concurrency=flow.store.concurrency, rate=flow.store.rate)
    task = ReportTask(blobs_from=_for_others(blobs_from), bucket=bucket, report=report, root=root)
    return await cluster.run(lambda: _read(flow, task))


def _for_others(blobs_from: BlobsFrom) -> BlobsFrom:
    """The same place, in other processes; without what opens its bucket in this one."""
    if blobs_from.bucket is not None:
        return BlobsFrom(bucket=blobs_from.bucket, manifest=blobs_from.manifest)
    return BlobsFrom(manifest=str(Path(blobs_from.manifest).absolute()))


def _read(flow: Flow, task: ReportTask) -> ReportedBlobs:
    flow.tell("reading the report")
    report = task.report
    files = [{"text": file.key, "size": file.size, "why": file.md5} for file in report.files]
    stage = flow.work.stage(f"{flow.look}report", one_each(flow.session, files), task.__call__)
    told = {row.text: row.size for row in stage.filter(f"relation = '{READ}'").select("text", "size").collect()}
    refuse_lost({file.key for file in report.files}, told, "report")
    counted = stage.groupBy("relation").agg(*_columns("count(*) as number", "count(distinct digest) as digests"))
    numbers = {row.relation: (row.number, row.digests) for row in counted.collect()}
    number, digests = numbers.get("blob", (0, 0))
    if number != sum(told.values()):
        raise RegstoreError(
            f"of {sum(told.values()):,} blobs of the report {number:,} are in the work folder (--work): nothing else "
            "may remove files there; run this again"
        )
    at = reported_at(report, task.root, now=flow.now, blobs=digests)
    blobs = stage.filter("relation = 'blob'").select(*SCHEMA)
    if digests < number:  # a report may show a key twice, by two of its versions: the later one counts
        later = blobs.groupBy("digest").agg(*_columns("max(struct(mtime, size)) as later"))
        blobs = as_rows(
            later.selectExpr("'blob' as relation", "digest", "later.size as size", "later.mtime as mtime")
        )
    unknown, _ = numbers.get("unknown", (0, 0))
    return ReportedBlobs(blobs, stage.filter("relation = 'unknown'").select(*SCHEMA), at, unknown)


def _columns(*texts: str) -> list[Any]:
    from pyspark.sql.functions import expr

    return [expr(text) for text in texts]


def _without(rows: DataFrame, digests: DataFrame) -> DataFrame:
    return _without_digests(rows, digests).select(*SCHEMA)


def _without_digests(rows: DataFrame, digests: DataFrame) -> DataFrame:
    return rows.join(digests.select("digest"), "digest", "left_anti")
