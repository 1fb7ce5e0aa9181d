"""A plan applied by a cluster: executors unlink, list again, and sweep; what is decided stays with the driver.

The steps are those of one process, in its order (`gc.apply`). Each stage is committed, and only that is read: a
repository's links go in one task, blobs in tasks by ranges of their digests; both journal in parts of their own, look
at the lock before each batch, and tell the fate of each key. Where an executor is lost, Spark has its work done again
elsewhere, and it may yet be at it itself: what it deletes it has journaled, by a name that no other attempt has, and it
goes on only while the lock stands, that is for half a lease after the driver is gone. As what it was about to delete
may still go when all is over, such a run is not settled, and for a day the next ones give back what is needed of that.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from regstore import layout
from regstore.concurrency import wait
from regstore.digest import Digest
from regstore.errors import RegstoreError
from regstore.events import Progress
from regstore.gc.apply.application import Application
from regstore.gc.apply.fate import Fate
from regstore.gc.apply.finish import Outcome
from regstore.gc.apply.sweep import NAMED, Swept
from regstore.gc.apply.sweep_range import SweepRange
from regstore.gc.apply.unlink import NOTHING_UNLINKED, Unlinked
from regstore.gc.apply.unlink_repositories import UnlinkWork
from regstore.gc.counts import add_counts
from regstore.gc.heal import Healed
from regstore.inventory.inventory import digest_text
from regstore.layout import LayerLinkKey, RevisionLinkKey
from regstore.spark.attempts import run_watched, this_attempt
from regstore.spark.flow import one_of
from regstore.spark.looks import ClusterLooks, Sight
from regstore.spark.tasks.planning import APPLIED
from regstore.spark.tasks.rows import TABLES
from regstore.spark.tasks.sweeping import CANDIDATE, REPEATED, SWEPT, SweepTask
from regstore.spark.tasks.unlinking import FATE, UNLINKED, UnlinkedGroup, UnlinkTask
from regstore.state.counts import Counts

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Rounds of the sweep that come to nothing, one after the other, until the run gives up.
_FUTILE: Final = 3
#: Of a stage that may have been done twice, nobody tells how much of it.
_SOME_REPEATED: Final = 1


class ClusterHands:
    """Of an application whose inventory holds what the driver has planned itself. sight: what the plan was made of."""

    def __init__(self, application: Application, sight: Sight) -> None:
        self._application = application
        self._sight = sight
        self._cluster = sight.cluster
        self._looks = ClusterLooks(application, sight)
        #: Rows of FATE and of SWEPT, of each round: what came of each key and blob.
        self.fates: list[DataFrame] = []
        self._of_links: DataFrame | None = None
        #: The numbers of works from here on are no other's.
        self._number = 0
        self._blobs: dict[Fate, int] = defaultdict(int)
        self._bytes = 0
        self._vanished: list[str] = []

    async def unlink(self) -> Unlinked:
        self._tell("unlinking")
        application, flow = self._application, self._sight.flow
        links = self._sight.rows.links.filter(one_of(APPLIED))
        losing = links.filter(one_of(("gc_unlink", "gc_dead_upload"))).select("shard").distinct()
        if await self._cluster.run(losing.isEmpty):
            return NOTHING_UNLINKED
        task = UnlinkTask(
            store=flow.store,
            work=UnlinkWork(
                run=application.lock.run,
                lease=application.lock.lease,
                shard=0,
                plan=application.options.plan,
                offline=application.offline,
                scanned_at=application.now,
            ),
            shards=flow.shards,
            attempt=this_attempt,
        )
        held = [relation for relation in (*TABLES, "manifest", "edge") if relation not in APPLIED]
        rows = self._sight.shards.filter(one_of(held)).unionByName(links)
        rows = rows.join(losing, "shard", "left_semi").select(*rows.columns)
        stage = await self._watched("unlink", rows, task)
        self._of_links = stage.filter(f"relation = '{FATE}'")
        self.fates.append(self._of_links)
        told = stage.filter(f"relation = '{UNLINKED}'").orderBy("shard").select("shard", "rows")
        unlinked = NOTHING_UNLINKED
        for row in await self._cluster.run(told.collect):
            group: UnlinkedGroup = pickle.loads(bytes(row.rows))
            unlinked += group.unlinked
            self._number = max(self._number, row.shard + 1)
            application.storage.counters.repeated_deletes += group.repeated_deletes
            for key, said in group.failures.items():
                application.failures.add(key, said)
        await self._forget_links(f"why <> '{Fate.KEPT}'")
        return unlinked

    async def sweep(self) -> Swept:
        application, looks = self._application, self._looks
        total = application.summary.blobs.dead
        self._tell("removing blobs", total=total)
        # A tag that would not go still needs its blobs.
        if total and not (application.offline and not application.failures):
            await looks.before_blobs()
        futile = 0
        while looks.left:
            stage = await self._sweep_once(looks.candidates)
            late = await self._note(stage)
            futile = futile + 1 if late == looks.left else 0
            if futile >= _FUTILE:
                raise RegstoreError(
                    f"the cluster comes to none of {late:,} blobs while its last look at the links stands; give it "
                    "more cores, or fewer --shards"
                )
            self._tell("removing blobs", total=total, done=total - late)
            await looks.go_on_with(stage.filter(f"relation = '{SWEPT}' and text = '{Fate.LATE}'"), late)
        gone = self._blobs
        return Swept(
            blobs=gone[Fate.TAKEN],
            blob_bytes=self._bytes,
            vanished=gone[Fate.VANISHED],
            vanished_digests=tuple(self._vanished[:NAMED]),
            kept=looks.kept + gone[Fate.KEPT],
            healed=looks.healed,
        )

    async def _sweep_once(self, candidates: DataFrame) -> DataFrame:
        application, flow = self._application, self._sight.flow
        first, self._number = self._number, self._number + flow.shards
        begin = "cast(conv(hex(substring(digest, 1, 4)), 16, 10) as bigint)"
        places = {
            "relation": f"'{CANDIDATE}' as relation",
            "shard": f"cast({first} + {begin} * {flow.shards} div {2**32} as int) as shard",
        }
        rows = candidates.selectExpr(*(places.get(name, name) for name in candidates.columns))
        work = SweepRange(
            run=application.lock.run,
            lease=application.lock.lease,
            shard=first,
            trash=application.options.trash,
            until=self._looks.until,
            digests=(),
            sizes=(),
            mtimes=(),
        )
        task = SweepTask(store=flow.store, work=work, attempt=this_attempt)
        return await self._watched(f"sweep-{first}", rows, task)

    async def _note(self, stage: DataFrame) -> int:
        """What came of a round; how many blobs it did not come to."""
        application, run = self._application, self._cluster.run
        swept = stage.filter(f"relation = '{SWEPT}'")
        self.fates.append(swept)
        of_fates = await run(swept.groupBy("text").agg({"size": "sum", "digest": "count"}).collect)
        numbers: dict[Fate, tuple[int, int]] = {
            Fate(row["text"]): (row["count(digest)"], row["sum(size)"]) for row in of_fates
        }
        lost = self._looks.left - sum(number for number, _ in numbers.values())
        if lost:
            raise RegstoreError(
                f"of {lost:,} blobs nobody tells what came of them: the work folder (--work) lacks what executors "
                "wrote; run gc again"
            )
        for fate, (number, _) in numbers.items():
            self._blobs[fate] += number
        self._bytes += numbers.get(Fate.TAKEN, (0, 0))[1]
        if Fate.VANISHED in numbers:
            some = swept.filter(f"text = '{Fate.VANISHED}'").orderBy("digest").limit(NAMED)
            self._vanished += [digest_text(row.digest) for row in await run(some.collect)]
        if Fate.FAILED in numbers:
            async for rows in self._cluster.slices(swept.filter(f"text = '{Fate.FAILED}'")):
                for row in rows:
                    application.failures.add(layout.blob_key(Digest.from_raw(bytes(row.digest))), row.why)
        repeated = await run(stage.filter(f"relation = '{REPEATED}'").agg({"size": "sum"}).collect)
        application.storage.counters.repeated_deletes += repeated[0][0] or 0
        gone = swept.filter(f"text in ('{Fate.TAKEN}', '{Fate.VANISHED}')").select("digest")
        await self._looks.note_gone(gone)
        await self._forget_blobs(gone)
        return numbers.get(Fate.LATE, (0, 0))[0]

    async def settle(self) -> Healed:
        application = self._application
        await wait(application.options.settle, "waiting before the last look", application.on_event)
        return await self._looks.last()

    async def forget_run(self) -> None:
        await self._forget_links("true")
        for gone in self._looks.gone:
            await self._forget_blobs(gone)

    async def _forget_links(self, which: str) -> None:
        cache = self._application.cache
        if not cache.in_reach or self._of_links is None:
            return
        async for rows in self._cluster.slices(self._of_links.filter(which)):
            keys = [layout.decode(row.text) for row in rows]
            await cache.forget_links(
                (key.name, str(key.digest)) for key in keys if isinstance(key, LayerLinkKey | RevisionLinkKey)
            )

    async def _forget_blobs(self, gone: DataFrame) -> None:
        cache = self._application.cache
        if not cache.in_reach:
            return
        async for rows in self._cluster.slices(gone):
            await cache.forget_blobs(digest_text(row.digest) for row in rows)

    def count(self, outcome: Outcome, runs: Collection[str], chosen: Collection[str]) -> Counts:
        left = add_counts(self._sight.rows.left, runs=runs, chosen=chosen)
        gone = self._blobs[Fate.TAKEN] + self._blobs[Fate.VANISHED]
        return replace(
            left,
            links=left.links - outcome.unlinked.links,
            blobs=self._application.summary.blobs.total - gone + len(outcome.healed_by_looks.blobs),
        )

    async def _watched(self, name: str, rows: DataFrame, task: UnlinkTask | SweepTask) -> DataFrame:
        """A stage that changes the store."""
        session, flow = self._cluster.session, self._sight.flow
        stage, repeated = await self._cluster.run(lambda: run_watched(session, lambda: flow.run(name, rows, task)))
        if repeated:
            self._application.storage.counters.repeated_deletes += _SOME_REPEATED
        return stage

    def _tell(self, phase: str, *, done: int = 0, total: int | None = None) -> None:
        self._application.on_event(Progress(phase=phase, done=done, total=total))
