"""A blob as an answer: whole or a range (RFC 9110, section 14), from a disk's file or streamed from wherever it lies.

A file on disk goes out by `sendfile`, without passing through this process; anything else a chunk at a time, the next
one read when the last has been taken. A client that takes nothing for `STALLED` seconds is let go.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from regstore.serve.answers import ApiError
from regstore.storage.base import InFile, ReadHandle

#: Seconds in which a client must have taken a piece.
STALLED: Final = 60.0
#: Bytes of one piece: a client slower than PIECE / STALLED, some 17 KB/s, is let go.
PIECE: Final = 1024 * 1024
_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Range:
    """Part of an object, in bytes; `whole` where it is all of it and nobody asked for a part."""

    start: int
    length: int
    size: int
    whole: bool

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.start + self.length - 1}/{self.size}"


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


async def send(
    request: web.Request, handle: ReadHandle, part: Range, headers: dict[str, str]
) -> web.StreamResponse:
    """Answer with a part of an open object. The connection is cut where the object can't be read to the end: the
    length was promised."""
    response = web.StreamResponse(
        status=HTTPStatus.OK if part.whole else HTTPStatus.PARTIAL_CONTENT, headers=headers
    )
    response.content_length = part.length
    if not part.whole:
        response.headers[hdrs.CONTENT_RANGE] = part.content_range
    await response.prepare(request)
    if request.method != hdrs.METH_HEAD and part.length:
        try:
            if isinstance(handle, InFile) and request.transport is not None:
                await _send_file(request, handle.fileno(), part)
            else:
                await _send_chunks(response, aiter(handle))
        except TimeoutError:
            cut(request)
        except BaseException:
            cut(request)
            raise
    await response.write_eof()
    return response


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


async def _send_file(request: web.Request, file: int, part: Range) -> None:
    loop, offset, end = asyncio.get_running_loop(), part.start, part.start + part.length
    with os.fdopen(os.dup(file), "rb", buffering=0) as content:
        while offset < end:
            transport = request.transport
            if transport is None:
                raise ConnectionResetError("the client went away")
            async with asyncio.timeout(STALLED):
                sent = await loop.sendfile(transport, content, offset, min(PIECE, end - offset))
            if not sent:
                raise EOFError("the file is shorter than it was")
            offset += sent


async def _send_chunks(response: web.StreamResponse, chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        for begin in range(0, len(chunk), PIECE):
            async with asyncio.timeout(STALLED):
                await response.write(memoryview(chunk)[begin : begin + PIECE])


def cut(request: web.Request) -> None:
    """End the connection, so that nobody takes what was sent for the whole."""
    if request.transport is not None:
        request.transport.abort()
