"""What manifests said, remembered between runs and shared by processes and stores.

A manifest never changes: its digest names its bytes. So what was verified and parsed once is kept, in one SQLite
file, private to the user, whose name carries the parser's version. Only readable manifests are kept: a damaged one
may be repaired. What comes back decides what is deleted, so each row carries a checksum, and one that fails it is
as good as absent; and a file that another user may have written is not used (`storage.private`). The cache is a
convenience: when it can't be read or written, `load` finds nothing and `save` does nothing, and `trouble` says why.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

from regstore.errors import InputError
from regstore.manifest import PARSER_VERSION
from regstore.storage.private import open_private_database
from regstore.tasks.manifests import RememberedManifest, checksum

_CHUNK: Final = 500
_FORGOTTEN: Final = "manifests are not remembered between runs"


def default_cache_dir() -> Path | None:
    """`$XDG_CACHE_HOME/regstore`, or `~/.cache/regstore`; None where the user has no home (a container's bare uid)."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "regstore"
    try:
        return Path.home() / ".cache" / "regstore"
    except RuntimeError:
        return None


class ManifestCache:
    """`folder` None: no cache. Used from one thread at a time."""

    def __init__(self, folder: Path | None) -> None:
        self.trouble = ""
        self._connection: sqlite3.Connection | None = None
        if folder is None:
            if default_cache_dir() is None:  # nobody chose that
                self.trouble = f"{_FORGOTTEN}: the user has no home directory; name a folder with --cache-dir"
            return
        try:
            connection = open_private_database(folder, f"manifests-v{PARSER_VERSION}.sqlite")
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = normal")
            connection.execute(
                "create table if not exists manifest (digest blob primary key, size integer not null,"
                " media_type text not null, artifact_type text not null, edges blob not null,"
                " checksum blob not null) without rowid"
            )
            connection.execute(
                "create table if not exists config (digest blob primary key, created integer,"
                " checksum blob not null) without rowid"
            )
            self._connection = connection
        except (InputError, OSError, sqlite3.Error) as error:
            self._give_up("the manifest cache", error)

    def load(self, digests: Sequence[bytes]) -> Iterator[RememberedManifest]:
        """Those of the digests that are known, in no order."""
        remaining = iter(digests)
        while self._connection is not None and (chunk := list(islice(remaining, _CHUNK))):
            marks = ",".join("?" * len(chunk))
            try:
                with closing(
                    self._connection.execute(
                        "select digest, size, media_type, artifact_type, edges, checksum from manifest"
                        f" where digest in ({marks})",
                        chunk,
                    )
                ) as rows:
                    found = rows.fetchall()
            except sqlite3.Error as error:
                self._give_up("the manifest cache", error)
                return
            yield from (row for row in found if checksum(row[:-1]) == row[-1])

    def save(self, rows: Sequence[RememberedManifest]) -> None:
        if self._connection is None or not rows:
            return
        try:
            self._connection.execute("begin immediate")
            self._connection.executemany("insert or replace into manifest values (?, ?, ?, ?, ?, ?)", rows)
            self._connection.execute("commit")
        except sqlite3.Error as error:
            self._give_up("the manifest cache", error)

    def load_created(self, digests: Sequence[bytes]) -> dict[bytes, int | None]:
        """When the images of these configs were made, of those that are known; None where the config does not say."""
        created: dict[bytes, int | None] = {}
        remaining = iter(digests)
        while self._connection is not None and (chunk := list(islice(remaining, _CHUNK))):
            marks = ",".join("?" * len(chunk))
            try:
                with closing(
                    self._connection.execute(
                        f"select digest, created, checksum from config where digest in ({marks})", chunk
                    )
                ) as rows:
                    found = rows.fetchall()
            except sqlite3.Error as error:
                self._give_up("the manifest cache", error)
                break
            created |= {digest: time for digest, time, told in found if checksum([digest, time]) == told}
        return created

    def save_created(self, created: Iterable[tuple[bytes, int | None]]) -> None:
        """What verified configs say: (digest, microseconds since 1970 or None)."""
        if self._connection is None:
            return
        try:
            self._connection.execute("begin immediate")
            self._connection.executemany(
                "insert or replace into config values (?, ?, ?)",
                [[digest, time, checksum([digest, time])] for digest, time in created],
            )
            self._connection.execute("commit")
        except sqlite3.Error as error:
            self._give_up("the manifest cache", error)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _give_up(self, where: object, error: Exception) -> None:
        self.trouble = f"{_FORGOTTEN}: {where}: {error}"
        self.close()
