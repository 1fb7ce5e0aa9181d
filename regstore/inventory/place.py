"""Where an inventory has its tables: a DuckDB file of its own, or for a later look a schema in that of the first."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regstore.errors import InputError, RegstoreError
from regstore.inventory.schema import SCHEMA, VOCABULARY
from regstore.machine import usable_cores, usable_memory

if TYPE_CHECKING:
    import duckdb

#: A table that tells an inventory from other databases.
_MARK: Final = "regstore_inventory"
#: The memory limit is looked at again each time that this many keys came in: 200 MB at a time.
_MEMORY_STEP: Final = 2_000_000
_BYTES_A_KEY: Final = 100
_THREADS: Final = 4
#: What a later look shares with the first.
_SHARED: Final = ("blob", "manifest", "edge")


class OwnFile:
    """A file, temporary where `path` is None. Else it is made beside `path`, and put there at the end, in the place of
    an older one, if it is to be kept. `folder` is for what lasts as long as it is open.

    It is made by `open`, or else by the first use, from any thread: loading DuckDB and making the tables take as long
    as some requests do."""

    def __init__(self, path: Path | None, memory_limit: str) -> None:
        self.folder: Final = Path(tempfile.mkdtemp(prefix="regstore-"))
        self._path = path
        self._beside: Path | None = None
        self._file = self.folder / "inventory.duckdb"
        self._memory_limit = memory_limit
        self._keys = 0
        self._schemas = 0
        self._threads = min(_THREADS, usable_cores())
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._opening = threading.Lock()
        if path is not None:
            with self._removed_on_failure():
                _refuse_what_is_not_ours(path)
                # DuckDB makes its files as the umask says; a folder of mkdtemp's is private.
                self._beside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
                self._file = self._beside / "kept.duckdb"

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        return self.open() if self._connection is None else self._connection

    def open(self) -> duckdb.DuckDBPyConnection:
        """The same connection each time; the first call makes it."""
        with self._opening:
            if self._connection is None:
                with self._removed_on_failure():
                    self._connection = self._opened()
            return self._connection

    def _opened(self) -> duckdb.DuckDBPyConnection:
        connection = _connect(self._file, self.folder / "spill", self._memory_limit, self._threads)
        opening = [
            "begin",  # one transaction: each statement would cost a flush
            SCHEMA.text("shared"),
            SCHEMA.text("own"),
            VOCABULARY.text("macros"),
            f"create table {_MARK} as select 1 as version",
            "commit",
        ]
        if self._path is None:  # what is not kept is not written out at the end
            opening.append("pragma disable_checkpoint_on_shutdown")
        connection.execute(";\n".join(opening))
        return connection

    @contextmanager
    def _removed_on_failure(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except BaseException as error:
            self._remove()
            if isinstance(error, duckdb.Error | OSError):
                where = self._path or self.folder
                raise RegstoreError(f"the inventory {where} can't be made: {error}") from error
            raise

    def schema(self) -> Schema:
        """Room for a later look."""
        self._schemas += 1
        return Schema(self, f"later_{self._schemas}")

    def make_room(self, keys: int) -> None:
        """More memory, where many keys came in."""
        before, self._keys = self._keys, self._keys + keys
        step = self._keys // _MEMORY_STEP
        if step > before // _MEMORY_STEP:
            limit = min(self._keys * _BYTES_A_KEY, usable_memory() // 2)
            if limit > _MEMORY_STEP * _BYTES_A_KEY:
                self.connection.execute(f"set memory_limit = '{limit} B'")

    def take_one_thread(self) -> bool:
        """From now on; whether there were more."""
        more = self._threads > 1
        if more:
            self.connection.execute("set threads = 1")
            self._threads = 1
        return more

    def close(self, *, keep: bool) -> None:
        try:
            with self._opening:  # not while a thread opens it
                connection = self._connection
            if connection is None and keep and self._path is not None:
                connection = self.open()
            if connection is not None:
                connection.close()
            if keep and self._path is not None and self._file.exists():
                self._file.chmod(0o600)
                self._file.replace(self._path)
        finally:
            self._remove()

    def _remove(self) -> None:
        if self._beside is not None:
            shutil.rmtree(self._beside, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Schema:
    """A schema of its own in another inventory's file, gone when it is closed. Blobs and what is known of manifests are
    the other's."""

    def __init__(self, file: OwnFile, name: str) -> None:
        self._file = file
        self.folder: Final = file.folder
        self._name = name
        self.connection: Final = file.connection.cursor()
        opening = [
            "begin",
            f"create schema {name}",
            f"set schema = '{name}'",
            *(f"create view {table} as from main.{table}" for table in _SHARED),
            SCHEMA.text("own"),
            "commit",
        ]
        self.connection.execute(";\n".join(opening))

    def open(self) -> duckdb.DuckDBPyConnection:
        return self.connection

    def schema(self) -> Schema:
        return self._file.schema()

    def make_room(self, keys: int) -> None:
        """Few come in."""

    def take_one_thread(self) -> bool:
        return self._file.take_one_thread()

    def close(self, *, keep: bool) -> None:
        self.connection.execute("set schema = 'main'")
        self.connection.execute(f"drop schema {self._name} cascade")
        self.connection.close()


def _connect(file: Path, spill: Path, memory_limit: str, threads: int) -> duckdb.DuckDBPyConnection:
    import duckdb

    connection = duckdb.connect(
        str(file),
        config={
            "memory_limit": memory_limit,
            "temp_directory": str(spill),
            "preserve_insertion_order": False,
            "threads": threads,
        },
    )
    # What a power failure takes is listed again. DuckDB before 2 knows no such setting.
    with suppress(duckdb.CatalogException):
        connection.execute("set fsync_mode = 'none'")
    return connection


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
