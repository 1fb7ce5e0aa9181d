"""Storages that watch, interrupt or page as a test wants, over a real folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from regstore.errors import StorageError
from regstore.storage.base import Page
from regstore.storage.disk import DiskStorage

MUTATIONS = ("put", "put_stream", "delete_many", "copy", "move", "remove_empty_folders")


class RecordingStorage(DiskStorage):
    """Notes every change in order; the change number `fail_at` (from 0) is refused, and all after it."""

    def __init__(self, root: Path, *, fail_at: int | None = None, page: int = 1000) -> None:
        super().__init__(root, create=True)
        self.log: list[tuple[str, str]] = []
        self.fail_at = fail_at
        self.page = page
        self.lists: list[tuple[str, str]] = []
        self.pages = 0

    def _note(self, operation: str, *keys: str) -> None:
        if self.fail_at is not None and len(self.log) >= self.fail_at:
            raise StorageError("refused by the test")
        self.log += [(operation, key) for key in keys]

    async def put(self, key: str, data: bytes, **more: Any) -> None:
        self._note("put", key)
        await super().put(key, data, **more)

    async def put_stream(self, key: str, chunks: Any, **more: Any) -> int:
        self._note("put_stream", key)
        return await super().put_stream(key, chunks, **more)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        outcomes: dict[str, StorageError | None] = {}
        for key in keys:
            try:
                self._note("delete", key)
            except StorageError as error:
                outcomes[key] = error
            else:
                outcomes |= await super().delete_many([key])
        return outcomes

    async def move(self, source: str, target: str, *, size: int) -> None:
        self._note("move", target)
        await super().move(source, target, size=size)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        """As S3 does it: each page is a request; pages have `page` keys."""
        self.lists.append((prefix, start_after))
        found = [info async for page in super().list(prefix, start_after=start_after) for info in page.objects()]
        for start in range(0, max(len(found), 1), self.page):
            part = found[start : start + self.page]
            self.pages += 1
            yield Page(
                [info.key for info in part],
                [info.size for info in part],
                [info.etag for info in part],
                [info.mtime for info in part],
                start + self.page >= len(found),
            )

    def written(self) -> Sequence[str]:
        return [key for _, key in self.log]


class PlainStorage(RecordingStorage):
    """As a bucket whose ETags say nothing (KMS)."""

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        async for page in super().list(prefix, start_after=start_after):
            yield Page(page.keys, page.sizes, ["x"] * len(page), page.mtimes, page.complete)
