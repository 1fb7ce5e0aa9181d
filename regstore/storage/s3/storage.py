"""`S3Storage`: the Storage protocol over one bucket and root."""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any, Final, Self

from regstore.digest import Digest
from regstore.errors import (
    AccessDenied,
    AlreadyExists,
    InputError,
    IntegrityError,
    NoSuchBucket,
    NotFound,
    RegstoreError,
    StorageError,
    Unreachable,
    Unsupported,
)
from regstore.layout import PROBE
from regstore.storage.base import (
    Capabilities,
    Counters,
    MultipartUpload,
    ObjectInfo,
    Page,
    PutOptions,
    ReadHandle,
    Repeatable,
    Storage,
)
from regstore.storage.clock import StoreClock
from regstore.storage.identity import is_of_this_computer, on_this_computer
from regstore.storage.optional import Resume, StoredParts
from regstore.storage.s3 import failures, multipart, unfinished
from regstore.storage.s3.between import Between
from regstore.storage.s3.client import Answer, SignedClient
from regstore.storage.s3.copying import Copier, option_headers
from regstore.storage.s3.deletion import Deleter
from regstore.storage.s3.listing import Lister
from regstore.storage.s3.reading import info_of, open_stream
from regstore.storage.s3.resuming import stored_parts
from regstore.storage.s3.settings import Endpoint, S3Settings, driver_parameters
from regstore.storage.s3.streamed import STREAMED, Streamed
from regstore.storage.s3.xml import parse_expected, parse_http_time, texts
from regstore.storage.sizes import LARGE_AT_ONCE
from regstore.storage.within import refuse_bucket_within

#: A blob whose one request's connection has broken so often goes in parts.
_STREAMED_TRIES: Final = 2
CONTENT_TYPE: Final = "application/octet-stream"
#: A HEAD's failure has no body: these need another look before they can be told.
HEAD_STATUS: Final = (200, 301, 307, 400, 401, 403, 404)


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
        self._opened: SignedClient | None = None
        self._lister: Lister | None = None
        self._deleter: Deleter | None = None
        self._copier: Copier | None = None
        self._capabilities: Capabilities | None = None
        self._probing = asyncio.Lock()
        self._bucket_seen = False
        self._clock = StoreClock(self, self.date, read_only=settings.read_only, on_event=settings.on_event)
        #: Sizes that go in one request, as far as is known of what lies between; and room for those that did not.
        self._streamed = STREAMED
        self._in_parts_after_all = asyncio.Semaphore(LARGE_AT_ONCE)

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
        options = options.over(self.put_options) if options is not None else self.put_options
        return {"content-type": CONTENT_TYPE, **option_headers(options)}

    def _full(self, key: str) -> str:
        if not key:
            raise InputError("a key must not be empty")
        return self._root + key

    # Listing

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        if self._lister is None:
            self._lister = Lister(self._client)
        async for page in self._lister.pages(self._root, prefix, start_after):
            self._bucket_seen = True
            self._clock.listed(page)
            yield page

    # One object

    async def stat(self, key: str) -> ObjectInfo:
        full = self._full(key)
        answer = await self._head(full)
        length = answer.headers.get("content-length", "")
        if not length.isdigit():
            raise StorageError(f"{self.url}/{key}: HeadObject did not tell the size")
        return info_of(key, answer.headers, int(length))

    async def _head(self, full: str) -> Answer:
        """A HEAD's failure has no body to say why, so what failed is asked again with a GET."""
        answer = await self._client.call("HeadObject", "HEAD", full, accept=HEAD_STATUS, parse=_whole)
        if answer.status == 404:
            await self._check_bucket()
            raise NotFound(self._client.place.relative(full), self.url)
        if answer.status != 200:
            await self._client.call(
                "GetObject", "GET", full, headers={"range": "bytes=0-0"}, accept=(200, 206, 416), parse=_whole
            )
            # The GET may have found new credentials, where the old ones have expired.
            answer = await self._client.call("HeadObject", "HEAD", full, parse=_whole)
        self._bucket_seen = True
        return answer

    async def kept_sha256(self, key: str) -> bytes | None:
        """`x-amz-checksum-sha256` of the whole object; a checksum of its parts' checksums is none."""
        return (await self.stat_kept(key))[1]

    async def stat_kept(self, key: str) -> tuple[ObjectInfo, bytes | None]:
        """`stat` and `kept_sha256` in one request."""
        answer = await self._client.call(
            "HeadObject",
            "HEAD",
            self._full(key),
            headers={"x-amz-checksum-mode": "ENABLED"},
            accept=HEAD_STATUS,
            parse=_whole,
        )
        if answer.status == 404:
            await self._check_bucket()
            raise NotFound(key, self.url)
        if answer.status != 200:
            raise self._client.error(answer.refusal(), "HeadObject", self._full(key))
        length = answer.headers.get("content-length", "")
        if not length.isdigit():
            raise StorageError(f"{self.url}/{key}: HeadObject did not tell the size")
        info = info_of(key, answer.headers, int(length))
        try:
            kept = base64.b64decode(answer.headers.get("x-amz-checksum-sha256", ""), validate=True)
        except binascii.Error:
            return info, None
        return info, kept if len(kept) == 32 else None

    async def _check_bucket(self) -> None:
        """A HEAD's 404 does not tell a missing key from a missing bucket."""
        if not self._bucket_seen:
            answer = await self._client.call("HeadBucket", "HEAD", accept=HEAD_STATUS, parse=_whole)
            if answer.status == 404:
                raise NoSuchBucket(f"there is no bucket {self.settings.bucket} at {self._client.place.endpoint}")
            self._bucket_seen = True

    async def get(self, key: str) -> bytes:
        full = self._full(key)
        body = await self._client.call("GetObject", "GET", full, parse=_body)
        self._bucket_seen = True
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
        if if_absent:
            if not (await self.capabilities()).conditional_put:
                raise Unsupported(f"{self.url} was not seen to honour If-None-Match; it cannot create safely")
            await self._create(self._full(key), data, headers)
        else:
            await self._put(self._full(key), data, headers)
        self._clock.wrote(key)

    async def _put(self, full: str, data: bytes, headers: Mapping[str, str], sha256: str = "") -> None:
        # The signature covers the SHA-256 of the body: the server refuses what did not arrive as sent.
        await self._client.call("PutObject", "PUT", full, headers=headers, body=data, sha256=sha256, parse=_nothing)

    async def _create(self, full: str, data: bytes, headers: Mapping[str, str]) -> None:
        """AlreadyExists, unless the key has these very bytes and an earlier try of this call may have put them."""
        retried: list[Exception] = []
        try:
            await self._client.call(
                "PutObject",
                "PUT",
                full,
                headers={**headers, "if-none-match": "*"},
                body=data,
                parse=_nothing,
                retried=retried,
            )
        except AlreadyExists as error:
            if retried and await self._client.call("GetObject", "GET", full, parse=_body) == data:
                return
            raise AlreadyExists(f"{self._client.place.name(full)} exists already") from error

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
        """resume: of a multipart upload, should it come to one. The stream is read and hashed from its start all the
        same, but a part that is stored with these very bytes is not sent again."""
        full = self._full(key)
        headers = self._headers(options)
        single = dict(headers)
        sha256 = digest if digest is not None and digest.algorithm == "sha256" else None
        if sha256 is not None and self._client.endpoint.is_aws:
            # AWS keeps it, and tells it on a HEAD with ChecksumMode; others ignore or refuse it.
            single["x-amz-checksum-sha256"] = base64.b64encode(sha256.raw).decode()
        room: AbstractAsyncContextManager[object] = nullcontext()
        if sha256 is not None and isinstance(chunks, Repeatable) and size is not None and size in STREAMED:
            body = Streamed(chunks, size=size, digest=sha256, name=f"{self.url}/{key}")
            in_parts = resume is not None and resume.upload_id  # an earlier try has come to that
            if size in self._streamed and not in_parts and await self._put_streamed(full, body, single):
                return size
            room = self._in_parts_after_all  # who calls counts on one request, and its memory

        async def put(data: bytes) -> None:
            await self._put(full, data, single, sha256.encoded if sha256 is not None else "")

        async with room:
            return await multipart.put_stream(
                self._client, full, chunks, size=size, digest=digest, headers=headers, put=put, resume=resume
            )

    async def _put_streamed(self, full: str, body: Streamed, headers: Mapping[str, str]) -> bool:
        """False where a network, or a proxy's limit, does not let one request of that size through."""
        try:
            await self._client.call(
                "PutObject", "PUT", full, headers=headers, body=body, parse=_nothing, broken=_STREAMED_TRIES
            )
        except StorageError as error:
            if error is body.error:
                raise
            if failures.is_too_large(error):
                self._streamed = range(self._streamed.start, min(self._streamed.stop, body.size))
            elif not isinstance(error, Unreachable):
                raise
            return False
        return True

    # Several keys

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        if self._deleter is None:
            self._deleter = Deleter(self._client)
        self._clock.deleted(keys)
        found = await self._deleter.delete_many([self._full(key) for key in keys])
        return {key[len(self._root) :]: outcome for key, outcome in found.items()}

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        """A HEAD of the source comes first in any case: only it knows the storage class to keep."""
        await self._copy(source, target)

    async def _copy(self, source: str, target: str, *, size: int | None = None) -> None:
        if source == target:
            raise InputError(f"{source} cannot be copied onto itself")
        head = await self._head(self._full(source))
        if size is not None and head.headers.get("content-length") != str(size):
            raise IntegrityError(
                f"{self.url}/{source} has {head.headers.get('content-length')} bytes, not the {size} expected"
            )
        if self._copier is None:
            self._copier = Copier(self._client)
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

    async def date(self) -> int | None:
        """Whole seconds, rounded down, so nothing looks older than it is."""
        answer = await self._client.call("HeadBucket", "HEAD", accept=HEAD_STATUS, parse=_whole)
        if answer.status != 200:
            answer = await self._client.call(
                "ListObjectsV2",
                "GET",
                query=[("list-type", "2"), ("max-keys", "1"), *([("prefix", self._root)] if self._root else [])],
                parse=_whole,
            )
        try:
            return parse_http_time(answer.headers.get("date", ""))
        except failures.Malformed:
            return None

    async def capabilities(self) -> Capabilities:
        async with self._probing:
            if self._capabilities is None:
                self._capabilities = Capabilities(
                    conditional_put=not self.settings.read_only and await self._probe_conditional_put(),
                    versioned=await self._probe_versioning(),
                )
            return self._capabilities

    async def _probe_conditional_put(self) -> bool:
        full = f"{self._root}{PROBE}{secrets.token_hex(8)}"
        try:
            await self._create(full, b"1", self._headers(None))
        except (AccessDenied, Unsupported, AlreadyExists):
            return False
        try:
            await self._client.call(
                "PutObject",
                "PUT",
                full,
                headers={**self._headers(None), "if-none-match": "*"},
                body=b"2",
                parse=_nothing,
            )
        except AlreadyExists:
            return True
        except StorageError:
            return False
        finally:
            await self._remove_probe(full)
        return False

    async def _remove_probe(self, full: str) -> None:
        try:
            await Deleter(self._client).delete_many([full])
        except StorageError:  # one byte left behind; the probe's answer stands
            pass

    async def _probe_versioning(self) -> bool | None:
        """Suspended counts as versioned: noncurrent versions may be there."""
        try:
            return await self._client.call(
                "GetBucketVersioning",
                "GET",
                query=[("versioning", "")],
                parse=_has_versioning,
            )
        except (AccessDenied, Unsupported):
            return None

    @asynccontextmanager
    async def aioboto3_client(self) -> AsyncIterator[Any]:
        """An aioboto3 S3 client with the same settings, for work on the bucket itself: seconds, not hours, for its
        credentials are those of the moment. What it raises is for `translate`."""
        import aioboto3
        from aiobotocore.config import AioConfig
        from aiobotocore.session import AioSession

        client, settings = self._client, self.settings
        credentials = await client.credentials.get()
        session = aioboto3.Session(
            botocore_session=AioSession(profile=settings.profile),
            aws_access_key_id=credentials.access_key,
            aws_secret_access_key=credentials.secret_key,
            aws_session_token=credentials.token,
        )
        async with session.client(
            "s3",
            endpoint_url=None if client.endpoint.is_aws and not settings.endpoint_url else client.endpoint.url,
            region_name=client.endpoint.region,
            verify=settings.verify_tls and settings.ca_bundle,
            config=AioConfig(
                s3={"addressing_style": "path" if client.endpoint.path_style else "virtual"},
                retries={"mode": "standard", "max_attempts": settings.retries.tries},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                connect_timeout=10,
                read_timeout=60,
            ),
        ) as opened:
            yield opened

    def translate(self, error: BaseException, what: str) -> RegstoreError:
        """`translate` with this bucket and endpoint in the sentence."""
        return failures.translate(error, what, bucket=self.settings.bucket, endpoint=self._client.endpoint.url)


def _whole(answer: Answer) -> Answer:
    return answer


def _body(answer: Answer) -> bytes:
    return answer.body


def _has_versioning(answer: Answer) -> bool:
    return bool(
        texts(parse_expected(answer.body, ("VersioningConfiguration", "GetBucketVersioningResponse")), "Status")[0]
    )


def _nothing(answer: Answer) -> None:
    return None
