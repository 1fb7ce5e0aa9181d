"""Multipart uploads that somebody left unfinished: found with the time of their newest part, and aborted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from regstore.errors import StorageError
from regstore.storage.base import MultipartUpload
from regstore.storage.s3.client import Answer, SignedClient
from regstore.storage.s3.resuming import stored_parts
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
    """(full key, upload id, start in microseconds) of each unfinished upload under the full prefix, each once.

    Servers differ in the order of these lists, and nothing here needs one: but an upload that is shown again, on this
    page or on the one before, must have the same start, and the markers must go on, or the list is not believed.
    """
    key_marker = id_marker = ""
    before: dict[tuple[str, str], int] = {}
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
        shown: dict[tuple[str, str], int] = {}
        for entry in children(root, "Upload"):
            text, upload_id, initiated = texts(entry, "Key", "UploadId", "Initiated")
            key, started = decode(text), parse_time(initiated)
            known = shown.get((key, upload_id), before.get((key, upload_id)))
            if known not in (None, started):
                raise StorageError(
                    f"{client.place.url}: the list of multipart uploads shows one of {key!r} twice, with different "
                    "starts; it cannot be trusted"
                )
            shown[key, upload_id] = started
            if known is None and key.startswith(prefix):
                yield key, upload_id, started
        if truncated != "true":
            return
        following = decode(next_key)
        if not following or (following, next_id) == (key_marker, id_marker):
            raise StorageError(f"{client.place.url}: the list of multipart uploads is cut off without a marker")
        if following < key_marker:
            raise StorageError(
                f"{client.place.url}: the list of multipart uploads goes backwards, to {following!r}"
            )
        key_marker, id_marker, before = following, next_id, shown


async def find_uploads(
    client: SignedClient, prefix: str, root: str, *, workers: int = 8
) -> AsyncIterator[MultipartUpload]:
    """With the facts of each, `workers` asked at a time; keys relative to `root` ("", or ending in a slash)."""

    async def facts(key: str, upload_id: str, started: int) -> MultipartUpload | None:
        stored = await stored_parts(client, key, upload_id)
        if stored is None:
            return None  # gone meanwhile
        size = sum(length for _, length in stored.parts.values())
        return MultipartUpload(key[len(root) :], upload_id, max(started, stored.newest), size)

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
