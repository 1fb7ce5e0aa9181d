"""Streams that are stored: checked on their way, and nothing is left of one that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from regstore.digest import Digest
from regstore.errors import IntegrityError
from regstore.storage.base import Storage, Whole
from regstore.testing.content import Content
from regstore.testing.store import StoreTests, read, stream


class Streams(StoreTests):
    """`put_stream`, of content that can be read once and of such that can be read again."""

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_a_stream_is_stored_and_checked(self, storage: Storage, algorithm: str) -> None:
        chunks = [b"", b"one", b"", b"two" * 50_000, b"3"]
        body = b"".join(chunks)
        digest = Digest.of(body, algorithm)
        assert await storage.put_stream("s/checked", stream(*chunks), size=len(body), digest=digest) == len(body)
        assert await storage.put_stream("s/unchecked", stream(*chunks)) == len(body)
        assert await storage.put_stream("s/no-size", stream(*chunks), digest=digest) == len(body)
        assert await storage.put_stream("s/empty", stream(), size=0, digest=Digest.of(b"")) == 0
        assert await storage.put_stream("s/whole", Whole(body), size=len(body), digest=digest) == len(body)
        for key in ("s/checked", "s/unchecked", "s/no-size", "s/whole"):
            assert await self.raw_get(key) == body
        assert await self.raw_get("s/empty") == b""
        assert len(await self.raw_keys()) == 5

    @pytest.mark.parametrize("with_size", [True, False])
    async def test_a_large_stream(self, storage: Storage, with_size: bool) -> None:
        piece = bytes(range(256)) * 2048
        count = -(-self.large // len(piece))
        digest = Digest.of(piece * count)
        size = len(piece) * count if with_size else None
        assert (
            await storage.put_stream("big", stream(*[piece] * count), size=size, digest=digest)
            == len(piece) * count
        )
        assert digest.matches(await read(storage, "big"))
        assert (await storage.stat("big")).size == len(piece) * count
        with pytest.raises(IntegrityError):
            await storage.put_stream("big2", stream(*[piece] * (count - 1), b"x" * len(piece)), digest=digest)
        await storage.copy("big", "copy")
        assert digest.matches(await read(storage, "copy"))
        assert sorted(await self.raw_keys()) == ["big", "copy"]
        assert [upload async for upload in storage.list_multipart_uploads("")] == []

    @pytest.mark.parametrize(
        ("size", "of"),
        [(9, b"other"), (9, b"123456789"), (None, b"other"), (11, b"1234567890"), (0, b"1234567890")],
    )
    async def test_a_stream_that_is_not_as_promised_is_not_stored(
        self, storage: Storage, size: int | None, of: bytes
    ) -> None:
        await storage.put("there", b"before")
        for key in ("there", "new/key"):
            with pytest.raises(IntegrityError):
                await storage.put_stream(key, stream(b"12345", b"67890"), size=size, digest=Digest.of(of))
            with pytest.raises(IntegrityError):
                await storage.put_stream(key, Whole(b"1234567890"), size=size, digest=Digest.of(of))
        assert await self.raw_keys() == ["there"]
        assert await self.raw_get("there") == b"before"

    @pytest.mark.parametrize("size", [10, None, 2 << 20])
    async def test_a_source_that_fails_leaves_nothing(self, storage: Storage, size: int | None) -> None:
        async def breaking() -> AsyncIterator[bytes]:
            yield b"x" * min(size or 10, 1 << 20)
            raise ConnectionResetError("the other end went away")

        with pytest.raises(ConnectionResetError):
            await storage.put_stream("a/b", breaking(), size=size)
        assert await self.raw_keys() == []
        assert [upload async for upload in storage.list_multipart_uploads("")] == []

    async def test_a_cancelled_stream_leaves_nothing(self, storage: Storage) -> None:
        begun = asyncio.Event()

        async def stuck() -> AsyncIterator[bytes]:
            yield b"x" * (1 << 20)
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(storage.put_stream("a/b", stuck()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await self.raw_keys() == []

    async def test_content_that_can_be_read_again(self, storage: Storage) -> None:
        data = bytes(range(256)) * 12_000
        content = Content(data)
        assert await storage.put_stream("k", content, size=len(data), digest=Digest.of(data)) == len(data)
        assert await self.raw_get("k") == data
        assert content.opened == content.closed

    @pytest.mark.parametrize("fault", ["flipped", "short", "long", "fails", "cancelled"])
    async def test_content_that_is_not_as_promised_is_not_stored(self, storage: Storage, fault: str) -> None:
        data = bytes(range(256)) * 12_000
        content = {
            "flipped": Content(data[:-1] + b"x"),
            "short": Content(data[:-300_007]),
            "long": Content(data + b"x"),
            "fails": Content(data, fails_at=2_000_000),
            "cancelled": Content(data, hangs_at=2_000_000),
        }[fault]
        await storage.put("there", b"before")
        for key in ("there", "new/key"):
            put = asyncio.create_task(storage.put_stream(key, content, size=len(data), digest=Digest.of(data)))
            if fault == "cancelled":
                await content.hanging.wait()
                put.cancel()
            with pytest.raises((IntegrityError, ConnectionResetError, asyncio.CancelledError)) as caught:
                await put
            assert isinstance(caught.value, IntegrityError) == (fault in ("flipped", "short", "long"))
        assert content.opened == content.closed
        assert await self.raw_keys() == ["there"]
        assert await self.raw_get("there") == b"before"
        assert [upload async for upload in storage.list_multipart_uploads("")] == []
