"""The inventory: a registry's storage as relations in DuckDB (`schema.sql`), filled by `scan`, read by planners.

One file a run, which a user may keep and query. DuckDB lets one process at a time hold it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regstore import layout
from regstore.digest import HEX_LENGTH, Digest
from regstore.errors import InputError, RegstoreError, StorageFull
from regstore.reference import DIGEST_TAG_RE, NAME_MAX_LENGTH, NAME_RE

if TYPE_CHECKING:
    import duckdb

    from regstore.storage.base import Page

#: Each (arrow type, values); types: utf8, binary, int64, int32, int8.
Columns = Mapping[str, tuple[str, Sequence[Any]]]

_TABLES_OF_KEYS = (
    "blob",
    "layer_link",
    "revision_link",
    "signature_link",
    "tag",
    "tag_index",
    "upload_part",
    "litter",
    "unknown",
)


#: A table that tells an inventory from other databases.
_MARK = "regstore_inventory"
#: The memory limit is looked at again each time that this many keys came in: 200 MB at a time.
_MEMORY_STEP = 2_000_000
_BYTES_A_KEY = 100


class Inventory:
    """An open inventory. `path` None: a temporary file, removed by `close`. Otherwise it is made beside `path`, and
    `close` puts it there, in the place of an older one, where it is `complete`; else the older one stays. It is for the
    user alone.

    DuckDB gets `memory_limit`, and for more than some 10^6 keys 100 bytes a key, up to half of the machine's (or the
    container's) memory; beyond that it spills to the temporary folder.
    The SQL of this class and of the planners runs on one connection: use it from one thread at a time.
    `scanned_at` is the store's time when the listing began, in microseconds.
    """

    def __init__(self, path: Path | None = None, *, memory_limit: str = "192MB") -> None:
        import duckdb

        self._folder = Path(tempfile.mkdtemp(prefix="regstore-"))
        self.scanned_at = 0
        self.ranges = 0
        self._keys = 0
        #: Whether what was to be listed is in it; so it is at the end of a `with` that raised nothing.
        self.complete = False
        #: Why the store would not list unfinished multipart uploads: then no upload's age is known. "" where it did.
        self.multipart_uploads_unknown = ""
        #: What says that a database holds the metadata, when blobs were listed: then links are not the whole truth.
        self.database = ""
        self._path = path
        self._beside: Path | None = None
        self._file = self._folder / "inventory.duckdb"
        try:
            if path is not None:
                _refuse_what_is_not_ours(path)
                # DuckDB makes its files as the umask says; a folder of mkdtemp's is private.
                self._beside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
                self._file = self._beside / "kept.duckdb"
            self.connection: duckdb.DuckDBPyConnection = duckdb.connect(
                str(self._file),
                config={
                    "memory_limit": memory_limit,
                    "temp_directory": str(self._folder / "spill"),
                    "preserve_insertion_order": False,
                    "threads": min(4, os.cpu_count() or 1),
                },
            )
            # What a power failure takes is listed again. DuckDB before 2 knows no such setting.
            with suppress(duckdb.CatalogException):
                self.connection.execute("set fsync_mode = 'none'")
            mark = f"create table {_MARK} as select 1 as version"
            # In one transaction: each statement would cost a flush. What is not kept is not written out at the end.
            opening = ["begin", _schema_sql(), _vocabulary_sql(), mark, "commit"]
            if path is None:
                opening.append("pragma disable_checkpoint_on_shutdown")
            self.connection.execute(";\n".join(opening))
        except BaseException as error:
            self._remove_files()
            if isinstance(error, duckdb.Error | OSError):
                raise RegstoreError(f"the inventory {path or self._folder} can't be made: {error}") from error
            raise
        self._decode = _decode_sql()
        self._children = 0
        self._schema = "main"

    def child(self) -> Inventory:
        """An inventory for a later look at the same store, or at a part of it: its own links, tags and uploads; the
        blobs and what is known of manifests are this one's. Close it before this one."""
        self._children += 1
        child = object.__new__(Inventory)
        child._folder = self._folder
        child._decode = self._decode
        child._children = 0
        child._schema = f"later_{self._children}"
        child.scanned_at = 0
        child.ranges = 0
        child._keys = 0
        child.multipart_uploads_unknown = ""
        child.database = ""
        child.connection = self.connection.cursor()
        child.execute(f"create schema {child._schema}")
        child.execute(f"set schema = '{child._schema}'")
        child.execute(_schema_sql())
        for table in ("blob", "manifest", "edge"):
            child.execute(f"drop table {table}")
            child.execute(f"create view {table} as from main.{table}")
        return child

    def __enter__(self) -> Inventory:
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        self.complete = self.complete or kind is None
        self.close()

    def close(self) -> None:
        if self._schema != "main":
            self.execute("set schema = 'main'")
            self.execute(f"drop schema {self._schema} cascade")
            self.connection.close()
            return
        try:
            self.connection.close()
            if self._path is not None and self.complete and self._file.exists():
                self._file.chmod(0o600)
                self._file.replace(self._path)
        finally:
            self._remove_files()

    def _remove_files(self) -> None:
        if self._beside is not None:
            shutil.rmtree(self._beside, ignore_errors=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def execute(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> duckdb.DuckDBPyConnection:
        """Run SQL; a full disk comes out as StorageFull."""
        import duckdb

        try:
            return self.connection.execute(sql, parameters)
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            raise StorageFull(
                f"the inventory in {self._folder} ran out of room, in memory or on disk (TMPDIR says where): "
                f"{str(error).splitlines()[0]}"
            ) from error

    def all(self, sql: str, parameters: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        return self.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: Sequence[Any] | None = None) -> Any:
        """The first column of the only row."""
        rows = self.all(sql, parameters)  # to the end: a result half read blocks the connection
        if not rows:
            raise LookupError(sql)
        return rows[0][0]

    @contextmanager
    def given(self, name: str, columns: Columns) -> Iterator[None]:
        """SQL sees the columns as a relation of this name meanwhile."""
        self.connection.register(name, arrow_table(columns))
        try:
            yield
        finally:
            self.connection.unregister(name)

    def insert(self, table: str, columns: Columns) -> None:
        """Append columns."""
        if not next(iter(columns.values()))[1]:
            return
        names = ", ".join(columns)
        with self.given("incoming", columns):
            self.execute(f"insert into {table} ({names}) select {names} from incoming")

    def insert_rows(self, table: str, types: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> None:
        """Append rows; types: of the columns, in their order."""
        columns = zip(*rows, strict=True) if rows else ((),) * len(types)
        self.insert(
            table, {name: (kind, column) for (name, kind), column in zip(types.items(), columns, strict=True)}
        )

    def _allow_memory(self, keys: int) -> None:
        before, self._keys = self._keys, self._keys + keys
        step = self._keys // _MEMORY_STEP
        if self._schema == "main" and step > before // _MEMORY_STEP:
            limit = min(self._keys * _BYTES_A_KEY, machine_memory() // 2)
            if limit > _MEMORY_STEP * _BYTES_A_KEY:
                self.execute(f"set memory_limit = '{limit} B'")

    def ingest(self, pages: Iterable[Page]) -> None:
        """Decode a batch of pages into the tables; keys of links that need a look go to `unresolved`."""
        keys: list[str] = []
        sizes: list[int] = []
        etags: list[str] = []
        mtimes: list[int] = []
        archived: dict[str, str] = {}
        for page in pages:
            keys += page.keys
            sizes += page.sizes
            etags += page.etags
            mtimes += page.mtimes
            archived |= page.archived
        if not keys:
            return
        self._allow_memory(len(keys))
        self.insert("archived", {"key": ("utf8", list(archived)), "class": ("utf8", list(archived.values()))})
        batch: Columns = {
            "key": ("utf8", keys),
            "size": ("int64", sizes),
            "etag": ("utf8", etags),
            "mtime": ("int64", mtimes),
        }
        with self.given("page", batch):
            self.execute(self._decode)
        self.execute(
            """
            insert into repository
            select (select coalesce(max(id), 0) from repository) + row_number() over (), name
            from (
                select distinct name from decoded
                where name is not null and kind not in ('unknown', 'marker', 'litter', 'seed')
                    and name not in (select name from repository)
            )
            """
        )
        self.execute(
            "create or replace temp table located as select d.*, r.id as repository"
            " from decoded d left join repository r using (name)"
        )
        for (kind,) in self.all("select distinct kind from located"):
            if kind != "blob" or self._schema == "main":  # a child's blobs are a view, and it lists none
                for statement in _INGEST[kind]:
                    self.execute(statement)

    def note_archived(self, key: str) -> None:
        """Reading it told; its listing may have, too."""
        self.execute("insert into archived select ?, '' where ? not in (select key from archived)", [key, key])

    def count(self, table: str) -> int:
        return int(self.one(f"select count(*) from {table}"))

    def counts(self, *tables: str) -> dict[str, int]:
        """Rows of each, in one statement."""
        return dict(self.all(" union all ".join(f"select '{table}', count(*) from {table}" for table in tables)))

    def key_count(self) -> int:
        return sum(self.counts(*_TABLES_OF_KEYS).values())


_INGEST_LITTER = "insert into litter select key, size, mtime, kind = 'marker' from located where kind = "
#: By the kind of key. Where a link's body is not yet known, `target` stays null until `scan` has resolved or read it.
_INGEST = {
    "blob": ("insert into blob select digest, size, mtime from located where kind = 'blob'",),
    "layer_link": (
        "insert into layer_link select repository, digest, case when sound then digest end, null, size, mtime, null"
        " from located where kind = 'layer_link'",
    ),
    "revision_link": (
        "insert into revision_link select repository, digest, case when sound then digest end, null, size, mtime, null"
        " from located where kind = 'revision_link'",
    ),
    "signature_link": (
        "insert into signature_link select repository, revision, digest, sound, size, mtime"
        " from located where kind = 'signature_link'",
    ),
    "tag": (
        "insert into tag select repository, label, null, null, size, mtime, null from located where kind = 'tag'",
        "insert into tag_etag select repository, label, etag from located where kind = 'tag'",
    ),
    "tag_index": (
        "insert into tag_index select repository, label, digest, sound, size, mtime from located"
        " where kind = 'tag_index'",
    ),
    "upload_part": (
        "insert into upload_part select repository, label, part, size, mtime from located where kind = 'upload_part'",
    ),
    "marker": (f"{_INGEST_LITTER}'marker'",),
    "litter": (f"{_INGEST_LITTER}'litter'",),
    "seed": (),
    "unknown": ("insert into unknown select key, size, mtime from located where kind = 'unknown'",),
}


def _refuse_what_is_not_ours(path: Path) -> None:
    """InputError where a file is there that no inventory of ours is."""
    import duckdb

    if not path.exists():
        return
    try:
        with duckdb.connect(str(path), read_only=True) as older:
            older.execute(f"select version from {_MARK}")
    except duckdb.Error as error:
        raise InputError(f"{path} is there already and is no inventory; name another file for it") from error


def machine_memory() -> int:
    """Bytes that this process may use: the machine's, or its control group's where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return total


def arrow_table(columns: Columns) -> Any:
    """An Arrow table that DuckDB reads without a copy."""
    from arro3.core import Array, DataType, Table

    return Table.from_pydict(
        {name: Array(values, getattr(DataType, kind)()) for name, (kind, values) in columns.items()}
    )


def digest_text(raw: bytes) -> str:
    return str(Digest.from_raw(bytes(raw)))


#: SQL that gives a digest's algorithm name from its bytes, and its text: `{0}` is the column.
ALGORITHM_SQL = "case octet_length({0}) when 32 then 'sha256' when 48 then 'sha384' else 'sha512' end"
TEXT_SQL = ALGORITHM_SQL + " || ':' || lower(hex({0}))"


def text_sql(column: str) -> str:
    return TEXT_SQL.format(column)


def path_sql(column: str) -> str:
    """SQL for a digest as it stands in a key: `sha256/<hex>`."""
    return ALGORITHM_SQL.format(column) + f" || '/' || lower(hex({column}))"


def _resource(name: str) -> str:
    return (files("regstore.inventory") / name).read_text()


def _schema_sql() -> str:
    return _filled(_resource("schema.sql"))


def _vocabulary_sql() -> str:
    return _filled(_resource("vocabulary.sql"))


def _decode_sql() -> str:
    return _filled(_resource("decode.sql"))


def _filled(text: str) -> str:
    """The text with layout's own keys and regular expressions in place of {their names}."""
    fragments = {
        "prefix": layout.PREFIX,
        "blobs": layout.BLOBS,
        "repositories": layout.REPOSITORIES,
        "name": layout.NAME_RE,
        "digest": layout.DIGEST_PATH_RE,
        "blob": "|".join(
            f"{algorithm}/[0-9a-f]{{2}}/[0-9a-f]{{{length}}}" for algorithm, length in HEX_LENGTH.items()
        ),
        "tag": layout.TAG_RE,
        "uuid": layout.UUID_RE,
        "part": layout.PART_RE,
        "litter_folder": layout.LITTER_FOLDER_RE,
        "litter_file": layout.LITTER_FILE_RE,
        "digest_tag": DIGEST_TAG_RE,
        "repository_name": NAME_RE,
        "repository_name_max": str(NAME_MAX_LENGTH),
    }
    for name, fragment in fragments.items():
        text = text.replace("{" + name + "}", fragment)
    return text
