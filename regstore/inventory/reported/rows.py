"""The rows of a report's files, as blobs of an inventory.

Columns are those of CSV (`LastModifiedDate`) or of Parquet and ORC (`last_modified_date`): the same without case and
underscores. Keys in a CSV are URL-encoded. A report of all versions says of each whether it is the latest, and whether
it is a delete marker, which has no size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from regstore import layout
from regstore.errors import InputError, IntegrityError, StorageFull
from regstore.inventory.inventory import Inventory
from regstore.inventory.reported.report import Format, Report, ReportFile
from regstore.inventory.schema import DECODE, INGEST
from regstore.inventory.statements import Statements
from regstore.storage.base import ARCHIVE_CLASSES

Result = TypeVar("Result")

_SQL: Final = Statements(
    "regstore.inventory.reported",
    "rows.sql",
    archive_classes=", ".join(f"'{name}'" for name in ARCHIVE_CLASSES),
)
_KEY, _SIZE, _MTIME, _CLASS = "key", "size", "lastmodifieddate", "storageclass"
_LATEST, _MARKER = "islatest", "isdeletemarker"
#: What a report must have besides keys, and how Amazon's configuration calls it.
_NEEDED: Final = {_SIZE: "Size", _MTIME: "LastModifiedDate"}
_ORC_MISSING: Final = (
    "the report is ORC, which needs pyarrow: pip install 'regstore[orc]', or have the report made as Parquet or CSV"
)


def begin(inventory: Inventory) -> None:
    _SQL.run(inventory, "begin")


def end(inventory: Inventory) -> None:
    _SQL.run(inventory, "once")


def read(inventory: Inventory, report: Report, file: ReportFile, path: Path, *, root: str) -> int:
    """Add the blobs of a file below the root ("" or with a slash at its end); how many. InputError where the report
    lacks a column; IntegrityError where the file can't be understood."""
    added = 0
    where = f"{report.where}: its file {file.name}"
    match report.format:
        case Format.CSV:
            columns = dict.fromkeys(report.columns, "VARCHAR")
            added += _take(inventory, where, _csv(path, file, columns), columns, root, _decoded)
        case Format.PARQUET:
            source = f"read_parquet({_quoted(str(path))})"
            added += _take(inventory, where, source, _described(inventory, source, where), root, _as_it_is)
        case Format.ORC:
            added += _read_orc(inventory, where, path, root)
    return added


def _read_orc(inventory: Inventory, where: str, path: Path, root: str) -> int:
    """A stripe at a time: they have some 64 MB each."""
    try:
        from pyarrow import ArrowException, Table, orc
    except ImportError as error:
        raise InputError(_ORC_MISSING) from error

    added = 0
    try:
        file = orc.ORCFile(path)
        for number in range(file.nstripes):
            stripe = Table.from_batches([file.read_stripe(number)])
            inventory.connection.register("reported_stripe", stripe)
            try:
                columns = _described(inventory, "reported_stripe", where)
                added += _take(inventory, where, "reported_stripe", columns, root, _as_it_is)
            finally:
                inventory.connection.unregister("reported_stripe")
    except (ArrowException, OSError) as error:
        raise IntegrityError(f"{where} can't be read as ORC: {str(error).splitlines()[0]}") from error
    return added


def _csv(path: Path, file: ReportFile, columns: Mapping[str, str]) -> str:
    names = ", ".join(f"{_quoted(name)}: 'VARCHAR'" for name in columns)
    packed = "gzip" if file.name.endswith(".gz") else "none"
    return (
        f"read_csv({_quoted(str(path))}, columns = {{{names}}}, auto_detect = false, header = false, delim = ',', "
        f"quote = '\"', escape = '\"', compression = '{packed}', strict_mode = true, null_padding = false, "
        "ignore_errors = false)"
    )


def _described(inventory: Inventory, source: str, where: str) -> dict[str, str]:
    """Columns and their types."""
    rows = _tried(inventory, where, source, lambda: inventory.all(f"describe select * from {source}"))
    return {name: kind for name, kind, *_ in rows}


#: SQL of a column of some type, by what it holds.
_Reading = Callable[[str, str, str], str]


def _decoded(what: str, column: str, kind: str) -> str:
    """Of a CSV. A plus that is meant is %2B."""
    match what:
        case "key":
            return f"url_decode(replace({column}, '+', ' '))"
        case "size":
            return f"nullif({column}, '')::bigint"
        case "mtime":
            return f"epoch_us(nullif({column}, '')::timestamp)"
        case "flag":
            return f"coalesce(nullif({column}, '')::boolean, false)"
        case _:
            return column


def _as_it_is(what: str, column: str, kind: str) -> str:
    """Of the others. A time without its annotation is in milliseconds."""
    match what:
        case "size":
            return f"{column}::bigint"
        case "mtime":
            return f"{column} * 1000" if kind == "BIGINT" else f"epoch_us({column})"
        case "flag":
            return f"coalesce({column}, false)"
        case _:
            return f"decode({column})" if kind == "BLOB" else column


def _take(
    inventory: Inventory, where: str, source: str, columns: Mapping[str, str], root: str, reading: _Reading
) -> int:
    """Add the blobs of a relation with these columns, name to type."""
    names = {name.replace("_", "").lower(): name for name in columns}
    if _KEY not in names:
        raise IntegrityError(f"{where} has no column of keys")
    lacks = [name for column, name in _NEEDED.items() if column not in names]
    if lacks:
        raise InputError(
            f"{where} has no {' and no '.join(lacks)}: add {'it' if len(lacks) == 1 else 'them'} to the fields of the "
            "inventory's configuration, and take the next report"
        )

    def column(what: str, name: str) -> str:
        own = names[name]
        return reading(what, '"' + own.replace('"', '""') + '"', columns[own])

    conditions = ["true"]
    if _LATEST in names:
        conditions.append(column("flag", _LATEST))
    if _MARKER in names:
        conditions.append("not " + column("flag", _MARKER))
    prefix = root + layout.BLOBS
    fragments = {
        "source": source,
        "key": column("key", _KEY),
        "size": column("size", _SIZE),
        "mtime": column("mtime", _MTIME),
        "class": column("class", _CLASS) if _CLASS in names else "null::varchar",
        "latest": " and ".join(conditions),
        "prefix": _quoted(prefix),
        "root_length": str(len(root)),
    }
    _tried(inventory, where, source, lambda: _SQL.run(inventory, "read", None, **fragments))
    faulty = _SQL.run(inventory, "faulty").fetchall()
    if faulty:
        raise IntegrityError(f"{where} says no size, or no time, of {faulty[0][0]}")
    return _ingest(inventory)


def _ingest(inventory: Inventory) -> int:
    """Of reported_row; how many blobs."""
    before = inventory.count("main.blob")
    _SQL.run(inventory, "archived")
    _SQL.run(inventory, "page")
    DECODE.run(inventory, "decode")
    INGEST.run(inventory, "blob")
    _SQL.run(inventory, "unknown")
    _SQL.run(inventory, "end")
    added = inventory.count("main.blob") - before
    inventory.make_room(added)
    return added


def _tried(inventory: Inventory, where: str, source: str, read: Callable[[], Result]) -> Result:
    """IntegrityError where DuckDB finds the file wrong."""
    import duckdb

    try:
        return read()
    except StorageFull:
        # What it can't read it calls an IO error, too, as it does a full disk.
        with suppress(duckdb.OutOfMemoryException):
            try:
                inventory.connection.execute(f"select count(*) from (from {source})").fetchall()
            except (duckdb.IOException, duckdb.InvalidInputException) as error:
                raise _unreadable(where, error) from error
        raise
    except duckdb.Error as error:
        raise _unreadable(where, error) from error


def _unreadable(where: str, error: Exception) -> IntegrityError:
    return IntegrityError(f"{where} can't be read: {' '.join(str(error).split(chr(10))[:2])}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
