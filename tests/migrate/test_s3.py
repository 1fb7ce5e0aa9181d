"""Buckets: what the server copies, what it costs, and what faults on the way do."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from regstore.digest import Digest
from regstore.errors import AccessDenied, StorageError
from regstore.events import Event, Notice
from regstore.inventory.scan import ScanOptions
from regstore.layout import UPLOAD_RECORDS, BlobKey, LayerLinkKey, encode
from regstore.migrate import MigrateOptions, Verify, migrate
from regstore.storage.base import PutOptions
from regstore.storage.disk import DiskStorage
from regstore.storage.sizes import IN_FLIGHT
from tests.migrate.naive import incomplete_tags
from tests.migrate.stores import OURS, SCANNING, bucket_storage, contents, dangling, move
from tests.model.random_registry import DAY, NOW, example_registry
from tests.model.store import ModelStore
from tests.servers import images
from tests.servers.ceph import ceph_server
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server

MiB = 1024 * 1024


def three_images(*sizes: int) -> ModelStore:
    """Of a config and two layers each, one of so many bytes."""
    keys: dict[str, bytes] = {}
    for number, size in enumerate(sizes):
        layers = [images.layer(f"large {number}", size), images.layer(f"small {number}")]
        keys |= images.registry_keys("a", images.image(f"image {number}", layers), f"t{number}")
    return ModelStore.from_dict(keys, mtime=NOW - 30 * DAY)


@pytest.fixture(scope="module")
def large() -> ModelStore:
    return three_images(MiB, MiB, 17 * MiB)


@pytest.fixture(scope="module")
def small() -> ModelStore:
    return three_images(1000, 1000, 100_000)


@pytest.fixture
def other_bucket(s3_server: S3Server) -> Iterator[str]:
    bucket = s3_server.create_bucket()
    yield bucket
    s3_server.remove_bucket(bucket)


@pytest.fixture
def moto_other(moto: S3Server) -> Iterator[str]:
    bucket = moto.create_bucket()
    yield bucket
    moto.remove_bucket(bucket)


def without_ours(objects: dict[str, bytes]) -> dict[str, bytes]:
    return {key: body for key, body in objects.items() if not key.startswith(OURS)}


async def test_bucket_to_bucket_moves_no_blob_bytes_through_us(
    large: ModelStore, s3_server: S3Server, s3_bucket: str, other_bucket: str
) -> None:
    async with bucket_storage(s3_server, s3_bucket, "reg") as source:
        await large.write_storage(source)
    async with (
        bucket_storage(s3_server, s3_bucket, "reg") as source,
        bucket_storage(s3_server, other_bucket, "elsewhere") as target,
    ):
        result = await move(source, target)
        assert (result.blobs, result.partial) == (12, False)
        assert result.blob_bytes > 19 * MiB
        # Manifests are read for what they name; all else is listings, links and answers.
        moved = [store.counters.bytes_read + store.counters.bytes_written for store in (source, target)]
        assert max(moved) < 200_000
        assert target.counters.requests["CopyObject"] == 12
        assert target.counters.requests["HeadObject"] == 12, "each copy's size is checked"
        assert source.counters.requests["GetObject"] == 3, "the manifests"
    async with bucket_storage(s3_server, other_bucket, "elsewhere") as target:
        assert await contents(target) == large.bodies()


async def test_a_short_blob_is_not_left_to_the_server(
    large: ModelStore, s3_server: S3Server, s3_bucket: str, other_bucket: str
) -> None:
    """Shorter than its descriptor says: it goes through us, and is refused."""
    cut = images.layer("small 1")
    async with (
        bucket_storage(s3_server, s3_bucket) as source,
        bucket_storage(s3_server, other_bucket) as target,
    ):
        await large.write_storage(source)
        await source.put(images.blob_key(cut.digest), cut.data[:-1])
        result = await move(source, target)
        assert [problem.subject for problem in result.failed] == [f"blob {cut.digest}"]
        assert target.counters.requests["CopyObject"] == 11
        found = without_ours(await contents(target))
    assert images.blob_key(cut.digest) not in found
    assert not dangling(found)
    assert len([key for key in found if key.endswith("current/link")]) == 2


async def test_bytes_that_the_server_copied_are_read_back(
    large: ModelStore, s3_server: S3Server, s3_bucket: str, other_bucket: str
) -> None:
    """A flipped byte shows in no size: reading back finds it, and takes the copy away again."""
    bad = images.layer("small 1")
    async with (
        bucket_storage(s3_server, s3_bucket) as source,
        bucket_storage(s3_server, other_bucket) as target,
    ):
        await large.write_storage(source)
        await source.put(images.blob_key(bad.digest), bad.data[:-1] + b"?")
        for _ in range(2):
            result = await move(source, target, verify=Verify.FULL)
            assert [problem.subject for problem in result.failed] == [f"blob {bad.digest}"]
            assert images.blob_key(bad.digest) not in await contents(target)
        await source.put(images.blob_key(bad.digest), bad.data)
        result = await move(source, target)
        assert (result.partial, result.blobs, result.tags) == (False, 1, 1)


async def test_the_checksum_of_a_copy_is_looked_at(large: ModelStore, moto: S3Server, moto_bucket: str) -> None:
    """The server is asked for a checksum of what it copied. A flipped byte shows in it: the blob goes through us, and
    is refused."""
    bad = images.layer("small 1")
    other = moto.create_bucket()
    try:
        async with bucket_storage(moto, moto_bucket) as source, bucket_storage(moto, other) as target:
            await large.write_storage(source)
            await source.put(images.blob_key(bad.digest), bad.data[:-1] + b"?")
            result = await move(source, target)
            assert [problem.subject for problem in result.failed] == [f"blob {bad.digest}"]
            # One more keeps the bad copy aside.
            assert (target.counters.requests["CopyObject"], result.size_only) == (12 + 1, 0)
            found = without_ours(await contents(target))
            assert images.blob_key(bad.digest) not in found
            assert not dangling(found)
    finally:
        moto.remove_bucket(other)


async def test_a_server_that_keeps_no_checksum_of_a_copy(
    large: ModelStore, moto: S3Server, moto_bucket: str, moto_other: str
) -> None:
    """It refuses to be asked: the copies are made without, and it is told how many were compared by size alone."""
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(
            400,
            "InvalidArgument",
            operation="CopyObject",
            when=lambda request: "x-amz-checksum-algorithm" in request.headers,
            times=None,
        )
        server = moto.at(proxy.endpoint_url)
        async with bucket_storage(server, moto_bucket) as source, bucket_storage(server, moto_other) as target:
            await large.write_storage(source)
            result = await move(source, target)
            assert (result.blobs, result.partial, result.size_only) == (12, False, 12)
            assert without_ours(await contents(target)) == large.bodies()
        assert proxy.counts["CopyObject"] < 24


async def test_a_large_blob_is_copied_in_parts(
    large: ModelStore, s3_server: S3Server, s3_bucket: str, other_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regstore.storage.s3.between.COPIED_WHOLE", 16 * MiB)
    monkeypatch.setattr("regstore.storage.s3.multipart.COPY_PART", 5 * MiB)
    async with bucket_storage(s3_server, s3_bucket) as source, bucket_storage(s3_server, other_bucket) as target:
        await large.write_storage(source)
        result = await move(source, target)
        assert not result.partial
        assert result.size_only >= 1
        requests = target.counters.requests
        assert (requests["CopyObject"], requests["UploadPartCopy"], requests["CreateMultipartUpload"]) == (11, 4, 1)
        assert without_ours(await contents(target)) == large.bodies()


@pytest.mark.parametrize("in_parts", [False, True])
async def test_copies_that_bring_no_answer_pass_through(
    in_parts: bool,
    large: ModelStore,
    moto: S3Server,
    moto_bucket: str,
    moto_other: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("regstore.storage.s3.between.LONG_TIMEOUT", 0.05)
    monkeypatch.setattr("regstore.storage.s3.multipart.LONG_TIMEOUT", 0.05 if in_parts else 60)
    monkeypatch.setattr("regstore.storage.s3.between.COPIED_WHOLE", 0 if in_parts else 256 * MiB)
    monkeypatch.setattr("regstore.migrate.transfer.SINGLE_PUT", 0)
    notices: list[Event] = []
    with FaultProxy(moto.endpoint_url) as proxy:
        gate = proxy.hold(operation=["CopyObject", "UploadPartCopy"], times=None)
        server = moto.at(proxy.endpoint_url)
        async with bucket_storage(server, moto_bucket) as source, bucket_storage(server, moto_other) as target:
            await large.write_storage(source)
            result = await migrate(
                source, target, MigrateOptions(concurrency=2), scanning=SCANNING, on_event=notices.append
            )
            assert (result.blobs, result.partial) == (12, False)
            assert without_ours(await contents(target)) == large.bodies()
            assert [upload async for upload in target.list_multipart_uploads("")] == []
        assert proxy.counts["CopyObject"] + proxy.counts["UploadPartCopy"] <= 10
        gate.release()
    (notice,) = [event for event in notices if isinstance(event, Notice)]
    assert "no answer" in notice.message


@pytest.mark.parametrize(
    ("status", "code", "tried"),
    [(403, "AccessDenied", 3), (404, "NoSuchBucket", 1), (501, "NotImplemented", 1), (400, "InvalidRequest", 3)],
)
async def test_a_server_that_does_not_copy(
    small: ModelStore, moto: S3Server, moto_bucket: str, moto_other: str, status: int, code: str, tried: int
) -> None:
    """Such as for credentials that do not see, or may not read, the source: the blobs pass through, and it is told."""
    notices: list[Event] = []
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(status, code, operation="CopyObject", times=None)
        server = moto.at(proxy.endpoint_url)
        async with bucket_storage(server, moto_bucket) as source, bucket_storage(server, moto_other) as target:
            await small.write_storage(source)
            result = await migrate(
                source, target, MigrateOptions(concurrency=1), scanning=SCANNING, on_event=notices.append
            )
            assert (result.blobs, result.partial, result.size_only) == (12, False, 0)
            assert without_ours(await contents(target)) == small.bodies()
        # Of a bad request it may be the checksum that is not liked.
        assert proxy.counts["CopyObject"] == tried * (2 if status in (400, 501) else 1)
    (notice,) = [event for event in notices if isinstance(event, Notice)]
    assert f"from s3://{moto_bucket} to s3://{moto_other}" in notice.message


async def test_one_refused_copy_does_not_end_all_others(
    small: ModelStore, moto: S3Server, moto_bucket: str, moto_other: str
) -> None:
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(403, "AccessDenied", operation="CopyObject", after=3, times=2)
        server = moto.at(proxy.endpoint_url)
        async with bucket_storage(server, moto_bucket) as source, bucket_storage(server, moto_other) as target:
            await small.write_storage(source)
            result = await move(source, target)
            assert (result.blobs, result.partial) == (12, False)
        assert proxy.counts["CopyObject"] == 12


async def test_other_credentials_see_another_bucket_of_that_name(
    large: ModelStore, moto: S3Server, moto_bucket: str, moto_other: str
) -> None:
    """Where each tenant has its own buckets, "no such key" says nothing of the source."""
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(404, "NoSuchKey", operation="CopyObject", times=None)
        server = moto.at(proxy.endpoint_url)
        async with bucket_storage(server, moto_bucket) as source, bucket_storage(server, moto_other) as target:
            await large.write_storage(source)
            assert not (await move(source, target)).partial
            assert without_ours(await contents(target)) == large.bodies()


async def test_to_s3_and_again_costs_only_listings(
    tmp_path: Path, large: ModelStore, s3_server: S3Server, s3_bucket: str
) -> None:
    large.write_folder(tmp_path / "here")
    scanning = ScanOptions(cache_dir=tmp_path / "cache", concurrency=8)
    async with DiskStorage(tmp_path / "here") as source, bucket_storage(s3_server, s3_bucket) as target:
        options = MigrateOptions(concurrency=8)
        result = await migrate(source, target, options, scanning=scanning)
        assert (result.blobs, result.tags, result.partial) == (12, 3, False)
        assert without_ours(await contents(target)) == large.bodies()
        before, gets = dict(target.counters.requests), source.counters.requests["get"]
        again = await migrate(source, target, options, scanning=scanning)
        assert again.objects == 0
        spent = {
            name: count - before.get(name, 0)
            for name, count in target.counters.requests.items()
            if count != before.get(name, 0)
        }
        # Blobs, repositories, the record, who is at work, what gc journaled, our unfinished uploads; the registry's.
        assert spent == {"ListObjectsV2": 6, "ListMultipartUploads": 1}
        assert source.counters.requests["get"] == gets


async def test_how_objects_are_stored(
    tmp_path: Path, large: ModelStore, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written, in one request, in parts, by the server, and our own records too: a bucket may refuse all
    else."""
    monkeypatch.setattr("regstore.storage.s3.putting.STREAMED", range(0))
    monkeypatch.setattr("regstore.storage.s3.between.COPIED_WHOLE", 16 * MiB)
    large.write_folder(tmp_path)
    put = PutOptions(
        storage_class="STANDARD_IA", sse="aws:kms", sse_kms_key_id="key", acl="bucket-owner-full-control"
    )
    wanted = {
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "key",
        "x-amz-acl": "bucket-owner-full-control",
    }
    writes = ["PutObject", "CopyObject", "CreateMultipartUpload"]
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(
            403,
            "AccessDenied",
            operation=writes,
            when=lambda request: wanted.items() - request.headers.items(),
            times=None,
        )
        server = moto.at(proxy.endpoint_url)
        async with DiskStorage(tmp_path) as source, bucket_storage(server, moto_bucket) as target:
            assert not (await move(source, target, put=put)).partial
        async with (
            bucket_storage(server, moto_bucket) as source,
            bucket_storage(server, moto_bucket, "copy") as copy,
        ):
            assert not (await move(source, copy, put=put)).partial
            (path,) = [path for path in tmp_path.rglob("current/link") if "t1" in path.parts]
            await source.delete_many([path.relative_to(tmp_path).as_posix()])
            result = await move(source, copy, put=put, delete=True, max_delete=1.0)
            assert (result.deleted, result.partial) == (1, False), "with a lock and a journal"
        assert all(proxy.counts[operation] for operation in writes)
    client = moto.client()
    for prefix in ("", "copy/"):
        for key in large:
            if "/t1/" in key:
                continue
            head = client.head_object(Bucket=moto_bucket, Key=prefix + key)
            assert (head["StorageClass"], head["ServerSideEncryption"], head["ContentType"]) == (
                "STANDARD_IA",
                "aws:kms",
                "application/octet-stream",
            )


async def test_a_large_blob_with_a_flipped_byte(
    tmp_path: Path, large: ModelStore, s3_server: S3Server, s3_bucket: str
) -> None:
    large.write_folder(tmp_path)
    (path,) = [path for path in tmp_path.rglob("data") if path.stat().st_size > 16 * MiB]
    with path.open("r+b") as file:
        file.seek(16 * MiB)
        file.write(b"flipped")
    async with DiskStorage(tmp_path) as source, bucket_storage(s3_server, s3_bucket) as target:
        result = await move(source, target)
        assert (len(result.failed), result.blobs, result.tags) == (1, 11, 2)
        assert path.parent.name in result.failed[0].subject
        assert [upload async for upload in target.list_multipart_uploads("")] == []
        found = await contents(target)
    assert path.relative_to(tmp_path).as_posix() not in found
    assert not dangling(found)


async def test_faults_are_ridden_out(
    tmp_path: Path, large: ModelStore, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regstore.storage.s3.putting.STREAMED", range(0))  # all that is large goes in parts
    large.write_folder(tmp_path)
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(503, "SlowDown", operation="PutObject", times=5)
        proxy.reset(operation="UploadPart", times=1)
        proxy.reset(forwarded=True, operation="CompleteMultipartUpload", times=1)
        proxy.answer(500, operation="ListObjectsV2", times=1)
        async with (
            DiskStorage(tmp_path) as source,
            bucket_storage(moto.at(proxy.endpoint_url), moto_bucket) as target,
        ):
            result = await move(source, target)
    assert result.retries >= 7
    assert not result.partial
    async with bucket_storage(moto, moto_bucket) as target:
        assert await contents(target) == large.bodies()


FAULTS = ["reset", "truncate", "slow down", "internal error", "expired", "denied"]


@pytest.mark.parametrize(
    ("fault", "at"),
    [(fault, "target") for fault in FAULTS]
    + [
        pytest.param(fault, "source", marks=pytest.mark.slow if number % 2 else ())
        for number, fault in enumerate(FAULTS)
    ],
)
async def test_faults_on_the_wire(
    fault: str, at: str, large: ModelStore, ceph: S3Server, ceph_bucket: str, tmp_path: Path
) -> None:
    """The end or a clear stop, never a tag to something incomplete; the next run brings the rest."""
    folder = tmp_path / "there"
    async with bucket_storage(ceph, ceph_bucket) as direct:
        if at == "source":
            await large.write_storage(direct)
        else:
            large.write_folder(folder)
    with FaultProxy(ceph.endpoint_url) as proxy:
        match fault:
            case "reset":
                for operation in ("ListObjectsV2", "GetObject", "PutObject", "UploadPart"):
                    proxy.reset(operation=operation, after=2, times=2)
            case "truncate":
                proxy.truncate(40, operation="ListObjectsV2", times=1)
                proxy.truncate(1000, operation="GetObject", after=2, times=3)
                proxy.truncate(5, operation="PutObject", after=2, times=2)
            case "slow down":
                proxy.answer(503, "SlowDown", after=4, times=4)
            case "internal error":
                proxy.answer(500, operation="GetObject", after=3, times=3)
                proxy.answer(500, operation="PutObject", after=3, times=3)
            case "expired":
                proxy.answer(400, "ExpiredToken", after=12, times=None)
            case "denied":
                proxy.answer(403, "AccessDenied", after=12, times=None)
        async with bucket_storage(ceph.at(proxy.endpoint_url), ceph_bucket) as bucket:
            async with DiskStorage(folder, create=True) as disk:
                source, target = (bucket, disk) if at == "source" else (disk, bucket)
                try:
                    result = await move(source, target)
                except StorageError as error:
                    assert fault in ("expired", "denied"), error
                else:
                    assert result.partial == (fault in ("expired", "denied"))
    async with bucket_storage(ceph, ceph_bucket) as bucket, DiskStorage(folder) as disk:
        source, target = (bucket, disk) if at == "source" else (disk, bucket)
        left = without_ours(await contents(target))
        assert not dangling(left)
        assert not incomplete_tags(large, ModelStore.from_dict(left), now=NOW)
        again = await move(source, target)
        assert again.objects == len(large) - len(left)
        assert without_ours(await contents(target)) == large.bodies()


@pytest.mark.parametrize("after", [0, 1])
async def test_a_refused_listing_is_no_empty_store(
    tmp_path: Path, moto: S3Server, moto_bucket: str, after: int
) -> None:
    store = example_registry()
    async with bucket_storage(moto, moto_bucket) as source:
        await store.write_storage(source)
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(403, "AccessDenied", operation="ListObjectsV2", after=after, times=None)
        async with (
            bucket_storage(moto.at(proxy.endpoint_url), moto_bucket) as source,
            DiskStorage(tmp_path / "there", create=True) as target,
        ):
            with pytest.raises(AccessDenied):
                await move(source, target)
    assert not list((tmp_path / "there").rglob("data"))


@pytest.mark.parametrize(
    "point",
    ["/blobs/", "/tags/", *(pytest.param(one, marks=pytest.mark.slow) for one in ("/_layers/", "/revisions/"))],
)
async def test_kill_9_and_again(
    tmp_path: Path, moto: S3Server, moto_bucket: str, isolated_environment: Path, point: str
) -> None:
    """The program as a process, killed while a write of each phase is under way."""
    store = example_registry()
    store.write_folder(tmp_path)
    with FaultProxy(moto.endpoint_url) as proxy:
        gate = proxy.hold(operation="PutObject", key=point, after=3)
        command = [sys.executable, "-m", "regstore", "migrate", str(tmp_path), f"s3://{moto_bucket}", "-q"]
        command += ["--concurrency", "2"]
        environment = {**os.environ, **moto.at(proxy.endpoint_url).environment()}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            gate.wait_reached(60)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        gate.release()
    async with bucket_storage(moto, moto_bucket) as target:
        left = without_ours(await contents(target))
        assert not dangling(left)
        assert not incomplete_tags(store, ModelStore.from_dict(left), now=NOW)
        async with DiskStorage(tmp_path) as source:
            result = await move(source, target)
        assert not result.conflicts
        # The write that was held may have reached the server after the process had gone.
        assert result.objects in (93 - len(left), 92 - len(left))
        assert len(without_ours(await contents(target))) == 93


async def test_the_parts_of_a_killed_upload_are_used_again(
    tmp_path: Path, moto: S3Server, moto_bucket: str, isolated_environment: Path
) -> None:
    """17 parts of 8 MiB: killed in the seventh, the next run sends those that are not stored."""
    content = os.urandom(136 * MiB)
    part = images.Blob(content, images.OCI_LAYER, images.sha256(content))
    image = images.image("large", [part])
    images.write_keys(tmp_path, images.registry_keys("a", image, "1"))
    target_url = f"s3://{moto_bucket}/reg"
    with FaultProxy(moto.endpoint_url) as proxy:
        gate = proxy.hold(operation="UploadPart", after=6, times=None)
        command = [sys.executable, "-m", "regstore", "migrate", str(tmp_path), target_url, "-q"]
        environment = {**os.environ, **moto.at(proxy.endpoint_url).environment()}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            # All that are under way are held: the server stores none of them while it is looked at.
            gate.wait_reached(180, requests=IN_FLIGHT)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    async with bucket_storage(moto, moto_bucket, "reg") as target, DiskStorage(tmp_path) as source:
        (left,) = [upload async for upload in target.list_multipart_uploads("")]
        stored = left.size // (8 * MiB)
        assert stored >= 3
        result = await move(source, target)
        assert not result.partial
        # A server under load may end a connection: that part is sent again.
        assert 0 <= target.counters.requests["UploadPart"] - (17 - stored) <= target.counters.retries
        assert target.counters.requests.get("CreateMultipartUpload", 0) == 0
        assert [upload async for upload in target.list_multipart_uploads("")] == []
        found = await contents(target)
        assert not dangling(found)
        assert found[images.blob_key(part.digest)] == content
        assert not [key async for page in target.list(UPLOAD_RECORDS) for key in page.keys]


async def test_an_upload_of_somebody_else_is_left_alone(tmp_path: Path, moto: S3Server, moto_bucket: str) -> None:
    """A registry moves blobs by multipart copies: what is not written down as ours is not ours."""
    content = os.urandom(129 * MiB)
    part = images.Blob(content, images.OCI_LAYER, images.sha256(content))
    images.write_keys(tmp_path, images.registry_keys("a", images.image("large", [part]), "1"))
    client = moto.client()
    theirs = client.create_multipart_upload(Bucket=moto_bucket, Key=images.blob_key(part.digest))["UploadId"]
    async with bucket_storage(moto, moto_bucket) as target, DiskStorage(tmp_path) as source:
        assert not (await move(source, target)).partial
        (left,) = [upload async for upload in target.list_multipart_uploads("")]
        assert left.upload_id == theirs


@pytest.mark.slow
@pytest.mark.servers
def test_six_gibibytes(tmp_path: Path) -> None:
    """A sparse blob of 6 GiB: disk to S3, S3 to S3 (more than CopyObject takes), in bounded memory."""
    size = 6 * 1024 * MiB
    zeros = hash_of_zeros(size)
    layer = {"mediaType": images.OCI_LAYER, "digest": str(zeros), "size": size}
    config = images.config("large", [])
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": [layer],
    }
    image = images.Document(json.dumps(document).encode(), images.OCI_MANIFEST, (config,))
    images.write_keys(tmp_path, images.registry_keys("a", image, "1"))
    images.write_keys(tmp_path, {encode(LayerLinkKey("a", zeros)): str(zeros).encode()})
    path = tmp_path / encode(BlobKey(zeros))
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(size)
    room = "[osd.0]\nbluestore_block_size = 34359738368"
    with ceph_server(store="bluestore", extra_conf=room) as server:
        bucket = server.create_bucket()
        environment = {**os.environ, **server.environment()}
        places = [str(tmp_path), f"s3://{bucket}/one", f"s3://{bucket}/two"]
        for source, target in pairwise(places):
            code = (
                "import resource, subprocess, sys;"
                f"done = subprocess.run([sys.executable, '-m', 'regstore', 'migrate', {source!r}, {target!r}, '-q']);"
                "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, done.returncode)"
            )
            result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
            peak, exit_code = map(int, result.stdout.rpartition("peak ")[2].split())
            print(result.stdout)
            assert exit_code == 0, result.stderr
            assert peak < 300 * 1024, f"{peak:,} KiB for {source} to {target}"
            assert size in server.keys(bucket, target.rpartition("/")[2] + "/").values()


def hash_of_zeros(size: int) -> Digest:
    piece, found = bytes(16 * MiB), hashlib.sha256()
    for _ in range(size // len(piece)):
        found.update(piece)
    return Digest("sha256", found.hexdigest())
