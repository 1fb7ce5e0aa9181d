"""The one shape of row that passes between stages, and what each relation has in it.

Tables of an inventory travel whole, some rows at a time, as an Arrow stream in the column `rows`: what is a
repository's is of use to its shard only. What is joined by digest has columns of its own (`COLUMNS`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

    from regstore.inventory.inventory import Inventory

#: Name and type, as Spark has them, of every column.
SCHEMA: Final = {
    "relation": "string",
    "shard": "int",
    "digest": "binary",
    "other": "binary",
    "size": "bigint",
    "mtime": "bigint",
    "kind": "int",
    "text": "string",
    "why": "string",
    "media_type": "string",
    "artifact_type": "string",
    "rows": "binary",
}
DDL: Final = ", ".join(f"{name} {kind}" for name, kind in SCHEMA.items())
_DUCKDB: Final = {"string": "varchar", "int": "integer", "bigint": "bigint", "binary": "blob"}

#: Tables of a shard's inventory that travel whole.
TABLES: Final = (
    "repository",
    "layer_link",
    "revision_link",
    "signature_link",
    "tag",
    "tag_index",
    "upload_part",
    "multipart_upload",
    "litter",
    "unknown",
)
#: Of each relation that has columns: those of its table, in order, and where the row has them.
COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "blob": {"digest": "digest", "size": "size", "mtime": "mtime"},
    "gc_dead_blob": {"digest": "digest", "size": "size", "mtime": "mtime"},
    "manifest": {
        "digest": "digest",
        "state": "text",
        "reason": "why",
        "media_type": "media_type",
        "artifact_type": "artifact_type",
        "size": "size",
    },
    "edge": {"source": "digest", "target": "other", "kind": "kind", "size": "size"},
    "gc_reached_odd": {"digest": "digest"},
    "live_blob": {"digest": "digest"},
    "unknown_reach": {"digest": "digest"},
    "linked_digest": {"digest": "digest"},
    "freed_blob": {"digest": "digest", "name": "text"},
    "named_by_unknown": {"digest": "digest", "key": "text"},
    "standing_repository": {"name": "text"},
}
#: Rows of a batch; of a table that travels whole, in one row.
_ROWS: Final = 1000


def row_batch(relation: str, columns: Mapping[str, list[Any]]) -> pa.RecordBatch:
    """Rows of a relation; the columns that are not given are null."""
    import pyarrow as pa

    number = len(next(iter(columns.values())))
    arrays = []
    for name, kind in SCHEMA.items():
        values = [relation] * number if name == "relation" else columns.get(name, [None] * number)
        arrays.append(pa.array(values, _arrow(kind)))
    return pa.RecordBatch.from_arrays(arrays, names=list(SCHEMA))


def _arrow(kind: str) -> pa.DataType:
    import pyarrow as pa

    return {"string": pa.string(), "int": pa.int32(), "bigint": pa.int64(), "binary": pa.binary()}[kind]


def rows_of(inventory: Inventory, relation: str, *, shard: int | None = None) -> Iterator[pa.RecordBatch]:
    """A relation of the inventory, as rows: whole, or by its columns."""
    if relation in COLUMNS:
        yield from selected(inventory, relation, f"from {relation}", places_of(relation), shard=shard)
        return
    yield from whole_rows(inventory, relation, f"select * from {relation}", shard=shard)


def places_of(relation: str) -> dict[str, str]:
    """The columns of a relation that has some, each by its place in a row."""
    return {place: column for column, place in COLUMNS[relation].items()}


def whole_rows(
    inventory: Inventory, relation: str, sql: str, *, shard: int | None = None
) -> Iterator[pa.RecordBatch]:
    """What SQL selects, with the columns of a relation that travels whole."""
    for batch in _batches(inventory, sql):
        yield row_batch(relation, {"shard": [shard], "rows": [packed(batch)]})


def selected(
    inventory: Inventory, relation: str, source: str, places: Mapping[str, str], *, shard: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows of what SQL says: source, and the expression for each place that has one."""
    given = {"relation": f"'{relation}'", "shard": "null" if shard is None else str(shard), **places}
    columns = ", ".join(f"({given.get(name, 'null')})::{_DUCKDB[kind]} as {name}" for name, kind in SCHEMA.items())
    yield from _batches(inventory, f"select {columns} {source}")


def _batches(inventory: Inventory, sql: str) -> Iterator[pa.RecordBatch]:
    result: Any = inventory.connection.sql(sql)
    if result is None:
        return
    # The second is DuckDB's name for it before 1.4.
    reader = result.to_arrow_reader if hasattr(result, "to_arrow_reader") else result.fetch_arrow_reader
    yield from (batch for batch in reader(_ROWS) if batch.num_rows)


def packed(batch: pa.RecordBatch) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def by_shard(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, Iterator[pa.RecordBatch]]]:
    """Of batches that are sorted by shard. Take all of one before the next."""
    for shard, pieces in groupby(_pieces(batches), key=lambda piece: piece[0]):
        yield shard, (batch for _, batch in pieces)


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    for batch in batches:
        begin = 0
        for shard, rows in groupby(batch.column("shard").to_pylist()):
            number = sum(1 for _ in rows)
            yield shard, batch.slice(begin, number)
            begin += number


def put_in(inventory: Inventory, batch: pa.RecordBatch) -> int:
    """Rows of any relations into the tables of the same names; how many these got."""
    import pyarrow as pa
    import pyarrow.compute as pc

    number = 0
    for relation in pc.unique(batch.column("relation")).to_pylist():
        rows = batch.filter(pc.equal(batch.column("relation"), relation))
        if relation in COLUMNS:
            places = COLUMNS[relation]
            columns, source = ", ".join(places), ", ".join(places.values())
            _insert(inventory, relation, columns, source, pa.Table.from_batches([rows]))
            number += rows.num_rows
            continue
        for text in rows.column("rows").to_pylist():
            with pa.ipc.open_stream(text) as stream:
                table = stream.read_all()
            columns = ", ".join(f'"{name}"' for name in table.column_names)
            _insert(inventory, relation, columns, columns, table)
            number += table.num_rows
    return number


def _insert(inventory: Inventory, relation: str, columns: str, source: str, table: pa.Table) -> None:
    inventory.connection.register("incoming_rows", table)
    try:
        inventory.execute(f"insert into {relation} ({columns}) select {source} from incoming_rows")
    finally:
        inventory.connection.unregister("incoming_rows")
