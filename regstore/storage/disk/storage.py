"""A folder tree as a Storage: what a registry's `filesystem` driver keeps, and where backups go."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, Self, TypeVar

from regstore.digest import Digest, Verifier
from regstore.errors import (
    AccessDenied,
    IntegrityError,
    StorageError,
)
from regstore.events import OnEvent
from regstore.storage.base import (
    Capabilities,
    Counters,
    MultipartUpload,
    ObjectInfo,
    Page,
    PutOptions,
)
from regstore.storage.disk.deletion import delete_files
from regstore.storage.disk.folder_id import place_of_folder, write_id
from regstore.storage.disk.folders import Tree, facts, translated
from regstore.storage.disk.hashing import hash_objects
from regstore.storage.disk.newfile import CHUNK, NewFile
from regstore.storage.disk.threads import Threads
from regstore.storage.disk.trials import has_conditional_put, time_of_files
from regstore.storage.disk.walk import Listing, remove_folders, sweep_empty_folders
from regstore.storage.limit import check_limit
from regstore.storage.within import refuse_folder_within

_COPY_STEP: Final = 64 << 20
_DELETE_BATCH: Final = 250

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DiskAddress:
    """A folder, with what the storage was told about it."""

    root: Path
    create: bool
    read_only: bool
    private: bool

    def open(self, concurrency: int, on_event: OnEvent) -> DiskStorage:
        storage = DiskStorage(self.root, create=self.create, read_only=self.read_only, concurrency=concurrency)
        if self.private:
            storage.keep_private()
        return storage


class DiskStorage:
    """The Storage protocol over one folder.

    Writes go to a file named `.regstore-<hex>` beside the target, are synced, and renamed; folders that had to be
    made are synced too. A run that is killed can leave such a file: it lists as an unknown key, and a registry
    passes over it; a later migrate or restore removes it. As root, new files and folders take the owner of the
    folder they lie in. Modes are 0755 and 0644 less the umask, and where `keep_private` was called 0700 and 0600.
    `regstore/` itself is made no more open than the registry's `docker/` beside it.

    Symbolic links below the root are never followed. A listing passes over them and notes their keys in `symlinks`;
    naming one, or a key below one, raises Unsupported: it is not absent, for a registry does follow it.
    """

    serves_in_parallel = False
    bills_requests = False

    def __init__(self, root: Path, *, create: bool = False, read_only: bool = False, concurrency: int = 16) -> None:
        """root: the folder; missing, every operation raises NoSuchBucket, or with `create` it is made.
        read_only: every change is refused. concurrency: threads, and so file operations at once."""
        self.root = root.absolute()
        self.url = str(self.root)
        self.counters = Counters()
        #: Keys of the symbolic links that listings came upon so far.
        self.symlinks: set[str] = set()
        self._create = create
        self._tree = Tree(self.root, create=create)
        self.read_only = read_only
        self._threads = Threads(concurrency, self.url)
        self._capabilities: Capabilities | None = None
        self._probing = asyncio.Lock()

    @property
    def folder(self) -> Path:
        return self.root

    def identity(self) -> str:
        """The path without symbolic links."""
        return os.path.realpath(self.root)

    async def identity_everywhere(self) -> str:
        """By the folder's ID, where it has one."""
        return await asyncio.to_thread(place_of_folder, self.root)

    async def keep_id(self) -> None:
        if not self.read_only:
            await asyncio.to_thread(write_id, self.root)

    def registry_configuration(self, put: PutOptions | None = None) -> dict[str, dict[str, Any]]:
        return {"filesystem": {"rootdirectory": str(self.root)}}

    async def _change(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In a thread, for what writes."""
        if self.read_only:
            raise AccessDenied(f"{self.url} was opened to be looked at only: nothing is changed there")
        return await self._threads.run(call, *args, **kwargs)

    async def capabilities(self) -> Capabilities:
        async with self._probing:
            if self._capabilities is None:
                self._capabilities = Capabilities(
                    conditional_put=not self.read_only and await self._threads.run(has_conditional_put, self._tree),
                    atomic_rename=True,
                    folders=True,
                    versioned=False,
                )
            return self._capabilities

    def address(self) -> DiskAddress:
        return DiskAddress(self.root, self._create, self.read_only, self._tree.is_private)

    def keep_private(self) -> None:
        self._tree.keep_private()

    def open_to_all(self) -> str:
        return self._tree.open_to_all()

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        listing = Listing(self._tree, prefix, start_after, self.symlinks)
        try:
            while True:
                self.counters.count("list")
                page = await self._threads.run(listing.next_page)
                yield page
                if page.complete:
                    return
        finally:
            listing.close()

    async def stat(self, key: str) -> ObjectInfo:
        self.counters.count("stat")
        return await self._threads.run(self._tree.stat, key)

    async def get(self, key: str) -> bytes:
        self.counters.count("get")
        data = await self._threads.run(self._tree.read, key)
        self.counters.bytes_read += len(data)
        return data

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | StorageError]:
        """As `ReadsMany` says: with one thread's work."""
        self.counters.count("get", len(keys))
        found = await self._threads.run(self._tree.read_many, keys)
        self.counters.bytes_read += sum(len(one) for one in found if isinstance(one, bytes))
        return found

    @asynccontextmanager
    async def open_read(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[OpenedFile]:
        self.counters.count("get")
        async with self._open_file(key) as (file, info):
            yield OpenedFile(self, file, info, start, length)

    @asynccontextmanager
    async def _open_file(self, key: str) -> AsyncIterator[tuple[int, ObjectInfo]]:
        files: list[int] = []  # filled by the thread, so that a cancelled call's file is found

        def open_file() -> ObjectInfo:
            files.append(self._tree.open_file(key))
            with translated(self.root, key):
                return facts(files[0], key)

        try:
            info = await self._threads.run(open_file)
            yield files[0], info
        finally:
            for file in files:
                os.close(file)

    async def hash_objects(
        self, wanted: Sequence[tuple[str, str]], *, on_bytes: Callable[[int], None], stopped: Callable[[], bool]
    ) -> dict[str, tuple[int, str] | StorageError]:
        """As `HashesObjects` says."""
        cancelled = False

        def stop() -> bool:
            return cancelled or stopped()

        self.counters.count("get", len(wanted))
        work = asyncio.ensure_future(self._threads.run(hash_objects, self._tree, wanted, on_bytes, stop))
        try:
            found = await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled = True
            await asyncio.wait([work])
            raise
        self.counters.bytes_read += sum(one[0] for one in found.values() if isinstance(one, tuple))
        return found

    async def changed_at(self, keys: Sequence[str]) -> Sequence[int]:
        """As `TellsChanges` says: the files' ctime."""
        return await self._threads.run(lambda: [self._tree.changed_at(key) for key in keys])

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        self.counters.count("put")
        await self._change(self._put, key, data, if_absent)
        self.counters.bytes_written += len(data)

    def _put(self, key: str, data: bytes, if_absent: bool) -> None:
        check_limit()
        file = NewFile(self._tree, key)
        try:
            file.write(data)
            file.publish(if_absent=if_absent)
        finally:
            file.discard()

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        digest: Digest | None = None,
        options: PutOptions | None = None,
    ) -> int:
        self.counters.count("put")
        verifier = Verifier(digest)
        async with self._new_file(key) as file:

            def write(piece: bytes) -> None:
                if digest is not None:
                    verifier.update(piece)
                file.write(piece)

            pending = bytearray()
            async for chunk in chunks:
                pending += chunk
                if len(pending) >= CHUNK:
                    await self._threads.run(write, bytes(pending))
                    pending.clear()
            if pending:
                await self._threads.run(write, bytes(pending))
            if size is not None and file.size != size:
                raise IntegrityError(f"{self.url}/{key}: expected {size:,} bytes, the stream has {file.size:,}")
            if digest is not None:
                verifier.verify(f"{self.url}/{key}")
            await self._threads.run(file.publish)
        self.counters.bytes_written += file.size
        return file.size

    @asynccontextmanager
    async def _new_file(self, key: str) -> AsyncIterator[NewFile]:
        files: list[NewFile] = []  # filled by the thread, so that a cancelled call's file is found
        try:
            await self._change(lambda: files.append(NewFile(self._tree, key)))
            yield files[0]
        finally:
            for file in files:
                file.discard()

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        outcomes: dict[str, StorageError | None] = {}
        for first in range(0, len(keys), _DELETE_BATCH):
            batch = keys[first : first + _DELETE_BATCH]
            self.counters.count("delete", len(batch))
            outcomes |= await self._change(delete_files, self._tree, batch)
        return outcomes

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        self.counters.count("copy")
        async with self._open_file(source) as (file, info), self._new_file(target) as copy:
            while await self._threads.run(copy.copy_from, file, _COPY_STEP):
                pass
            expected = info.size if size is None else size
            if copy.size != expected:
                raise IntegrityError(
                    f"{self.url}/{source} has {copy.size:,} bytes, not {expected:,}: it changed; not copied"
                )
            await self._threads.run(copy.publish)

    async def move(self, source: str, target: str, *, size: int) -> None:
        self.counters.count("move")
        if await self._change(self._move, source, target, size):
            return
        # A file system is mounted between the two.
        await self.copy(source, target, size=size)
        outcome = (await self.delete_many([source]))[source]
        if outcome is not None:
            raise outcome

    def _move(self, source: str, target: str, size: int) -> bool:
        check_limit()
        return self._tree.move(source, target, size)

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        """Nothing: a disk has none."""
        uploads: tuple[MultipartUpload, ...] = ()
        for upload in uploads:
            yield upload

    async def abort_multipart_upload(self, upload: MultipartUpload) -> None:
        """Nothing: a disk has none."""

    async def remove_empty_folders(
        self, prefix: str, *, older_than: int, keep: frozenset[str] = frozenset()
    ) -> int:
        """As the protocol says; the root, `docker/registry/v2` and its `blobs` and `repositories` stay."""
        sweep = sweep_empty_folders(self._tree, prefix, older_than, keep)
        removed = 0
        try:
            while (step := await self._change(next, sweep, None)) is not None:
                removed = step
        finally:
            sweep.close()
        return removed

    async def remove_folders(self, folders: Sequence[str]) -> int:
        return await self._change(remove_folders, self._tree, folders)

    async def now(self) -> int:
        """The time that a file made under `regstore/` gets; this computer's own where none can be made, or may be
        (`read_only`)."""
        return time.time_ns() // 1000 if self.read_only else await self._threads.run(time_of_files, self._tree)

    async def close(self) -> None:
        self._threads.close()

    async def __aenter__(self) -> Self:
        await refuse_folder_within(self.root)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class OpenedFile:
    """A file open for reading, as a ReadHandle: iterate it once, inside its context."""

    def __init__(self, storage: DiskStorage, file: int, info: ObjectInfo, start: int, length: int | None) -> None:
        self.info = info
        self._storage = storage
        self._file = file
        self._offset = start
        self._end = info.size if length is None else min(info.size, start + length)

    def fileno(self) -> int:
        return self._file

    async def __aiter__(self) -> AsyncIterator[bytes]:
        storage, key = self._storage, self.info.key
        while self._offset < self._end:
            data = await storage._threads.run(self._read)
            if not data:
                raise IntegrityError(
                    f"{storage.url}/{key} ended after {self._offset:,} of {self.info.size:,} bytes"
                )
            self._offset += len(data)
            storage.counters.bytes_read += len(data)
            yield data

    def _read(self) -> bytes:
        with translated(self._storage.root, self.info.key):
            return os.pread(self._file, min(CHUNK, self._end - self._offset), self._offset)
