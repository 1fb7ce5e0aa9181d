"""What is found out about a bucket by trying."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from regstore.errors import AccessDenied, AlreadyExists, StorageError, Unsupported
from regstore.layout import PROBE
from regstore.storage.s3.client import Answer, SignedClient
from regstore.storage.s3.deletion import Deleter
from regstore.storage.s3.putting import Putter
from regstore.storage.s3.xml import parse_expected, texts


async def has_conditional_put(client: SignedClient, putter: Putter, root: str, headers: Mapping[str, str]) -> bool:
    """Whether a second PUT of one key is refused, as it must. root: as keys begin; headers: of what is put."""
    full = f"{root}{PROBE}{secrets.token_hex(8)}"
    try:
        await putter.create(full, b"1", headers)
    except (AccessDenied, Unsupported, AlreadyExists):
        return False
    try:
        await client.call(
            "PutObject",
            "PUT",
            full,
            headers={**headers, "if-none-match": "*"},
            body=b"2",
            parse=lambda answer: None,
        )
    except AlreadyExists:
        return True
    except StorageError:
        return False
    finally:
        await _remove(client, full)
    return False


async def _remove(client: SignedClient, full: str) -> None:
    try:
        await Deleter(client).delete_many([full])
    except StorageError:  # one byte left behind; the probe's answer stands
        pass


async def is_versioned(client: SignedClient) -> bool | None:
    """Suspended counts as versioned: noncurrent versions may be there. None where the store does not say."""

    def parse(answer: Answer) -> bool:
        names = ("VersioningConfiguration", "GetBucketVersioningResponse")
        return bool(texts(parse_expected(answer.body, names), "Status")[0])

    try:
        return await client.call("GetBucketVersioning", "GET", query=[("versioning", "")], parse=parse)
    except (AccessDenied, Unsupported):
        return None
