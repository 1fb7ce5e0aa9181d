"""Uploads of large blobs that a killed run left unfinished: what is stored of them is used again.

    regstore/migrate/uploads/<random>.json    {"key", "upload_id", "options", "holder"}, while the upload is under way

S3 does not tell whose an upload is, and a registry makes such uploads of blobs too (it moves them so). So only what is
written down here is ours, and only when the process that wrote it is certainly gone, or has sent nothing for a while.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from regstore.digest import Digest
from regstore.errors import NotFound, StorageError
from regstore.layout import STATE
from regstore.runs.lock import Holder
from regstore.storage.base import MultipartUpload, PutOptions
from regstore.storage.s3 import S3Storage
from regstore.storage.s3.resuming import put_stream_resuming, stored_parts

UPLOADS: Final = f"{STATE}migrate/uploads/"
#: Of an upload whose process can't be looked at: so long without a part, in microseconds, and it is taken for dead.
_SILENCE: Final = 15 * 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class _Found:
    record: str
    upload_id: str
    parts: dict[int, tuple[str, int]]


class Unfinished:
    """The unfinished uploads of a bucket, and uploads that can be taken up again."""

    def __init__(self, target: S3Storage, options: PutOptions | None) -> None:
        self._target = target
        self._options = options or PutOptions()
        self._found: dict[str, _Found] = {}

    async def load(self, is_wanted: Callable[[str], bool]) -> None:
        """Find what earlier runs left. Abort what is of no use: keys that are not wanted, other storage options."""
        now = 0
        keys = [(key, mtime) async for page in self._target.list(UPLOADS) for key, mtime in _keys(page)]
        for record, written in keys:
            now = now or await self._target.now()
            found = await self._read(record)
            if found is None:
                continue
            key, upload_id, options, holder = found
            stored = await stored_parts(self._target, key, upload_id)
            if stored is None:
                await self._target.delete_many([record])
                continue
            if not holder.is_dead and max(written, stored.newest) > now - _SILENCE:
                continue  # somebody is at it
            if options == asdict(self._options) and is_wanted(key) and key not in self._found:
                self._found[key] = _Found(record, upload_id, stored.parts)
            else:
                await self._target.abort_multipart_upload(MultipartUpload(key, upload_id, stored.newest, 0))
                await self._target.delete_many([record])

    async def _read(self, record: str) -> tuple[str, str, dict[str, Any], Holder] | None:
        try:
            known = json.loads(await self._target.get(record))
            holder = Holder.parse(record, json.dumps(known["holder"]).encode())
            return str(known["key"]), str(known["upload_id"]), dict(known["options"]), holder
        except NotFound:
            return None
        except (ValueError, KeyError, TypeError):
            return None  # it says nothing that could be acted on

    async def put(self, key: str, chunks: AsyncIterable[bytes], *, size: int, digest: Digest) -> None:
        """As `put_stream`, for more than one PUT takes."""
        found = self._found.pop(key, None)
        record = found.record if found else f"{UPLOADS}{secrets.token_hex(8)}.json"

        async def begun(upload_id: str) -> None:
            what = {
                "key": key,
                "upload_id": upload_id,
                "options": asdict(self._options),
                "holder": asdict(Holder.this("migrate", "migrate", 0)),
            }
            await self._target.put(record, json.dumps(what, indent=1, sort_keys=True).encode())

        try:
            await put_stream_resuming(
                self._target,
                key,
                chunks,
                size=size,
                digest=digest,
                options=self._options,
                upload_id=found.upload_id if found else "",
                parts=found.parts if found else {},
                begun=begun,
            )
        finally:
            # Completed or aborted, it is no more; a killed process does not come here.
            try:
                await self._target.delete_many([record])
            except StorageError:
                pass


def _keys(page: Any) -> list[tuple[str, int]]:
    return list(zip(page.keys, page.mtimes, strict=True))
