"""What manifests said, remembered between runs and shared by processes and stores.

A manifest never changes: its digest names its bytes. So what was verified and parsed once is kept, in one SQLite
file, private to the user, whose name carries the parser's version. Only readable manifests are kept: a damaged one
may be repaired. What comes back decides what is deleted, so each row carries a checksum, and one that fails it is
as good as absent; and a file that another user may have written is not used (`storage.private`). The cache is a
convenience: when it can't be read or written, `load` finds nothing and `save` does nothing, and `trouble` says why.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from regstore.digest import Digest
from regstore.errors import InputError
from regstore.manifest import PARSER_VERSION, Manifest
from regstore.storage.private import open_private_database

_HEAD: Final = struct.Struct("<BBq")
_CHUNK: Final = 500
_FORGOTTEN: Final = "manifests are not remembered between runs"


@dataclass(frozen=True, slots=True)
class ParsedManifest:
    """One readable manifest, ready for the inventory: digests as raw bytes, edges as (target, kind, size)."""

    digest: bytes
    size: int
    media_type: str
    artifact_type: str
    edges: tuple[tuple[bytes, int, int], ...]

    @classmethod
    def of(cls, digest: Digest, size: int, manifest: Manifest) -> ParsedManifest:
        edges = tuple((edge.target.digest.raw, int(edge.kind), edge.target.size) for edge in manifest.edges)
        return cls(digest.raw, size, manifest.media_type, manifest.artifact_type, edges)


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

    def load(self, digests: Sequence[bytes]) -> Iterator[ParsedManifest]:
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
            for *row, checksum in found:
                if _checksum(row) != checksum:
                    continue
                digest, size, media_type, artifact_type, packed = row
                yield ParsedManifest(digest, size, media_type, artifact_type, tuple(_unpack(packed)))

    def save(self, manifests: Iterable[ParsedManifest]) -> None:
        if self._connection is None:
            return
        rows = []
        for known in manifests:
            edges = b"".join(_HEAD.pack(kind, len(target), size) + target for target, kind, size in known.edges)
            row = [known.digest, known.size, known.media_type, known.artifact_type, edges]
            rows.append([*row, _checksum(row)])
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
            created |= {digest: time for digest, time, checksum in found if _checksum([digest, time]) == checksum}
        return created

    def save_created(self, created: Iterable[tuple[bytes, int | None]]) -> None:
        """What verified configs say: (digest, microseconds since 1970 or None)."""
        if self._connection is None:
            return
        try:
            self._connection.execute("begin immediate")
            self._connection.executemany(
                "insert or replace into config values (?, ?, ?)",
                [[digest, time, _checksum([digest, time])] for digest, time in created],
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


def _checksum(row: Sequence[Any]) -> bytes:
    return hashlib.blake2b(repr(row).encode(), digest_size=16).digest()


def _unpack(packed: bytes) -> Iterator[tuple[bytes, int, int]]:
    position, end = 0, len(packed)
    while position < end:
        kind, length, size = _HEAD.unpack_from(packed, position)
        position += _HEAD.size
        yield packed[position : position + length], kind, size
        position += length
