"""The test bed itself: the servers are real, and what the fixtures promise holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import images, skopeo
from tests.servers.api import Api, Incomplete, pull_complete, push_api
from tests.servers.distribution import Registry
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
