"""What a HEAD says of an object, and of the bucket."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from regstore.errors import NoSuchBucket, NotFound, StorageError
from regstore.storage.base import ObjectInfo
from regstore.storage.s3.client import Answer, SignedClient
from regstore.storage.s3.failures import Malformed
from regstore.storage.s3.reading import info_of
from regstore.storage.s3.xml import parse_http_time

#: A HEAD's failure has no body: these need another look before they can be told.
_STATUS: Final = (200, 301, 307, 400, 401, 403, 404)


class Heads:
    """Remembers that the bucket was seen: a HEAD's 404 does not tell a missing key from a missing bucket."""

    def __init__(self, client: SignedClient) -> None:
        self._client = client
        self.bucket_seen = False

    async def head(self, full: str) -> Answer:
        """A HEAD's failure has no body to say why, so what failed is asked again with a GET."""
        answer = await self._client.call("HeadObject", "HEAD", full, accept=_STATUS, parse=_whole)
        if answer.status == 404:
            await self._check_bucket()
            raise NotFound(self._client.place.relative(full), self._client.place.url)
        if answer.status != 200:
            await self._client.call(
                "GetObject", "GET", full, headers={"range": "bytes=0-0"}, accept=(200, 206, 416), parse=_whole
            )
            # The GET may have found new credentials, where the old ones have expired.
            answer = await self._client.call("HeadObject", "HEAD", full, parse=_whole)
        self.bucket_seen = True
        return answer

    async def stat(self, full: str) -> ObjectInfo:
        return self._info(full, await self.head(full))

    async def stat_kept(self, full: str) -> tuple[ObjectInfo, bytes | None]:
        """And `x-amz-checksum-sha256` of the whole object; a checksum of its parts' checksums is none."""
        answer = await self._client.call(
            "HeadObject",
            "HEAD",
            full,
            headers={"x-amz-checksum-mode": "ENABLED"},
            accept=_STATUS,
            parse=_whole,
        )
        if answer.status == 404:
            await self._check_bucket()
            raise NotFound(self._client.place.relative(full), self._client.place.url)
        if answer.status != 200:
            raise self._client.error(answer.refusal(), "HeadObject", full)
        info = self._info(full, answer)
        try:
            kept = base64.b64decode(answer.headers.get("x-amz-checksum-sha256", ""), validate=True)
        except binascii.Error:
            return info, None
        return info, kept if len(kept) == 32 else None

    def _info(self, full: str, answer: Answer) -> ObjectInfo:
        length = answer.headers.get("content-length", "")
        if not length.isdigit():
            raise StorageError(f"{self._client.place.name(full)}: HeadObject did not tell the size")
        return info_of(self._client.place.relative(full), answer.headers, int(length))

    async def _check_bucket(self) -> None:
        if not self.bucket_seen:
            answer = await self._client.call("HeadBucket", "HEAD", accept=_STATUS, parse=_whole)
            if answer.status == 404:
                place = self._client.place
                raise NoSuchBucket(f"there is no bucket {place.bucket} at {place.endpoint}")
            self.bucket_seen = True

    async def date(self, root: str) -> int | None:
        """Of an answer, in microseconds: whole seconds, rounded down, so nothing looks older than it is. root: as keys
        begin, for who may not ask for the bucket."""
        answer = await self._client.call("HeadBucket", "HEAD", accept=_STATUS, parse=_whole)
        if answer.status != 200:
            answer = await self._client.call(
                "ListObjectsV2",
                "GET",
                query=[("list-type", "2"), ("max-keys", "1"), *([("prefix", root)] if root else [])],
                parse=_whole,
            )
        try:
            return parse_http_time(answer.headers.get("date", ""))
        except Malformed:
            return None


def _whole(answer: Answer) -> Answer:
    return answer
