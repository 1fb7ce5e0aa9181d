"""What is stored of an unfinished multipart upload, so that a later process can take it up again."""

from __future__ import annotations

from dataclasses import dataclass

from regstore.errors import StorageError
from regstore.storage.s3.client import Answer
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
