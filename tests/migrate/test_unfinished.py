"""Uploads that are cut short: what is stored of them is used again, or goes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from regstore.layout import UPLOAD_RECORDS
from regstore.state.holder import Holder
from regstore.storage.base import PutOptions, Storage
from regstore.storage.disk import DiskStorage
from regstore.storage.s3 import RetryPolicy, S3Storage
from tests.migrate.stores import bucket_storage, contents, dangling, move
from tests.servers import images
from tests.servers.fault_proxy import FaultProxy, Gate
from tests.servers.s3 import S3Server

MiB = 1024 * 1024
PART = 5 * MiB
PARTS = 4


@pytest.fixture(scope="module")
def large() -> images.Blob:
    """Of four parts, the last one shorter."""
    content = os.urandom(MiB) * 17
    return images.Blob(content, images.OCI_LAYER, images.sha256(content))


@pytest.fixture
def here(tmp_path: Path, large: images.Blob) -> Path:
    images.write_keys(tmp_path, images.registry_keys("a", images.image("large", [large]), "1"))
    return tmp_path


@pytest.fixture(autouse=True)
def one_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regstore.storage.s3.multipart.PART", PART)
    monkeypatch.setattr("regstore.storage.s3.multipart.COPY_PART", PART)
    monkeypatch.setattr("regstore.storage.s3.multipart.IN_FLIGHT", 1)


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regstore.storage.s3.putting.STREAMED", range(0))


@pytest.fixture
def proxy(moto: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(moto.endpoint_url) as proxy:
        yield proxy


async def cut_short(source: Storage, target: Storage, gate: Gate) -> None:
    """Cancelled, as by SIGTERM, once a request waits at the gate."""
    task = asyncio.create_task(move(source, target))
    await asyncio.to_thread(gate.wait_reached, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def records(target: Storage) -> dict[str, dict[str, Any]]:
    keys = [key async for page in target.list(UPLOAD_RECORDS) for key in page.keys]
    return {key: json.loads(await target.get(key)) for key in keys}


async def stored_parts(target: Storage) -> int:
    """Of the one upload that is unfinished."""
    (left,) = [upload async for upload in target.list_multipart_uploads("")]
    return left.size // PART


async def assert_done(target: Storage, large: images.Blob) -> None:
    assert [upload async for upload in target.list_multipart_uploads("")] == []
    assert not await records(target)
    found = await contents(target)
    assert not dangling(found)
    assert found[images.blob_key(large.digest)] == large.data


@pytest.mark.usefixtures("in_parts")
async def test_a_cancelled_upload_goes_on_in_the_next_run(
    here: Path, large: images.Blob, moto: S3Server, moto_bucket: str, proxy: FaultProxy
) -> None:
    gate = proxy.hold(operation="UploadPart", after=2, times=None)
    async with DiskStorage(here) as source:
        async with bucket_storage(moto.at(proxy.endpoint_url), moto_bucket) as target:
            await cut_short(source, target, gate)
        async with bucket_storage(moto, moto_bucket) as target:
            assert [record["free"] for record in (await records(target)).values()] == [True]
            stored = await stored_parts(target)
            assert stored == 2
            assert not (await move(source, target)).partial
            assert target.counters.requests["UploadPart"] == PARTS - stored
            assert "CreateMultipartUpload" not in target.counters.requests
            await assert_done(target, large)


@pytest.mark.usefixtures("in_parts")
async def test_an_outage_does_not_throw_parts_away(
    here: Path, large: images.Blob, moto: S3Server, moto_bucket: str, proxy: FaultProxy
) -> None:
    proxy.answer(503, "SlowDown", operation="UploadPart", after=2, times=None)
    few = RetryPolicy(tries=2, base=0)
    async with DiskStorage(here) as source:
        async with bucket_storage(moto.at(proxy.endpoint_url), moto_bucket, retries=few) as target:
            result = await move(source, target)
            assert [problem.subject for problem in result.failed] == [f"blob {large.digest}"]
            stored = await stored_parts(target)
            assert stored == 2
            proxy.clear()
            assert not (await move(source, target)).partial
            assert proxy.counts["UploadPart"] == PARTS - stored
            assert "AbortMultipartUpload" not in target.counters.requests
            await assert_done(target, large)


@pytest.mark.usefixtures("in_parts")
async def test_wrong_bytes_leave_nothing(here: Path, large: images.Blob, moto: S3Server, moto_bucket: str) -> None:
    path = here / images.blob_key(large.digest)
    with path.open("r+b") as file:
        file.seek(17 * MiB - 7)
        file.write(b"flipped")
    async with DiskStorage(here) as source, bucket_storage(moto, moto_bucket) as target:
        assert (await move(source, target)).partial
        assert target.counters.requests["AbortMultipartUpload"] == 1
        assert [upload async for upload in target.list_multipart_uploads("")] == []
        assert not await records(target)


async def test_parts_after_all_are_written_down_too(
    here: Path, large: images.Blob, moto: S3Server, moto_bucket: str, proxy: FaultProxy
) -> None:
    """What a proxy does not let through in one request."""
    proxy.answer(
        413,
        "EntityTooLarge",
        operation="PutObject",
        when=lambda request: int(request.headers.get("content-length", "0")) > 16 * MiB,
        times=None,
    )
    gate = proxy.hold(operation="UploadPart", after=2, times=None)
    async with DiskStorage(here) as source:
        async with bucket_storage(moto.at(proxy.endpoint_url), moto_bucket) as target:
            await cut_short(source, target, gate)
        async with bucket_storage(moto, moto_bucket) as target:
            stored = await stored_parts(target)
            assert stored == 2
            assert not (await move(source, target)).partial
            assert target.counters.requests["UploadPart"] == PARTS - stored
            await assert_done(target, large)


async def test_a_copy_in_parts_goes_on(
    here: Path,
    large: images.Blob,
    moto: S3Server,
    moto_bucket: str,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("regstore.storage.s3.between.COPIED_WHOLE", 16 * MiB)
    gate = proxy.hold(operation="UploadPartCopy", after=2, times=None)
    async with DiskStorage(here) as disk, bucket_storage(moto, moto_bucket, "one") as source:
        await move(disk, source)
    server = moto.at(proxy.endpoint_url)
    async with bucket_storage(server, moto_bucket, "one") as source:
        async with bucket_storage(server, moto_bucket, "two") as target:
            await cut_short(source, target, gate)
    async with (
        bucket_storage(moto, moto_bucket, "one") as source,
        bucket_storage(moto, moto_bucket, "two") as target,
    ):
        stored = await stored_parts(target)
        assert stored == 2
        assert not (await move(source, target)).partial
        assert target.counters.requests["UploadPartCopy"] == PARTS - stored
        assert "CreateMultipartUpload" not in target.counters.requests
        await assert_done(target, large)


class Left:
    """An upload of the blob with its first part, as a run wrote it down."""

    def __init__(self, moto: S3Server, bucket: str, large: images.Blob) -> None:
        self.key = images.blob_key(large.digest)
        client = moto.client()
        self.upload_id = client.create_multipart_upload(Bucket=bucket, Key=self.key)["UploadId"]
        client.upload_part(
            Bucket=bucket, Key=self.key, UploadId=self.upload_id, PartNumber=1, Body=large.data[:PART]
        )

    async def write_down(self, target: S3Storage, *, process: str, **more: Any) -> None:
        holder = replace(Holder.this("migrate", "migrate", 0), process=process)
        record = {
            "key": self.key,
            "upload_id": self.upload_id,
            "options": asdict(PutOptions()),
            "holder": asdict(holder),
        }
        await target.put(f"{UPLOAD_RECORDS}x.json", json.dumps(record | more).encode())


ELSEWHERE = "boot/pid:[1]/7/1"


@pytest.mark.usefixtures("in_parts")
async def test_the_parts_of_a_run_in_another_container_are_used_at_once(
    here: Path, large: images.Blob, moto: S3Server, moto_bucket: str
) -> None:
    """Nothing tells whether it still runs; if it does, it sends the same bytes."""
    left = Left(moto, moto_bucket, large)
    async with DiskStorage(here) as source, bucket_storage(moto, moto_bucket) as target:
        await left.write_down(target, process=ELSEWHERE)
        assert not (await move(source, target)).partial
        assert target.counters.requests["UploadPart"] == PARTS - 1
        assert "CreateMultipartUpload" not in target.counters.requests
        await assert_done(target, large)


@pytest.mark.usefixtures("in_parts")
async def test_an_upload_that_somebody_ends_is_begun_again(
    here: Path, large: images.Blob, moto: S3Server, moto_bucket: str, proxy: FaultProxy
) -> None:
    left = Left(moto, moto_bucket, large)
    proxy.answer(404, "NoSuchUpload", operation="UploadPart", after=1, times=1)
    async with DiskStorage(here) as source, bucket_storage(moto.at(proxy.endpoint_url), moto_bucket) as target:
        await left.write_down(target, process=ELSEWHERE)
        assert not (await move(source, target)).partial
        assert target.counters.requests["CreateMultipartUpload"] == 1
        assert not await records(target)
        assert (await contents(target))[left.key] == large.data


@pytest.mark.parametrize(
    ("more", "goes"),
    [({"process": ELSEWHERE}, False), ({"process": ELSEWHERE, "free": True}, True), ({"process": "dead"}, True)],
)
async def test_an_upload_that_nobody_wants_goes_once_nobody_is_at_it(
    here: Path, large: images.Blob, moto: S3Server, moto_bucket: str, more: dict[str, Any], goes: bool
) -> None:
    """Also in a pass that has nothing to do."""
    mine = Holder.this("migrate", "migrate", 0).process
    more = {name: mine.rpartition("/")[0] + "/0" if value == "dead" else value for name, value in more.items()}
    async with DiskStorage(here) as source, bucket_storage(moto, moto_bucket) as target:
        await move(source, target)
        left = Left(moto, moto_bucket, large)
        await left.write_down(target, **more)
        assert (await move(source, target)).objects == 0
        ids = [upload.upload_id async for upload in target.list_multipart_uploads("")]
        assert (ids, len(await records(target))) == (([], 0) if goes else ([left.upload_id], 1))


@pytest.mark.usefixtures("in_parts")
async def test_an_upload_stored_otherwise_is_of_no_use(
    here: Path, large: images.Blob, moto: S3Server, moto_bucket: str
) -> None:
    left = Left(moto, moto_bucket, large)
    async with DiskStorage(here) as source, bucket_storage(moto, moto_bucket) as target:
        await left.write_down(target, process=ELSEWHERE, free=True)
        assert not (await move(source, target, put=PutOptions(sse="AES256"))).partial
        assert target.counters.requests["UploadPart"] == PARTS
        await assert_done(target, large)


async def test_a_record_that_says_nothing_is_left(here: Path, moto: S3Server, moto_bucket: str) -> None:
    async with DiskStorage(here) as source, bucket_storage(moto, moto_bucket) as target:
        await target.put(f"{UPLOAD_RECORDS}x.json", b"{}")
        assert not (await move(source, target)).partial
        assert await records(target) == {f"{UPLOAD_RECORDS}x.json": {}}


@pytest.mark.usefixtures("in_parts")
async def test_parts_that_are_not_put_together_go(
    here: Path, large: images.Blob, moto: S3Server, moto_bucket: str, proxy: FaultProxy
) -> None:
    proxy.answer(400, "InvalidPart", operation="CompleteMultipartUpload")
    async with DiskStorage(here) as source, bucket_storage(moto.at(proxy.endpoint_url), moto_bucket) as target:
        assert (await move(source, target)).partial
        assert [upload async for upload in target.list_multipart_uploads("")] == []
        assert not (await move(source, target)).partial
        await assert_done(target, large)
