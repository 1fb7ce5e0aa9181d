"""A ModelStore as a Storage: every key that S3 can hold, short pages, and ETags as wanted."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from regstore.digest import Digest, Verifier
from regstore.errors import AccessDenied, AlreadyExists, Archived, NotFound, StorageError
from regstore.storage.base import (
    Capabilities,
    Counters,
    MultipartUpload,
    ObjectInfo,
    Page,
    PutOptions,
    ReadHandle,
)
from regstore.storage.limit import check_limit
from regstore.storage.s3.order import in_order
from regstore.storage.s3.xml import ListedPage
from tests.model.store import ModelStore


@dataclass
class _Handle:
    info: ObjectInfo
    data: bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data


class ModelStorage:
    """now: the store's clock, which stands still. etags: MD5 of the body as on S3, or none, as some servers.

    repeats: a server that shows every other entry of a page twice, and the last of a page again on the next one (rustfs
    #2439), behind what the S3 storage makes of such a listing.

    unreadable: keys that are listed and not given, with the error that comes instead; archived: those whose class a
    listing shows, too (GLACIER), of which no error need be said.
    """

    url = "model"

    def __init__(
        self, store: ModelStore, *, now: int, page: int = 1000, etags: bool = True, repeats: bool = False
    ) -> None:
        self.store = store
        self.repeats = repeats
        self.clock = now
        self.page = page
        self.etags = etags
        self.counters = Counters()
        self.serves_in_parallel = True
        self.bills_requests = False
        self.symlinks: tuple[str, ...] = ()
        self.multipart_uploads: list[MultipartUpload] = []
        self.multipart_uploads_denied = False
        self.unreadable: dict[str, StorageError] = {}
        self.archived: dict[str, str] = {}

    def identity(self) -> str:
        return self.url

    def _info(self, key: str) -> ObjectInfo:
        if key not in self.store:
            raise NotFound(key, self.url)
        body, mtime = self.store.objects[key]
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest() if self.etags else ""
        return ObjectInfo(key, len(body), etag, mtime)

    async def capabilities(self) -> Capabilities:
        return Capabilities(conditional_put=True)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        keys = [key for key in self.store if key.startswith(prefix) and key > start_after]
        last = None
        for start in range(0, max(1, len(keys)), self.page):
            self.counters.count("list")
            infos = [self._info(key) for key in keys[start : start + self.page] if key in self.store]
            yield self.shown(infos, last, complete=start + self.page >= len(keys))
            last = infos[-1] if infos else last

    def shown(self, infos: Sequence[ObjectInfo], last: ObjectInfo | None, *, complete: bool) -> Page:
        """The page that the server's answer becomes. last: the entry before it."""
        if self.repeats:
            again = [info for number, info in enumerate(infos) for _ in range(2 if number % 2 else 1)]
            infos = again if last is None else [last, *again]
        keys, sizes = [info.key for info in infos], [info.size for info in infos]
        etags, mtimes = [info.etag for info in infos], [info.mtime for info in infos]
        archived = {info.key: self.archived[info.key] for info in infos if info.key in self.archived}
        page = in_order(ListedPage(keys, sizes, etags, mtimes, not complete, None, 2, archived), last)
        return Page(page.keys, page.sizes, page.etags, page.mtimes, complete, page.archived)

    def _content(self, key: str) -> bytes:
        self._info(key)
        if key in self.archived:
            raise Archived(f"{self.url}: {key} is archived; restore it first (InvalidObjectState)")
        if key in self.unreadable:
            raise self.unreadable[key]
        return self.store.objects[key][0]

    async def stat(self, key: str) -> ObjectInfo:
        self.counters.count("stat")
        return self._info(key)

    async def get(self, key: str) -> bytes:
        self.counters.count("get")
        return self._content(key)

    def open_read(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[ReadHandle]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[ReadHandle]:
            data = (await self.get(key))[start:]
            yield _Handle(self._info(key), data if length is None else data[:length])

        return opened()

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        check_limit()
        self.counters.count("put")
        if if_absent and key in self.store:
            raise AlreadyExists(f"{key} is there already")
        self.store.objects[key] = (bytes(data), self.clock)

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        digest: Digest | None = None,
        options: PutOptions | None = None,
    ) -> int:
        data = b"".join([bytes(chunk) async for chunk in chunks])
        verifier = Verifier(digest)
        verifier.update(data)
        verifier.verify(f"{self.url}/{key}")
        await self.put(key, data)
        return len(data)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        self.counters.count("delete", -(-len(keys) // 1000))
        for key in keys:
            check_limit()
            self.store.objects.pop(key, None)
        return dict.fromkeys(keys)

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        self.counters.count("copy")
        self.store.objects[target] = (self._content(source), self.clock)

    async def move(self, source: str, target: str, *, size: int) -> None:
        await self.copy(source, target)
        await self.delete_many([source])

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        self.counters.count("list_multipart_uploads")
        if self.multipart_uploads_denied:
            raise AccessDenied("ListMultipartUploads is not permitted")
        for upload in self.multipart_uploads:
            if upload.key.startswith(prefix):
                yield upload

    async def abort_multipart_upload(self, upload: MultipartUpload) -> None:
        self.counters.count("abort_multipart_upload")
        self.multipart_uploads = [other for other in self.multipart_uploads if other != upload]

    async def remove_empty_folders(
        self, prefix: str, *, older_than: int, keep: frozenset[str] = frozenset()
    ) -> int:
        return 0

    async def remove_folders(self, folders: Sequence[str]) -> int:
        return 0

    async def now(self) -> int:
        return self.clock

    async def close(self) -> None:
        pass

    async def __aenter__(self) -> ModelStorage:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
