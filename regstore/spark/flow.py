"""The stages of a plan, in their order; what is small comes to the driver."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from regstore import layout
from regstore.events import OnEvent, Progress
from regstore.gc.plan import GcOptions
from regstore.gc.plan.facts import Facts
from regstore.gc.plan.question import Question
from regstore.gc.plan.shards import BY_DIGEST, ask_for_blobs, open_whole, plan_whole
from regstore.inventory.inventory import Inventory
from regstore.inventory.unlinked import READ as SMALL_READ
from regstore.spark.listing_rounds import list_all
from regstore.spark.manifest_rounds import as_rows, ask_all, read_all, sound
from regstore.spark.tasks.executing import StoreWork
from regstore.spark.tasks.further import FurtherTask
from regstore.spark.tasks.listing import shard_of_name
from regstore.spark.tasks.loading import LOADED, ODD_LINK, RECORD, UPLOAD, Loaded, LoadTask
from regstore.spark.tasks.planning import (
    DROPPED,
    FACTS,
    REACHED_ODD,
    RELIED_ON,
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


class Blobs(Protocol):
    """All that is below `layout.BLOBS`: listed (`ListedBlobs`), or as a report has it (`spark.reported`), and then the
    methods keep the rows up to date. rows: of blob, litter, and unknown, as far as is known now. numbers: how many of
    each relation these were."""

    @property
    def by_report(self) -> bool: ...

    @property
    def numbers(self) -> Mapping[str, int]: ...

    @property
    def rows(self) -> DataFrame: ...

    def look_anew(self) -> None:
        """All links are listed anew from here on."""
        ...

    def beside(self, flow: Flow, digests: Sequence[bytes]) -> Blobs:
        """For reading manifests: with these, that have come back since."""
        ...

    def complete(self, flow: Flow, digests: DataFrame) -> None:
        """Look for those of them (`digest`) that the rows lack, and that may be there."""
        ...

    def note(self, manifests: DataFrame) -> None:
        """What came of all manifests that were asked for."""
        ...

    def leave_trashed(self, flow: Flow, inventory: Inventory) -> None:
        """The inventory has what lies in the trash."""
        ...

    def see(self, flow: Flow, inventory: Inventory) -> None:
        """The inventory has the blobs that stand, of what lies in the trash."""
        ...

    def look(self, flow: Flow, digests: DataFrame) -> int:
        """At those that a plan goes by, unless that is known: how many are not as they were said to be."""
        ...

    def unchanged(self, manifests: DataFrame) -> DataFrame:
        """Of these, all but such as the last look found otherwise."""
        ...


@dataclass(frozen=True, kw_only=True)
class ListedBlobs:
    """As they were listed before the links."""

    rows: DataFrame
    numbers: Mapping[str, int]
    by_report: bool = False

    def look_anew(self) -> None:
        return

    def beside(self, flow: Flow, digests: Sequence[bytes]) -> ListedBlobs:
        return replace(self, rows=self.rows.unionByName(flow.small("blob", {"digest": list(digests)})))

    def complete(self, flow: Flow, digests: DataFrame) -> None:
        return

    def note(self, manifests: DataFrame) -> None:
        return

    def leave_trashed(self, flow: Flow, inventory: Inventory) -> None:
        return

    def see(self, flow: Flow, inventory: Inventory) -> None:
        return

    def look(self, flow: Flow, digests: DataFrame) -> int:
        return 0

    def unchanged(self, manifests: DataFrame) -> DataFrame:
        return manifests


@dataclass(frozen=True, kw_only=True)
class Listed:
    """blobs, and after these everything else, decoded and resolved, by shard. of_shards: what each holds."""

    blobs: Blobs
    loaded: DataFrame
    of_shards: Sequence[Loaded]

    @property
    def counts(self) -> list[Counts]:
        return [*(each.counts for each in self.of_shards), Counts(blobs=self.blobs.numbers.get("blob", 0))]

    @property
    def shards(self) -> list[int]:
        """Those that hold any key."""
        return [each.shard for each in self.of_shards if each.keys]

    @property
    def is_empty(self) -> bool:
        return not self.blobs.numbers and not any(each.keys for each in self.of_shards)


@dataclass(frozen=True, kw_only=True)
class Read:
    """shards: what each plans by: its tables, and the manifests that it asks for. manifests: all that were read, each
    once."""

    shards: DataFrame
    manifests: DataFrame

    @property
    def sound(self) -> DataFrame:
        """The manifests that need not be read again."""
        return sound(self.manifests)


@dataclass(frozen=True, kw_only=True)
class PlannedRows:
    """links and blobs: rows of what goes (`LinksTask`, `BlobsTask`). why: no blob may go, "" where any may. facts: of
    all parts. left: of each shard of repositories, what its plan leaves."""

    links: DataFrame
    blobs: DataFrame
    why: str
    facts: Sequence[Facts]
    left: Sequence[Counts]

    @property
    def gone_by(self) -> DataFrame:
        """`digest` of what the plan goes by, of a report's blobs (`gc.reported`)."""
        dead = self.blobs.filter("relation = 'gc_dead_blob'").select("digest")
        return dead.unionByName(self.links.filter(f"relation = '{RELIED_ON}'").select("digest"))

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
        self.tell("listing blobs")
        name = f"{self.look}blobs"
        rows = list_all(self.session, self.work, self.store, layout.BLOBS, name, ranges=self.shards, shards=0)
        numbers = rows.groupBy("relation").count().collect()
        return ListedBlobs(rows=rows, numbers={row.relation: row["count"] for row in numbers})

    def list_links(self, blobs: Blobs, uploads: Sequence[MultipartUpload]) -> Listed:
        """Tables of each shard, beside blobs that were listed before."""
        blobs.look_anew()
        self.tell("listing repositories")
        name = f"{self.look}links"
        pages = list_all(
            self.session, self.work, self.store, layout.REPOSITORIES, name, ranges=1, shards=self.shards
        )
        self.tell("reading links")
        policy = self.options.policy
        task = LoadTask(store=self.store, record=policy is not None and policy.needs_time)
        rows = pages.unionByName(self._uploads(uploads))
        loaded = self.run("load", rows, task)
        wanted = [row.shard for row in rows.select("shard").distinct().collect()]
        of_shards: list[Loaded] = [pickle.loads(rows) for rows in self._pickled(loaded, LOADED)]
        refuse_lost(wanted, [each.shard for each in of_shards], "load")
        return Listed(blobs=blobs, loaded=loaded, of_shards=of_shards)

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

    def read_manifests(self, listed: Listed, before: DataFrame | None = None) -> Read:
        """before: manifests that are known by what this run has read."""
        self.tell("reading manifests")
        blobs = listed.blobs
        manifests = read_all(
            *(self.session, self.work, self.store, listed.loaded),
            blobs=lambda: blobs.rows,
            complete=lambda digests: blobs.complete(self, digests),
            name=self.look,
            tasks=self.shards,
            before=before,
        )
        blobs.note(manifests)
        given = self.work.stage(f"{self.look}given", ask_all(listed.loaded, manifests))
        return Read(shards=listed.loaded.filter(one_of((*TABLES, RECORD))).unionByName(given), manifests=manifests)

    def read_further(self, shards: DataFrame, multipart_uploads_unknown: str) -> DataFrame:
        """shards: as `Read` has them. The same, with what the plan asks for beyond: what seems broken is
        looked at again before it may go, and when images were made is read where rules go by it."""
        policy = self.options.policy
        if not self.options.drop_broken and not (policy is not None and policy.needs_created):
            return shards
        self.tell("reading further")
        return self.run("further", shards, FurtherTask(store=self.store, **self._asked(multipart_uploads_unknown)))

    def plan(self, listed: Listed, shards: DataFrame, multipart_uploads_unknown: str) -> PlannedRows:
        """shards: as `Read` has them. All but what the driver has to plan itself."""
        self.tell("planning")
        told = self._asked(multipart_uploads_unknown)
        if any(each.odd for each in listed.of_shards):
            odd_links = listed.loaded.filter(f"relation = '{ODD_LINK}'").select("shard", "digest").distinct()
            reached = self.run("roots", shards, RootsTask(**told)).select("digest").distinct()
            odd = odd_links.join(reached, "digest").selectExpr(f"'{REACHED_ODD}' as relation", "shard", "digest")
            shards = shards.unionByName(as_rows(odd))
        links = self.run("plan-links", shards, LinksTask(**told, by_report=listed.blobs.by_report))
        parts: list[LinksTold] = [pickle.loads(rows) for rows in self._pickled(links, FACTS)]
        refuse_lost(listed.shards, [part.shard for part in parts], "plan-links")
        facts = [part.facts for part in parts]
        why = next((part.blocked for part in parts if part.blocked), "")
        blobs, of_blobs = self._plan_blobs(listed, links, facts, blocked=bool(why))
        facts += of_blobs
        return PlannedRows(links=links, blobs=blobs, why=why, facts=facts, left=[part.left for part in parts])

    def plan_whole(self, listed: Listed, rows: PlannedRows, whole: Inventory) -> PlannedRows:
        """whole: gets what the driver plans itself, and the tags that rules take."""
        facts = self._plan_whole(listed, rows.links, rows.blobs, whole)
        return replace(rows, facts=[*rows.facts, facts])

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
        every = listed.blobs.rows.filter("relation = 'blob'").unionByName(told)
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
        listed_rows = listed.blobs.rows
        if any(listed.blobs.numbers.get(relation) for relation in _OF_WHOLE):
            self.bring(listed_rows.filter(one_of(_OF_WHOLE)), whole)
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
            for frame in (listed_rows.filter("relation = 'blob'"), dead):
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

    def tell(self, phase: str) -> None:
        self.on_event(Progress(phase=phase, done=0))


def one_of(relations: Collection[str]) -> str:
    names = ", ".join(f"'{name}'" for name in relations)
    return f"relation in ({names})"
