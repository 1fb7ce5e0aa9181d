"""The test bed itself: the servers are real, and what the fixtures promise holds."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from tests.servers import images, skopeo
from tests.servers.api import Api, ApiError, Incomplete, pull_complete, push_api
from tests.servers.distribution import Registry
from tests.servers.fault_proxy import FaultProxy
from tests.servers.process import ServerError
from tests.servers.redis_server import RedisServer
from tests.servers.s3 import S3Root, S3Server

StartRegistry = Callable[..., Registry]


def test_a_bucket_is_new_and_usable(s3_server: S3Server, s3_bucket: str) -> None:
    assert s3_server.keys(s3_bucket) == {}
    s3_server.write(s3_bucket, "a/b", b"body")
    assert s3_server.keys(s3_bucket) == {"a/b": 4}
    assert s3_server.read(s3_bucket, "a/b") == b"body"


def test_skopeo_pushes_to_and_pulls_from_a_registry(
    with_skopeo: None, start_registry: StartRegistry, registry_storage: Path | S3Root, tmp_path: Path
) -> None:
    registry = start_registry(registry_storage)
    assert registry.debug_health() == (200, {})
    assert registry.catalog() == []
    multi = images.multiarch("multi")
    layout = images.write_oci_layout(tmp_path / "oci", {"1": images.image("one"), "multi": multi})
    skopeo.push(layout, "1", registry.host, "team/app")
    skopeo.push(layout, "multi", registry.host, "team/app", "2")
    assert registry.catalog() == ["team/app"]
    assert registry.tags("team/app") == skopeo.list_tags(registry.host, "team/app") == ["1", "2"]
    for tag in ("1", "2"):
        skopeo.pull(registry.host, "team/app", tag)
    assert pull_complete(registry.host, "team/app", "2").keys() == multi.closure().keys()
    assert "0 blobs and 0 manifests eligible" in registry.garbage_collect("-d").stdout


def test_everything_but_the_tags_is_what_registry_keys_says(start_registry: StartRegistry, tmp_path: Path) -> None:
    root = tmp_path / "registry"
    registry = start_registry(root)
    document = images.multiarch("layout")
    push_api(registry.host, "a/b", document, "1")
    expected = images.registry_keys("a/b", document, "1")
    stored = {
        path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }
    assert stored == expected


def test_an_incomplete_pull_says_what_is_missing(start_registry: StartRegistry, tmp_path: Path) -> None:
    root = tmp_path / "registry"
    registry = start_registry(root)
    document = images.image("broken")
    push_api(registry.host, "a", document, "1")
    victim = document.blobs[1]
    (root / images.blob_key(victim.digest)).unlink()
    with pytest.raises(Incomplete, match=victim.digest):
        pull_complete(registry.host, "a", "1")


def test_no_setting_of_the_machine_reaches_a_test(isolated_environment: Path) -> None:
    settings = {name for name in os.environ if name.startswith("AWS_")}
    assert settings == {"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED"}
    assert Path.home() == isolated_environment


def test_skopeo_errors_have_its_own_words(with_skopeo: None, start_registry: StartRegistry, tmp_path: Path) -> None:
    registry = start_registry(tmp_path / "registry")
    with pytest.raises(skopeo.SkopeoError, match="manifest unknown"):
        skopeo.pull(registry.host, "nothing/here", "1")


def test_chunked_uploads_mounts_and_digests(start_registry: StartRegistry, tmp_path: Path) -> None:
    registry = start_registry(tmp_path / "registry")
    document = images.image("chunks", size=50_000)
    push_api(registry.host, "a", document, "1", chunk=20_000)
    push_api(registry.host, "b", document, mount_from="a")
    assert registry.tags("b") == []
    assert pull_complete(registry.host, "b", document.digest) == pull_complete(registry.host, "a", "1")
    with Api(registry.host) as api:
        assert api.head_manifest("a", "1") == document.digest
        assert api.head_manifest("a", "2") is None
    assert registry.delete("b", document.digest) == 202
    with pytest.raises(Incomplete, match="MANIFEST_UNKNOWN"):
        pull_complete(registry.host, "b", document.digest)


# -- the fault proxy


@pytest.fixture
def proxied(s3_server: S3Server) -> Iterator[tuple[FaultProxy, S3Server]]:
    with FaultProxy(s3_server.endpoint_url) as proxy:
        yield proxy, s3_server.at(proxy.endpoint_url)


def test_the_proxy_is_transparent_and_counts(proxied: tuple[FaultProxy, S3Server], s3_bucket: str) -> None:
    proxy, server = proxied
    client = server.client()
    body = os.urandom(6 * 1024 * 1024)
    client.put_object(Bucket=s3_bucket, Key="a/ä b+c", Body=body)
    assert server.read(s3_bucket, "a/ä b+c") == body
    assert client.get_object(Bucket=s3_bucket, Key="a/ä b+c", Range="bytes=5-9")["Body"].read() == body[5:10]
    client.head_object(Bucket=s3_bucket, Key="a/ä b+c")
    client.copy_object(Bucket=s3_bucket, Key="copy", CopySource={"Bucket": s3_bucket, "Key": "a/ä b+c"})
    upload = client.create_multipart_upload(Bucket=s3_bucket, Key="big")["UploadId"]
    client.upload_part(Bucket=s3_bucket, Key="big", UploadId=upload, PartNumber=1, Body=body)
    client.list_parts(Bucket=s3_bucket, Key="big", UploadId=upload)
    client.list_multipart_uploads(Bucket=s3_bucket)
    client.abort_multipart_upload(Bucket=s3_bucket, Key="big", UploadId=upload)
    assert server.keys(s3_bucket) == {"a/ä b+c": len(body), "copy": len(body)}
    client.delete_objects(Bucket=s3_bucket, Delete={"Objects": [{"Key": "copy"}]})
    client.delete_object(Bucket=s3_bucket, Key="a/ä b+c")
    assert proxy.counts == {
        "PutObject": 1,
        "GetObject": 2,
        "HeadObject": 1,
        "CopyObject": 1,
        "CreateMultipartUpload": 1,
        "UploadPart": 1,
        "ListParts": 1,
        "ListMultipartUploads": 1,
        "AbortMultipartUpload": 1,
        "ListObjectsV2": 1,
        "DeleteObjects": 1,
        "DeleteObject": 1,
    }
    assert proxy.requests[0].key == "a/ä b+c"
    assert proxy.bytes_out > len(body)


def test_the_proxy_answers_instead_of_the_server(proxied: tuple[FaultProxy, S3Server], s3_bucket: str) -> None:
    proxy, server = proxied
    slow = proxy.answer(503, "SlowDown", operation="PutObject")
    server.write(s3_bucket, "a", b"1")  # the client tries again
    assert (slow.used, proxy.counts["PutObject"]) == (1, 2)
    proxy.answer(403, "ExpiredToken", method="GET", key="^b$", times=None)
    server.write(s3_bucket, "b", b"2")
    assert server.read(s3_bucket, "a") == b"1"
    with pytest.raises(ClientError, match="ExpiredToken"):
        server.read(s3_bucket, "b")
    proxy.clear()
    assert server.read(s3_bucket, "b") == b"2"
    proxy.answer(500, query="continuation-token=", times=None)
    for number in range(4):
        server.write(s3_bucket, f"c{number}", b"")
    pages = (
        server.client()
        .get_paginator("list_objects_v2")
        .paginate(Bucket=s3_bucket, PaginationConfig={"PageSize": 3})
    )
    with pytest.raises(ClientError, match="InternalError"):
        list(pages)


def test_the_proxy_breaks_connections(proxied: tuple[FaultProxy, S3Server], s3_bucket: str) -> None:
    proxy, server = proxied
    server.write(s3_bucket, "whole", b"x" * 100_000)
    proxy.reset(operation="PutObject", times=None)
    with pytest.raises(BotoCoreError):
        server.write(s3_bucket, "lost", b"1")
    proxy.clear()
    proxy.reset(operation="PutObject", times=None, forwarded=True)
    with pytest.raises(BotoCoreError):
        server.write(s3_bucket, "done", b"1")
    proxy.clear()
    assert server.keys(s3_bucket).keys() == {"whole", "done"}
    proxy.truncate(50_000, operation="GetObject")
    with pytest.raises((BotoCoreError, HTTPError)):
        server.read(s3_bucket, "whole")
    assert len(server.read(s3_bucket, "whole")) == 100_000
    proxy.edit(lambda body: body[:10] + b"y" + body[11:], operation="GetObject")
    assert server.read(s3_bucket, "whole").count(b"y") == 1
    proxy.edit(lambda body: body.replace(b"whole", b"hole"), operation="ListObjectsV2")
    assert server.keys(s3_bucket).keys() == {"hole", "done"}


def test_the_proxy_holds_and_delays(proxied: tuple[FaultProxy, S3Server], s3_bucket: str) -> None:
    proxy, server = proxied
    gate = proxy.hold(operation="PutObject")
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(server.write, s3_bucket, "held", b"1")
        gate.wait_reached()
        assert server.keys(s3_bucket) == {}
        assert not writing.done()
        gate.release()
        writing.result(30)
    assert server.keys(s3_bucket) == {"held": 1}
    proxy.delay = 0.05
    begin = time.monotonic()
    server.read(s3_bucket, "held")
    assert time.monotonic() - begin >= 0.05


def test_the_proxy_ends_after_what_the_server_still_does() -> None:
    """The client is gone; what it had sent as a whole stands, or not, once the proxy has ended."""
    begun, done = threading.Event(), threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            begun.set()
            time.sleep(0.2)
            done.set()
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with FaultProxy(f"http://127.0.0.1:{server.server_port}") as proxy:
                host, _, port = proxy.endpoint_url.rpartition("/")[2].partition(":")
                with socket.create_connection((host, int(port))) as client:
                    client.sendall(b"PUT /bucket/key HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
                    assert begun.wait(30)
            assert done.is_set()
        finally:
            server.shutdown()
            thread.join()


def test_a_registry_works_through_the_proxy(
    start_registry: StartRegistry, s3_server: S3Server, s3_bucket: str
) -> None:
    with FaultProxy(s3_server.endpoint_url) as proxy:
        registry = start_registry(S3Root(s3_server.at(proxy.endpoint_url), s3_bucket))
        document = images.image("proxied", size=200_000)
        push_api(registry.host, "a", document, "1")
        assert pull_complete(registry.host, "a", "1").keys() == document.closure().keys()
        assert proxy.counts["UploadPart"] + proxy.counts["PutObject"] >= 3
        registry.stop()


# -- Redis


def test_a_registry_keeps_descriptors_in_redis(
    start_registry: StartRegistry, redis: RedisServer, tmp_path: Path
) -> None:
    registry = start_registry(tmp_path / "registry", cache="redis", redis_address=redis.address)
    document = images.image("cached")
    push_api(registry.host, "a/b", document, "1")
    pull_complete(registry.host, "a/b", "1")
    with redis_client.Redis.from_url(redis.url, decode_responses=True) as client:
        names = set(client.keys())
        assert f"blobs::{document.blobs[0].digest}" in names
        assert client.smembers("repository::a/b::blobs") >= {document.blobs[0].digest}


def test_a_restart_keeps_the_address_and_takes_read_only(start_registry: StartRegistry, tmp_path: Path) -> None:
    registry = start_registry(tmp_path / "registry", cache="inmemory")
    document = images.image("restarted")
    push_api(registry.host, "a", document, "1")
    host, pid = registry.host, registry.pid
    registry.restart(readonly=True)
    assert registry.host == host
    assert registry.pid != pid
    pull_complete(registry.host, "a", "1")
    with pytest.raises(ApiError, match="405"):
        push_api(registry.host, "a", images.image("refused"), "2")


def test_a_registry_that_cannot_start_says_why(start_registry: StartRegistry, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry", cache="redis")  # no address
    registry.configuration = lambda: {"version": "0.1", "storage": {"nothing": {}}}  # type: ignore[method-assign]
    with pytest.raises(ServerError, match="StorageDriver not registered: nothing"), registry:
        pass
    assert not registry.folder.exists()


# -- the builders


def every_document() -> dict[str, images.Document]:
    """One of each kind that Distribution 2.8 takes, by the tag it should have."""
    base = images.image("base")
    cosign_tag, signature = images.cosign(base)
    referrers_tag, referrers = images.referrers_index(base, [images.referrer(base), images.referrer(base, "more")])
    return {
        "oci": base,
        "docker": images.image("docker", docker=True),
        "shared": images.image("shared", [*base.blobs[1:], images.layer("top")]),
        "multi": images.multiarch("multi"),
        "list": images.multiarch("list", docker=True),
        "nested": images.index([images.multiarch("inner")]),
        "foreign": images.with_foreign_layer("foreign"),
        cosign_tag: signature,
        referrers_tag: referrers,
    }


def test_documents_are_the_same_every_time() -> None:
    first = {tag: document.digest for tag, document in every_document().items()}
    images.layer.cache_clear()
    assert {tag: document.digest for tag, document in every_document().items()} == first
    assert len(set(first.values())) == len(first)


def test_the_registry_takes_and_gives_back_every_kind(start_registry: StartRegistry, tmp_path: Path) -> None:
    registry = start_registry(tmp_path / "registry")
    documents = every_document()
    for tag, document in documents.items():
        assert push_api(registry.host, "all/kinds", document, tag) == document.digest
    assert registry.tags("all/kinds") == sorted(documents)
    for tag, document in documents.items():
        assert pull_complete(registry.host, "all/kinds", tag).keys() == document.closure().keys()


def test_skopeo_takes_what_the_builders_make(
    with_skopeo: None, start_registry: StartRegistry, tmp_path: Path
) -> None:
    registry = start_registry(tmp_path / "registry")
    documents = {tag: every_document()[tag] for tag in ("oci", "shared", "multi")}
    layout = images.write_oci_layout(tmp_path / "oci", documents)
    for tag in documents:
        skopeo.push(layout, tag, registry.host, "a", tag)
        skopeo.pull(registry.host, "a", tag)
        with Api(registry.host) as api:
            assert api.head_manifest("a", tag) == documents[tag].digest
    skopeo.pull(registry.host, "a", documents["oci"].digest)


def test_skopeo_makes_docker_manifests(with_skopeo: None, start_registry: StartRegistry, tmp_path: Path) -> None:
    registry = start_registry(tmp_path / "registry")
    layout = images.write_oci_layout(tmp_path / "oci", {"1": images.image("converted")})
    formats: dict[skopeo.Format, str] = {"v2s2": images.DOCKER_MANIFEST, "v2s1": images.DOCKER_SCHEMA1_SIGNED}
    for format, media_type in formats.items():
        skopeo.push(layout, "1", registry.host, "a", format, format=format, all_platforms=False)
        with Api(registry.host) as api:
            assert api.get_manifest("a", format)[0] == media_type
        assert pull_complete(registry.host, "a", format)
    stored = {path.parent.name: path.read_bytes() for path in (tmp_path / "registry").rglob("data")}
    schema1 = [body for body in stored.values() if b'"fsLayers"' in body]
    assert len(schema1) == 1
    assert b'"signatures"' not in schema1[0]
    assert skopeo.list_tags(registry.host, "a") == ["v2s1", "v2s2"]
    skopeo.delete(registry.host, "a", "v2s2")
    assert registry.tags("a") == ["v2s1"]


def test_a_placed_registry_is_served(start_registry: StartRegistry, tmp_path: Path) -> None:
    """What `registry_keys` writes without a registry, a registry serves: also what it would refuse to take."""
    root = tmp_path / "registry"
    documents = every_document() | {
        "cache": images.buildkit_cache("cache"),
        "sparse": images.index([images.image("here"), images.image("elsewhere")], sparse=True),
        "schema1": images.schema1("placed", "schema1", "old"),
    }
    for tag, document in documents.items():
        images.write_keys(root, images.registry_keys("placed", document, tag))
    registry = start_registry(root)
    assert registry.catalog() == ["placed"]
    for tag, document in documents.items():
        if tag == "schema1":
            continue  # without its signatures it is served under the digest of the signed bytes
        pulled = pull_complete(registry.host, "placed", tag, sparse=tag == "sparse")
        assert pulled.keys() == document.closure().keys()
    with pytest.raises(Incomplete, match="MANIFEST_UNKNOWN"):
        pull_complete(registry.host, "placed", "sparse")


def test_the_registry_does_not_take_an_index_of_what_it_has_not(
    start_registry: StartRegistry, tmp_path: Path
) -> None:
    registry = start_registry(tmp_path / "registry")
    with pytest.raises(ApiError, match="MANIFEST_BLOB_UNKNOWN") as refused:
        push_api(registry.host, "a", images.index([images.image("a"), images.image("b")], sparse=True), "1")
    assert refused.value.code == "MANIFEST_BLOB_UNKNOWN"
