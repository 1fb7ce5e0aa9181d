"""The store as a whole: what it can do, its clock, unfinished uploads, folders, counters."""

from __future__ import annotations

import asyncio

from regstore.storage.base import MultipartUpload, Storage
from regstore.testing.store import SECOND, StoreTests, keys


class Whole(StoreTests):
    """What is asked of the store, not of a key."""

    async def test_capabilities_are_tried_once_and_leave_nothing(self, storage: Storage) -> None:
        await self.raw_put("regstore/kept", b"")
        first = await storage.capabilities()
        count = storage.counters.total
        assert await storage.capabilities() == first
        assert storage.counters.total == count
        assert await self.raw_keys() == ["regstore/kept"]

    async def test_the_clock_is_that_of_the_mtimes(self, storage: Storage) -> None:
        before = await storage.now()
        await storage.put("k", b"")
        after = await storage.now()
        mtime = (await storage.stat("k")).mtime
        # Servers give whole seconds, and the two ends of a second are rounded differently.
        assert before - 2 * SECOND <= mtime <= after + 2 * SECOND
        assert await self.raw_keys() == ["k"]

    async def test_multipart_uploads(self, storage: Storage) -> None:
        assert [upload async for upload in storage.list_multipart_uploads("")] == []
        upload_id = await self.raw_multipart("repo/_uploads/1/data", 5 << 20)
        await self.raw_multipart("repository/_uploads/2/data", 1 << 20)
        if upload_id is not None:
            (upload,) = [upload async for upload in storage.list_multipart_uploads("repo/")]
            assert (upload.key, upload.upload_id, upload.size) == ("repo/_uploads/1/data", upload_id, 5 << 20)
            assert abs(upload.newest - await storage.now()) < 60 * SECOND
            assert await keys(storage) == []
            await storage.abort_multipart_upload(upload)
            await storage.abort_multipart_upload(upload)
            left = [upload.key async for upload in storage.list_multipart_uploads("")]
            assert left == ["repository/_uploads/2/data"]
        else:
            await storage.abort_multipart_upload(MultipartUpload("k", "none", 0, 0))

    async def test_empty_folders(self, storage: Storage) -> None:
        await self.raw_put("a/b/c/x", b"")
        await self.raw_put("a/kept", b"")
        await storage.delete_many(["a/b/c/x"])
        later = await storage.now() + 10 * SECOND
        removed = await storage.remove_empty_folders("a/", older_than=later)
        assert removed == (2 if (await storage.capabilities()).folders else 0)
        assert await storage.remove_empty_folders("a/", older_than=later) == 0
        assert await storage.remove_empty_folders("nothing/here", older_than=later) == 0
        assert await self.raw_keys() == ["a/kept"]

    async def test_named_folders_go_up_to_the_first_that_holds_anything(self, storage: Storage) -> None:
        for key in ("a/b/c/x", "a/b/d/y", "a/e/z"):
            await self.raw_put(key, b"")
        await storage.delete_many(["a/b/c/x", "a/e/z"])
        there = (await storage.capabilities()).folders
        assert await storage.remove_folders(["a/none", "a/b/c", "a/b", "a/e"]) == (1 if there else 0)
        assert await storage.remove_folders(["a/b", "a/e"]) == 0
        await storage.delete_many(["a/b/d/y"])
        assert await storage.remove_folders(["a/b/d", "a/b", "a/e", "a"]) == (4 if there else 0)
        assert await self.raw_keys() == []

    async def test_many_tasks_at_once(self, storage: Storage) -> None:
        names = [f"t/{number}" for number in range(60)]
        await asyncio.gather(*(storage.put(name, name.encode()) for name in names))
        assert await asyncio.gather(*map(storage.get, names)) == [name.encode() for name in names]
        listings = await asyncio.gather(*(keys(storage, "t/") for _ in range(4)))
        assert listings == [sorted(names)] * 4

    async def test_requests_and_bytes_are_counted(self, storage: Storage) -> None:
        before = storage.counters.total
        await storage.put("k", b"12345")
        await storage.get("k")
        await keys(storage)
        assert storage.counters.total >= before + 3
        assert storage.counters.bytes_written >= 5
        assert storage.counters.bytes_read >= 5
        assert storage.counters.requests["list"] >= 1

    async def test_it_is_a_storage_and_closes_more_than_once(self, storage: Storage) -> None:
        assert isinstance(storage, Storage)
        assert storage.url
        async with storage as entered:
            assert entered is storage
            await storage.put("k", b"")
        await storage.close()
        await storage.close()
