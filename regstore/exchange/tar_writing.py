"""A layout written as a tar file, member after member, with no copy of it elsewhere."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import tarfile
import time
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import IO, Final

from regstore.digest import Digest, Verifier
from regstore.errors import InputError, IntegrityError, NotFound, StorageError, StorageFull
from regstore.storage.base import TEMPORARY, Counters, ObjectInfo, Page, PutOptions, ReadHandle
from regstore.storage.read_only import ReadOnly
from regstore.storage.sizes import MiB

#: What is read whole before its turn comes, so that many small ones can be read at a time.
_READ_BEFORE: Final = 8 * MiB
_END: Final = bytes(2 * tarfile.BLOCKSIZE)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
#: What a file system says that has no hard links.
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class TarTarget(ReadOnly):
    """Takes members one at a time. The file has another name until `finish`: what is cut short never looks like one.

    A member whose bytes are not as promised is cut off again. Use it as an async context manager."""

    reason = "an archive grows only"
    serves_in_parallel = False
    bills_requests = False

    def __init__(self, path: Path) -> None:
        self.url = str(path)
        self.counters = Counters()
        self._path = path
        self._part = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}.tar")
        self._turn = asyncio.Lock()
        if path.exists():
            raise InputError(f"{path} is there already: give another name, or remove it")
        try:
            self._file: IO[bytes] = self._part.open("xb")
        except OSError as error:
            raise InputError(f"{path} can't be written: {error.strerror or error}") from error

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        await self.put_stream(key, _one(data), size=len(data))

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        digest: Digest | None = None,
        options: PutOptions | None = None,
    ) -> int:
        """size must be known: it stands before the bytes."""
        assert size is not None
        if size <= _READ_BEFORE:
            chunks = _one(b"".join([chunk async for chunk in chunks]))
        async with self._turn:
            start = self._file.tell()
            try:
                return await self._member(key, chunks, size, digest)
            except BaseException:
                self._file.seek(start)
                self._file.truncate()
                raise

    async def _member(self, key: str, chunks: AsyncIterable[bytes], size: int, digest: Digest | None) -> int:
        header = tarfile.TarInfo(key)
        header.size, header.mode = size, 0o644
        await self._write(header.tobuf(tarfile.PAX_FORMAT))
        verifier = Verifier(digest) if digest is not None else None
        done = 0
        async for chunk in chunks:
            done += len(chunk)
            if done > size:
                break
            if verifier is not None:
                verifier.update(chunk)
            await self._write(chunk)
        if done != size:
            raise IntegrityError(f"{key} has {'more' if done > size else f'{done:,}'} bytes, not {size:,}")
        if verifier is not None:
            verifier.verify(key)
        await self._write(bytes(-size % tarfile.BLOCKSIZE))
        return size

    async def _write(self, data: bytes) -> None:
        writing = asyncio.ensure_future(asyncio.to_thread(self._file.write, data))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])  # it goes on in its thread, and the file is cut back next
            raise
        except OSError as error:
            kind = StorageFull if error.errno in _FULL else StorageError
            raise kind(f"{self.url} can't be written: {error.strerror or error}") from error

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        """Nothing: it begins empty, and what it has got is not looked at."""
        yield Page([], [], [], [], True)

    async def stat(self, key: str) -> ObjectInfo:
        raise NotFound(key, self.url)

    async def get(self, key: str) -> bytes:
        raise NotFound(key, self.url)

    def open_read(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[ReadHandle]:
        raise NotFound(key, self.url)

    def identity(self) -> str:
        return f"tar {self._path.resolve()}"

    async def now(self) -> int:
        return time.time_ns() // 1000

    async def finish(self) -> None:
        """Durable, and under its name, on return. InputError where something has that name by now."""
        await self._write(_END)
        try:
            await asyncio.to_thread(self._settle)
        except FileExistsError as error:
            raise InputError(f"{self._path} is there by now: it was left as it is") from error
        except OSError as error:
            raise StorageError(f"{self.url} can't be written: {error.strerror or error}") from error

    def _settle(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        try:
            os.link(self._part, self._path)
            self._part.unlink()
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if self._path.exists():
                raise FileExistsError from error
            self._part.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    async def __aenter__(self) -> TarTarget:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._file.close()
        with suppress(OSError):
            self._part.unlink()


async def _one(data: bytes) -> AsyncIterable[bytes]:
    yield data
