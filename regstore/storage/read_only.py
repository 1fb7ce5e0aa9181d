"""What every storage has that can only be looked at: it refuses whatever would change it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Collection, Sequence
from typing import NoReturn

from regstore.digest import Digest
from regstore.errors import AccessDenied, StorageError
from regstore.storage.base import Capabilities, MultipartUpload, PutOptions


class ReadOnly:
    """A part of a Storage. url, reason: what the refusal says."""

    url: str
    reason: str
    symlinks: Collection[str] = ()

    async def capabilities(self) -> Capabilities:
        return Capabilities(versioned=False)

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        nothing: tuple[MultipartUpload, ...] = ()
        for upload in nothing:
            yield upload

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        self._refuse()

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        digest: Digest | None = None,
        options: PutOptions | None = None,
    ) -> int:
        self._refuse()

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        self._refuse()

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        self._refuse()

    async def move(self, source: str, target: str, *, size: int) -> None:
        self._refuse()

    async def abort_multipart_upload(self, upload: MultipartUpload) -> None:
        self._refuse()

    async def remove_empty_folders(
        self, prefix: str, *, older_than: int, keep: frozenset[str] = frozenset()
    ) -> int:
        self._refuse()

    async def remove_folders(self, folders: Sequence[str]) -> int:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise AccessDenied(f"{self.url} can only be looked at: {self.reason}")
