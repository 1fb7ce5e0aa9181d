"""A backend that regstore does not have: a store in one SQLite file. As short as one can be, for the tests of what
one is asked for."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import AsyncIterable, AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from regstore.digest import Digest, Verifier
from regstore.errors import AlreadyExists, IntegrityError, NoSuchBucket, NotFound, StorageError
from regstore.storage.backends import Backend, OpenOptions
from regstore.storage.base import Capabilities, Counters, MultipartUpload, ObjectInfo, Page, PutOptions, Storage
from regstore.storage.registry_config import S3Access

PAGE = 1000
CHUNK = 1 << 20


@dataclass(frozen=True)
class SqliteLocation:
    scheme: ClassVar[str] = "sqlite"
    file: Path

    def __str__(self) -> str:
        return f"sqlite://{self.file}"


def parse_sqlite(text: str) -> SqliteLocation | None:
    path = text.removeprefix("sqlite://")
    return SqliteLocation(Path(path)) if path.startswith("/") else None


def open_sqlite(
    location: SqliteLocation, options: OpenOptions, access: S3Access | None, put: PutOptions | None
) -> Storage:
    return SqliteStorage(location.file)


BACKEND = Backend(parse_sqlite, open_sqlite)


def make(file: Path) -> None:
    """An empty store."""
    with sqlite3.connect(file) as connection:
        connection.execute("create table object (key blob primary key, data blob, mtime integer)")
    connection.close()


@dataclass
class Found:
    info: ObjectInfo
    data: bytes
    counters: Counters

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self.data), CHUNK):
            self.counters.bytes_read += len(self.data[at : at + CHUNK])
            yield self.data[at : at + CHUNK]


class SqliteStorage:
    serves_in_parallel = False
    bills_requests = False
    symlinks: Collection[str] = ()

    def __init__(self, file: Path) -> None:
        self.url = f"sqlite://{file}"
        self.counters = Counters()
        self._file = file
        self._opened: sqlite3.Connection | None = None

    def identity(self) -> str:
        return f"sqlite://{self._file.resolve()}"

    def _run(self, operation: str, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        self.counters.count(operation)
        if self._opened is None:
            if not self._file.is_file():
                raise NoSuchBucket(f"no such file: {self._file}")
            self._opened = sqlite3.connect(self._file, isolation_level=None, timeout=60)
            self._opened.execute("pragma synchronous = off")  # the power does not fail in a test
        try:
            return self._opened.execute(statement, values)
        except sqlite3.IntegrityError as error:
            raise AlreadyExists(f"{self.url} has that key already") from error
        except sqlite3.Error as error:
            raise StorageError(f"{self.url}: {error}") from error

    def _find(self, operation: str, key: str) -> tuple[bytes, ObjectInfo]:
        row = self._run(operation, "select data, mtime from object where key = ?", [key.encode()]).fetchone()
        if row is None:
            raise NotFound(key, self.url)
        etag = hashlib.md5(row[0], usedforsecurity=False).hexdigest()
        return row[0], ObjectInfo(key, len(row[0]), etag, row[1])

    async def capabilities(self) -> Capabilities:
        return Capabilities(conditional_put=True)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        after, begin = start_after.encode(), prefix.encode()
        while True:
            rows = self._run(
                "list",
                "select key, data, mtime from object where key > ? and substr(key, 1, ?) = ? order by key limit ?",
                [after, len(begin), begin, PAGE + 1],
            ).fetchall()
            shown = rows[:PAGE]
            yield Page(
                [key.decode() for key, _, _ in shown],
                [len(data) for _, data, _ in shown],
                [hashlib.md5(data, usedforsecurity=False).hexdigest() for _, data, _ in shown],
                [mtime for _, _, mtime in shown],
                len(rows) <= PAGE,
            )
            if len(rows) <= PAGE:
                return
            after = shown[-1][0]

    async def stat(self, key: str) -> ObjectInfo:
        return self._find("stat", key)[1]

    async def get(self, key: str) -> bytes:
        data = self._find("get", key)[0]
        self.counters.bytes_read += len(data)
        return data

    @asynccontextmanager
    async def open_read(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[Found]:
        data, info = self._find("get", key)
        yield Found(info, data[start : None if length is None else start + length], self.counters)

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        verb = "insert" if if_absent else "insert or replace"
        self._run("put", f"{verb} into object values (?, ?, ?)", [key.encode(), data, await self.now()])
        self.counters.bytes_written += len(data)

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        digest: Digest | None = None,
        options: PutOptions | None = None,
    ) -> int:
        verifier, data = Verifier(digest), bytearray()
        async for chunk in chunks:
            verifier.update(chunk)
            data += chunk
        verifier.verify(f"{self.url}/{key}")
        if size is not None and len(data) != size:
            raise IntegrityError(f"{self.url}/{key}: {len(data)} bytes, not {size}")
        await self.put(key, bytes(data))
        return len(data)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        for key in keys:
            self._run("delete", "delete from object where key = ?", [key.encode()])
        return dict.fromkeys(keys)

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        data, _ = self._find("copy", source)
        if size is not None and len(data) != size:
            raise IntegrityError(f"{self.url}/{source} has {len(data)} bytes, not {size}")
        await self.put(target, data)

    async def move(self, source: str, target: str, *, size: int) -> None:
        await self.copy(source, target, size=size)
        await self.delete_many([source])

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        uploads: tuple[MultipartUpload, ...] = ()
        for upload in uploads:
            yield upload

    async def abort_multipart_upload(self, upload: MultipartUpload) -> None:
        """There is none."""

    async def remove_empty_folders(
        self, prefix: str, *, older_than: int, keep: frozenset[str] = frozenset()
    ) -> int:
        return 0

    async def remove_folders(self, folders: Sequence[str]) -> int:
        return 0

    async def now(self) -> int:
        return time.time_ns() // 1000

    async def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
