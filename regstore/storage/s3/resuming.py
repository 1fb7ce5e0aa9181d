"""Uploads of large streams that can be taken up again by a later process."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass

from regstore.digest import Digest
from regstore.errors import StorageError
from regstore.storage.base import PutOptions
from regstore.storage.s3 import multipart
from regstore.storage.s3.client import Answer
from regstore.storage.s3.multipart import Resume
from regstore.storage.s3.storage import S3Storage
from regstore.storage.s3.xml import children, parse_expected, parse_time, texts


@dataclass(frozen=True, slots=True)
class StoredParts:
    """What an unfinished upload holds: part number to (ETag, bytes); newest: when the last one came, 0 without any,
    in microseconds by the store's clock."""

    parts: dict[int, tuple[str, int]]
    newest: int


async def stored_parts(storage: S3Storage, key: str, upload_id: str) -> StoredParts | None:
    """None when there is no such upload any more."""

    def parse(answer: Answer) -> object:
        if answer.status == 404:
            refusal = answer.refusal()
            if refusal.code in ("NoSuchUpload", "NoSuchKey"):
                return None
            raise refusal
        return parse_expected(answer.body, ("ListPartsResult", "ListPartsResponse"))

    found: dict[int, tuple[str, int]] = {}
    newest, marker = 0, ""
    while True:
        query = [("uploadId", upload_id), *([("part-number-marker", marker)] if marker else [])]
        root = await storage._client.call(
            "ListParts", "GET", storage._full(key), query=query, accept=(200, 404), parse=parse
        )
        if root is None:
            return None
        for part in children(root, "Part"):
            number, etag, length, time = texts(part, "PartNumber", "ETag", "Size", "LastModified")
            found[int(number)] = (etag.strip('"'), int(length))
            newest = max(newest, parse_time(time))
        truncated, following = texts(root, "IsTruncated", "NextPartNumberMarker")
        if truncated != "true":
            return StoredParts(found, newest)
        if not following or following == marker:
            raise StorageError(f"{storage.url}: the list of parts of {key} is cut off without a marker")
        marker = following


async def put_stream_resuming(
    storage: S3Storage,
    key: str,
    chunks: AsyncIterable[bytes],
    *,
    size: int,
    digest: Digest,
    options: PutOptions | None,
    upload_id: str,
    parts: dict[int, tuple[str, int]],
    begun: Callable[[str], Awaitable[None]],
) -> int:
    """As `put_stream`, of more bytes than one PUT takes. upload_id: of an unfinished upload, or "" for a new one; the
    stream is read and hashed from its start all the same, but a part that is stored with these very bytes is not sent
    again. begun: awaited with the upload's id before the first part goes."""
    resume = Resume(upload_id, parts, begun)

    async def put(data: bytes) -> None:
        await storage.put(key, data, options=options)

    return await multipart.put_stream(
        storage._client,
        storage._full(key),
        chunks,
        size=size,
        digest=digest,
        headers=storage._headers(options),
        put=put,
        resume=resume,
    )
