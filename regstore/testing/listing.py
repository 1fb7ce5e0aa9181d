"""What a listing must hold."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from regstore.storage.base import Storage
from regstore.testing.store import NASTY, SECOND, StoreTests, keys, listed


class Listing(StoreTests):
    """Keys in byte order, each once, and the facts of each."""

    async def test_an_empty_store_lists_as_one_empty_complete_page(self, storage: Storage) -> None:
        for prefix in ("", "nothing/", "nothing/at/all", "/", "a//b", "../"):
            pages = [page async for page in storage.list(prefix)]
            assert [(page.keys, page.complete) for page in pages] == [([], True)], prefix

    async def test_keys_come_exactly_and_in_byte_order(self, storage: Storage) -> None:
        for key in NASTY:
            await self.raw_put(key, b"body of " + key.encode())
        found = await listed(storage)
        assert [info.key for info in found] == sorted(NASTY, key=str.encode)
        assert [info.size for info in found] == [len(b"body of " + info.key.encode()) for info in found]
        for key in NASTY:
            assert await storage.get(key) == b"body of " + key.encode()
            assert (await storage.stat(key)).size == len(b"body of " + key.encode())

    async def test_what_is_put_lies_under_its_very_key(self, storage: Storage) -> None:
        for key in NASTY:
            await storage.put(key, key.encode())
        assert sorted(await self.raw_keys()) == sorted(NASTY)
        for key in NASTY:
            assert await self.raw_get(key) == key.encode()
        assert set((await storage.delete_many(NASTY)).values()) == {None}
        assert await self.raw_keys() == []

    async def test_odd_keys_are_listed_as_they_are(self, storage: Storage) -> None:
        if not self.odd_keys:
            pytest.skip("this store holds no odd keys")
        for key in self.odd_keys:
            await self.raw_put(key, b"odd")
        assert await keys(storage) == sorted(self.odd_keys, key=str.encode)
        for key in self.odd_keys:
            assert (await storage.stat(key)).size == 3, key
            assert await storage.get(key) == b"odd", key
        outcomes = await storage.delete_many(self.odd_keys)
        assert outcomes == dict.fromkeys(self.odd_keys)
        assert await self.raw_keys() == []

    @pytest.mark.parametrize(
        "prefix", ["foo", "foo/", "foo/x", "foo-", "fo", "foo/x/", "foo/x-y/", "a b", "é", "b/", "Foo/x", "foo/xa"]
    )
    async def test_a_prefix_is_text_not_a_folder(self, storage: Storage, prefix: str) -> None:
        for key in NASTY:
            await self.raw_put(key, b"")
        assert await keys(storage, prefix) == sorted(
            (key for key in NASTY if key.startswith(prefix)), key=str.encode
        )

    async def test_start_after_is_exclusive_and_need_not_exist(self, storage: Storage) -> None:
        for key in NASTY:
            await self.raw_put(key, b"")
        inside = [
            "foo/",
            "foo/x-",
            "foo/x-y",
            "foo/x-y/",
            "foo-bar/",
            "foo-bar/zz",
            "fop",
            "\x01",
            "\U0010fffd",
            "b",
        ]
        for after in [*NASTY, *inside]:
            expected = [key for key in sorted(NASTY) if key > after]
            assert await keys(storage, start_after=after) == expected, after
            below = [key for key in expected if key.startswith("foo/")]
            assert await keys(storage, "foo/", start_after=after) == below, after

    async def test_a_long_listing_comes_in_pages(self, storage: Storage) -> None:
        names = [f"many/{number % 7}/{number:05}" for number in range(self.many)]
        await self.raw_put_many(names)
        pages = [page async for page in storage.list("")]
        assert len(pages) > 1
        assert [page.complete for page in pages] == [False] * (len(pages) - 1) + [True]
        assert [key for page in pages for key in page.keys] == sorted(names)
        middle = sorted(names)[self.many // 2]
        assert await keys(storage, "many/", middle) == sorted(names)[self.many // 2 + 1 :]
        # One that is left early holds nothing up, and neither does what it has not read yet.
        abandoned = storage.list("many/")
        assert isinstance(abandoned, AsyncGenerator)
        async with aclosing(abandoned):
            async for page in abandoned:
                assert len(page) < self.many
                break
        outcomes = await storage.delete_many(names)
        assert outcomes == dict.fromkeys(names)
        assert await self.raw_keys() == []

    async def test_keys_deleted_while_listing_do_not_hide_others(self, storage: Storage) -> None:
        names = [f"{number % 5}/{number:05}" for number in range(self.many)]
        await self.raw_put_many(names)
        seen: list[str] = []
        async for page in storage.list(""):
            seen += page.keys
            await storage.delete_many(page.keys[::2])
        assert sorted(seen) == sorted(set(seen)) == sorted(names)

    async def test_facts_of_a_small_object(self, storage: Storage) -> None:
        for size in (0, 1, 71, 256):
            body = b"x" * size
            await self.raw_put(f"k/{size}", body)
            (info,) = await listed(storage, f"k/{size}")
            assert info.size == size
            assert info.etag == hashlib.md5(body).hexdigest() or not self.md5_etags
            stat = await storage.stat(f"k/{size}")
            assert (stat.key, stat.size, stat.etag) == (info.key, info.size, info.etag)
            assert abs(stat.mtime - info.mtime) <= SECOND
            async with storage.open_read(f"k/{size}") as handle:
                assert (handle.info.key, handle.info.size) == (f"k/{size}", size)
