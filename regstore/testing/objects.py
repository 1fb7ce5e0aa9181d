"""One object, or several: read, put, deleted, copied, moved."""

from __future__ import annotations

import asyncio

import pytest

from regstore.errors import AlreadyExists, NoSuchBucket, NotFound, StorageError, Unsupported
from regstore.storage.base import Storage
from regstore.testing.store import StoreTests, keys, read, stream


class Objects(StoreTests):
    """Whole or not at all, and absent only where the store said so."""

    async def test_absent_is_not_found(self, storage: Storage) -> None:
        await self.raw_put("there/x", b"x")
        for key in (
            "nothing",
            "there",
            "there/",
            "there/x/y",
            "there/y",
            "nothing/x",
            "there/../there/x",
            "there//x",
        ):
            with pytest.raises(NotFound) as caught:
                await storage.get(key)
            assert caught.value.key == key
            with pytest.raises(NotFound):
                await storage.stat(key)
            with pytest.raises(NotFound):
                async with storage.open_read(key):
                    pass
            with pytest.raises(NotFound):
                await storage.copy(key, "target")
            with pytest.raises(NotFound):
                await storage.move(key, "target", size=1)
        assert await self.raw_keys() == ["there/x"]

    async def test_no_bucket_is_no_empty_store(self, missing: Storage) -> None:
        with pytest.raises(NoSuchBucket):
            await keys(missing)
        with pytest.raises(NoSuchBucket):
            await keys(missing, "some/prefix/")
        with pytest.raises(NoSuchBucket):
            await missing.get("key")
        with pytest.raises(NoSuchBucket):
            await missing.stat("key")
        with pytest.raises(NoSuchBucket):
            await missing.put("key", b"")
        with pytest.raises(NoSuchBucket):
            await missing.put_stream("key", stream(b"x"))
        with pytest.raises(NoSuchBucket):
            await missing.delete_many(["key"])

    # -- put

    async def test_put_replaces(self, storage: Storage) -> None:
        for body in (b"first", b"", b"third, and longer", bytes(range(256)) * 1000):
            await storage.put("a/key", body)
            assert await storage.get("a/key") == body
            assert await self.raw_get("a/key") == body
        assert await self.raw_keys() == ["a/key"]

    async def test_readers_see_one_whole_version(self, storage: Storage) -> None:
        versions = [bytes([number]) * (100_000 + number) for number in range(8)]
        await storage.put("k", versions[0])
        writing = True

        async def write() -> None:
            nonlocal writing
            for version in versions * 2:
                await storage.put("k", version)
            writing = False

        async def look() -> None:
            while writing:
                assert await storage.get("k") in versions

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            group.create_task(look())
            group.create_task(look())
        assert await self.raw_keys() == ["k"]

    async def test_a_conditional_put_never_replaces(self, storage: Storage) -> None:
        if (await storage.capabilities()).conditional_put:
            await storage.put("lock", b"mine", if_absent=True)
            with pytest.raises(AlreadyExists):
                await storage.put("lock", b"theirs", if_absent=True)
            assert await self.raw_get("lock") == b"mine"
            assert await self.raw_keys() == ["lock"]
        else:
            with pytest.raises(Unsupported):
                await storage.put("lock", b"mine", if_absent=True)
            assert await self.raw_keys() == []

    async def test_of_sixteen_conditional_puts_one_wins(self, storage: Storage) -> None:
        if not (await storage.capabilities()).conditional_put:
            pytest.skip("this store has no conditional put")
        for round_ in range(3):
            bodies = [f"writer {number}".encode() for number in range(16)]
            results = await asyncio.gather(
                *(storage.put(f"lock/{round_}", body, if_absent=True) for body in bodies), return_exceptions=True
            )
            winners = [body for body, result in zip(bodies, results, strict=True) if result is None]
            assert len(winners) == 1
            assert all(isinstance(result, AlreadyExists) for result in results if result is not None)
            assert await self.raw_get(f"lock/{round_}") == winners[0]

    async def test_ranges(self, storage: Storage) -> None:
        body = bytes(number % 251 for number in range(3_000_000))
        await self.raw_put("k", body)
        assert await read(storage, "k") == body
        for start, length in [(0, 10), (1, 1), (5, None), (1_000_000, 1_500_000), (len(body) - 1, None)]:
            expected = body[start:] if length is None else body[start : start + length]
            assert await read(storage, "k", start=start, length=length) == expected, (start, length)
        assert await read(storage, "k", start=len(body) - 5, length=100) == body[-5:]
        async with storage.open_read("k", start=7, length=5) as handle:
            assert handle.info.size == len(body), "the object's size, not the range's"
        await self.raw_put("empty", b"")
        assert await read(storage, "empty") == b""

    async def test_a_stream_is_read_in_bounded_chunks_and_may_be_left(self, storage: Storage) -> None:
        await self.raw_put("k", b"y" * (10 << 20))
        total = 0
        async with storage.open_read("k") as handle:
            async for chunk in handle:
                assert 0 < len(chunk) <= 8 << 20
                total += len(chunk)
        assert total == 10 << 20
        async with storage.open_read("k") as handle:
            async for _ in handle:
                break
        assert await storage.get("k") == b"y" * (10 << 20)

    async def test_delete_says_what_became_of_each_key(self, storage: Storage) -> None:
        for key in ("a/b", "a/c", "a-b/c", "a.b", "ab"):
            await self.raw_put(key, b"x")
        assert await storage.delete_many([]) == {}
        asked = ["a/b", "a", "a/", "nothing", "nothing/at/all", "a/b/c", "a.b", "a/b"]
        outcomes = await storage.delete_many(asked)
        assert outcomes == dict.fromkeys(asked)
        assert sorted(await self.raw_keys()) == ["a-b/c", "a/c", "ab"]
        assert await storage.delete_many(asked) == dict.fromkeys(asked), "again is no error"

    async def test_a_copy_is_independent(self, storage: Storage) -> None:
        await self.raw_put("source/x", b"content")
        await self.raw_put("target/replaced", b"something else")
        await storage.copy("source/x", "target/new/y")
        await storage.copy("source/x", "target/replaced", size=7)
        await storage.put("source/x", b"changed")
        assert await self.raw_get("target/new/y") == b"content"
        assert await self.raw_get("target/replaced") == b"content"
        assert await storage.delete_many(["target/new/y"]) == {"target/new/y": None}
        assert await self.raw_get("source/x") == b"changed"
        await self.raw_put("odd é+%20/x y", b"odd")
        await storage.copy("odd é+%20/x y", "copy/é+%20/x y")
        assert await self.raw_get("copy/é+%20/x y") == b"odd"

    async def test_a_move(self, storage: Storage) -> None:
        await self.raw_put("a/source", b"content")
        await self.raw_put("a/sourcelike", b"")
        await self.raw_put("old", b"replaced")
        await storage.move("a/source", "b/c/target", size=7)
        await storage.move("b/c/target", "old", size=7)
        assert sorted(await self.raw_keys()) == ["a/sourcelike", "old"]
        assert await self.raw_get("old") == b"content"
        await storage.move("a/sourcelike", "empty", size=0)
        assert await self.raw_get("empty") == b""

    async def test_a_source_of_another_size_is_not_moved(self, storage: Storage) -> None:
        await self.raw_put("a/source", b"content")
        with pytest.raises(StorageError):
            await storage.move("a/source", "b/target", size=8)
        assert await self.raw_get("a/source") == b"content"
