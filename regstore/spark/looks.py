"""Looks at all links of the store by a cluster, while blobs go (`gc.apply.looks`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regstore.digest import Digest
from regstore.gc.apply.application import Application
from regstore.gc.apply.looks import refuse_database_now, stands_for
from regstore.gc.heal import Healed
from regstore.gc.plan.options import keeping_all
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.spark.cluster import Cluster
from regstore.spark.flow import Blobs, Flow, Listed, PlannedRows, one_of
from regstore.spark.healing import open_part
from regstore.spark.manifest_rounds import as_rows
from regstore.spark.tasks.loading import RECORD
from regstore.spark.tasks.planning import BLOCKED, KEPT_BLOB, KEPT_REPOSITORY, LOOKED, LookTask
from regstore.spark.work_folder import refuse_lost
from regstore.storage.base import Storage
from regstore.storage.clock import clock
from regstore.storage.optional import latest

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_FOR_EVER: Final = 2**60
_SECOND: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What a plan was made of: a look, its shards with their manifests, and the plan's rows. shards, manifests: as
    `Read` has them, those that are sound."""

    cluster: Cluster
    flow: Flow
    listed: Listed
    shards: DataFrame
    manifests: DataFrame
    rows: PlannedRows


class ClusterLooks:
    """candidates: the blobs that may go, and left: how many; until: how long, by the store's clock. gone: digests of
    those that are there no more. healed: all that came back between blobs; kept: candidates that were needed."""

    def __init__(self, application: Application, sight: Sight) -> None:
        self._application = application
        self._sight = sight
        self._looks = 0
        #: What looks have read so far.
        self._manifests = sight.manifests
        self.candidates: DataFrame = sight.rows.blobs.filter("relation = 'gc_dead_blob'")
        self.left = application.summary.blobs.dead
        self.until = _FOR_EVER
        self.gone: list[DataFrame] = []
        #: Digests of blobs that came back in later looks.
        self._back: list[bytes] = []
        self.healed = Healed()
        self.kept = 0

    async def before_blobs(self) -> None:
        """The first: what went was links, so nothing is to come back yet."""
        await self._look(choose=True)

    async def go_on_with(self, candidates: DataFrame, left: int) -> None:
        """Those that the last look did not stand for. There is another, what it misses comes back; and where anything
        did, one more: it may need candidates."""
        self.candidates, self.left = candidates, left
        while self.left:
            healed = await self._look(heal=True, choose=True)
            self.healed += healed
            if healed.nothing:
                return

    async def last(self) -> Healed:
        """When no blob goes any more: what was linked while they went comes back."""
        return await self._look(heal=True)

    async def note_gone(self, digests: DataFrame) -> None:
        """Of blobs, also such as the driver knows."""
        self.gone.append(digests)
        whole = self._application.inventory
        asked = [bytes(raw) for (raw,) in whole.all("select digest from blob")]
        if asked:
            flow = self._sight.flow
            frame = flow.small("asked", {"digest": asked}).select("digest")
            rows = await self._sight.cluster.run(digests.join(frame, "digest", "left_semi").collect)
            whole.execute(
                "delete from blob where digest in (select unnest(?::blob[]))", [[bytes(row.digest) for row in rows]]
            )

    async def _look(self, *, heal: bool = False, choose: bool = False) -> Healed:
        application, cluster = self._application, self._sight.cluster
        began, latest_then = clock(), await latest(application.storage)
        self._looks += 1
        flow = cluster.look(self._looks)
        known = self._sight.listed.blobs
        if self._back:  # manifests that others list are read where their blobs are known
            known = known.beside(flow, self._back)
        listed = await cluster.run(lambda: flow.list_links(known, []))
        if choose:
            await refuse_database_now(application.storage)
        read = await cluster.run(lambda: flow.read_manifests(listed, self._manifests))
        self._manifests = read.sound
        healed = Healed()
        if heal:
            healed = await self._heal(flow, read.shards)
            self._back += [Digest.parse(digest).raw for digest in healed.blobs]
        if choose and healed.nothing:
            before = self.left
            await cluster.run(lambda: self._keep_reached(flow, listed, read.shards))
            self.kept += before - self.left
        seconds = clock() - began
        if not application.offline:
            self.until = latest_then + int((seconds + stands_for(seconds)) * _SECOND)
        return healed

    async def _heal(self, flow: Flow, shards: DataFrame) -> Healed:
        application = self._application
        async with open_part(
            self._sight.cluster, application.storage, application.scan, flow, shards, lambda _: self._standing()
        ) as part:
            return await application.heal(part.past, part.inventory, part.scanner)

    def _standing(self) -> DataFrame:
        return standing_blobs(self._sight.listed, self.gone)

    def _keep_reached(self, flow: Flow, listed: Listed, shards: DataFrame) -> None:
        """Let go only what this look does not reach either; nor what a repository may need that has come to be left
        alone, of what this run took from it (`candidates.sql`: keep_reached)."""
        task = LookTask(options=keeping_all(flow.options), now=flow.now, multipart_uploads_unknown="")
        look = flow.run("reach", shards.filter(f"relation <> '{RECORD}'"), task)
        kept = look.filter(f"relation = '{KEPT_BLOB}'").select("digest")
        alone = look.filter(f"relation = '{KEPT_REPOSITORY}'").select("text").distinct()
        freed = self._sight.rows.links.filter("relation = 'freed_blob'").select("digest", "text")
        kept = kept.unionByName(freed.join(alone, "text", "left_semi").select("digest")).distinct()
        left = self.candidates.join(kept, "digest", "left_anti")
        told = look.filter(one_of((BLOCKED, LOOKED))).select("relation", "shard").collect()
        refuse_lost(listed.shards, [row.shard for row in told if row.relation == LOOKED], "reach")
        if any(row.relation == BLOCKED for row in told):
            left = left.filter("false")
        self.candidates = flow.work.stage(f"{flow.look}candidates", as_rows(left))
        self.left = self.candidates.count()


def standing_blobs(listed: Listed, gone: Sequence[DataFrame] = ()) -> DataFrame:
    """Those that were listed, but for the digests of these that are gone."""
    blobs = listed.blobs.rows.filter("relation = 'blob'")
    for digests in gone:
        blobs = blobs.join(digests, "digest", "left_anti").select(*blobs.columns)
    return blobs


async def look_at_all(
    cluster: Cluster, flow: Flow, storage: Storage, inventory: Inventory, reported: Blobs | None = None
) -> Listed:
    """Blobs, but for such as a report has, then links. Of unfinished uploads the inventory says whether they are
    known."""
    blobs = reported if reported is not None else await cluster.run(flow.list_blobs)
    scanner = Scanner(storage, inventory, ScanOptions(cache_dir=None))
    uploads = [upload for _, upload in await scanner.find_multipart_uploads()]
    return await cluster.run(lambda: flow.list_links(blobs, uploads))
