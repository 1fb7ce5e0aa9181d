"""Where a report's files lie: in the destination bucket, or in a folder that somebody downloaded it to.

Nothing of a file is believed before its MD5 is what the manifest says, and the manifest's what manifest.checksum does.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from regstore.concurrency import in_thread
from regstore.errors import InputError, IntegrityError, NotFound
from regstore.inventory.reported.report import MANIFEST, BlobsFrom, Report, ReportFile, parse_report
from regstore.storage.base import Storage

_CHECKSUM: Final = "manifest.checksum"
_CHUNK: Final = 1 << 20


class Place(Protocol):
    """Where the files of one report lie."""

    where: str

    async def small(self, name: str) -> bytes:
        """The file beside the manifest. NotFound when absent."""
        ...

    @asynccontextmanager
    async def file(self, file: ReportFile, folder: Path) -> AsyncIterator[Path]:
        """A file of data, proved by its MD5; what is fetched for it goes into the folder, and is gone afterwards.
        IntegrityError where it is absent, or has other bytes."""
        yield Path()


@asynccontextmanager
async def open_place(blobs_from: BlobsFrom) -> AsyncIterator[Place]:
    if blobs_from.bucket is None:
        yield place_in(blobs_from, None)
        return
    async with blobs_from.open(blobs_from.bucket) as storage:
        yield place_in(blobs_from, storage)


def place_in(blobs_from: BlobsFrom, bucket: Storage | None) -> Place:
    """The same in a bucket that is open already; None where it lies in a folder."""
    return _Folder(blobs_from) if bucket is None else _Bucket(blobs_from, bucket)


async def read_report(place: Place) -> Report:
    try:
        data = await place.small(MANIFEST)
    except NotFound as error:
        raise InputError(f"{place.where} is not there: it names no S3 Inventory report") from error
    try:
        checksum = (await place.small(_CHECKSUM)).decode(errors="replace").strip().strip('"').lower()
    except NotFound as error:
        raise IntegrityError(
            f"{_CHECKSUM} does not lie beside {place.where}: it is written last, so the report may not be whole"
        ) from error
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != checksum:
        raise IntegrityError(f"{place.where} has not the MD5 that {_CHECKSUM} beside it says: it is not believed")
    return parse_report(data, place.where)


class _Bucket:
    def __init__(self, blobs_from: BlobsFrom, storage: Storage) -> None:
        self.where = str(blobs_from)
        self._storage = storage
        self._beside = blobs_from.manifest[: -len(MANIFEST)]

    async def small(self, name: str) -> bytes:
        return await self._storage.get(self._beside + name)

    @asynccontextmanager
    async def file(self, file: ReportFile, folder: Path) -> AsyncIterator[Path]:
        path = folder / f"reported-{file.md5}"
        hashed = hashlib.md5(usedforsecurity=False)
        size = 0
        try:
            try:
                async with self._storage.open_read(file.key) as handle:
                    with path.open("wb") as out:
                        async for chunk in handle:
                            await in_thread(out.write, chunk)
                            hashed.update(chunk)
                            size += len(chunk)
            except NotFound as error:
                raise _absent(self.where, f"{self._storage.url}/{file.key}") from error
            _prove(self.where, file, size, hashed.hexdigest())
            yield path
        finally:
            path.unlink(missing_ok=True)


class _Folder:
    def __init__(self, blobs_from: BlobsFrom) -> None:
        self.where = str(blobs_from)
        self._folder = blobs_from.folder

    async def small(self, name: str) -> bytes:
        path = self._folder / name
        try:
            return await in_thread(path.read_bytes)
        except FileNotFoundError as error:
            raise NotFound(name, str(self._folder)) from error
        except OSError as error:
            raise InputError(f"{path} can't be read: {(error.strerror or str(error)).lower()}") from error

    @asynccontextmanager
    async def file(self, file: ReportFile, folder: Path) -> AsyncIterator[Path]:
        path = next((path for path in _candidates(self._folder.absolute(), file) if path.is_file()), None)
        if path is None:
            raise _absent(self.where, f"{file.name}, neither beside it, nor in data/, nor where its key says")
        try:
            size, md5 = await in_thread(_hash, path)
        except OSError as error:
            raise InputError(f"{path} can't be read: {(error.strerror or str(error)).lower()}") from error
        _prove(self.where, file, size, md5)
        # Under a name of ours: some characters make a path a pattern to DuckDB, which then reads others.
        link = folder / f"reported-{file.md5}"
        link.symlink_to(path)
        try:
            yield link
        finally:
            link.unlink()


def _candidates(folder: Path, file: ReportFile) -> Iterator[Path]:
    """Beside the manifest; as AWS has them, in data/ beside the report's folder; and by their keys in the bucket, below
    any folder above."""
    yield folder / file.name
    yield folder / "data" / file.name
    yield folder.parent / "data" / file.name
    for above in (folder, *folder.parents):
        yield above / file.key.lstrip("/")


def _hash(path: Path) -> tuple[int, str]:
    hashed, size = hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            hashed.update(chunk)
            size += len(chunk)
    return size, hashed.hexdigest()


def _absent(where: str, what: str) -> IntegrityError:
    return IntegrityError(f"{where} is not whole: there is no {what}; nothing is done by a part of a report")


def _prove(where: str, file: ReportFile, size: int, md5: str) -> None:
    if size != file.size:
        raise IntegrityError(
            f"{where}: its file {file.name} has {size:,} bytes, not the {file.size:,} of the manifest"
        )
    if md5 != file.md5:
        raise IntegrityError(
            f"{where}: its file {file.name} has the MD5 {md5}, not {file.md5} as the manifest says"
        )
