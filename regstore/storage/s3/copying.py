"""Copies inside the bucket that keep what an object is stored with."""

from __future__ import annotations

from typing import Final

from regstore.storage.s3.client import Answer, SignedClient
from regstore.storage.s3.multipart import MAX_COPY, copy_parts
from regstore.storage.s3.sigv4 import encode_path
from regstore.storage.s3.xml import parse_expected

#: CopyObject does not take these over by itself.
_STORED_WITH: Final = (
    "x-amz-storage-class",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-bucket-key-enabled",
)
#: CopyObject does take these over; an upload of parts has to be told.
_METADATA: Final = (
    "content-type",
    "content-encoding",
    "content-language",
    "content-disposition",
    "cache-control",
    "expires",
    "x-amz-website-redirect-location",
)


async def copy_object(client: SignedClient, source: str, target: str, head: Answer) -> None:
    """Full keys. head: of the source. Its storage class, encryption, content type and metadata survive.

    The access control list is the bucket owner's default one.
    """
    size = int(head.headers["content-length"])
    header = "/" + encode_path(f"{client.endpoint.bucket}/{source}")
    headers = {name: head.headers[name] for name in _STORED_WITH if name in head.headers}
    if size > MAX_COPY:
        headers |= {name: head.headers[name] for name in _METADATA if name in head.headers}
        named = {name.lower(): value for name, value in head.headers.items()}
        headers |= {name: value for name, value in named.items() if name.startswith("x-amz-meta-")}
        etag = head.headers.get("etag", "").strip('"')
        await copy_parts(client, source, target, size=size, etag=etag, headers=headers, header=header)
        return

    def parse(answer: Answer) -> None:
        parse_expected(answer.body, "CopyObjectResult")

    await client.call(
        "CopyObject",
        "PUT",
        target,
        headers={"x-amz-copy-source": header, **headers},
        parse=parse,
        about=client.place.pair(source, target),
    )
