"""Whether the credentials may do what a registry does: tried with one small object, deleted again."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace

from regstore import layout
from regstore.errors import (
    AccessDenied,
    AuthenticationFailed,
    NoSuchBucket,
    RegstoreError,
    StorageFull,
    Unreachable,
)
from regstore.seed.result import Check, Outcome
from regstore.storage.base import PutOptions, Storage
from regstore.storage.optional import HasBucket

_BODY = b"Written by regstore seed-bucket to see whether it may. It can be deleted.\n"
_S3_ACTION = {
    "write": "s3:PutObject",
    "read": "s3:GetObject",
    "list": "s3:ListBucket",
    "delete": "s3:DeleteObject",
    "uploads": "s3:ListBucketMultipartUploads",
}


class Denial(Exception):
    """The operation went through, and had no effect."""


async def probe_permissions(storage: Storage, put: PutOptions | None = None) -> list[Check]:
    """write, read, list, delete with an object under `regstore/`, and a look at unfinished uploads.

    Only errors about permission become checks; an unreachable server, or no bucket, raises.
    """
    key = f"{layout.PROBE}{secrets.token_hex(8)}"
    as_registry = put or PutOptions()
    if as_registry.acl is None:
        as_registry = replace(as_registry, acl="private")  # what the registry's driver always says

    async def write() -> None:
        await storage.put(key, _BODY, options=as_registry)

    async def read() -> None:
        if await storage.get(key) != _BODY:
            raise Denial("the object that was written came back with other bytes")

    async def list_() -> None:
        if not await _listed(storage, key):
            raise Denial("the object that was written does not appear in a listing")

    async def delete() -> None:
        error = (await storage.delete_many([key]))[key]
        if error is not None:
            raise error

    checks = [await _attempt(storage, "write", write)]
    if checks[0].outcome is not Outcome.OK:
        why = "not tried, for nothing could be written"
        checks += [Check(f"permission {name}", Outcome.SKIPPED, why) for name in ("read", "delete")]
        checks.insert(2, await look(storage))
    else:
        try:
            checks += [await _attempt(storage, "read", read), await _attempt(storage, "list", list_)]
        finally:
            deleted = await _attempt(storage, "delete", delete)
        if deleted.outcome is not Outcome.OK:
            deleted = Check(deleted.name, deleted.outcome, f"{deleted.detail}; {key} stays", required=True)
        checks.append(deleted)
    checks.append(await _look_at_uploads(storage))
    return checks


async def look(storage: Storage) -> Check:
    """The permission to list, without writing."""

    async def list_() -> None:
        await _listed(storage, "")

    return await _attempt(storage, "list", list_)


async def _look_at_uploads(storage: Storage) -> Check:
    async def uploads() -> None:
        async for _ in storage.list_multipart_uploads(layout.PREFIX):
            break

    return await _attempt(storage, "uploads", uploads)


async def _attempt(storage: Storage, name: str, work: Callable[[], Awaitable[None]]) -> Check:
    needs = f" (needs {_S3_ACTION[name]})" if isinstance(storage, HasBucket) else ""
    try:
        await work()
    except AccessDenied as error:
        return Check(f"permission {name}", Outcome.DENIED, f"{error}{needs}", required=True)
    except Denial as error:
        return Check(f"permission {name}", Outcome.FAILED, str(error), required=True)
    except RegstoreError as error:
        if isinstance(error, (AuthenticationFailed, NoSuchBucket, StorageFull, Unreachable)):
            raise
        return Check(f"permission {name}", Outcome.FAILED, str(error), required=True)
    return Check(f"permission {name}", Outcome.OK, "", required=True)


async def _listed(storage: Storage, key: str) -> bool:
    async for page in storage.list(key or layout.PREFIX):
        if key in page.keys:
            return True
        if not key:
            break
    return False
