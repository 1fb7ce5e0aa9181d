"""Copies inside the bucket that keep what an object is stored with."""

from __future__ import annotations

import asyncio
from typing import Final

from regstore.errors import AccessDenied, NotFound, Unsupported
from regstore.storage.base import PutOptions
from regstore.storage.s3.client import LONG_TIMEOUT, Answer, SignedClient
from regstore.storage.s3.failures import Malformed
from regstore.storage.s3.multipart import copy_parts
from regstore.storage.s3.sigv4 import encode_path
from regstore.storage.s3.xml import children, parse_document, parse_expected, texts
from regstore.storage.sizes import MAX_COPY

#: CopyObject does not take these over by itself.
_STORED_WITH: Final = (
    "x-amz-storage-class",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-bucket-key-enabled",
)
_ENCRYPTED: Final = "x-amz-server-side-encryption"
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


def option_headers(options: PutOptions) -> dict[str, str]:
    wanted = {
        "x-amz-storage-class": options.storage_class,
        _ENCRYPTED: options.sse,
        "x-amz-server-side-encryption-aws-kms-key-id": options.sse_kms_key_id,
        "x-amz-acl": options.acl,
    }
    return {name: value for name, value in wanted.items() if value}


class Copier:
    """Remembers whether access control lists mean anything in this bucket; where not, a copy is one request less."""

    def __init__(self, client: SignedClient) -> None:
        self._client = client
        self._lists: bool | None = None
        self._asking = asyncio.Lock()

    async def copy(self, source: str, target: str, head: Answer, default: PutOptions) -> None:
        """Full keys. head: of the source. Its storage class, encryption, content type, metadata and access
        control list survive; the list only where the server lets us read it. default: encrypts what is not encrypted,
        and gives an access control list where the source's can't be known."""
        try:
            headers = await self._grants(source)
            fallback = option_headers(PutOptions(acl=None if self._lists else default.acl))
            if _ENCRYPTED not in head.headers:
                fallback |= option_headers(PutOptions(sse=default.sse, sse_kms_key_id=default.sse_kms_key_id))
            await _copy(self._client, source, target, head, fallback | headers)
        except NotFound as error:  # gone since the HEAD
            raise NotFound(self._client.place.relative(source), self._client.place.url) from error

    async def _grants(self, key: str) -> dict[str, str]:
        async with self._asking:  # copies that begin together ask once
            if self._lists is None:
                self._lists = await self._has_lists()
        if not self._lists:
            return {}
        try:
            return await self._client.call("GetObjectAcl", "GET", key, query=[("acl", "")], parse=_parse_grants)
        except (AccessDenied, Unsupported):
            self._lists = False
            return {}

    async def _has_lists(self) -> bool:
        def parse(answer: Answer) -> bool:
            try:
                root = parse_document(answer.body)
            except Malformed:
                return True
            return not any(rule.text == "BucketOwnerEnforced" for rule in root.iter("{*}ObjectOwnership"))

        # Servers that do not know it say so in many ways, or answer with a listing.
        statuses = (200, 400, 403, 404, 405, 501)
        return await self._client.call(
            "GetBucketOwnershipControls", "GET", query=[("ownershipControls", "")], accept=statuses, parse=parse
        )


def _parse_grants(answer: Answer) -> dict[str, str]:
    """The grants as CopyObject's headers; none where the list is the default one, all to the owner."""
    root = parse_expected(answer.body, "AccessControlPolicy")
    owner = next((texts(entry, "ID")[0] for entry in children(root, "Owner")), "")
    found: dict[str, list[str]] = {}
    for entries in children(root, "AccessControlList"):
        for grant in children(entries, "Grant"):
            (permission,) = texts(grant, "Permission")
            for grantee in children(grant, "Grantee"):
                identity, uri = texts(grantee, "ID", "URI")
                if permission and (identity or uri):
                    to = f'uri="{uri}"' if uri else f'id="{identity}"'
                    found.setdefault(permission, []).append(to)
    if found == {"FULL_CONTROL": [f'id="{owner}"']}:
        return {}
    return {f"x-amz-grant-{name.lower().replace('_', '-')}": ", ".join(to) for name, to in found.items()}


async def _copy(client: SignedClient, source: str, target: str, head: Answer, grants: dict[str, str]) -> None:
    size = int(head.headers["content-length"])
    header = "/" + encode_path(f"{client.endpoint.bucket}/{source}")
    headers = grants | {name: head.headers[name] for name in _STORED_WITH if name in head.headers}
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
        patience=LONG_TIMEOUT,
    )
