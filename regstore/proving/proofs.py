"""When a blob's bytes were last seen to have its digest, remembered between runs.

One SQLite file, private to the user, keyed by store and digest. A proof counts only while the blob has the size and
the time of its last change that it had: in a bucket when it was written, on a disk its ctime, which no copy of the file
can keep. So two stores that go by one name can't vouch for each other. Losing the file costs reading, nothing else:
when it can't be read or written, nothing is known, and `trouble` says why.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regstore.errors import InputError
from regstore.storage.private import open_private_database

_BATCH: Final = 10_000


@dataclass(frozen=True, slots=True)
class Proof:
    """digest: the hash's own bytes. size in bytes; time (of the blob's last change) and proved in microseconds, by the
    store's clock; proved is 0 where the bytes were wrong, so that the next run looks there first."""

    digest: bytes
    size: int
    time: int
    proved: int


class Proofs:
    """`folder` None: remember nothing. store: what tells it from other stores. Used from one thread at a time."""

    def __init__(self, folder: Path | None, store: str) -> None:
        self.trouble = ""
        self._store = store
        self._connection: sqlite3.Connection | None = None
        if folder is None:
            return
        try:
            connection = open_private_database(folder, "proofs-v1.sqlite")
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = normal")
            connection.execute(
                "create table if not exists proof (store text not null, digest blob not null, size integer not null,"
                " mtime integer not null, proved integer not null, primary key (store, digest)) without rowid"
            )
            self._connection = connection
        except (InputError, OSError, sqlite3.Error) as error:
            self._give_up(error)

    def load(self) -> Iterator[list[Proof]]:
        """All that is known of the store, in batches."""
        if self._connection is None:
            return
        try:
            rows = self._connection.execute(
                "select digest, size, mtime, proved from proof where store = ?", (self._store,)
            )
            while batch := rows.fetchmany(_BATCH):
                yield [Proof(*row) for row in batch]
        except sqlite3.Error as error:
            self._give_up(error)

    def save(self, proofs: Iterable[Proof]) -> None:
        self._change(
            "insert or replace into proof values (?, ?, ?, ?, ?)",
            [(self._store, one.digest, one.size, one.time, one.proved) for one in proofs],
        )

    def _change(self, sql: str, rows: list[tuple[object, ...]]) -> None:
        if self._connection is None or not rows:
            return
        try:
            self._connection.execute("begin immediate")
            self._connection.executemany(sql, rows)
            self._connection.execute("commit")
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: Exception) -> None:
        self.trouble = f"what was read is not remembered between runs: {error}"
        self.close()
