"""Copies from one bucket to another on the same server, without the bytes passing through here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from regstore.errors import NoSuchBucket, StorageError, Unsupported
from regstore.storage.base import PutOptions
from regstore.storage.optional import UnderWay
from regstore.storage.s3.client import LONG_TIMEOUT, Answer
from regstore.storage.s3.failures import Refusal
from regstore.storage.s3.multipart import copied_part_size, copy_parts
from regstore.storage.s3.sigv4 import encode_path
from regstore.storage.s3.xml import parse_expected
from regstore.storage.sizes import COPIED_WHOLE, MAX_COPY

if TYPE_CHECKING:
    from regstore.storage.s3.storage import S3Storage

#: A copy whose connection has broken, or brought no answer in time, so often is given up: the bytes can pass through.
_TRIES: Final = 2
#: Asks the server for a checksum of the whole copy, which it tells on a HEAD. Of parts there is none.
_CHECKSUM: Final = {"x-amz-checksum-algorithm": "SHA256"}


class Between:
    """`ServerCopies` of objects below the source's root to the same keys below the target's. Their type is
    `application/octet-stream`, as a registry's own.

    Parts are copied several at a time, and no answer has to be waited for while gigabytes move. AWS is quick enough
    with one request, and keeps a checksum of what it copied so."""

    def __init__(self, source: S3Storage, target: S3Storage, options: PutOptions | None) -> None:
        self._source = source
        self._target = target
        self._options = options
        self.whole = MAX_COPY if target.endpoint.is_aws else COPIED_WHOLE
        #: Whether the header that asks for a checksum is sent: some servers may refuse what they do not know.
        self._checksums = True

    async def copy(
        self, key: str, *, size: int, under_way: UnderWay, on_bytes: Callable[[int], None] = lambda size: None
    ) -> None:
        target, client = self._target, self._target._client
        source = self._source._full(key)
        header = "/" + encode_path(f"{self._source.bucket}/{source}")
        try:
            if size > self.whole:
                etag = (await self._source.stat(key)).etag
                parts = f"{self._source.url} {etag} {copied_part_size(size)}"
                async with under_way(key, parts) as resume:
                    await copy_parts(
                        client,
                        source,
                        target._full(key),
                        size=size,
                        etag=etag,
                        headers=target._headers(self._options),
                        header=header,
                        broken=_TRIES,
                        resume=resume,
                        on_bytes=on_bytes,
                    )
            else:
                await self._copy_whole(source, target._full(key), header)
        except NoSuchBucket as error:  # the target's was there a moment ago
            raise Unsupported(
                f"the credentials of {target.url} see no bucket {self._source.settings.bucket} at"
                f" {client.place.endpoint}"
            ) from error

    async def _copy_whole(self, source: str, target: str, header: str) -> None:
        headers = {"x-amz-copy-source": header, "x-amz-metadata-directive": "REPLACE"}
        headers |= self._target._headers(self._options)
        if self._checksums:
            try:
                await self._call(source, target, headers | _CHECKSUM)
            except StorageError as error:
                if not _is_bad_request(error):
                    raise
            else:
                return
        await self._call(source, target, headers)
        self._checksums = False

    async def _call(self, source: str, target: str, headers: dict[str, str]) -> None:
        def parse(answer: Answer) -> None:
            parse_expected(answer.body, "CopyObjectResult")

        client = self._target._client
        await client.call(
            "CopyObject",
            "PUT",
            target,
            headers=headers,
            parse=parse,
            about=client.place.pair(source, target),
            patience=LONG_TIMEOUT,
            broken=_TRIES,
        )


def _is_bad_request(error: StorageError) -> bool:
    refusal = error.__cause__
    return isinstance(refusal, Refusal) and refusal.status in (400, 501)
