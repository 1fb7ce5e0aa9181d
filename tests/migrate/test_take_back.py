"""A copy whose bytes are wrong does not stay at the target, and nothing that is right goes with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from regstore.digest import Digest
from regstore.errors import StorageError
from regstore.layout import BlobKey, TagCurrentKey, encode
from regstore.migrate import Verify
from regstore.migrate.take_back import take_back
from regstore.state import LOCKS
from regstore.state.journal import DAMAGED, find_runs, read_parts
from regstore.state.lock import hold_lock
from regstore.storage.base import ObjectInfo, Storage
from regstore.storage.disk import DiskStorage
from regstore.storage.s3 import S3Storage
from regstore.testing.faulty import FaultyStorage
from tests.migrate.stores import bucket_storage, contents, move
from tests.model.store import ModelStore
from tests.servers import images
from tests.servers.s3 import S3Server


@pytest.fixture
def other(moto: S3Server) -> Iterator[str]:
    bucket = moto.create_bucket("other")
    yield bucket
    moto.remove_bucket(bucket)


async def journaled(storage: Storage) -> list[tuple[str, str]]:
    return [
        (entry.op, entry.key)
        for record in await find_runs(storage)
        async for entries in read_parts(storage, record.parts)
        for entry in entries
    ]


async def prepare(source: Storage) -> tuple[str, bytes, str]:
    """A source of two images, with a damaged layer of one; its key, its right bytes, and the other image."""
    good, bad = images.image("good"), images.image("bad")
    keys = images.registry_keys("a", good, "good") | images.registry_keys("a", bad, "bad")
    await ModelStore.from_dict(keys).write_storage(source)
    layer = bad.blobs[1]
    key = images.blob_key(layer.digest)
    await source.put(key, layer.data[:-1] + bytes([layer.data[-1] ^ 1]))
    return key, layer.data, good.digest


@pytest.mark.parametrize("keeps", [True, False], ids=["checksums kept", "none kept"])
async def test_what_the_server_copied_from_a_damaged_source_goes(
    moto: S3Server, moto_bucket: str, other: str, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not keeps:

        async def stat_kept(storage: S3Storage, key: str) -> tuple[ObjectInfo, None]:
            return await storage.stat(key), None

        monkeypatch.setattr(S3Storage, "stat_kept", stat_kept)
    async with bucket_storage(moto, moto_bucket) as source, bucket_storage(moto, other) as target:
        key, right, good = await prepare(source)
        result = await move(source, target, verify=Verify.FULL)
        assert target.counters.requests["CopyObject"] > 3, "not copied by the server"
        found = await contents(target)
        assert key not in found
        assert found[encode(TagCurrentKey("a", "good"))] == good.encode()
        assert encode(TagCurrentKey("a", "bad")) not in found
        assert (result.partial, result.passes, [problem.subject for problem in result.failed]) == (
            True,
            1,
            [f"blob {Digest.of(right)}"],
        )
        assert await journaled(target) == [(DAMAGED, key)]
        assert not [key async for page in target.list(LOCKS) for key in page.keys]
        # The source is well again.
        await source.put(key, right)
        assert not (await move(source, target, verify=Verify.FULL)).partial
        assert await target.get(key) == right


async def test_right_bytes_that_somebody_put_there_meanwhile_stay(
    moto: S3Server, moto_bucket: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the lock is held, and just before the delete."""
    for number in (1, 2):
        async with bucket_storage(moto, moto_bucket, f"{number}") as source:
            async with bucket_storage(moto, other, f"{number}") as target:
                key, right, _ = await prepare(source)
                writes = 0

                async def put(
                    name: str,
                    data: bytes,
                    *,
                    _put: Callable[..., Awaitable[None]] = target.put,
                    _key: str = key,
                    _right: bytes = right,
                    _number: int = number,
                    **more: object,
                ) -> None:
                    nonlocal writes
                    await _put(name, data, **more)
                    if not writes and (
                        name.startswith(LOCKS) if _number == 1 else name.endswith("000001.jsonl.gz")
                    ):
                        writes += 1
                        await _put(_key, _right)

                monkeypatch.setattr(target, "put", put)
                await move(source, target, verify=Verify.FULL)
                assert writes
                assert await target.get(key) == right


async def test_a_bad_copy_that_can_not_be_taken_back_is_named(moto: S3Server, moto_bucket: str, other: str) -> None:
    """Another run is at work: nothing is deleted beside it."""
    async with bucket_storage(moto, moto_bucket) as source, bucket_storage(moto, other) as target:
        key, right, _ = await prepare(source)
        bad = await source.get(key)
        await target.put(key, bad)
        async with hold_lock(target, command="gc"):
            with pytest.raises(StorageError, match=r"could not be taken back.*`gc`"):
                await take_back(target, Digest.of(right), len(bad), source=source.url, own=set())
        assert await target.get(key) == bad


@pytest.mark.parametrize("replaced", [False, True])
async def test_on_a_disk_that_spoils_what_is_written(tmp_path: Path, replaced: bool) -> None:
    """What is there just before it is renamed decides."""
    right = b"layer 1"
    digest = Digest.of(right)
    key = encode(BlobKey(digest))
    async with DiskStorage(tmp_path, create=True) as disk:
        await disk.put(key, b"layer ?")

        async def before(operation: str, text: str) -> None:
            if replaced and operation == "move" and text == key:
                await disk.put(key, right)

        await take_back(FaultyStorage(disk, before=before), digest, len(right), source="x", own=set())
        assert (tmp_path / key).exists() is replaced
        if replaced:
            assert await disk.get(key) == right
        assert (DAMAGED, key) in await journaled(disk)
