"""Reading an object as a stream that survives broken connections."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from regstore.errors import IntegrityError, StorageError
from regstore.storage.base import ObjectInfo
from regstore.storage.s3.client import SignedClient
from regstore.storage.s3.failures import Malformed
from regstore.storage.s3.http import Response
from regstore.storage.s3.xml import parse_http_time

#: Bytes gathered before a chunk is given out; a chunk is at most this and one read of the socket.
CHUNK: Final = 256 * 1024
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.ASCII)


class ObjectStream:
    """Chunks of `info` from `start` to `end` (exclusive, in bytes of the object). To be read once."""

    def __init__(
        self,
        client: SignedClient,
        key: str,
        info: ObjectInfo,
        start: int,
        end: int,
        body: Response | None,
    ) -> None:
        self.info = info
        self._client = client
        self._key = key
        self._at = start
        self._end = end
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Broken off, it goes on where it was with a Range, as long as the ETag is the same.

        IntegrityError when the object changed meanwhile; Unreachable when no try brings it further.
        """
        attempt = 1
        while self._at < self._end:
            before = self._at
            try:
                if self._body is not None:
                    async for chunk in self._pump(self._body):
                        yield chunk
                else:
                    wanted = {"range": f"bytes={self._at}-{self._end - 1}"}
                    async with self._client.open(
                        self._key, headers=wanted, accept=(206,), attempts=attempt - 1
                    ) as response:
                        self._check(response)
                        async for chunk in self._pump(response):
                            yield chunk
                if self._at < self._end:
                    raise ConnectionResetError("the body ended early")
            except OSError as error:
                self._body = None
                attempt = 1 if self._at > before else attempt
                wait = self._client.broken(error, attempt, "GetObject", self._key)
                attempt += 1
                await asyncio.sleep(wait)

    async def _pump(self, response: Response) -> AsyncIterator[bytes]:
        gathered: list[bytes] = []
        size = 0
        broken: Exception | None = None
        try:
            async for piece in response.chunks():
                gathered.append(piece)
                size += len(piece)
                if size >= CHUNK:
                    yield self._count(_joined(gathered))
                    gathered, size = [], 0
        except OSError as error:
            broken = error
        if gathered:
            yield self._count(_joined(gathered))
        if broken is not None:
            raise broken

    def _count(self, chunk: bytes) -> bytes:
        self._at += len(chunk)
        if self._at > self._end:
            raise StorageError(f"the body of {self._client.place.name(self._key)} is longer than announced")
        self._client.counters.bytes_read += len(chunk)
        return chunk

    def _check(self, response: Response) -> None:
        where = self._client.place.name(self._key)
        if response.headers.get("etag", "").strip('"') != self.info.etag:
            raise IntegrityError(f"{where} changed while it was read; start again")
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != self._at:
            raise StorageError(f"{where}: the server sent another range than the one asked for")


def _joined(pieces: list[bytes]) -> bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def info_of(key: str, headers: object, size: int) -> ObjectInfo:
    """key: as the caller names it. headers: of a HEAD or GET. mtime has whole seconds, as the header has."""
    get = headers.get  # type: ignore[attr-defined]
    try:
        mtime = parse_http_time(get("last-modified", ""))
    except Malformed as error:
        raise StorageError(f"the server did not tell when {key} was written ({error})") from error
    return ObjectInfo(key, size, get("etag", "").strip('"'), mtime)


@asynccontextmanager
async def open_stream(
    client: SignedClient, key: str, name: str, start: int, length: int | None
) -> AsyncIterator[ObjectStream]:
    """key: the full key; name: as the caller knows it. What lies beyond the end of the object is left out."""
    ranged = start > 0 or length is not None
    last = "" if length is None else str(start + max(length, 1) - 1)
    headers = {"range": f"bytes={start}-{last}"} if ranged else {}
    async with client.open(key, headers=headers, accept=(200, 206, 416) if ranged else (200,)) as response:
        if response.status == 416:
            # Nothing at or after `start`. The total is in Content-Range, where the server is so kind.
            found = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("content-range", ""))
            total = int(found[1]) if found else start
            yield ObjectStream(client, key, info_of(name, _with_time(response), total), 0, 0, None)
            return
        if response.status == 206:
            part = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            if part is None or int(part[1]) != start or part[3] == "*":
                raise StorageError(f"{client.place.name(key)}: the server sent another range than asked for")
            total = int(part[3])
        else:
            if "content-length" not in response.headers:
                raise StorageError(f"{client.place.name(key)}: the server does not tell the object's size")
            total = int(response.headers["content-length"])
        info = info_of(name, response.headers, total)
        end = total if length is None else min(total, start + length)
        # A server that ignores Range sends all of it: then the stream asks again, and refuses another 200.
        usable = response.status == 206 or start == 0
        if response.status == 200 and length is not None and length < total:
            usable = False
        yield ObjectStream(client, key, info, start, end, response if usable and length != 0 else None)


def _with_time(response: Response) -> dict[str, str]:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return {"last-modified": headers.get("date", "Thu, 01 Jan 1970 00:00:00 GMT"), **headers}
