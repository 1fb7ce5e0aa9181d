"""`S3Storage`: the Storage protocol over one bucket and root."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Self

from regstore.digest import Digest
from regstore.errors import (
    InputError,
    IntegrityError,
    RegstoreError,
    StorageError,
    Unsupported,
)
from regstore.events import OnEvent, ignore
from regstore.storage.base import (
    Capabilities,
    Counters,
    MultipartUpload,
    ObjectInfo,
    Page,
    PutOptions,
    ReadHandle,
    Storage,
)
from regstore.storage.clock import StoreClock, clock
from regstore.storage.identity import is_of_this_computer, on_this_computer
from regstore.storage.optional import Resume, StoredParts
from regstore.storage.s3 import failures, unfinished
from regstore.storage.s3.between import Between
from regstore.storage.s3.bucket_client import aioboto3_client
from regstore.storage.s3.client import Answer, SignedClient
from regstore.storage.s3.copying import Copier, option_headers
from regstore.storage.s3.deletion import Deleter
from regstore.storage.s3.heads import Heads
from regstore.storage.s3.listing import Lister
from regstore.storage.s3.putting import Putter
from regstore.storage.s3.reading import open_stream
from regstore.storage.s3.resuming import stored_parts
from regstore.storage.s3.settings import Endpoint, S3Settings, driver_parameters
from regstore.storage.s3.trials import has_conditional_put, is_versioned
from regstore.storage.within import refuse_bucket_within

#: As a registry's own.
_CONTENT_TYPE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class S3Address:
    """Settings without whom to tell. Keys that were given go along; others each process finds for itself."""

    settings: S3Settings

    def open(self, concurrency: int, on_event: OnEvent) -> Storage:
        return S3Storage(replace(self.settings, concurrency=concurrency, on_event=on_event))


class S3Storage:
    """A bucket, or what lies under one root in it.

    Every method is atomic for its key: S3 shows an object whole or not at all. `stat` and `open_read` give
    mtime in whole seconds, as HTTP does; a listing may know milliseconds.
    """

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self.url = settings.url
        self.counters = Counters()
        self.serves_in_parallel = True
        self.bills_requests = True
        self.symlinks: Collection[str] = ()
        #: How objects are stored that are put without options of their own.
        self.put_options = settings.put
        self._root = f"{settings.root}/" if settings.root else ""
        self._made_headers: tuple[PutOptions | None, PutOptions, dict[str, str]] | None = None
        self._opened: SignedClient | None = None
        self._capabilities: Capabilities | None = None
        self._probing = asyncio.Lock()
        self._clock = StoreClock(self, self.date, read_only=settings.read_only, on_event=settings.on_event)

    async def __aenter__(self) -> Self:
        bucket, root = self.settings.bucket, self.settings.root
        await refuse_bucket_within(
            self.url, bucket, root, lambda other: S3Storage(replace(self.settings, root=other, read_only=True))
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    @property
    def _client(self) -> SignedClient:
        if self._opened is None:
            self._opened = SignedClient(self.settings, self.counters)
        return self._opened

    @cached_property
    def _lister(self) -> Lister:
        return Lister(self._client)

    @cached_property
    def _heads(self) -> Heads:
        return Heads(self._client)

    @cached_property
    def _putter(self) -> Putter:
        return Putter(self._client)

    @cached_property
    def _deleter(self) -> Deleter:
        return Deleter(self._client)

    @cached_property
    def _copier(self) -> Copier:
        return Copier(self._client)

    def address(self) -> S3Address:
        return S3Address(replace(self.settings, put=self.put_options, on_event=ignore))

    @property
    def endpoint(self) -> Endpoint:
        return self._client.endpoint

    @property
    def bucket(self) -> str:
        return self.settings.bucket

    @property
    def rootdirectory(self) -> str:
        return self.settings.root

    def identity(self) -> str:
        """With its endpoint, for buckets of two servers may have one name (AWS has each name once)."""
        return f"{self.url} at {'AWS' if self.endpoint.is_aws else self.endpoint.url.rstrip('/').lower()}"

    async def identity_everywhere(self) -> str:
        host, _ = self.endpoint.address
        return on_this_computer(self.identity()) if is_of_this_computer(host) else self.identity()

    def registry_configuration(self, put: PutOptions | None = None) -> dict[str, dict[str, Any]]:
        put = put if put is not None else self.put_options
        return {"s3": driver_parameters(self.endpoint, self.settings, put)}

    async def presigned_url(self, key: str, *, seconds: int) -> str:
        return await self._client.presigned_url(self._full(key), seconds=seconds)

    def store_with(self, options: PutOptions) -> None:
        self.put_options = options.over(self.put_options)

    def _headers(self, options: PutOptions | None) -> dict[str, str]:
        """Not to be changed: those of many objects are the same."""
        if self._made_headers is None or self._made_headers[:2] != (options, self.put_options):
            chosen = options.over(self.put_options) if options is not None else self.put_options
            headers = {"content-type": _CONTENT_TYPE, **option_headers(chosen)}
            self._made_headers = options, self.put_options, headers
        return self._made_headers[2]

    def _full(self, key: str) -> str:
        if not key:
            raise InputError("a key must not be empty")
        return self._root + key

    # Listing

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        async for page in self._lister.pages(self._root, prefix, start_after):
            self._heads.bucket_seen = True
            self._clock.listed(page)
            yield page

    # One object

    async def stat(self, key: str) -> ObjectInfo:
        return await self._heads.stat(self._full(key))

    async def kept_sha256(self, key: str) -> bytes | None:
        return (await self.stat_kept(key))[1]

    async def stat_kept(self, key: str) -> tuple[ObjectInfo, bytes | None]:
        return await self._heads.stat_kept(self._full(key))

    async def get(self, key: str) -> bytes:
        full = self._full(key)
        body = await self._client.call("GetObject", "GET", full, parse=_body)
        self._heads.bucket_seen = True
        return body

    def open_read(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[ReadHandle]:
        if start < 0 or (length is not None and length < 0):
            raise InputError("a range must not be negative")
        return open_stream(self._client, self._full(key), key, start, length)

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        headers = self._headers(options)
        begun = clock()
        if if_absent:
            if not (await self.capabilities()).conditional_put:
                raise Unsupported(f"{self.url} was not seen to honour If-None-Match; it cannot create safely")
            await self._putter.create(self._full(key), data, headers)
        else:
            await self._putter.put(self._full(key), data, headers)
        self._clock.wrote(key, begun)

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        digest: Digest | None = None,
        options: PutOptions | None = None,
        resume: Resume | None = None,
    ) -> int:
        return await self._putter.put_stream(
            self._full(key), chunks, self._headers(options), size=size, digest=digest, resume=resume
        )

    # Several keys

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        self._clock.deleted(keys)
        found = await self._deleter.delete_many([self._full(key) for key in keys])
        return {key[len(self._root) :]: outcome for key, outcome in found.items()}

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        """A HEAD of the source comes first in any case: only it knows the storage class to keep."""
        await self._copy(source, target)

    async def _copy(self, source: str, target: str, *, size: int | None = None) -> None:
        if source == target:
            raise InputError(f"{source} cannot be copied onto itself")
        head = await self._heads.head(self._full(source))
        if size is not None and head.headers.get("content-length") != str(size):
            raise IntegrityError(
                f"{self.url}/{source} has {head.headers.get('content-length')} bytes, not the {size} expected"
            )
        await self._copier.copy(self._full(source), self._full(target), head, self.put_options)

    async def move(self, source: str, target: str, *, size: int) -> None:
        await self._copy(source, target, size=size)
        async for page in self.list(target):
            # The key itself sorts before all others that begin with it.
            shown = next(page.objects(), None)
            if shown is not None or page.complete:
                break
        if shown is None or shown.key != target or shown.size != size:
            raise IntegrityError(f"{self.url}: no listing shows {target} with {size} bytes, so {source} was kept")
        outcome = (await self.delete_many([source]))[source]
        if outcome is not None:
            raise outcome

    def copies_from(self, source: Storage, options: PutOptions | None = None) -> Between | None:
        if not isinstance(source, S3Storage):
            return None
        one, other = source.endpoint, self.endpoint
        return Between(source, self, options) if (one.url, one.region) == (other.url, other.region) else None

    # Multipart uploads

    async def stored_parts(self, key: str, upload_id: str) -> StoredParts | None:
        return await stored_parts(self._client, self._full(key), upload_id)

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        async for upload in unfinished.find_uploads(self._client, self._root + prefix, self._root):
            yield upload

    async def abort_multipart_upload(self, upload: MultipartUpload) -> None:
        await unfinished.abort(self._client, self._full(upload.key), upload.upload_id)

    # The store itself

    async def remove_empty_folders(
        self, prefix: str, *, older_than: int, keep: frozenset[str] = frozenset()
    ) -> int:
        return 0

    async def remove_folders(self, folders: Sequence[str]) -> int:
        return 0

    async def now(self) -> int:
        """As `StoreClock` says: by the time of what was put last, or else by the Date of a HEAD on the bucket."""
        return await self._clock.now()

    async def latest(self) -> int:
        return await self._clock.latest()

    async def date(self) -> int | None:
        return await self._heads.date(self._root)

    async def capabilities(self) -> Capabilities:
        async with self._probing:
            if self._capabilities is None:
                self._capabilities = Capabilities(
                    conditional_put=not self.settings.read_only
                    and await has_conditional_put(self._client, self._putter, self._root, self._headers(None)),
                    versioned=await is_versioned(self._client),
                )
            return self._capabilities

    def aioboto3_client(self) -> AbstractAsyncContextManager[Any]:
        return aioboto3_client(self._client)

    def translate(self, error: BaseException, what: str) -> RegstoreError:
        """`translate` with this bucket and endpoint in the sentence."""
        return failures.translate(error, what, bucket=self.settings.bucket, endpoint=self._client.endpoint.url)


def _body(answer: Answer) -> bytes:
    return answer.body
