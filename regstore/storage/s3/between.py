"""Copies from one bucket to another on the same server, without the bytes passing through here."""

from __future__ import annotations

from regstore.storage.base import PutOptions
from regstore.storage.s3.client import Answer
from regstore.storage.s3.multipart import MAX_COPY, copy_parts
from regstore.storage.s3.sigv4 import encode_path
from regstore.storage.s3.storage import S3Storage, _object_headers
from regstore.storage.s3.xml import parse_expected


def same_server(source: S3Storage, target: S3Storage) -> bool:
    """Whether both buckets are asked for at one endpoint, so that a copy between them can be tried."""
    one, other = source._client.endpoint, target._client.endpoint
    return (one.url, one.region) == (other.url, other.region)


async def copy_between(
    source: S3Storage, target: S3Storage, key: str, *, size: int, options: PutOptions | None
) -> None:
    """Copy the object of this key below the source's root to the same key below the target's, with the target's
    credentials. What it is stored with is what the options say, not what the source has; its type is
    `application/octet-stream`, as a registry's own.

    size: bytes, from a listing; above 5 GiB the copy is made of parts. NotFound when the source is absent;
    AccessDenied when these credentials may not read it.
    """
    client = target._client
    full_source, full_target = source._full(key), target._full(key)
    header = "/" + encode_path(f"{source._client.endpoint.bucket}/{full_source}")
    headers = _object_headers(options)
    if size > MAX_COPY:
        etag = (await source.stat(key)).etag
        await copy_parts(client, full_source, full_target, size=size, etag=etag, headers=headers, header=header)
        return

    def parse(answer: Answer) -> None:
        parse_expected(answer.body, "CopyObjectResult")

    await client.call(
        "CopyObject",
        "PUT",
        full_target,
        headers={"x-amz-copy-source": header, "x-amz-metadata-directive": "REPLACE", **headers},
        parse=parse,
        about=client.place.pair(full_source, full_target),
    )
