"""The inventory: a registry's storage as relations in DuckDB (`schema.sql`), filled by `scan`, read by planners.

One file a run, which a user may keep and query. DuckDB lets one process at a time hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from regstore.digest import Digest
from regstore.errors import StorageFull
from regstore.inventory.place import OwnFile, Schema
from regstore.inventory.schema import DECODE, INGEST
from regstore.words import Moment

if TYPE_CHECKING:
    import duckdb

    from regstore.storage.base import Page

#: Each (arrow type, values); types: utf8, binary, int64, int32, int8.
Columns = Mapping[str, tuple[str, Sequence[Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedAt:
    """The report that blobs come from (`inventory.reported`). where: its manifest; created: in microseconds;
    age_seconds: then, when the scan began; blobs: how many it shows."""

    where: str
    created: Moment
    age_seconds: int
    blobs: int


_TABLES_OF_KEYS: Final = (
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
#: Kinds of keys that stand in no repository.
_OUTSIDE: Final = ("blob", "marker", "litter", "unknown")
_INSIDE: Final = ("layer_link", "revision_link", "signature_link", "tag", "tag_index", "upload_part")


class Inventory:
    """An open inventory. `path` None: a temporary file, removed by `close`. Otherwise it is made beside `path`, and
    `close` puts it there, in the place of an older one, where it is `complete`; else the older one stays. It is for the
    user alone.

    DuckDB gets `memory_limit`, and for more than some 10^6 keys 100 bytes a key, up to half of the machine's (or the
    container's) memory; beyond that it spills to the temporary folder.
    The SQL of this class and of the planners runs on one connection: use it from one thread at a time.
    `scanned_at` is the store's time when the listing began, in microseconds.
    """

    def __init__(
        self, path: Path | None = None, *, memory_limit: str = "192MB", place: Schema | None = None
    ) -> None:
        """place: of a later look, see `child`."""
        self._place = place or OwnFile(path, memory_limit)
        #: Whether what was to be listed is in it; so it is at the end of a `with` that raised nothing.
        self.complete = False
        self.scanned_at = 0
        self.ranges = 0
        #: Why the store would not list unfinished multipart uploads: then no upload's age is known. "" where it did.
        self.multipart_uploads_unknown = ""
        #: What says that a database holds the metadata, when blobs were listed: then links are not the whole truth.
        self.database = ""
        #: Where blobs are as of a report, and not listed.
        self.reported: ReportedAt | None = None

    @property
    def folder(self) -> Path:
        """A temporary one, for what lasts as long as this is open."""
        return self._place.folder

    def make_room(self, keys: int) -> None:
        """More memory, where so many keys came in otherwise than by `ingest`."""
        self._place.make_room(keys)

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        return self._place.connection

    def open(self) -> None:
        """Make the file and its tables now, in whatever thread this is; else the first statement does. RegstoreError
        where that can't be done."""
        self._place.open()

    def child(self) -> Inventory:
        """An inventory for a later look at the same store, or at a part of it: its own links, tags and uploads; the
        blobs, which it does not list, and what is known of manifests are this one's. Close it before this one."""
        return Inventory(place=self._place.schema())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        self.complete = self.complete or kind is None
        self.close()

    def close(self) -> None:
        self._place.close(keep=self.complete)

    def execute(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> duckdb.DuckDBPyConnection:
        """Run SQL; a full disk comes out as StorageFull. What runs out of memory is run once more with one thread: each
        thread takes part of the memory for itself, and leaves the less to what spills."""
        import duckdb

        try:
            try:
                return self.connection.execute(sql, parameters)
            except duckdb.OutOfMemoryException as error:
                try:
                    if not self._place.take_one_thread():
                        raise
                    return self.connection.execute(sql, parameters)
                except duckdb.TransactionException:  # the first failure ended it
                    raise error from None
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            raise StorageFull(
                f"the inventory in {self._place.folder} ran out of room, in memory or on disk (TMPDIR says where): "
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

    def ingest(self, pages: Iterable[Page]) -> None:
        """Decode a batch of pages into the tables. No statement for a kind of key that is not there."""
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
        self._place.make_room(len(keys))
        self.insert("archived", {"key": ("utf8", list(archived)), "class": ("utf8", list(archived.values()))})
        batch: Columns = {
            "key": ("utf8", keys),
            "size": ("int64", sizes),
            "etag": ("utf8", etags),
            "mtime": ("int64", mtimes),
        }
        with self.given("page", batch):
            DECODE.run(self, "decode")
        kinds = {kind for (kind,) in INGEST.run(self, "kinds").fetchall()}
        inside = [kind for kind in _INSIDE if kind in kinds]
        if inside:
            INGEST.run(self, "located")
        for kind in (*(each for each in _OUTSIDE if each in kinds), *inside):
            INGEST.run(self, kind)

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


def arrow_table(columns: Columns) -> Any:
    """An Arrow table that DuckDB reads without a copy."""
    from arro3.core import Array, DataType, Table

    return Table.from_pydict(
        {name: Array(values, getattr(DataType, kind)()) for name, (kind, values) in columns.items()}
    )


def digest_text(raw: bytes) -> str:
    return str(Digest.from_raw(bytes(raw)))
