"""The benchmarks' S3 endpoint and generated registries: what is measured against them must be true."""

from __future__ import annotations

import hashlib
import http.client
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.generate import Shape, generate, write_tree
from benchmarks.measure import Endpoint
from benchmarks.s3_memory import ChunkDecoder
from benchmarks.s3_objects import CHUNK, Bucket, Object
from tests.model import gc_oracle
from tests.model.store import ModelStore
from tests.servers import images
from tests.servers.api import pull_complete, push_api
from tests.servers.distribution import Registry
from tests.servers.s3 import S3Root, S3Server

MIB = 1 << 20


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as running:
        yield running


@pytest.fixture
def server(endpoint: Endpoint) -> S3Server:
    return S3Server(endpoint.url, "any", "thing", name="memory")


@pytest.fixture
def bucket(server: S3Server) -> str:
    return server.create_bucket()


@pytest.fixture
def client(server: S3Server) -> Any:
    return server.client()


# -- objects


def test_objects_go_in_and_come_out(client: Any, bucket: str) -> None:
    key = "a b/ä+%/c&<d>"
    body = random.Random(1).randbytes(3 * MIB)
    etag = f'"{hashlib.md5(body).hexdigest()}"'
    assert client.put_object(Bucket=bucket, Key=key, Body=body, Metadata={"mtime": "1"})["ETag"] == etag
    answer = client.get_object(Bucket=bucket, Key=key)
    assert (answer["Body"].read(), answer["ETag"], answer["Metadata"]) == (body, etag, {"mtime": "1"})
    ranged = client.get_object(Bucket=bucket, Key=key, Range="bytes=10-2000009")
    assert ranged["Body"].read() == body[10:2_000_010]
    assert ranged["ContentRange"] == f"bytes 10-2000009/{len(body)}"
    assert client.get_object(Bucket=bucket, Key=key, Range="bytes=-7")["Body"].read() == body[-7:]
    assert client.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(body)
    client.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
    assert client.get_object(Bucket=bucket, Key="copy")["Body"].read() == body
    client.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(ClientError, match="NoSuchKey"):
        client.get_object(Bucket=bucket, Key=key)
    with pytest.raises(ClientError, match="404"):
        client.head_object(Bucket=bucket, Key=key)
    with pytest.raises(ClientError, match="NoSuchBucket"):
        client.list_objects_v2(Bucket="no-such-bucket")


def test_conditions_and_checksums(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    with pytest.raises(ClientError, match="BadDigest"):
        client.put_object(Bucket=bucket, Key="k", Body=b"2", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA==")
    # With this the SDK sends aws-chunked bodies with a trailer.
    client.put_object(Bucket=bucket, Key="k", Body=b"3" * 100_000, ChecksumAlgorithm="SHA256")
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"3" * 100_000


def test_many_are_deleted_at_once(client: Any, bucket: str, server: S3Server) -> None:
    for number in range(5):
        server.write(bucket, f"k{number}", b"x")
    answer = client.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": key} for key in ("k1", "k3", "not there")]}
    )
    assert {entry["Key"] for entry in answer["Deleted"]} == {"k1", "k3", "not there"}
    assert set(server.keys(bucket)) == {"k0", "k2", "k4"}


def test_multipart_uploads(client: Any, bucket: str) -> None:
    parts = [random.Random(n).randbytes(size) for n, size in enumerate((5 * MIB, 5 * MIB, 17))]
    names = {"Bucket": bucket, "Key": "big"}
    upload = client.create_multipart_upload(**names)["UploadId"]
    client.create_multipart_upload(Bucket=bucket, Key="other")
    assert [entry["Key"] for entry in client.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["big", "other"]
    client.put_object(Bucket=bucket, Key="source", Body=b"--" + parts[1] + b"--")
    etags = [
        client.upload_part(**names, UploadId=upload, PartNumber=1, Body=parts[0])["ETag"],
        client.upload_part_copy(
            **names,
            UploadId=upload,
            PartNumber=2,
            CopySource=f"{bucket}/source",
            CopySourceRange=f"bytes=2-{2 + 5 * MIB - 1}",
        )["CopyPartResult"]["ETag"],
        client.upload_part(**names, UploadId=upload, PartNumber=3, Body=parts[2])["ETag"],
    ]
    listed = client.list_parts(**names, UploadId=upload)["Parts"]
    assert [(part["PartNumber"], part["Size"], part["ETag"]) for part in listed] == [
        (number + 1, len(parts[number]), etags[number]) for number in range(3)
    ]
    chosen = [{"PartNumber": number + 1, "ETag": etag} for number, etag in enumerate(etags)]
    with pytest.raises(ClientError, match="InvalidPart"):
        client.complete_multipart_upload(
            **names, UploadId=upload, MultipartUpload={"Parts": [{**chosen[0], "ETag": '"wrong"'}]}
        )
    done = client.complete_multipart_upload(**names, UploadId=upload, MultipartUpload={"Parts": chosen})
    assert done["ETag"].endswith('-3"')
    assert client.get_object(**names)["Body"].read() == b"".join(parts)
    other = client.list_multipart_uploads(Bucket=bucket)["Uploads"][0]
    client.abort_multipart_upload(Bucket=bucket, Key="other", UploadId=other["UploadId"])
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


# -- listing


def test_the_sdk_lists_what_was_put(client: Any, bucket: str) -> None:
    keys = sorted(["a/1", "a/2", "a//3", "b", "c/", "c/\x01", "d/ä&<", "d/%41+ "])
    for key in keys:
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())

    def list_all(operation: str, **options: Any) -> tuple[list[str], list[str]]:
        pages = list(client.get_paginator(operation).paginate(Bucket=bucket, **options))
        return (
            [entry["Key"] for page in pages for entry in page.get("Contents", [])],
            [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])],
        )

    for operation in ("list_objects_v2", "list_objects"):
        assert list_all(operation, PaginationConfig={"PageSize": 3}) == (keys, [])
        assert list_all(operation, Delimiter="/", PaginationConfig={"PageSize": 1}) == (["b"], ["a/", "c/", "d/"])
        assert list_all(operation, Prefix="a/", Delimiter="/") == (["a/1", "a/2"], ["a//"])
    assert list_all("list_objects_v2", StartAfter="b")[0] == keys[keys.index("b") + 1 :]


_TEXT = st.text(alphabet="a/b\U0001f600~", max_size=4)


@given(
    keys=st.lists(_TEXT.filter(bool), max_size=30),
    removed=st.lists(_TEXT, max_size=5, unique=True),
    prefix=_TEXT,
    delimiter=st.sampled_from(["", "/"]),
    limit=st.integers(1, 5),
    loaded=st.booleans(),
)
def test_paging_is_as_a_naive_listing(
    keys: list[str], removed: list[str], prefix: str, delimiter: str, limit: int, loaded: bool
) -> None:
    bucket = Bucket()
    if loaded:
        bucket.load((key, Object(b"", 0, "e", 0)) for key in keys)
    else:
        for key in keys:
            bucket.put(key, Object(b"", 0, "e", 0))
    for key in removed:
        assert bucket.delete(key) == (key in keys)
    expected = set()
    for key in set(keys) - set(removed):
        if key.startswith(prefix):
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            expected.add((key[: cut + 1], "prefix") if cut >= 0 else (key, "key"))
    found: list[tuple[str, str]] = []
    after, truncated = "", True
    while truncated:
        page = bucket.page(prefix, after, delimiter, limit, False)
        assert len(page.entries) == limit or not page.truncated
        for entry in page.entries:
            text = entry.decode()
            kind = "key" if text.startswith("<Contents>") else "prefix"
            found.append((text.split("<Key>" if kind == "key" else "<Prefix>")[1].split("</")[0], kind))
        after, truncated = page.last, page.truncated
    assert len(found) == len(expected)
    assert set(found) == expected
    if not delimiter:
        assert found == sorted(expected)


def test_chunks_split_and_go() -> None:
    names = [f"{number:06}" for number in range(3 * CHUNK)]
    random.Random(1).shuffle(names)
    bucket = Bucket()
    for name in names:
        bucket.put(name, Object(b"", 0, "e", 0))
    page = bucket.page("", "000999", "", 1_000, False)
    assert (len(page.entries), page.last, page.truncated) == (1_000, "001999", True)
    for name in names[:-1]:
        assert bucket.delete(name)
    assert bucket.page("", "", "", 10, False).last == names[-1]


# -- HTTP


def _exchange(endpoint: Endpoint, sent: list[bytes], answers: int) -> list[tuple[int, bytes]]:
    host, _, port = endpoint.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for piece in sent:
            connection.sendall(piece)
        found: list[tuple[int, bytes]] = []
        with connection.makefile("rb") as stream:
            while len(found) < answers:
                status = int(stream.readline().split()[1])
                headers = http.client.parse_headers(stream)
                if status != 100:
                    found.append((status, stream.read(int(headers["Content-Length"] or 0))))
        return found


def test_pipelined_and_split_requests(endpoint: Endpoint, server: S3Server, bucket: str) -> None:
    server.write(bucket, "k", b"body")
    get = f"GET /{bucket}/k HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    put = f"PUT /{bucket}/p HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".encode()
    missing = f"GET /{bucket}/none HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    together = get + put + missing + get
    for sent in ([together], [together[at : at + 1] for at in range(len(together))]):
        answers = _exchange(endpoint, sent, 4)
        assert [status for status, _ in answers] == [200, 200, 404, 200]
        assert answers[0][1] == answers[3][1] == b"body"
        assert server.read(bucket, "p") == b"abc"


def test_chunked_bodies_and_expect(endpoint: Endpoint, server: S3Server, bucket: str) -> None:
    head = f"PUT /{bucket}/c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    body = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: 1\r\n\r\n"
    (status, _), (other, _) = _exchange(endpoint, [head.encode(), body + head.encode(), body], 2)
    assert (status, other) == (200, 200)
    assert server.read(bucket, "c") == b"abcdefg"


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=5), st.lists(st.integers(1, 9), min_size=1))
def test_chunks_are_decoded_however_they_are_cut(chunks: list[bytes], cuts: list[int]) -> None:
    encoded = b"".join(b"%x;chunk-signature=0\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    data = encoded + b"next"
    decoder = ChunkDecoder()
    waiting = b""
    at = turn = 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        waiting += data[at : at + size]
        at, turn = at + size, turn + 1
        if not decoder.finished:
            waiting = decoder.feed(waiting)
    assert decoder.finished
    assert decoder.body() == b"".join(chunks)
    assert waiting == b"next"


def test_requests_are_counted_and_held_back(endpoint: Endpoint, server: S3Server, bucket: str) -> None:
    server.write(bucket, "k", b"12345")
    endpoint.reset()
    try:
        endpoint.set_delay(1)
        server.read(bucket, "k")
        server.keys(bucket)
    finally:
        endpoint.set_delay(0)
    counters = endpoint.counters()
    assert counters["operations"] == {"GetObject": 1, "ListObjectsV2": 1}
    assert (counters["requests"], counters["bytes_out"], counters["most_in_flight"]) == (2, 5, 1)


def test_a_sink_throws_large_bodies_away() -> None:
    with Endpoint("--sink") as endpoint:
        client = S3Server(endpoint.url, "a", "b").client()
        client.put_object(Bucket="bench", Key="large", Body=b"x" * (2 * MIB))
        client.put_object(Bucket="bench", Key="small", Body=b"x" * 10)
        assert client.get_object(Bucket="bench", Key="large")["Body"].read() == bytes(2 * MIB)
        assert client.get_object(Bucket="bench", Key="small")["Body"].read() == b"x" * 10
        assert endpoint.counters()["bytes_in"] == 2 * MIB + 10


# -- generated registries


@pytest.mark.parametrize("delete_untagged", [False, True])
@pytest.mark.parametrize(("keys", "seed"), [(3_000, 1), (3_001, 2), (9_000, 3)])
def test_the_generators_truth_is_the_oracles(keys: int, seed: int, delete_untagged: bool) -> None:
    generated = generate(Shape(keys=keys, seed=seed))
    entries = list(generated.entries())
    assert len({entry.key for entry in entries}) == len(entries) == keys
    truth = generated.truth()
    said = truth["delete_untagged" if delete_untagged else "default"]
    model = ModelStore({entry.key: (entry.body, entry.mtime * 1_000_000) for entry in entries})
    now = 1_767_225_600 * 1_000_000
    day = 86_400 * 1_000_000
    expected = gc_oracle.expected(
        model, now=now, delete_untagged=delete_untagged, grace=day, uploads_older_than=7 * day
    )
    sizes = {entry.key: entry.size for entry in entries}
    assert not expected.protected
    assert said["blobs"]["dead"] == len(expected.blobs) > 0
    assert said["blobs"]["live"] == len(expected.live_blobs)
    assert said["blobs"]["dead_bytes"] == sum(sizes[key] for key in expected.blobs)
    assert said["revisions"]["dead"] == len(expected.revision_links)
    assert said["layer_links"]["dead"] == len(expected.layer_links)
    assert said["tags"]["dead"] == len(expected.tag_currents)
    assert said["uploads"]["dead"] * 2 == len(expected.uploads)
    assert said["repositories"]["emptied"] == len(expected.emptied)
    assert 55 < truth["manifests"] / keys * 1_000 < 95


def test_the_same_seed_gives_the_same_registry(tmp_path: Path) -> None:
    first, second = (list(generate(Shape(keys=3_000, seed=5)).entries()) for _ in range(2))
    assert first == second
    write_tree(generate(Shape(keys=3_000, seed=5)), tmp_path)
    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {key: path.stat().st_size for key, path in files.items()} == {entry.key: entry.size for entry in first}


def test_a_folder_is_loaded_at_start(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "1").write_bytes(b"one")
    (tmp_path / "2").write_bytes(b"two")
    with Endpoint("--tree", str(tmp_path), "--bucket", "tree") as endpoint:
        server = S3Server(endpoint.url, "a", "b")
        assert server.keys("tree") == {"2": 3, "a/b/1": 3}
        assert server.read("tree", "a/b/1") == b"one"


# -- the real registry


def test_a_registry_serves_and_collects(
    start_registry: Callable[..., Registry], server: S3Server, bucket: str
) -> None:
    registry = start_registry(S3Root(server, bucket, "/reg"))
    document = images.multiarch("bench")
    push_api(registry.host, "team/app", document, "1")
    push_api(registry.host, "team/app", images.image("other", size=6 * MIB), "2", chunk=6 * MIB)
    assert registry.catalog() == ["team/app"]
    pulled = pull_complete(registry.host, "team/app", "1")
    assert pulled == {digest: len(data) for digest, data in document.closure().items()}
    assert registry.delete("team/app", document.digest) == 202
    registry.stop()
    said = registry.garbage_collect("-m").stdout
    assert "eligible for deletion" in said
    registry.restart()
    assert registry.tags("team/app") == ["2"]


def test_the_registry_finds_the_garbage_that_the_generator_made(
    start_registry: Callable[..., Registry],
) -> None:
    generated = generate(Shape(keys=3_000))
    for _ in generated.entries():
        pass
    dead = generated.truth()["default"]["blobs"]["dead"]
    with Endpoint("--generate", "3000") as endpoint:
        registry = Registry(S3Root(S3Server(endpoint.url, "a", "b"), "bench"))
        try:
            assert f"{dead} blobs and 0 manifests eligible" in registry.garbage_collect("-d").stdout
        finally:
            registry.close()
