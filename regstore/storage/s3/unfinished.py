"""Multipart uploads that somebody left unfinished: found with the time of their newest part, and aborted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from regstore.errors import StorageError
from regstore.storage.base import MultipartUpload
from regstore.storage.s3.client import Answer, SignedClient
from regstore.storage.s3.xml import children, parse_expected, parse_time, texts, unquote_key


async def abort(client: SignedClient, key: str, upload_id: str) -> None:
    """One that is gone is no error."""

    def parse(answer: Answer) -> None:
        if answer.status == 404 and answer.body:
            refusal = answer.refusal()
            if refusal.code not in ("", "NoSuchUpload", "NoSuchKey"):
                raise refusal

    await client.call(
        "AbortMultipartUpload",
        "DELETE",
        key,
        query=[("uploadId", upload_id)],
        accept=(200, 204, 404),
        parse=parse,
    )


async def list_uploads(client: SignedClient, prefix: str) -> AsyncGenerator[tuple[str, str, int], None]:
    """(full key, upload id, start in microseconds) of each unfinished upload under the full prefix."""
    key_marker = id_marker = ""
    while True:
        query = [("uploads", ""), ("encoding-type", "url"), ("max-uploads", "1000")]
        if prefix:
            query.append(("prefix", prefix))
        if key_marker:
            query += [("key-marker", key_marker), *([("upload-id-marker", id_marker)] if id_marker else [])]
        root = await client.call(
            "ListMultipartUploads",
            "GET",
            query=query,
            parse=lambda answer: parse_expected(answer.body, "ListMultipartUploadsResult"),
            about=prefix,
        )
        encoding, truncated, next_key, next_id = texts(
            root, "EncodingType", "IsTruncated", "NextKeyMarker", "NextUploadIdMarker"
        )
        decode = unquote_key if encoding == "url" else str
        for entry in children(root, "Upload"):
            key, upload_id, started = texts(entry, "Key", "UploadId", "Initiated")
            if decode(key).startswith(prefix):
                yield decode(key), upload_id, parse_time(started)
        if truncated != "true":
            return
        following = decode(next_key)
        if not following or (following, next_id) == (key_marker, id_marker):
            raise StorageError(f"{client.place.url}: the list of multipart uploads is cut off without a marker")
        key_marker, id_marker = following, next_id


async def upload_facts(client: SignedClient, key: str, upload_id: str, started: int) -> tuple[int, int] | None:
    """(time of the newest part or the start, bytes so far); None when the upload is gone."""
    newest, size, marker = started, 0, ""

    def parse(answer: Answer) -> object:
        if answer.status == 404:
            refusal = answer.refusal()
            if refusal.code in ("NoSuchUpload", "NoSuchKey"):
                return None
            raise refusal
        return parse_expected(answer.body, ("ListPartsResult", "ListPartsResponse"))

    while True:
        query = [("uploadId", upload_id), *([("part-number-marker", marker)] if marker else [])]
        root = await client.call("ListParts", "GET", key, query=query, accept=(200, 404), parse=parse)
        if root is None:
            return None
        for part in children(root, "Part"):
            time, length = texts(part, "LastModified", "Size")
            newest = max(newest, parse_time(time))
            size += int(length)
        truncated, following = texts(root, "IsTruncated", "NextPartNumberMarker")
        if truncated != "true":
            return newest, size
        if not following or following == marker:
            raise StorageError(f"the list of parts of {client.place.name(key)} is cut off without a marker")
        marker = following


async def find_uploads(
    client: SignedClient, prefix: str, root: str, *, workers: int = 8
) -> AsyncIterator[MultipartUpload]:
    """With the facts of each, `workers` asked at a time; keys relative to `root` ("", or ending in a slash)."""

    async def facts(key: str, upload_id: str, started: int) -> MultipartUpload | None:
        found = await upload_facts(client, key, upload_id, started)
        return MultipartUpload(key[len(root) :], upload_id, found[0], found[1]) if found else None

    async with aclosing(list_uploads(client, prefix)) as listed:
        batch: list[tuple[str, str, int]] = []
        async for upload in listed:
            batch.append(upload)
            if len(batch) == workers:
                for found in await asyncio.gather(*(facts(*one) for one in batch)):
                    if found is not None:
                        yield found
                batch = []
        for found in await asyncio.gather(*(facts(*one) for one in batch)):
            if found is not None:
                yield found
