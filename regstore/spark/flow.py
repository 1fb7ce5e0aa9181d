"""The stages of a plan, in their order; what is small comes to the driver."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regstore import layout
from regstore.events import OnEvent, Progress
from regstore.gc.plan import GcOptions
from regstore.gc.plan.facts import Facts
from regstore.gc.plan.question import Question
from regstore.gc.plan.shards import BY_DIGEST, ask_for_blobs, open_whole, plan_whole
from regstore.inventory.inventory import Inventory
from regstore.inventory.unlinked import READ as SMALL_READ
from regstore.spark.listing_rounds import list_all
from regstore.spark.manifest_rounds import as_rows, ask_all, read_all
from regstore.spark.tasks.executing import StoreWork
from regstore.spark.tasks.further import FurtherTask
from regstore.spark.tasks.listing import shard_of_name
from regstore.spark.tasks.loading import LOADED, ODD_LINK, RECORD, UPLOAD, Loaded, LoadTask
from regstore.spark.tasks.planning import (
    DROPPED,
    FACTS,
    REACHED_ODD,
    SMALL,
    BlobsTask,
    LinksTask,
    LinksTold,
    RootsTask,
)
from regstore.spark.tasks.rows import DDL, TABLES, put_in, row_batch
from regstore.spark.work_folder import WorkFolder, refuse_lost
from regstore.state.counts import Counts
from regstore.storage.base import MultipartUpload

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Of what unknown keys and litter there are, wherever they stand.
_OF_WHOLE = ("litter", "unknown")


@dataclass(frozen=True, kw_only=True)
class ListedBlobs:
    """rows: all that is below `layout.BLOBS`, and numbers: how many of each relation these are."""

    rows: DataFrame
    numbers: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """blobs, and after these everything else, decoded and resolved, by shard. of_blobs: how many rows of each relation
    blobs has; of_shards: what each holds."""

    blobs: DataFrame
    loaded: DataFrame
    of_blobs: Mapping[str, int]
    of_shards: Sequence[Loaded]

    @property
    def blobs_listed(self) -> int:
        return self.of_blobs.get("blob", 0)

    @property
    def counts(self) -> list[Counts]:
        return [*(each.counts for each in self.of_shards), Counts(blobs=self.blobs_listed)]

    @property
    def shards(self) -> list[int]:
        """Those that hold any key."""
        return [each.shard for each in self.of_shards if each.keys]

    @property
    def is_empty(self) -> bool:
        return not self.of_blobs and not any(each.keys for each in self.of_shards)


@dataclass(frozen=True, kw_only=True)
class PlannedRows:
    """links and blobs: rows of what goes (`LinksTask`, `BlobsTask`). why: no blob may go, "" where any may. facts: of
    all parts. left: of each shard of repositories, what its plan leaves."""

    links: DataFrame
    blobs: DataFrame
    why: str
    facts: Sequence[Facts]
    left: Sequence[Counts]

    def small(self) -> list[bytes]:
        """As `inventory.unlinked.small_unlinked` gives them."""
        rows = self.blobs.filter(f"relation = '{SMALL}'").select("digest").orderBy("digest").limit(SMALL_READ)
        return [bytes(row.digest) for row in rows.collect()]


@dataclass(frozen=True, kw_only=True)
class Flow:
    """now: the store's time when the run's listing began, in microseconds. look: begins the names of the stages, for
    one of several looks of a run. Every method blocks until its jobs have ended."""

    session: SparkSession
    work: WorkFolder
    store: StoreWork
    options: GcOptions
    now: int
    shards: int
    on_event: OnEvent
    look: str = ""

    def list_blobs(self) -> ListedBlobs:
        """Before `list_links`: a blob that no link reaches was then unreferenced after it had been listed."""
        self._tell("listing blobs")
        name = f"{self.look}blobs"
        rows = list_all(self.session, self.work, self.store, layout.BLOBS, name, ranges=self.shards, shards=0)
        numbers = rows.groupBy("relation").count().collect()
        return ListedBlobs(rows=rows, numbers={row.relation: row["count"] for row in numbers})

    def list_links(self, blobs: ListedBlobs, uploads: Sequence[MultipartUpload]) -> Listed:
        """Tables of each shard, beside blobs that were listed before."""
        self._tell("listing repositories")
        name = f"{self.look}links"
        pages = list_all(
            self.session, self.work, self.store, layout.REPOSITORIES, name, ranges=1, shards=self.shards
        )
        self._tell("reading links")
        policy = self.options.policy
        task = LoadTask(store=self.store, record=policy is not None and policy.needs_time)
        rows = pages.unionByName(self._uploads(uploads))
        loaded = self.run("load", rows, task)
        wanted = [row.shard for row in rows.select("shard").distinct().collect()]
        of_shards: list[Loaded] = [pickle.loads(rows) for rows in self._pickled(loaded, LOADED)]
        refuse_lost(wanted, [each.shard for each in of_shards], "load")
        return Listed(blobs=blobs.rows, loaded=loaded, of_blobs=blobs.numbers, of_shards=of_shards)

    def _uploads(self, uploads: Sequence[MultipartUpload]) -> DataFrame:
        if not uploads:
            return self.session.createDataFrame([], DDL)
        names = [layout.repository_around(each.key) for each in uploads]
        return self.small(
            UPLOAD,
            {
                "shard": [shard_of_name(name, self.shards) for name in names],
                "text": [each.key for each in uploads],
                "why": [each.upload_id for each in uploads],
                "size": [each.size for each in uploads],
                "mtime": [each.newest for each in uploads],
            },
        )

    def read_manifests(self, listed: Listed) -> DataFrame:
        """What each shard plans by: its tables, and the manifests that it asks for."""
        self._tell("reading manifests")
        manifests = read_all(
            *(self.session, self.work, self.store, listed.loaded, listed.blobs), name=self.look, tasks=self.shards
        )
        given = self.work.stage(f"{self.look}given", ask_all(listed.loaded, manifests))
        return listed.loaded.filter(one_of((*TABLES, RECORD))).unionByName(given)

    def read_further(self, shards: DataFrame, multipart_uploads_unknown: str) -> DataFrame:
        """shards: as `read_manifests` has them. The same, with what the plan asks for beyond: what seems broken is
        looked at again before it may go, and when images were made is read where rules go by it."""
        policy = self.options.policy
        if not self.options.drop_broken and not (policy is not None and policy.needs_created):
            return shards
        self._tell("reading further")
        return self.run("further", shards, FurtherTask(store=self.store, **self._asked(multipart_uploads_unknown)))

    def plan(
        self, listed: Listed, shards: DataFrame, multipart_uploads_unknown: str, whole: Inventory
    ) -> PlannedRows:
        """shards: as `read_manifests` has them. whole: gets what the driver has to plan itself, and the tags that rules
        take."""
        self._tell("planning")
        told = self._asked(multipart_uploads_unknown)
        if any(each.odd for each in listed.of_shards):
            odd_links = listed.loaded.filter(f"relation = '{ODD_LINK}'").select("shard", "digest").distinct()
            reached = self.run("roots", shards, RootsTask(**told)).select("digest").distinct()
            odd = odd_links.join(reached, "digest").selectExpr(f"'{REACHED_ODD}' as relation", "shard", "digest")
            shards = shards.unionByName(as_rows(odd))
        links = self.run("plan-links", shards, LinksTask(**told))
        parts: list[LinksTold] = [pickle.loads(rows) for rows in self._pickled(links, FACTS)]
        refuse_lost(listed.shards, [part.shard for part in parts], "plan-links")
        facts = [part.facts for part in parts]
        why = next((part.blocked for part in parts if part.blocked), "")
        blobs, of_blobs = self._plan_blobs(listed, links, facts, blocked=bool(why))
        facts += of_blobs
        facts.append(self._plan_whole(listed, links, blobs, whole))
        return PlannedRows(links=links, blobs=blobs, why=why, facts=facts, left=[part.left for part in parts])

    def _asked(self, multipart_uploads_unknown: str) -> dict[str, Any]:
        """Of tasks on shards of repositories (`Shards`)."""
        return {
            "options": self.options,
            "now": self.now,
            "multipart_uploads_unknown": multipart_uploads_unknown,
        }

    def _plan_blobs(
        self, listed: Listed, links: DataFrame, facts: Sequence[Facts], *, blocked: bool
    ) -> tuple[DataFrame, list[Facts]]:
        newest = max((each.newest_link for each in facts if each.newest_link is not None), default=None)
        told = links.filter(f"{one_of(BY_DIGEST)} and digest is not null")
        every = listed.blobs.filter("relation = 'blob'").unionByName(told)
        every = every.selectExpr(
            *(
                f"cast(pmod(xxhash64(digest), {self.shards}) as int) as shard" if name == "shard" else name
                for name in every.columns
            )
        )
        task = BlobsTask(options=self.options, now=self.now, blocked=blocked, newest_link=newest)
        blobs = self.run("plan-blobs", every, task)
        return blobs, [pickle.loads(rows) for rows in self._pickled(blobs, FACTS)]

    def _plan_whole(self, listed: Listed, links: DataFrame, blobs: DataFrame, whole: Inventory) -> Facts:
        """Here: unknown keys and litter are few."""
        if any(listed.of_blobs.get(relation) for relation in _OF_WHOLE):
            self.bring(listed.blobs.filter(one_of(_OF_WHOLE)), whole)
        if any(each.outside for each in listed.of_shards):
            self.bring(listed.loaded.filter(one_of(_OF_WHOLE)), whole)
        question = Question(whole, self.options, self.now)
        question.make_tables("roots")
        open_whole(question)
        if "litter" in question.present:
            self.bring(links.filter("relation = 'standing_repository'"), whole)
        wanted = ask_for_blobs(question)
        if wanted:
            asked = self.small("asked", {"digest": wanted}).select("digest")
            dead = blobs.filter("relation = 'gc_dead_blob'")
            for frame in (listed.blobs.filter("relation = 'blob'"), dead):
                self.bring(frame.join(asked, "digest", "left_semi").select(*frame.columns), whole)
        if self.options.policy is not None:
            self._bring_dropped(links, whole)
        return plan_whole(question)

    def _bring_dropped(self, links: DataFrame, whole: Inventory) -> None:
        """The tags that rules take, as a plan's tables have them."""
        whole.execute(
            "create or replace temp table dropped (repository_name varchar, name varchar, target blob, mtime bigint,"
            " rule integer, fate varchar, time bigint, time_by varchar, place bigint, rule_name varchar)"
        )
        self.bring(links.filter(f"relation = '{DROPPED}'"), whole)
        whole.execute(
            "insert into repository select row_number() over (), name"
            " from (select distinct repository_name as name from dropped)"
        )
        whole.execute(
            "insert into gc_dropped_tag select r.id, d.name, rule_name"
            " from dropped d join repository r on r.name = repository_name"
        )
        whole.execute(
            "insert into gc_tag_fate select r.id, d.name, target, mtime, rule, fate, time, time_by, place"
            " from dropped d join repository r on r.name = repository_name"
        )

    def run(self, name: str, rows: DataFrame, task: Any) -> DataFrame:
        """A stage of tasks that get a shard each, whole."""
        sorted_rows = rows.repartition(self.shards, "shard").sortWithinPartitions("shard")
        return self.work.stage(f"{self.look}{name}", sorted_rows, task.__call__)

    def small(self, relation: str, columns: dict[str, list[Any]]) -> DataFrame:
        rows = [tuple(row.values()) for row in row_batch(relation, columns).to_pylist()]
        return self.session.createDataFrame(rows, DDL)

    def _pickled(self, frame: DataFrame, relation: str) -> list[bytes]:
        rows = frame.filter(f"relation = '{relation}'").select("shard", "rows").collect()
        return [bytes(row.rows) for row in sorted(rows, key=lambda row: row.shard)]

    def bring(self, frame: DataFrame, inventory: Inventory) -> None:
        """To the driver, some at a time."""
        import pyarrow as pa

        some: dict[str, list[Any]] = {}

        def put(batches: list[Any]) -> None:
            inventory.make_room(put_in(inventory, pa.Table.from_batches(batches).combine_chunks().to_batches()[0]))

        for row in frame.toLocalIterator():
            values = {name: value for name, value in row.asDict().items() if name != "relation"}
            batch = row_batch(row.relation, {name: [value] for name, value in values.items()})
            some.setdefault(row.relation, []).append(batch)
            if len(some[row.relation]) >= 1000:
                put(some.pop(row.relation))
        for batches in some.values():
            put(batches)

    def _tell(self, phase: str) -> None:
        self.on_event(Progress(phase=phase, done=0))


def one_of(relations: Collection[str]) -> str:
    names = ", ".join(f"'{name}'" for name in relations)
    return f"relation in ({names})"
