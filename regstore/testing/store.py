"""What the tests of a store stand on: the store, its back doors, and how it is looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from regstore.storage.base import ObjectInfo, Storage

SECOND = 1_000_000


#: Where byte order, name order and UTF-16 order differ, and names that a prefix may take for one another.
NASTY = (
    "foo/x",
    "foo-bar/x",
    "foo.bar",
    "foo0",
    "foo/x-y/z",
    "foo/x.y",
    "foo/x0/z",
    "foo/xa",
    "Foo/x",
    "a b/c d",
    "a+b%20/c&d=e?f#g",
    "é/e\u0301",
    "\ufb01/\U0001f600",
    "\U0001f600/\ufb01",
    "~",
    "_x/y",
    "b/(1)!*'",
    "b/\\d",
    'b/"<&>',
)


async def listed(storage: Storage, prefix: str = "", start_after: str = "") -> list[ObjectInfo]:
    """The whole listing, held to what any listing must hold."""
    found: list[ObjectInfo] = []
    complete = False
    async for page in storage.list(prefix, start_after=start_after):
        assert not complete, "a page after the complete one"
        assert len(page.keys) == len(page.sizes) == len(page.etags) == len(page.mtimes)
        complete = page.complete
        found += page.objects()
    assert complete, "the listing ended without a complete page"
    encoded = [info.key.encode() for info in found]
    assert encoded == sorted(set(encoded)), "not in byte order, or a key twice"
    return found


async def keys(storage: Storage, prefix: str = "", start_after: str = "") -> list[str]:
    return [info.key for info in await listed(storage, prefix, start_after)]


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(storage: Storage, key: str, **range_: Any) -> bytes:
    async with storage.open_read(key, **range_) as handle:
        return b"".join([chunk async for chunk in handle])


class StoreTests:
    """A subclass for each backend has the two fixtures and the back doors, which look at the store by other means than
    the code under test (the file system itself, another S3 client), so that a mistake made both in writing and in
    reading shows."""

    #: Keys beyond the ordinary that this store can hold: `a//b`, `a/`, control characters.
    odd_keys: Sequence[str] = ()
    #: More keys than one page of a listing, or one batch of a delete, holds.
    many = 1_050
    #: Whether the etag of a small object is the MD5 of its bytes.
    md5_etags = True
    #: Bytes of a stream that is stored in several parts.
    large = 12 << 20

    @pytest.fixture
    async def storage(self) -> AsyncIterator[Storage]:
        """An empty store."""
        yield _of_the_backend()

    @pytest.fixture
    async def missing(self) -> AsyncIterator[Storage]:
        """A storage opened on a bucket, or a root folder, that is not there."""
        yield _of_the_backend()

    # -- back doors

    async def raw_put(self, key: str, data: bytes) -> None:
        raise NotImplementedError

    async def raw_get(self, key: str) -> bytes | None:
        raise NotImplementedError

    async def raw_keys(self) -> list[str]:
        """Every key there is, temporary ones included, in any order."""
        raise NotImplementedError

    async def raw_put_many(self, keys: Sequence[str]) -> None:
        """Each with its own name as body."""
        for key in keys:
            await self.raw_put(key, key.encode())

    async def raw_multipart(self, key: str, size: int) -> str | None:
        """Begin a multipart upload with one part of `size` bytes, and leave it; its id. None: no such thing here."""
        return None


def _of_the_backend() -> Storage:
    raise NotImplementedError("a fixture of the class for one backend")
