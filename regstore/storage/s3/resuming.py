"""What is stored of an unfinished multipart upload, so that a later process can take it up again."""

from __future__ import annotations

from regstore.errors import StorageError
from regstore.storage.optional import StoredParts
from regstore.storage.s3.client import Answer, SignedClient
from regstore.storage.s3.xml import children, parse_expected, parse_time, texts


async def stored_parts(client: SignedClient, key: str, upload_id: str) -> StoredParts | None:
    """key: the full one. None when there is no such upload any more."""

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
        root = await client.call("ListParts", "GET", key, query=query, accept=(200, 404), parse=parse)
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
            shown = client.place.relative(key)
            raise StorageError(f"{client.place.url}: the list of parts of {shown} is cut off without a marker")
        marker = following
