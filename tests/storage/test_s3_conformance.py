"""The S3 backend on real servers: the conformance suite, and what only S3 has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from regstore.storage.base import Storage
from regstore.storage.s3 import RetryPolicy, S3Settings, S3Storage
from regstore.testing.any_keys import AnyKeys
from regstore.testing.conformance import StorageConformance
from tests.servers.memory_s3 import memory_s3
from tests.servers.s3 import S3Server

MiB = 1 << 20


def settings_for(server: S3Server, bucket: str, root: str = "", **more: Any) -> S3Settings:
    return server.settings(bucket, root, retries=RetryPolicy(base=0.01), **more)


class OnAServer(StorageConformance, AnyKeys):
    odd_keys: Sequence[str] = (
        "a//b",
        "a/",
        "/lead",
        "a/./b",
        "a/../b",
        "tab\t",
        "cr\rx",
        "\x01",
        "\x7f",
        "..",
        ".",
        "a\\xff",
        "+",
        "%2B",
    )
    large = 20 * MiB
    root = ""
    page_size: int | None = None

    @pytest.fixture
    def server(self) -> S3Server:
        raise NotImplementedError

    @pytest.fixture
    def bucket(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    async def storage(self, server: S3Server, bucket: str) -> AsyncIterator[Storage]:
        self.client = server.client()
        self.of_bucket = bucket
        more = {} if self.page_size is None else {"page_size": self.page_size}
        async with S3Storage(settings_for(server, bucket, self.root.rstrip("/"), **more)) as storage:
            yield storage

    @pytest.fixture
    async def missing(self, server: S3Server) -> AsyncIterator[Storage]:
        async with S3Storage(settings_for(server, "there-is-no-such-bucket")) as storage:
            yield storage

    async def raw_put(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(self.client.put_object, Bucket=self.of_bucket, Key=self.root + key, Body=data)

    async def raw_put_many(self, keys: Any) -> None:
        def put(names: list[str]) -> None:
            for key in names:
                self.client.put_object(Bucket=self.of_bucket, Key=self.root + key, Body=key.encode())

        names = list(keys)
        await asyncio.gather(*(asyncio.to_thread(put, names[at::8]) for at in range(8)))

    async def raw_get(self, key: str) -> bytes | None:
        def get() -> bytes | None:
            try:
                found = self.client.get_object(Bucket=self.of_bucket, Key=self.root + key)
            except self.client.exceptions.NoSuchKey:
                return None
            with found["Body"] as body:
                data: bytes = body.read()
            return data

        return await asyncio.to_thread(get)

    async def raw_keys(self) -> list[str]:
        def keys() -> list[str]:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.of_bucket)
            return [entry["Key"][len(self.root) :] for page in pages for entry in page.get("Contents", [])]

        return await asyncio.to_thread(keys)

    async def raw_multipart(self, key: str, size: int) -> str | None:
        def begin() -> str:
            name = {"Bucket": self.of_bucket, "Key": self.root + key}
            upload: str = self.client.create_multipart_upload(**name)["UploadId"]
            self.client.upload_part(**name, UploadId=upload, PartNumber=1, Body=b"x" * size)
            return upload

        return await asyncio.to_thread(begin)

    async def test_requests_and_bytes_are_counted(self, storage: Storage) -> None:
        await storage.put("k", b"12345")
        assert await storage.get("k") == b"12345"
        assert [page.keys async for page in storage.list("")] == [["k"]]
        assert storage.counters.requests == {"PutObject": 1, "GetObject": 1, "ListObjectsV2": 1}
        assert storage.counters.bytes_written == 5
        assert storage.counters.bytes_read > 5, "the listing's XML counts too"


class TestMoto(OnAServer):
    many = 210  # at 10 ms an object
    page_size = 100

    @pytest.fixture
    def server(self, moto: S3Server) -> S3Server:
        return moto

    @pytest.fixture
    def bucket(self, moto: S3Server, moto_bucket: str) -> str:
        # Without access control lists: moto fails on `?acl` of what was uploaded in parts.
        rules = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        moto.client().put_bucket_ownership_controls(Bucket=moto_bucket, OwnershipControls=rules)
        return moto_bucket


class TestMemory(OnAServer):
    """On the endpoint that benchmarks use, which has to be true as well, by each transport in turn."""

    many = 210
    page_size = 100

    @pytest.fixture
    def server(self, transport: str) -> Iterator[S3Server]:
        with memory_s3() as server:
            yield server

    @pytest.fixture
    def bucket(self, server: S3Server) -> str:
        return server.create_bucket()


class TestCeph(OnAServer):
    odd_keys = (*OnAServer.odd_keys, "nl\n")
    root = "some/root/"

    @pytest.fixture
    def server(self, ceph: S3Server) -> S3Server:
        return ceph

    @pytest.fixture
    def bucket(self, ceph_bucket: str) -> str:
        return ceph_bucket


async def test_small_pages_miss_nothing(s3_server: S3Server, s3_bucket: str) -> None:
    """Tokens and start-after survive keys that need encoding."""
    keys = sorted(["a", "a b", "a%20b", "a+b", "a//b", "a/", "é", "z\x7f", "日本", "😀", "~", "&<>\"'"])
    async with S3Storage(settings_for(s3_server, s3_bucket, "r", page_size=1)) as storage:
        for key in keys:
            await storage.put(key, key.encode())
        found = [key async for page in storage.list("") for key in page.keys]
        assert found == keys
        for number, key in enumerate(keys):
            after = [name async for page in storage.list("", start_after=key) for name in page.keys]
            assert after == keys[number + 1 :]
            assert await storage.get(key) == key.encode()
            assert (await storage.stat(key)).size == len(key.encode())
        for key in keys:
            await storage.copy(key, "copy/" + key)
            assert await storage.get("copy/" + key) == key.encode()


async def test_a_copy_is_stored_as_its_source(s3_server: S3Server, s3_bucket: str) -> None:
    client = s3_server.client()
    client.put_object(
        Bucket=s3_bucket, Key="a", Body=b"x", ContentType="text/x", Metadata={"who": "me"}, ACL="public-read"
    )
    async with S3Storage(settings_for(s3_server, s3_bucket)) as storage:
        await storage.move("a", "b", size=1)
    head = client.head_object(Bucket=s3_bucket, Key="b")
    assert (head["ContentType"], head["Metadata"]) == ("text/x", {"who": "me"})
    grants = client.get_object_acl(Bucket=s3_bucket, Key="b")["Grants"]
    assert {grant["Permission"] for grant in grants} == {"FULL_CONTROL", "READ"}
    assert list(s3_server.keys(s3_bucket)) == ["b"]


async def test_a_copy_in_parts(s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regstore.storage.s3.copying.MAX_COPY", 1)
    monkeypatch.setattr("regstore.storage.s3.multipart.COPY_PART", 5 * MiB)
    body = bytes(range(256)) * (11 * MiB // 256) + b"tail"
    client = s3_server.client()
    client.put_object(Bucket=s3_bucket, Key="a", Body=body, ContentType="text/x", Metadata={"who": "me"})
    async with S3Storage(settings_for(s3_server, s3_bucket)) as storage:
        await storage.copy("a", "b")
        assert storage.counters.requests["UploadPartCopy"] == 3
        assert [upload async for upload in storage.list_multipart_uploads("")] == []
    head = client.head_object(Bucket=s3_bucket, Key="b")
    assert (head["ContentType"], head["Metadata"]) == ("text/x", {"who": "me"})
    assert s3_server.read(s3_bucket, "b") == body


async def test_a_listing_costs_a_request_a_page(s3_server: S3Server, s3_bucket: str) -> None:
    async with S3Storage(settings_for(s3_server, s3_bucket, page_size=10)) as storage:
        for number in range(25):
            await storage.put(f"k{number:02}", b"")
        before = storage.counters.requests.get("ListObjectsV2", 0)
        assert sum([len(page) async for page in storage.list("")]) == 25
        assert storage.counters.requests["ListObjectsV2"] - before == 3


async def test_versions_are_seen(moto: S3Server, moto_bucket: str) -> None:
    moto.client().put_bucket_versioning(Bucket=moto_bucket, VersioningConfiguration={"Status": "Enabled"})
    async with S3Storage(settings_for(moto, moto_bucket)) as storage:
        assert (await storage.capabilities()).versioned is True


async def test_the_environment_is_enough(
    s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    async with S3Storage(S3Settings(bucket=s3_bucket)) as storage:
        await storage.put("a", b"x")
        async with storage.aioboto3_client() as client:
            assert (await client.head_object(Bucket=s3_bucket, Key="a"))["ContentLength"] == 1
