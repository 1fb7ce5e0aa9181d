"""A layout in a tar file, as a storage that can only be looked at: the members are read where they lie."""

from __future__ import annotations

import asyncio
import os
import tarfile
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from regstore.errors import InputError, IntegrityError, NotFound
from regstore.storage.base import Counters, ObjectInfo, Page, ReadHandle
from regstore.storage.read_only import ReadOnly
from regstore.words import printable

_CHUNK: Final = 1 << 20
_PAGE: Final = 1000
#: Bytes of a header that says more of the next member, such as a long name.
_LONGEST_HEADER: Final = 1 << 20
_MOST_MEMBERS: Final = 1_000_000
_COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd"}


class TarStorage(ReadOnly):
    """The files of a tar archive by name, without a leading `./`. Nothing is unpacked.

    InputError where it is none, is compressed, has a member that is neither a file nor a folder, that leads out of it,
    or two of one name: a layout has none of these, and readers would differ.
    """

    reason = "an archive is read only"
    serves_in_parallel = False
    bills_requests = False

    def __init__(self, path: Path) -> None:
        self.url = str(path)
        self.counters = Counters()
        self._file = _open(path)
        try:
            self._mtime = int(os.fstat(self._file.fileno()).st_mtime * 1_000_000)
            self._members = _members(self._file, str(path))
        except BaseException:
            self._file.close()
            raise
        self._keys = sorted(self._members)

    def identity(self) -> str:
        return f"tar {Path(self.url).resolve()}"

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        start = max(bisect_left(self._keys, prefix), bisect_right(self._keys, start_after))
        keys: list[str] = []
        for key in self._keys[start:]:
            if not key.startswith(prefix):
                break
            if len(keys) == _PAGE:
                yield self._page(keys, complete=False)
                keys = []
            keys.append(key)
        yield self._page(keys, complete=True)

    def _page(self, keys: Sequence[str], *, complete: bool) -> Page:
        sizes = [self._members[key].size for key in keys]
        return Page([*keys], sizes, [""] * len(keys), [self._mtime] * len(keys), complete)

    async def stat(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, self._member(key).size, "", self._mtime)

    async def get(self, key: str) -> bytes:
        async with self.open_read(key) as handle:
            return b"".join([chunk async for chunk in handle])

    @asynccontextmanager
    async def open_read(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[ReadHandle]:
        member = self._member(key)
        end = member.size if length is None else min(member.size, start + length)
        yield _Read(ObjectInfo(key, member.size, "", self._mtime), self._file.fileno(), member.offset, start, end)

    def _member(self, key: str) -> _Member:
        if key not in self._members:
            raise NotFound(key, self.url)
        return self._members[key]

    async def now(self) -> int:
        return self._mtime

    async def close(self) -> None:
        self._file.close()

    async def __aenter__(self) -> TarStorage:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


@dataclass(frozen=True, slots=True)
class _Member:
    offset: int
    size: int


@dataclass(slots=True)
class _Read:
    info: ObjectInfo
    descriptor: int
    offset: int
    start: int
    end: int

    async def __aiter__(self) -> AsyncIterator[bytes]:
        position = self.start
        while position < self.end:
            wanted = min(_CHUNK, self.end - position)
            data = await asyncio.to_thread(os.pread, self.descriptor, wanted, self.offset + position)
            if not data:
                raise IntegrityError(f"{self.info.key} ends early: the archive was cut short")
            position += len(data)
            yield data


def _open(path: Path) -> IO[bytes]:
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}") from error
    kind = "a compressed file (" if file.seekable() else ""
    head = file.read(2) if kind else b""
    if not kind or head in _COMPRESSED:
        file.close()
        what = f"{kind}{_COMPRESSED[head]})" if kind else "no plain file"
        raise InputError(f"{path} is {what}: give a tar archive that is neither, so that its members can be found")
    file.seek(0)
    return file


def _members(file: IO[bytes], where: str) -> dict[str, _Member]:
    found: dict[str, _Member] = {}
    size = os.fstat(file.fileno()).st_size
    try:
        with tarfile.open(fileobj=_Bounded(file, where), mode="r:") as archive:  # type: ignore[call-overload]
            for number, member in enumerate(archive):
                if number >= _MOST_MEMBERS:
                    raise InputError(f"{where} has more than {_MOST_MEMBERS:,} members: no layout has so many")
                name = _checked(member, where)
                if name in found:
                    raise InputError(f"{where} has {printable(name)!r} twice: readers would differ")
                if member.isreg():
                    if member.offset_data + member.size > size:
                        raise InputError(f"{where} ends within {printable(name)!r}: it was cut short")
                    found[name] = _Member(member.offset_data, member.size)
                archive.members = []  # it would keep them all
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} is no tar archive, or a damaged one: {error}") from error
    return found


def _checked(member: tarfile.TarInfo, where: str) -> str:
    shown = printable(member.name[:200])
    if not (member.isreg() or member.isdir()) or member.issparse():
        kind = "a link" if member.issym() or member.islnk() else "no plain file"
        raise InputError(f"{where} has {shown!r}, which is {kind}: no OCI image layout has such a thing")
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if member.name.startswith("/") or ".." in parts:
        raise InputError(f"{where} has {shown!r}, which leads out of it: no OCI image layout has such a thing")
    return "/".join(parts)


class _Bounded:
    """What tarfile reads headers from: it believes what one says of its own length."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        self._file = file
        self._where = where

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise InputError(f"{self._where} has a header of {size:,} bytes: no tar archive has such a thing")
        data = b""
        while len(data) < size and (more := self._file.read(size - len(data))):
            data += more
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        pass


def is_archive(path: Path) -> bool:
    with suppress(OSError):
        return not path.is_dir()
    return True
