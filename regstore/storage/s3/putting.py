"""PUT: of a small object, of one that must not be there yet, and of a stream, in one request or in parts."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

from regstore.digest import Digest, Verifier
from regstore.errors import AlreadyExists, IntegrityError, StorageError, Unreachable
from regstore.storage.base import Repeatable, Whole
from regstore.storage.optional import Resume
from regstore.storage.s3 import failures, multipart
from regstore.storage.s3.client import Answer, SignedClient
from regstore.storage.s3.streamed import STREAMED, Streamed
from regstore.storage.sizes import HASHED, LARGE_AT_ONCE

#: A blob whose one request's connection has broken so often goes in parts.
_STREAMED_TRIES: Final = 2


class Putter:
    """Full keys, and headers that say how an object is stored. Remembers what sizes do not go in one request."""

    def __init__(self, client: SignedClient) -> None:
        self._client = client
        #: Sizes that go in one request, as far as is known of what lies between; and room for those that did not.
        self._streamed = STREAMED
        self._in_parts_after_all = asyncio.Semaphore(LARGE_AT_ONCE)

    async def put(self, full: str, data: bytes, headers: Mapping[str, str], sha256: str = "") -> None:
        # The signature covers the SHA-256 of the body: the server refuses what did not arrive as sent.
        await self._client.call("PutObject", "PUT", full, headers=headers, body=data, sha256=sha256, parse=_nothing)

    async def create(self, full: str, data: bytes, headers: Mapping[str, str]) -> None:
        """AlreadyExists, unless the key has these very bytes and an earlier try of this call may have put them."""
        retried: list[Exception] = []
        try:
            await self._client.call(
                "PutObject",
                "PUT",
                full,
                headers={**headers, "if-none-match": "*"},
                body=data,
                parse=_nothing,
                retried=retried,
            )
        except AlreadyExists as error:
            if retried and await self._client.call("GetObject", "GET", full, parse=_body) == data:
                return
            raise AlreadyExists(f"{self._client.place.name(full)} exists already") from error

    async def put_stream(
        self,
        full: str,
        chunks: AsyncIterable[bytes],
        headers: Mapping[str, str],
        *,
        size: int | None,
        digest: Digest | None,
        resume: Resume | None,
    ) -> int:
        """As `ResumesUploads` says."""
        single = dict(headers)
        sha256 = digest if digest is not None and digest.algorithm == "sha256" else None
        if sha256 is not None and self._client.endpoint.is_aws:
            # AWS keeps it, and tells it on a HEAD with ChecksumMode; others ignore or refuse it.
            single["x-amz-checksum-sha256"] = base64.b64encode(sha256.raw).decode()
        if isinstance(chunks, Whole) and len(chunks.data) <= HASHED:
            self._check(full, chunks.data, size, digest)
            await self.put(full, chunks.data, single, sha256.encoded if sha256 is not None else "")
            return len(chunks.data)
        room: AbstractAsyncContextManager[object] = nullcontext()
        if sha256 is not None and isinstance(chunks, Repeatable) and size is not None and size in STREAMED:
            body = Streamed(chunks, size=size, digest=sha256, name=self._client.place.name(full))
            in_parts = resume is not None and resume.upload_id  # an earlier try has come to that
            if size in self._streamed and not in_parts and await self._put_streamed(full, body, single):
                return size
            room = self._in_parts_after_all  # who calls counts on one request, and its memory

        async def put(data: bytes) -> None:
            await self.put(full, data, single, sha256.encoded if sha256 is not None else "")

        async with room:
            return await multipart.put_stream(
                self._client, full, chunks, size=size, digest=digest, headers=headers, put=put, resume=resume
            )

    def _check(self, full: str, data: bytes, size: int | None, digest: Digest | None) -> None:
        if size is not None and len(data) != size:
            raise IntegrityError(
                f"{self._client.place.name(full)} has {len(data):,} bytes, not the {size:,} promised"
            )
        if digest is not None:
            verifier = Verifier(digest)
            verifier.update(data)
            verifier.verify(self._client.place.name(full))

    async def _put_streamed(self, full: str, body: Streamed, headers: Mapping[str, str]) -> bool:
        """False where a network, or a proxy's limit, does not let one request of that size through."""
        try:
            await self._client.call(
                "PutObject", "PUT", full, headers=headers, body=body, parse=_nothing, broken=_STREAMED_TRIES
            )
        except StorageError as error:
            if error is body.error:
                raise
            if failures.is_too_large(error):
                self._streamed = range(self._streamed.start, min(self._streamed.stop, body.size))
            elif not isinstance(error, Unreachable):
                raise
            return False
        return True


def _body(answer: Answer) -> bytes:
    return answer.body


def _nothing(answer: Answer) -> None:
    return None
