"""skopeo, umoci and podman read what is exported, and what they write is imported; real registries on both sides."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regstore.storage import open_storage
from tests.exchange.stores import APP, OLD, SBOM, WORKER, export_from, exported, fill, import_into, imported
from tests.servers import images, skopeo
from tests.servers.api import Api, pull_complete, push_api
from tests.servers.containers import Containers
from tests.servers.debian import require
from tests.servers.distribution import Registry
from tests.servers.process import clean_environment
from tests.servers.s3 import S3Server

pytestmark = [pytest.mark.servers, pytest.mark.long]

START = Callable[..., Registry]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return fill(tmp_path / "store", ("team/app", APP, "1.0"), ("team/app", SBOM, ""))


@pytest.fixture
def registry(start_registry: START, tmp_path: Path, with_skopeo: None) -> Registry:
    running = start_registry(tmp_path / "store")
    for name, document, tag in (
        ("team/app", APP, "1.0"),
        ("team/app", SBOM, ""),
        ("team/worker", WORKER, "2"),
        ("team/worker", OLD, "old"),
    ):
        push_api(running.host, name, document, tag)
    return running


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, for podman takes no other."""
    with tempfile.TemporaryDirectory(prefix="rs-") as folder:
        yield Path(folder)


def run(home: Path, *words: object) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        env=clean_environment(home, XDG_RUNTIME_DIR=str(home)),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "archive"])
def test_skopeo_reads_both_ways_of_naming(registry: Registry, tmp_path: Path, archive: bool) -> None:
    """By the tag where there is one repository, by both where there are several."""
    suffix, transport = (".tar", "oci-archive") if archive else ("", "oci")
    one, both = tmp_path / f"one{suffix}", tmp_path / f"both{suffix}"
    exported(tmp_path / "store", one, "team/app")
    exported(tmp_path / "store", both, "team/app", "team/worker:2")
    for source, name in ((f"{transport}:{one}:1.0", "x"), (f"{transport}:{both}:team/app:1.0", "y")):
        skopeo.run("copy", "--all", "--dest-tls-verify=false", source, f"docker://{registry.host}/{name}:1")
        with Api(registry.host) as api:
            assert api.head_manifest(name, "1") == APP.digest
    inspected = json.loads(skopeo.run("inspect", "--raw", f"{transport}:{both}:team/worker:2"))
    assert inspected == WORKER.json


def test_umoci_reads_and_unpacks(registry: Registry, tmp_path: Path, home: Path) -> None:
    require("umoci")
    layout = tmp_path / "layout"
    exported(tmp_path / "store", layout, "team/worker:2", "team/app")
    assert set(run(home, "umoci", "ls", "--layout", layout).split()) == {"team/app:1.0", "team/worker:2"}
    run(home, "umoci", "unpack", "--image", f"{layout}:team/worker:2", home / "bundle")
    assert (home / "bundle/rootfs/layer-of worker.bin").stat().st_size == 2048


def test_podman_names_what_it_loads(registry: Registry, tmp_path: Path, home: Path) -> None:
    require("podman")
    exported(tmp_path / "store", tmp_path / "f.tar", "team/worker:2")
    assert "localhost/team/worker:2" in Containers(home).run("podman", "load", "-i", str(tmp_path / "f.tar"))


def test_what_skopeo_and_umoci_write_is_served_while_the_registry_runs(
    registry: Registry, start_registry: START, tmp_path: Path, home: Path
) -> None:
    require("umoci")
    made = tmp_path / "made"
    skopeo.run(
        "copy", "--all", "--src-tls-verify=false", f"docker://{registry.host}/team/app:1.0", f"oci:{made}:1.0"
    )
    run(home, "umoci", "new", "--image", f"{made}:empty")
    run(home, "umoci", "tag", "--image", f"{made}:empty", "again")
    index = json.loads((made / "index.json").read_text())
    wanted = {
        entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in index["manifests"]
    }
    other = start_registry(tmp_path / "other")
    push_api(other.host, "team/app", OLD, "1.0")
    result = imported(made, tmp_path / "other", "team/app")
    assert [conflict.tag for conflict in result.conflicts] == ["1.0"] and not result.left_out
    assert imported(made, tmp_path / "other", "team/app", overwrite_tags=True).tags == 1
    with Api(other.host) as api:
        assert {tag: api.head_manifest("team/app", tag) for tag in wanted} == wanted
    assert wanted["1.0"] == APP.digest and wanted["again"] == wanted["empty"]
    pull_complete(other.host, "team/app", "1.0")
    assert other.tags("team/app") == ["1.0", "again", "empty"]


def test_from_registry_to_registry_over_an_air_gap(
    registry: Registry, start_registry: START, tmp_path: Path
) -> None:
    exported(tmp_path / "store", tmp_path / "f.tar", "team/app", "team/worker")
    other = start_registry(tmp_path / "other")
    result = imported(tmp_path / "f.tar", tmp_path / "other")
    assert not result.partial
    for name, tag, document in (
        ("team/app", "1.0", APP),
        ("team/worker", "2", WORKER),
        ("team/worker", "old", OLD),
    ):
        with Api(other.host) as api:
            assert api.get_manifest(name, tag) == (document.media_type, document.data)
        assert set(pull_complete(other.host, name, tag)) == set(document.closure())
    assert pull_complete(other.host, "team/app", SBOM.digest)
    assert images.sha256(SBOM.data) == SBOM.digest


async def test_to_a_bucket_and_from_it(
    store: Path, ceph: S3Server, ceph_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ceph.environment().items():
        monkeypatch.setenv(name, value)
    large = images.image("large", size=20 << 20)
    fill(store, ("large", large, "1"))
    async with open_storage(store) as storage:
        await export_from(storage, ("team/app", "large"), tmp_path / "one.tar")
    async with open_storage(f"s3://{ceph_bucket}/reg") as bucket:
        result = await import_into(bucket, tmp_path / "one.tar")
        assert not result.partial and result.seeded
        await export_from(bucket, ("team/app", "large"), tmp_path / "two.tar")
        again = await import_into(bucket, tmp_path / "two.tar")
        assert (again.blobs, again.links, again.tags) == (0, 0, 0)
    found = []
    for name in ("one", "two"):
        with tarfile.open(tmp_path / f"{name}.tar") as archive:
            found.append({member.name: member.size for member in archive})
    assert found[0] == found[1]
