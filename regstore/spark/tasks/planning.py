"""The plan of a shard, by the planner of one process: of repositories, and of blobs (`gc.plan.shards`)."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regstore.errors import RegstoreError
from regstore.gc.counts import count_left
from regstore.gc.plan.facts import Facts
from regstore.gc.plan.options import GcOptions
from regstore.gc.plan.question import Question
from regstore.gc.plan.shards import (
    BY_DIGEST,
    facts_of_links,
    open_blobs,
    plan_blobs,
    plan_links,
    plan_look,
    plan_roots,
)
from regstore.gc.reported import manifests_relied_on
from regstore.gc.retention import make_times
from regstore.inventory.inventory import Inventory, digest_text
from regstore.inventory.manifests import linked_manifests
from regstore.inventory.tag_times import empty_record
from regstore.inventory.unlinked import small_unlinked
from regstore.spark.tasks.executing import telling
from regstore.spark.tasks.loading import small_inventory
from regstore.spark.tasks.rows import by_shard, put_in, row_batch, rows_of, selected
from regstore.state.counts import Counts

if TYPE_CHECKING:
    import pyarrow as pa

#: `LinksTold` of a shard of repositories, `Facts` of one of blobs, pickled.
FACTS: Final = "facts"
#: What of a shard's plan its application needs; each travels whole. Of repositories there are more than before: those
#: of which litter is all that there is.
APPLIED: Final = ("repository", "gc_unlink", "gc_dead_upload", "gc_dead_revision", "gc_dead_layer_link")
#: A tag that a rule takes, by `DROPPED_SQL`; it travels whole.
DROPPED: Final = "dropped"
#: Manifests that a plan relies on, where blobs are a report's: to be looked at again.
RELIED_ON: Final = "relied_on"
#: Blobs that no link names and that may be manifests.
SMALL: Final = "small"
REACHED_ODD: Final = "gc_reached_odd"
#: Of a later look: a digest; the name of a repository, in `text`; and in `why` the reason that no blob may go.
KEPT_BLOB: Final = "kept_blob"
KEPT_REPOSITORY: Final = "kept_repository"
BLOCKED: Final = "blocked"
#: Of a later look at a shard: it was made.
LOOKED: Final = "looked"
_DROPPED_SQL: Final = """
    create or replace temp view dropped as
    select r.name as repository_name, d.name, f.target, f.mtime, f.rule, f.fate, f.time, f.time_by, f.place,
        d.rule as rule_name
    from gc_dropped_tag d join gc_tag_fate f using (repository, name) join repository r on r.id = d.repository
"""


@dataclass(frozen=True, kw_only=True)
class LinksTold:
    """shard: its number. blocked: why no blob may go, "" where nothing says so. left: what the shard holds when its
    plan is carried out, but for the number of its links: those that go are not taken off."""

    shard: int
    facts: Facts
    blocked: str
    left: Counts


@dataclass(frozen=True, kw_only=True)
class Shards:
    """now: the store's, when it was listed, in microseconds."""

    options: GcOptions
    now: int
    multipart_uploads_unknown: str

    def each(
        self,
        batches: Iterable[pa.RecordBatch],
        plan: Callable[[Question, int, list[bytes]], Iterator[pa.RecordBatch]],
    ) -> Iterator[pa.RecordBatch]:
        """Tables of a shard, with the manifests that it asked for, and what other shards reach of odd digests."""
        import pyarrow.compute as pc

        for shard, pieces in by_shard(batches):
            with small_inventory() as inventory:
                inventory.multipart_uploads_unknown = self.multipart_uploads_unknown
                policy = self.options.policy
                if policy is not None and policy.needs_time:
                    empty_record(inventory)
                if policy is not None and policy.needs_created:
                    make_times(inventory)
                odd: list[bytes] = []
                for batch in pieces:
                    is_odd = pc.equal(batch.column("relation"), REACHED_ODD)
                    odd += batch.filter(is_odd).column("digest").to_pylist()
                    put_in(inventory, batch.filter(pc.invert(is_odd)))
                _refuse_unknown(inventory)
                yield from plan(Question(inventory, self.options, self.now), shard, odd)


def _refuse_unknown(inventory: Inventory) -> None:
    """A manifest that is linked and of which no row tells would count as one that names nothing."""
    unknown = linked_manifests(inventory)
    if unknown:
        raise RegstoreError(
            f"of {len(unknown):,} linked manifests, such as {digest_text(unknown[0])}, nothing came back from the work "
            "folder (--work): nothing else may remove files there; run this again"
        )


@dataclass(frozen=True, kw_only=True)
class RootsTask(Shards):
    """Out: gc_reached_odd."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return telling(lambda: self.each(batches, self._plan))

    def _plan(self, question: Question, shard: int, odd: list[bytes]) -> Iterator[pa.RecordBatch]:
        plan_roots(question)
        yield from rows_of(question.inventory, REACHED_ODD, shard=shard)


@dataclass(frozen=True, kw_only=True)
class LinksTask(Shards):
    """by_report: blobs are a report's. Out: APPLIED; BY_DIGEST and standing_repository; DROPPED; RELIED_ON where blobs
    are a report's; FACTS."""

    by_report: bool

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return telling(lambda: self.each(batches, self._plan))

    def _plan(self, question: Question, shard: int, odd: list[bytes]) -> Iterator[pa.RecordBatch]:
        inventory = question.inventory
        plan_roots(question)
        inventory.insert(REACHED_ODD, {"digest": ("binary", odd)})
        why = plan_links(question)
        facts = facts_of_links(question)
        for relation in (*APPLIED, *BY_DIGEST, "standing_repository"):
            yield from rows_of(inventory, relation, shard=shard)
        if question.options.policy is not None:
            inventory.execute(_DROPPED_SQL)
            yield from rows_of(inventory, DROPPED, shard=shard)
        if self.by_report:
            yield from selected(inventory, RELIED_ON, f"from ({manifests_relied_on()})", {"digest": "digest"})
        told = LinksTold(shard=shard, facts=facts, blocked=why, left=count_left(inventory, runs=()))
        yield row_batch(FACTS, {"shard": [shard], "rows": [pickle.dumps(told)]})


@dataclass(frozen=True, kw_only=True)
class LookTask(Shards):
    """Of a later look, with options of `keeping_all`. Out: KEPT_BLOB, which no candidate may be; KEPT_REPOSITORY, of
    which nothing may go; BLOCKED; LOOKED."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return telling(lambda: self.each(batches, self._look))

    def _look(self, question: Question, shard: int, odd: list[bytes]) -> Iterator[pa.RecordBatch]:
        inventory = question.inventory
        why = plan_look(question)
        kept = "from (select digest from live_blob union select digest from unknown_reach)"
        yield from selected(inventory, KEPT_BLOB, kept, {"digest": "digest"})
        protected = "from gc_protected join repository r on r.id = repository"
        yield from selected(inventory, KEPT_REPOSITORY, protected, {"text": "r.name"})
        if why:
            yield row_batch(BLOCKED, {"why": [why]})
        yield row_batch(LOOKED, {"shard": [shard]})


@dataclass(frozen=True, kw_only=True)
class BlobsTask:
    """blocked: no blob may go; newest_link: of the store. In: blob and BY_DIGEST, by shard of blobs. Out: gc_dead_blob,
    SMALL, FACTS."""

    options: GcOptions
    now: int
    blocked: bool
    newest_link: int | None

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return telling(lambda: self._all(batches))

    def _all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for shard, pieces in by_shard(batches):
            with small_inventory() as inventory:
                question = Question(inventory, self.options, self.now)
                open_blobs(question)
                for batch in pieces:
                    put_in(inventory, batch)
                facts = plan_blobs(question, blocked=self.blocked, newest_link=self.newest_link)
                yield from rows_of(inventory, "gc_dead_blob", shard=shard)
                if facts.unlinked.blobs:
                    small = small_unlinked(inventory)
                    yield from _digests(SMALL, small)
                yield row_batch(FACTS, {"shard": [shard], "rows": [pickle.dumps(facts)]})


def _digests(relation: str, digests: list[bytes]) -> Iterator[pa.RecordBatch]:
    if digests:
        yield row_batch(relation, {"digest": digests})
