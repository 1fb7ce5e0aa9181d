"""The open uploads of a repository."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.errors import NotFound
from regstore.registry import links
from regstore.registry.workers import run_all
from regstore.storage.base import Storage

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Upload:
    """started_at: what the registry noted, microseconds since 1970, or None where that is missing or damaged.
    newest: of its objects and parts, by the store's clock. size: bytes stored so far, parts of unfinished
    multipart uploads included. parts: names of its objects, and `data` for a multipart upload."""

    uuid: str
    started_at: int | None
    newest: int
    size: int
    parts: tuple[str, ...]


@dataclass(slots=True)
class _Open:
    newest: int
    size: int
    parts: list[str]


class Uploads:
    """Iterating gives each upload, in order of their ids."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self._name = name

    async def __aiter__(self) -> AsyncGenerator[Upload, None]:
        uploads = await self._read()
        identifiers = sorted(uploads)
        for uuid, started in zip(identifiers, await run_all(self._started_at, identifiers), strict=True):
            upload = uploads[uuid]
            yield Upload(uuid, started, upload.newest, upload.size, tuple(dict.fromkeys(upload.parts)))
        if not identifiers:
            await links.require_repository(self._storage, self._name)

    async def _read(self) -> dict[str, _Open]:
        uploads: dict[str, _Open] = {}

        def add(text: str, newest: int, size: int) -> None:
            key = layout.decode(text)
            if isinstance(key, layout.UploadKey) and key.name == self._name:
                upload = uploads.setdefault(key.uuid, _Open(newest, 0, []))
                upload.newest = max(upload.newest, newest)
                upload.size += size if key.part == "data" else 0
                upload.parts.append(key.part)

        prefix = layout.uploads_prefix(self._name)
        async with aclosing(links.iter_keys(self._storage, prefix)) as keys:
            async for info in keys:
                add(info.key, info.mtime, info.size)
        async for multipart in self._storage.list_multipart_uploads(prefix):
            add(multipart.key, multipart.newest, multipart.size)
        return uploads

    async def _started_at(self, uuid: str) -> int | None:
        key = layout.encode(layout.UploadKey(self._name, uuid, "startedat"))
        try:
            return parse_time((await self._storage.get(key)).decode("utf-8", "replace"))
        except NotFound:
            return None


def parse_time(text: str) -> int | None:
    """RFC 3339, as Go writes it (up to nine decimals), in microseconds since 1970; None when it is not that."""
    try:
        time = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if time.tzinfo is None:
        return None
    return (time - _EPOCH) // datetime.timedelta(microseconds=1)
