"""Multipart uploads: of a stream, and of a large copy."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final
from xml.sax.saxutils import escape

from regstore.digest import Digest, Verifier
from regstore.errors import (
    AccessDenied,
    AuthenticationFailed,
    IntegrityError,
    NotFound,
    StorageError,
    StorageFull,
    Unreachable,
)
from regstore.storage.optional import Resume, UploadGone
from regstore.storage.s3.client import LONG_TIMEOUT, Answer, SignedClient
from regstore.storage.s3.failures import Malformed, lacks_upload
from regstore.storage.s3.pieces import Gathered, Pieces
from regstore.storage.s3.unfinished import abort
from regstore.storage.s3.xml import parse_expected, texts
from regstore.storage.sizes import COPY_PART, HASHED, IN_FLIGHT, MAX_PART, MAX_PARTS, PART, SINGLE_PUT, MiB

#: Seconds that a cancelled upload waits to learn its own id.
_LAST_MOMENTS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    etag: str


def part_size(number: int, size: int | None) -> int:
    """Bytes of part `number` (from 1). Of known size, all are alike, as some servers want; else they grow, so
    that the limit of 10,000 parts is no limit."""
    if size is None:
        return min(MAX_PART, PART << ((number - 1) // 1000))
    return max(PART, -(-size // MAX_PARTS + MiB - 1) // MiB * MiB) if size > PART * MAX_PARTS else PART


class Upload:
    """One multipart upload under way. Use as a context manager: left by an exception, or by cancellation, it
    is aborted, unless it can be resumed, and its parts' tasks are ended first."""

    def __init__(
        self, client: SignedClient, key: str, headers: Mapping[str, str], resume: Resume | None = None
    ) -> None:
        self._client = client
        self._key = key
        self._headers = headers
        self._resume = resume
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._parts: list[Part] = []
        self._failed: BaseException | None = None
        self._is_useless = False
        self._started = 0
        self.id = ""

    async def __aenter__(self) -> Upload:
        if self._resume is not None and self._resume.upload_id:
            self.id = self._resume.upload_id
        else:
            await self._create()
        if self._resume is not None:
            try:
                await self._resume.begun(self.id)
            except BaseException:
                if not self._resume.upload_id:
                    await asyncio.shield(self._abort())
                raise
        return self

    async def _create(self) -> None:
        creating = asyncio.create_task(
            self._client.call(
                "CreateMultipartUpload",
                "POST",
                self._key,
                query=[("uploads", "")],
                headers=self._headers,
                parse=_parse_upload_id,
            )
        )
        try:
            self.id = await asyncio.shield(creating)
        except asyncio.CancelledError:
            # Only its answer tells what to abort.
            await asyncio.wait({creating}, timeout=_LAST_MOMENTS)
            if creating.done() and not creating.cancelled() and creating.exception() is None:
                self.id = creating.result()
                await self._abort()
            creating.cancel()
            raise

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._resume is not None and (error is None or isinstance(error, UploadGone)):
            self._resume.ended = True
        elif error is not None and (self._resume is None or self._is_useless or isinstance(error, IntegrityError)):
            await asyncio.shield(self._abort())

    async def _abort(self) -> None:
        try:
            await abort(self._client, self._key, self.id)
        except StorageError:  # the error that led here says more
            return
        if self._resume is not None:
            self._resume.ended = True

    async def put(self, number: int, data: Pieces) -> None:
        """Start sending a part; waits only while too many are under way. Raises what an earlier part failed on."""
        if self._resume is not None and number in self._resume.parts:
            etag = await asyncio.to_thread(data.hashed, hashlib.md5(usedforsecurity=False))
            if self._resume.parts[number] == (etag, len(data)):
                self._started += 1
                self._parts.append(Part(number, etag))
                return

        async def send() -> Part:
            etag = await self._client.call(
                "UploadPart",
                "PUT",
                self._key,
                query=[("partNumber", str(number)), ("uploadId", self.id)],
                body=data,
                parse=lambda answer: answer.headers.get("etag", "").strip('"'),
            )
            return Part(number, etag)

        await self.start(send)

    async def start(self, sending: Callable[[], Awaitable[Part]]) -> None:
        """As `put`, for whatever makes a part."""
        await self._slots.acquire()
        if self._failed is not None:
            raise self._failed
        self._started += 1
        task = asyncio.create_task(self._run(sending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, sending: Callable[[], Awaitable[Part]]) -> None:
        try:
            self._parts.append(await sending())
        except BaseException as error:
            # Whatever it is, it must keep the upload from being completed without this part.
            self._failed = self._failed or (self._gone(error) if lacks_upload(error) else error)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._slots.release()

    def _gone(self, error: BaseException) -> UploadGone:
        gone = UploadGone(
            f"the multipart upload of {self._client.place.name(self._key)} was ended by somebody else"
        )
        gone.__cause__ = error
        return gone

    def has(self, number: int, size: int) -> bool:
        """Whether a part of that size is stored already; it is then taken as it is."""
        etag, stored = self._resume.parts.get(number, ("", -1)) if self._resume is not None else ("", -1)
        if stored != size:
            return False
        self._started += 1
        self._parts.append(Part(number, etag))
        return True

    async def finish_parts(self) -> None:
        """Wait for all parts; raises what one failed on."""
        while self._tasks:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        if self._failed is not None:
            raise self._failed

    async def complete(self, size: int) -> None:
        """Make the object visible. An answer that got lost is made up for by looking at the object."""
        parts = sorted(self._parts, key=lambda part: part.number)
        if [part.number for part in parts] != list(range(1, self._started + 1)):
            raise StorageError(
                f"{self._client.place.name(self._key)}: not every part was stored; nothing was written"
            )
        listed = "".join(
            f'<Part><PartNumber>{part.number}</PartNumber><ETag>"{escape(part.etag)}"</ETag></Part>'
            for part in parts
        )
        root = "CompleteMultipartUpload"
        body = f'<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{listed}</{root}>'
        retried: list[Exception] = []
        try:
            await self._client.call(
                "CompleteMultipartUpload",
                "POST",
                self._key,
                query=[("uploadId", self.id)],
                headers={"content-type": "application/xml"},
                body=body.encode(),
                parse=lambda answer: parse_expected(answer.body, "CompleteMultipartUploadResult"),
                retried=retried,
                patience=LONG_TIMEOUT,
            )
        except NotFound as error:
            if not retried or not await self._is_complete(parts, size):
                raise self._gone(error) from error
        except StorageError as error:
            # Parts that the server does not put together now, it will not later.
            self._is_useless = not isinstance(
                error, AccessDenied | AuthenticationFailed | StorageFull | Unreachable
            )
            raise

    async def _is_complete(self, parts: list[Part], size: int) -> bool:
        """Whether the object is the one that these parts make: its ETag is the MD5 of theirs."""
        try:
            joined = b"".join(bytes.fromhex(part.etag) for part in parts)
        except ValueError:
            return False
        etag = f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"
        answer = await self._client.call(
            "HeadObject", "HEAD", self._key, accept=(200, 404), parse=lambda found: found
        )
        found = answer.headers
        return (
            answer.status == 200
            and found.get("etag", "").strip('"') == etag
            and found.get("content-length", "") == str(size)
        )


def _parse_upload_id(answer: Answer) -> str:
    (found,) = texts(parse_expected(answer.body, "InitiateMultipartUploadResult"), "UploadId")
    if not found:
        raise Malformed("the answer has no UploadId")
    return found


class _Incoming:
    """A stream on its way: hashed, counted, and kept until it is sent. name: for messages."""

    def __init__(self, name: str, size: int | None, digest: Digest | None) -> None:
        self._name = name
        self._size = size
        self._verifier = Verifier(digest) if digest is not None else None
        self._unhashed = Gathered()
        self.gathered = Gathered()
        self.total = 0

    async def take(self, chunk: bytes) -> None:
        self.total += len(chunk)
        if self._size is not None and self.total > self._size:
            raise IntegrityError(f"{self._name} has more than the {self._size:,} bytes promised")
        # Kept until it is sent: nobody else may write to it meanwhile.
        chunk = chunk if isinstance(chunk, bytes) else bytes(chunk)
        self.gathered.add(chunk)
        if self._verifier is not None:
            self._unhashed.add(chunk)
            if self._unhashed.size >= HASHED:
                await asyncio.to_thread(self._unhashed.take(self._unhashed.size).update, self._verifier)

    def check(self) -> None:
        """At its end: IntegrityError unless it is what was promised."""
        if self._size is not None and self.total != self._size:
            raise IntegrityError(f"{self._name} has {self.total:,} bytes, not the {self._size:,} promised")
        if self._verifier is not None:
            self._unhashed.take(self._unhashed.size).update(self._verifier)
            self._verifier.verify(self._name)


async def put_stream(
    client: SignedClient,
    key: str,
    chunks: AsyncIterable[bytes],
    *,
    size: int | None,
    digest: Digest | None,
    headers: Mapping[str, str],
    put: Callable[[bytes], Awaitable[None]],
    resume: Resume | None = None,
) -> int:
    """Up to SINGLE_PUT bytes go through `put`, more become parts. Nothing is visible before the end of the
    stream has been seen and its size and digest are right."""
    incoming = _Incoming(client.place.name(key), size, digest)
    gathered = incoming.gathered
    stream = aiter(chunks)
    async for chunk in stream:
        await incoming.take(chunk)
        if gathered.size > SINGLE_PUT:
            break
    else:
        incoming.check()
        await put(gathered.take(gathered.size).joined())
        return incoming.total

    number = 0
    upload = Upload(client, key, headers, resume)
    async with upload:

        async def send(least: int) -> None:
            nonlocal number
            while gathered.size > least:
                wanted = part_size(number + 1, size)
                if least and gathered.size < wanted:
                    return
                number += 1
                await upload.put(number, gathered.take(wanted))

        await send(1)
        async for chunk in stream:
            await incoming.take(chunk)
            await send(1)
        incoming.check()
        await send(0)
        await upload.finish_parts()
        await upload.complete(incoming.total)
    return incoming.total


def copied_part_size(size: int) -> int:
    """Bytes of the parts, but the last, in which an object of `size` bytes is copied."""
    return max(COPY_PART, -(-size // MAX_PARTS + MiB - 1) // MiB * MiB)


async def copy_parts(
    client: SignedClient,
    source: str,
    target: str,
    *,
    size: int,
    etag: str,
    headers: Mapping[str, str],
    header: str,
    broken: int | None = None,
    resume: Resume | None = None,
    on_bytes: Callable[[int], None] = lambda size: None,
) -> None:
    """Copy a large object. header: the value of x-amz-copy-source; headers: of the new object; broken: as in
    `SignedClient.call`. resume: its parts are of this very source, cut alike. on_bytes: told of the bytes of each part
    that is there.

    IntegrityError when the source changes meanwhile.
    """
    length = copied_part_size(size)

    async def copy_part(number: int, start: int, end: int) -> Part:
        def parse(answer: Answer) -> Part:
            (found,) = texts(parse_expected(answer.body, "CopyPartResult"), "ETag")
            return Part(number, found.strip('"'))

        part = await client.call(
            "UploadPartCopy",
            "PUT",
            target,
            query=[("partNumber", str(number)), ("uploadId", upload.id)],
            headers={
                "x-amz-copy-source": header,
                "x-amz-copy-source-range": f"bytes={start}-{end - 1}",
                "x-amz-copy-source-if-match": f'"{etag}"',
            },
            parse=parse,
            about=client.place.pair(source, target),
            patience=LONG_TIMEOUT,
            broken=broken,
        )
        on_bytes(end - start)
        return part

    upload = Upload(client, target, headers, resume)
    async with upload:
        for number, start in enumerate(range(0, size, length), 1):
            end = min(start + length, size)
            if upload.has(number, end - start):
                on_bytes(end - start)
            else:
                await upload.start(partial(copy_part, number, start, end))
        await upload.finish_parts()
        await upload.complete(size)
