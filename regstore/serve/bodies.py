"""A blob as an answer: whole or a range (RFC 9110, section 14), from a disk's file or streamed from wherever it lies.

A small one is read first, and goes out with its head. A larger file goes out by `sendfile`, in threads: a disk that is
slow holds up no other client, and a slow client holds no thread. Anything else is streamed a chunk at a time, the next
one taken when the last has been; from S3, a few parts are read ahead while there is room for that. A client that takes
nothing for `STALLED` seconds is let go.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from regstore.concurrency import in_thread
from regstore.serve.answers import ApiError
from regstore.storage.base import InFile, ReadHandle, Storage
from regstore.storage.streams import ranges_of, read_ahead

#: Seconds in which a client must have taken a piece.
STALLED: Final = 60.0
#: Bytes of one piece: a client slower than PIECE / STALLED, some 17 KB/s, is let go.
PIECE: Final = 1024 * 1024
#: Bytes of a blob that is read before it is sent.
_SMALL: Final = 64 * 1024
#: Threads that write files, and bytes that one writes for a client before it is another's turn.
_THREADS: Final = 16
_TURN: Final = 4 * 1024 * 1024
#: Bytes of a call of the system: more are slower, as they fit in no cache.
_CALL: Final = 256 * 1024
#: Of a large blob on S3: bytes of a part, how many are read ahead, and for how many clients at a time.
_PART: Final = 4 * 1024 * 1024
_AHEAD: Final = 3
_AHEAD_FOR: Final = 3
_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Range:
    """Part of an object, in bytes; `whole` where it is all of it and nobody asked for a part."""

    start: int
    length: int
    size: int
    whole: bool

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def parse_range(header: str | None, size: int) -> Range:
    """What part of an object of so many bytes a `Range` header asks for: one range of bytes; anything else is passed
    over, as the RFC allows. ApiError 416 where it lies behind the end."""
    match = _RANGE.fullmatch(header.replace(" ", "")) if header else None
    if match is None or match[0] == "bytes=-":
        return Range(0, size, size, whole=True)
    first, last = match[1], match[2]
    if not first:
        start, end = max(size - int(last), 0), size - 1
        if int(last) == 0:
            start = size
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        if last and int(last) < start:
            return Range(0, size, size, whole=True)
    if start >= size:
        raise ApiError(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "UNKNOWN",
            f"the blob has {size} bytes",
            Content_Range=f"bytes */{size}",
        )
    return Range(start, end - start + 1, size, whole=False)


class Bodies:
    """Sends blobs. All answers share its threads, and what may be read ahead. To be closed."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="regstore-send")
        self._ahead_for = 0

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    async def send(
        self, request: web.Request, storage: Storage, key: str, wanted: str | None, headers: dict[str, str]
    ) -> web.StreamResponse:
        """Answer with an object, or with the part that a `Range` header asks for. NotFound; ApiError 416. The
        connection is cut where the object can't be read to the end: the length was promised."""
        part = parse_range(wanted, (await storage.stat(key)).size) if wanted is not None else None
        start, length = (part.start, part.length) if part is not None else (0, None)
        if not (storage.serves_in_parallel and self._ahead_for < _AHEAD_FOR):
            async with storage.open_read(key, start=start, length=length) as handle:
                return await self._answer(request, handle, handle, part, headers)
        self._ahead_for += 1
        try:
            first = _PART if length is None else min(length, _PART)
            async with storage.open_read(key, start=start, length=first) as handle:
                rest = ranges_of(start + first, part.end if part is not None else handle.info.size, _PART)
                async with aclosing(read_ahead(storage, handle, rest, ahead=_AHEAD)) as chunks:
                    return await self._answer(request, handle, chunks, part, headers)
        finally:
            self._ahead_for -= 1

    async def _answer(
        self,
        request: web.Request,
        handle: ReadHandle,
        chunks: AsyncIterator[bytes] | ReadHandle,
        part: Range | None,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        if part is None:
            part = Range(0, handle.info.size, handle.info.size, whole=True)
        status = HTTPStatus.OK if part.whole else HTTPStatus.PARTIAL_CONTENT
        if not part.whole:
            headers = headers | {hdrs.CONTENT_RANGE: part.content_range}
        if part.length <= _SMALL:
            body = b"".join([chunk async for chunk in chunks])
            if len(body) != part.length:
                raise EOFError("the object is shorter than it was")
            return web.Response(status=status, body=body, headers=headers)
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = part.length
        await response.prepare(request)
        try:
            if isinstance(handle, InFile) and _is_plain(request.transport):
                await self._send_file(request, handle.fileno(), part)
            else:
                await _send_chunks(response, aiter(chunks))
        except TimeoutError:
            cut(request)
        except BaseException:
            cut(request)
            raise
        await response.write_eof()
        return response

    async def _send_file(self, request: web.Request, file: int, part: Range) -> None:
        """From an open file, behind what the transport has been given so far."""
        transport, loop = request.transport, asyncio.get_running_loop()
        if transport is None:
            raise ConnectionResetError("the client went away")
        # A descriptor of our own: the transport's is closed, and its number another's, whenever a client goes away.
        number = transport.get_extra_info("socket").fileno()
        if number < 0:
            raise ConnectionResetError("the client went away")
        connection = os.dup(number)
        try:
            async with asyncio.timeout(STALLED) as patience:
                while transport.get_write_buffer_size():
                    await _writable(connection)
                offset = told = part.start
                while offset < part.end:
                    turn = min(_TURN, part.end - offset)
                    sent = await in_thread(_write, connection, file, offset, turn, pool=self._threads)
                    offset += sent
                    if offset - told >= PIECE:
                        patience.reschedule(loop.time() + STALLED)
                        told = offset
                    if sent < turn:
                        await _writable(connection)
        finally:
            os.close(connection)


def _is_plain(transport: asyncio.Transport | None) -> bool:
    """Whether what is written to its socket is what the client reads: no TLS."""
    return transport is not None and transport.get_extra_info("sslcontext") is None


def _write(connection: int, file: int, offset: int, count: int) -> int:
    """Bytes of a file that a connection took: fewer where it is full. EOFError where the file ends before."""
    sent = 0
    while sent < count:
        try:
            taken = os.sendfile(connection, file, offset + sent, min(_CALL, count - sent))
        except BlockingIOError:
            break
        if not taken:
            raise EOFError("the file is shorter than it was")
        sent += taken
    return sent


async def _writable(connection: int) -> None:
    """Until a connection takes bytes again, or is broken."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(connection)


async def send_whole(request: web.Request, response: web.StreamResponse) -> None:
    """Send an answer that is in memory, which aiohttp would do too, but wait for its client for ever."""
    if response.prepared:
        return
    length = response.content_length or 0
    try:
        async with asyncio.timeout(STALLED * (1 + length // PIECE)):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        cut(request)
        raise ConnectionResetError("the client takes nothing") from None


async def _send_chunks(response: web.StreamResponse, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        for begin in range(0, len(chunk), PIECE):
            async with asyncio.timeout(STALLED):
                await response.write(memoryview(chunk)[begin : begin + PIECE])


def cut(request: web.Request) -> None:
    """End the connection, so that nobody takes what was sent for the whole."""
    if request.transport is not None:
        request.transport.abort()
