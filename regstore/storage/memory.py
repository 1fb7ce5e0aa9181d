"""A store in this process's memory: for tests, a library user's own too.

    regstore.open("memory://name[/rootdirectory]")

Everything in one process that opens one name sees one store, for as long as the process lives or until `forget`. It
keeps the whole contract of `storage.base`, as S3 does: any key, pages of a thousand, an ETag that is the MD5, a create
that fails where the key is there. Nothing of it is ever on a disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, Self

from regstore.digest import Digest, Verifier
from regstore.errors import (
    AccessDenied,
    AlreadyExists,
    InputError,
    IntegrityError,
    NoSuchBucket,
    NotFound,
    StorageError,
)
from regstore.storage.base import (
    Capabilities,
    Counters,
    MultipartUpload,
    ObjectInfo,
    Page,
    PutOptions,
    ReadHandle,
    Storage,
)
from regstore.storage.limit import check_limit
from regstore.storage.location import normalize_root

if TYPE_CHECKING:
    from regstore.storage.backends import OpenOptions
    from regstore.storage.registry_config import S3Access

_PAGE: Final = 1000
_CHUNK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    etag: str
    mtime: int


@dataclass(slots=True, eq=False)
class Objects:
    """What lies under one name, by full keys."""

    found: dict[str, _Object] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        made = _Object(data, hashlib.md5(data, usedforsecurity=False).hexdigest(), time.time_ns() // 1000)
        with self.lock:
            if key not in self.found:
                insort(self.order, key)
            elif if_absent:
                raise AlreadyExists(f"{key} exists already")
            self.found[key] = made

    def delete(self, key: str) -> None:
        with self.lock:
            if self.found.pop(key, None) is not None:
                del self.order[bisect_left(self.order, key)]

    def page(self, prefix: str, after: str) -> tuple[list[tuple[str, _Object]], bool]:
        """Up to a page of what begins with the prefix and sorts after `after`; whether that is all."""
        with self.lock:
            start = max(bisect_left(self.order, prefix), bisect_right(self.order, after) if after else 0)
            keys = self.order[start : start + _PAGE + 1]
            shown = [(key, self.found[key]) for key in keys if key.startswith(prefix)]
            return shown[:_PAGE], len(shown) <= _PAGE


_STORES: Final[dict[str, Objects]] = {}


def objects_of(name: str) -> Objects:
    """The store of that name, made where there is none."""
    return _STORES.setdefault(name, Objects())


def forget(name: str) -> None:
    """Whoever has it open finds no such bucket."""
    _STORES.pop(name, None)


@dataclass(frozen=True, slots=True)
class MemoryLocation:
    """A store in this process's memory, by any name. root: as of a bucket."""

    scheme: ClassVar[str] = "memory"
    name: str
    root: str = ""

    def __str__(self) -> str:
        return f"memory://{self.name}" + (f"/{self.root}" if self.root else "")


def parse_memory(text: str) -> MemoryLocation | None:
    """None where that is no URL of a store in memory."""
    name, _, root = text[9:].partition("/")
    return MemoryLocation(name, normalize_root(root)) if text[7:].startswith("//") and name else None


def open_memory(
    location: MemoryLocation, options: OpenOptions, access: S3Access | None, put: PutOptions | None
) -> Storage:
    return MemoryStorage(location.name, location.root, read_only=options.read_only)


class MemoryStorage:
    """The Storage over one name and root. create: make the store where there is none; else NoSuchBucket at the first
    operation."""

    serves_in_parallel = True
    bills_requests = False
    symlinks: Collection[str] = ()

    def __init__(self, name: str, root: str = "", *, create: bool = True, read_only: bool = False) -> None:
        """root: as for S3, "" or with no slash at either end."""
        self.url = f"memory://{name}" + (f"/{root}" if root else "")
        self.counters = Counters()
        self._name = name
        self._root = f"{root}/" if root else ""
        self._read_only = read_only
        if create:
            objects_of(name)

    def identity(self) -> str:
        return self.url

    @property
    def _objects(self) -> Objects:
        try:
            return _STORES[self._name]
        except KeyError:
            raise NoSuchBucket(f"there is no store {self._name} in this process's memory") from None

    def _full(self, key: str) -> str:
        if not key:
            raise InputError("a key must not be empty")
        return self._root + key

    def _may_change(self) -> Objects:
        check_limit()
        if self._read_only:
            raise AccessDenied(f"{self.url} was opened to be looked at only")
        return self._objects

    def _find(self, key: str) -> _Object:
        try:
            return self._objects.found[self._full(key)]
        except KeyError:
            raise NotFound(key, self.url) from None

    async def _count(self, operation: str) -> None:
        """Other tasks run between two operations, as they would while a request is on its way."""
        self.counters.count(operation)
        await asyncio.sleep(0)

    async def capabilities(self) -> Capabilities:
        return Capabilities(conditional_put=True)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        cut = len(self._root)
        after = self._root + start_after if start_after else ""
        while True:
            await self._count("list")
            shown, complete = self._objects.page(self._root + prefix, after)
            yield Page(
                [key[cut:] for key, _ in shown],
                [len(one.data) for _, one in shown],
                [one.etag for _, one in shown],
                [one.mtime for _, one in shown],
                complete,
            )
            if complete:
                return
            after = shown[-1][0]

    async def stat(self, key: str) -> ObjectInfo:
        await self._count("stat")
        return _info(key, self._find(key))

    async def get(self, key: str) -> bytes:
        await self._count("get")
        data = self._find(key).data
        self.counters.bytes_read += len(data)
        return data

    def open_read(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[ReadHandle]:
        if start < 0 or (length is not None and length < 0):
            raise InputError("a range must not be negative")

        @asynccontextmanager
        async def opened() -> AsyncIterator[ReadHandle]:
            await self._count("get")
            found = self._find(key)
            stop = len(found.data) if length is None else min(len(found.data), start + length)
            yield _Handle(_info(key, found), found.data[start:stop], self.counters)

        return opened()

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        await self._count("put")
        self._may_change().put(self._full(key), bytes(data), if_absent=if_absent)
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
        self._may_change()
        verifier = Verifier(digest)
        kept = bytearray()
        async for chunk in chunks:
            verifier.update(chunk)
            kept += chunk
        verifier.verify(f"{self.url}/{key}")
        if size is not None and len(kept) != size:
            raise IntegrityError(f"{self.url}/{key}: {len(kept):,} bytes came, not the {size:,} expected")
        await self.put(key, bytes(kept))
        return len(kept)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        outcomes: dict[str, StorageError | None] = {}
        for key in keys:
            if key not in outcomes:
                await self._count("delete")
                self._may_change().delete(self._full(key))
            outcomes[key] = None
        return outcomes

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        await self._count("copy")
        found = self._find(source)
        if size is not None and len(found.data) != size:
            raise IntegrityError(f"{self.url}/{source} has {len(found.data):,} bytes, not the {size:,} expected")
        self._may_change().put(self._full(target), found.data)

    async def move(self, source: str, target: str, *, size: int) -> None:
        await self.copy(source, target, size=size)
        await self.delete_many([source])

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        """Nothing: a stream is kept aside until it is whole."""
        uploads: tuple[MultipartUpload, ...] = ()
        for upload in uploads:
            yield upload

    async def abort_multipart_upload(self, upload: MultipartUpload) -> None:
        """Nothing to abort."""

    async def remove_empty_folders(
        self, prefix: str, *, older_than: int, keep: frozenset[str] = frozenset()
    ) -> int:
        return 0

    async def remove_folders(self, folders: Sequence[str]) -> int:
        return 0

    async def now(self) -> int:
        return time.time_ns() // 1000

    def contents(self) -> Mapping[str, bytes]:
        """Every key below the root with its bytes, as of now: for a test's own look."""
        cut = len(self._root)
        found = dict(self._objects.found)
        return {key[cut:]: found[key].data for key in sorted(found) if key.startswith(self._root)}

    async def close(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _info(key: str, found: _Object) -> ObjectInfo:
    return ObjectInfo(key, len(found.data), found.etag, found.mtime)


class _Handle:
    def __init__(self, info: ObjectInfo, data: bytes, counters: Counters) -> None:
        self.info = info
        self._data = data
        self._counters = counters

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), _CHUNK):
            chunk = self._data[at : at + _CHUNK]
            self._counters.bytes_read += len(chunk)
            yield chunk
