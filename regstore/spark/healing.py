"""What earlier runs took, beside a look that a cluster has made: the driver gets what of it that concerns
(`spark.tasks.bringing` says why that is enough), and heals by the code of one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regstore.gc.past import Past
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions
from regstore.spark.cluster import Cluster
from regstore.spark.flow import Flow, one_of
from regstore.spark.tasks.bringing import ASKED_DIGEST, ASKED_NAME, REACHED, NamesTask, PartTask
from regstore.spark.tasks.listing import shard_of_name
from regstore.spark.tasks.loading import PartScanner
from regstore.spark.tasks.rows import TABLES
from regstore.storage.base import Storage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Digests on their way to the driver at a time.
_SOME: Final = 10_000
_MANIFESTS: Final = ("manifest", "edge")


@dataclass(frozen=True, kw_only=True)
class Part:
    """inventory: the repositories that the past is about, with the blobs that they reach. past: judged by it."""

    inventory: Inventory
    past: Past
    scanner: PartScanner


@asynccontextmanager
async def open_part(
    cluster: Cluster,
    storage: Storage,
    options: ScanOptions,
    flow: Flow,
    shards: DataFrame,
    standing: Callable[[Inventory], DataFrame],
) -> AsyncIterator[Part]:
    """Of a look, shards as `Read` has them. standing: the blobs that stand, for an inventory that has
    what lies in the trash; what has come since is found when it is wanted."""
    with Inventory(memory_limit=options.memory_limit) as inventory:
        past = await Past.read(storage, inventory)
        names = past.of_repositories()
        if names or inventory.count("trash"):
            await cluster.run(lambda: _bring(flow, shards, standing(inventory), names, inventory))
        past.judge()
        yield Part(
            inventory=inventory,
            past=past,
            scanner=PartScanner(storage, inventory, options, flow.on_event),
        )


def _bring(flow: Flow, shards: DataFrame, blobs: DataFrame, names: list[str], inventory: Inventory) -> None:
    tables = shards.filter(one_of((*TABLES, *_MANIFESTS)))
    digests = _named_in_trash(flow, tables, blobs, inventory)
    asked = flow.small(
        ASKED_NAME, {"shard": [shard_of_name(name, flow.shards) for name in names], "text": names}
    ).unionByName(
        flow.small(ASKED_DIGEST, {"shard": [shard for shard, _ in digests], "digest": [raw for _, raw in digests]})
    )
    concerned = asked.select("shard").unionByName(tables.filter("relation = 'unknown'").select("shard")).distinct()
    some = tables.join(concerned, "shard", "left_semi").select(*tables.columns).unionByName(asked)
    part = flow.run("part", some, PartTask(shards=flow.shards))
    flow.bring(part.filter(f"relation <> '{REACHED}' and not {one_of(_MANIFESTS)}"), inventory)
    once = ["relation", "digest", "other", "kind", "size"]
    flow.bring(part.filter(one_of(_MANIFESTS)).dropDuplicates(once), inventory)
    reached = part.filter(f"relation = '{REACHED}'").select("digest").distinct()
    flow.bring(blobs.join(reached, "digest", "left_semi").select(*blobs.columns), inventory)


def _named_in_trash(
    flow: Flow, tables: DataFrame, blobs: DataFrame, inventory: Inventory
) -> list[tuple[int, bytes]]:
    """(shard, digest) of what a shard names, that lies in the trash, and is no blob. What is named and no blob is
    little, so it is that which comes here, and not the trash that goes there."""
    if not inventory.count("trash"):
        return []
    named = flow.run("named", tables, NamesTask()).select("shard", "digest")
    missing = named.join(blobs, "digest", "left_anti")
    found: list[tuple[int, bytes]] = []
    some: list[tuple[int, bytes]] = []
    for row in missing.toLocalIterator():
        some.append((row.shard, bytes(row.digest)))
        if len(some) >= _SOME:
            found += _in_trash(inventory, some)
            some = []
    return found + _in_trash(inventory, some)


def _in_trash(inventory: Inventory, named: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    if not named:
        return []
    shards, digests = zip(*named, strict=True)
    with inventory.given("named", {"shard": ("int32", shards), "digest": ("binary", digests)}):
        rows = inventory.all("select shard, digest from named semi join trash using (digest)")
    return [(shard, bytes(raw)) for shard, raw in rows]
