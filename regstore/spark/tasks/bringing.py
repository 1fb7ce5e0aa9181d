"""What of a store's repositories concerns what earlier runs took, for the driver to heal (`gc.heal`).

Healing goes by the repository: what one of them needs, it names. So the driver has to know only those from which a run
took anything, by its journal, and those that name what is in the trash and not where it belongs; and the unknown keys,
which stand in no repository. It gets all that stands in them, and the manifests that these reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regstore.gc.heal_plan import reach_all
from regstore.inventory.inventory import Inventory
from regstore.spark.tasks.executing import telling
from regstore.spark.tasks.loading import small_inventory
from regstore.spark.tasks.rows import by_shard, places_of, put_in, rows_of, selected, whole_rows

if TYPE_CHECKING:
    import pyarrow as pa

#: A digest that anything of the shard names, or reaches.
NAMED: Final = "named"
#: What is asked of a shard: a repository's name, in `text`; a digest that repositories are to be found by.
ASKED_NAME: Final = "asked_name"
ASKED_DIGEST: Final = "asked_digest"
#: A digest that what is brought reaches.
REACHED: Final = "reached"
_OF_REPOSITORY: Final = ("layer_link", "revision_link", "signature_link", "tag", "tag_index")


@dataclass(frozen=True, kw_only=True)
class NamesTask:
    """In: tables of a shard, with its manifests. Out: NAMED."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return telling(lambda: self._all(batches))

    def _all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for shard, pieces in by_shard(batches):
            with small_inventory() as inventory:
                for batch in pieces:
                    put_in(inventory, batch)
                named = f"from (select distinct digest from {reach_all(inventory).table})"
                yield from selected(inventory, NAMED, named, {"digest": "digest"}, shard=shard)


@dataclass(frozen=True, kw_only=True)
class PartTask:
    """In: the same, with ASKED_NAME and ASKED_DIGEST. Out: the tables of the repositories that are asked for, by ids
    that no other shard's have; the unknown keys; the manifests that these reach, and REACHED. shards: of all."""

    shards: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return telling(lambda: self._all(batches))

    def _all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow.compute as pc

        for shard, pieces in by_shard(batches):
            with small_inventory() as inventory:
                asked: dict[str, list[str | bytes]] = {ASKED_NAME: [], ASKED_DIGEST: []}
                for batch in pieces:
                    relations = batch.column("relation")
                    for relation, column in ((ASKED_NAME, "text"), (ASKED_DIGEST, "digest")):
                        asked[relation] += batch.filter(pc.equal(relations, relation)).column(column).to_pylist()
                    others = pc.invert(pc.is_in(relations, value_set=_array(list(asked))))
                    put_in(inventory, batch.filter(others))
                _find(inventory, asked)
                yield from self._rows(inventory, shard)

    def _rows(self, inventory: Inventory, shard: int) -> Iterator[pa.RecordBatch]:
        number = f"(%s::bigint * {self.shards} + {shard})::integer"
        yield from whole_rows(
            inventory,
            "repository",
            f"select {number % 'id'} as id, name from repository where id in (from asked_repository)",
        )
        for table in _OF_REPOSITORY:
            yield from whole_rows(
                inventory,
                table,
                f"select * replace ({number % 'repository'} as repository) from {table}"
                " where repository in (from asked_repository)",
            )
        yield from rows_of(inventory, "unknown")
        for relation, column in (("manifest", "digest"), ("edge", "source")):
            some = f"from {relation} semi join reached r on r.digest = {relation}.{column}"
            yield from selected(inventory, relation, some, places_of(relation))
        yield from selected(inventory, REACHED, "from reached", {"digest": "digest"})


def _find(inventory: Inventory, asked: dict[str, list[str | bytes]]) -> None:
    """asked_repository(id), and reached(digest): what these and the unknown keys reach, and what tags have named."""
    reach = reach_all(inventory).table
    inventory.execute("create temp table asked_digest (digest blob)")
    inventory.insert("asked_digest", {"digest": ("binary", asked[ASKED_DIGEST])})
    inventory.execute(
        "create temp table asked_repository as"
        " select id from repository where name in (select unnest(?::varchar[]))"
        f" union select repository from {reach} where repository >= 0 and digest in (from asked_digest)",
        [asked[ASKED_NAME]],
    )
    inventory.execute(
        "create temp table reached as"
        f" select digest from {reach} where repository = -1 or repository in (from asked_repository)"
        " union select digest from tag_index where repository in (from asked_repository)"
    )


def _array(values: list[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values)
