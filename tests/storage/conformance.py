"""What every Storage must do, as tests: each clause of `regstore/storage/base.py`.

Subclass `StorageConformance` as a `Test…` class, give it a `storage` fixture and the back doors. The back doors look
at the store by other means than the code under test (the file system itself, another S3 client), so that a mistake
made both in writing and in reading shows.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.errors import AlreadyExists, IntegrityError, NoSuchBucket, NotFound, StorageError, Unsupported
from regstore.storage.base import MultipartUpload, ObjectInfo, Storage
from tests.storage.content import Content

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

_components = st.text(alphabet="ab-./0_é\ufb01\U0001f600~ %+", min_size=1, max_size=4)


def _is_plain(key: str) -> bool:
    return all(part not in ("", ".", "..") for part in key.split("/"))


def _without_folders(keys: set[str]) -> list[str]:
    """Without keys that a disk cannot hold beside the others: `a` next to `a/b`."""
    folders = {key[:at] for key in keys for at, character in enumerate(key) if character == "/"}
    return sorted(keys - folders)


_key_sets = (
    st.lists(st.lists(_components, min_size=1, max_size=3).map("/".join).filter(_is_plain), max_size=10)
    .map(set)
    .map(_without_folders)
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


def _of_the_backend() -> Storage:
    raise NotImplementedError("a fixture of the class for one backend")


class StorageConformance:
    #: Keys beyond the ordinary that this store can hold: `a//b`, `a/`, control characters.
    odd_keys: Sequence[str] = ()
    #: More keys than one page of a listing, or one batch of a delete, holds.
    many = 1_050
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

    # -- list

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

    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        # The store is emptied before each example, and one class a backend runs this; no examples are kept.
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    @example(names=["a-b/c", "a/c", "a.b", "a0"], cut="a/", after="a-b/c")
    @given(names=_key_sets, cut=st.text(alphabet="ab-/.", max_size=3), after=_components)
    async def test_any_keys_any_prefix_any_start(
        self, storage: Storage, names: list[str], cut: str, after: str
    ) -> None:
        await storage.delete_many(await self.raw_keys())
        await storage.remove_empty_folders("", older_than=await storage.now() + 60 * SECOND)
        await self.raw_put_many(names)
        expected = sorted(names, key=str.encode)
        assert await keys(storage) == expected
        assert await keys(storage, cut) == [key for key in expected if key.startswith(cut)]
        assert await keys(storage, cut, after) == [
            key for key in expected if key.startswith(cut) and key.encode() > after.encode()
        ]

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
            assert (info.size, info.etag) == (size, hashlib.md5(body).hexdigest())
            stat = await storage.stat(f"k/{size}")
            assert (stat.key, stat.size, stat.etag) == (info.key, info.size, info.etag)
            assert abs(stat.mtime - info.mtime) <= SECOND
            async with storage.open_read(f"k/{size}") as handle:
                assert (handle.info.key, handle.info.size) == (f"k/{size}", size)

    # -- absent

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

    # -- put_stream

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_a_stream_is_stored_and_checked(self, storage: Storage, algorithm: str) -> None:
        chunks = [b"", b"one", b"", b"two" * 50_000, b"3"]
        body = b"".join(chunks)
        digest = Digest.of(body, algorithm)
        assert await storage.put_stream("s/checked", stream(*chunks), size=len(body), digest=digest) == len(body)
        assert await storage.put_stream("s/unchecked", stream(*chunks)) == len(body)
        assert await storage.put_stream("s/no-size", stream(*chunks), digest=digest) == len(body)
        assert await storage.put_stream("s/empty", stream(), size=0, digest=Digest.of(b"")) == 0
        for key in ("s/checked", "s/unchecked", "s/no-size"):
            assert await self.raw_get(key) == body
        assert await self.raw_get("s/empty") == b""
        assert len(await self.raw_keys()) == 4

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

    # -- open_read

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

    # -- delete_many

    async def test_delete_says_what_became_of_each_key(self, storage: Storage) -> None:
        for key in ("a/b", "a/c", "a-b/c", "a.b", "ab"):
            await self.raw_put(key, b"x")
        assert await storage.delete_many([]) == {}
        asked = ["a/b", "a", "a/", "nothing", "nothing/at/all", "a/b/c", "a.b", "a/b"]
        outcomes = await storage.delete_many(asked)
        assert outcomes == dict.fromkeys(asked)
        assert sorted(await self.raw_keys()) == ["a-b/c", "a/c", "ab"]
        assert await storage.delete_many(asked) == dict.fromkeys(asked), "again is no error"

    # -- copy, move

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

    # -- the store itself

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
