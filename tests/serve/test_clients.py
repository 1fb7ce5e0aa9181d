"""What a real registry was given is pulled by real clients, unchanged: from disk, S3 and snapshots, while gc runs."""

from __future__ import annotations

import re
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.servers import debian, images, skopeo
from tests.servers.containers import containers
from tests.servers.distribution import Registry
from tests.servers.s3 import S3Root

pytestmark = pytest.mark.servers

IMAGE = images.image("clients", parts=3)
MULTI = images.multiarch("clients")
OTHER = images.image("clients-other", parts=2)
TAGGED: Mapping[tuple[str, str], images.Document] = {
    ("team/app", "1.0"): IMAGE,
    ("team/app", "multi"): MULTI,
    ("library/base", "12"): OTHER,
}
Start = Callable[..., "subprocess.Popen[str]"]
Serve = Callable[..., Any]


def address(storage: Path | S3Root) -> tuple[str, list[str], dict[str, str]]:
    """The store as the command line names it, its options, and the environment."""
    if isinstance(storage, Path):
        return str(storage), [], {}
    url = f"s3://{storage.bucket}/{storage.rootdirectory.strip('/')}".rstrip("/")
    return url, ["--endpoint-url", storage.server.endpoint_url], storage.server.environment()


@pytest.fixture
def serve(start: Start) -> Serve:
    @contextmanager
    def serve(storage: Path | S3Root, *options: str) -> Iterator[str]:
        url, where, environment = address(storage)
        process = start(
            "serve",
            url,
            *where,
            "--listen",
            "127.0.0.1:0",
            *options,
            env=environment,
        )
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"at http://(\S+);", line)
        assert found, line + process.stderr.read()
        yield found[1]
        process.terminate()
        assert process.wait(30) == 143
        assert "Traceback" not in process.stderr.read()

    return serve


@pytest.fixture
def filled(
    start_registry: Callable[..., Registry], with_skopeo: None, registry_storage: Path | S3Root, tmp_path: Path
) -> Path | S3Root:
    """A store that the real registry filled by the real client; the registry is stopped again."""
    registry = start_registry(registry_storage)
    for number, ((repository, tag), document) in enumerate(TAGGED.items()):
        layout = images.write_oci_layout(tmp_path / f"layout{number}", {tag: document})
        skopeo.push(layout, tag, registry.host, repository)
    registry.stop()
    return registry_storage


def pull_everything(host: str, folder: Path, prefix: str = "") -> None:
    folder.mkdir(exist_ok=True)
    for number, ((repository, tag), document) in enumerate(TAGGED.items()):
        target = folder / f"pulled{number}"
        skopeo.pull_to(target, host, prefix + repository, tag)
        assert (target / "manifest.json").read_bytes() == document.data
        for digest, data in document.closure().items():
            name = digest.partition(":")[2]
            found = target / name if (target / name).exists() else target / f"{name}.manifest.json"
            assert digest == document.digest or found.read_bytes() == data
        assert tag in skopeo.list_tags(host, prefix + repository)


def test_every_tag_is_pulled_as_it_was_pushed(filled: Path | S3Root, serve: Serve, tmp_path: Path) -> None:
    with serve(filled) as host:
        pull_everything(host, tmp_path)
        skopeo.run(
            "sync", "--src-tls-verify=false", "--src", "docker", "--dest", "dir", f"{host}/team/app", str(tmp_path)
        )
        assert {path.name for path in tmp_path.iterdir()} >= {"app:1.0", "app:multi"}


def test_clients_that_are_sent_to_s3(filled: Path | S3Root, serve: Serve, tmp_path: Path) -> None:
    with serve(filled, "--redirect") as host:
        pull_everything(host, tmp_path)


def test_from_a_backup(filled: Path | S3Root, serve: Serve, start: Start, tmp_path: Path) -> None:
    url, where, environment = address(filled)
    backup = tmp_path / "backup"
    taken = start("backup", "create", "--create", url, str(backup), *where, env=environment)
    out, err = taken.communicate(timeout=60)
    assert taken.returncode == 0, err
    found = re.search(r"\d{8}T\d{6}Z-[0-9a-f]{8}", out)
    assert found
    with serve(backup) as host:
        for prefix in (f"{found[0].lower()}/", "latest/"):
            pull_everything(host, tmp_path / prefix.strip("/"), prefix)
    with serve(backup, "--snapshot", "latest") as host:
        pull_everything(host, tmp_path / "one")


def unpacked(document: images.Document) -> dict[str, bytes]:
    """The files of an image's layers."""
    files: dict[str, bytes] = {}
    for blob in document.blobs:
        if blob.diff_id:
            with tarfile.open(fileobj=BytesIO(blob.data)) as archive:
                for member in archive.getmembers():
                    content = archive.extractfile(member)
                    if content is not None:
                        files[member.name] = content.read()
    return files


def test_podman_and_buildah_unpack_what_they_pull(
    start_registry: Callable[..., Registry], with_skopeo: None, serve: Serve, tmp_path: Path
) -> None:
    debian.require("podman", "buildah")
    store = tmp_path / "store"
    registry = start_registry(store)
    skopeo.push(images.write_oci_layout(tmp_path / "l", {"1": IMAGE}), "1", registry.host, "team/app")
    skopeo.push(images.write_oci_layout(tmp_path / "m", {"1": MULTI}), "1", registry.host, "team/multi")
    with serve(store) as host, containers() as programs:
        wanted = unpacked(IMAGE)
        assert wanted
        for root in (programs.pull(f"{host}/team/app:1"), programs.build_from(f"{host}/team/app:1")):
            for name, content in wanted.items():
                assert (root / name).read_bytes() == content
        for child in MULTI.children:
            architecture = next(
                entry["platform"]["architecture"]
                for entry in MULTI.json["manifests"]
                if entry["digest"] == child.digest
            )
            root = programs.pull(f"{host}/team/multi:1", architecture=architecture)
            for name, content in unpacked(child).items():
                assert (root / name).read_bytes() == content


def test_images_of_the_demo_are_unpacked_and_looked_into(serve: Serve, demo_registry: Path) -> None:
    debian.require("podman", "buildah")
    with serve(demo_registry) as host, containers() as programs:
        for image, architecture, version in (
            ("team/app:1.1", "amd64", "1.1"),
            ("team/app:1.1", "arm64", "1.1"),
            ("team/app:latest", "amd64", "nightly-2"),
            ("team/worker:stable", "amd64", "2.4"),
        ):
            root = programs.pull(f"{host}/{image}", architecture=architecture)
            assert (root / "srv/VERSION").read_text() == f"{version}\n"
            assert f"for linux/{architecture}" in (root / "srv/run").read_text()
            assert (root / "etc/os-release").read_text().startswith('NAME="Demo"')
        assert (programs.pull(f"{host}/legacy/import:2019") / "opt/import/README").exists()
        page = look(host, "/images/team/worker:stable")
        for words in (
            "ENTRYPOINT [&#34;/srv/run&#34;]",
            "VERSION=2.4",
            "org.opencontainers.image.title",
            "linux/amd64",
        ):
            assert words in page
        assert "RUN install-runtime 3.2" in look(host, "/images/team/app:latest")


def look(host: str, path: str) -> str:
    """The page, once the index that it is made from is there."""
    while True:
        with urllib.request.urlopen(f"http://{host}{path}", timeout=60) as answer:
            page: str = answer.read().decode()
        if "is being listed" not in page:
            return page
        time.sleep(0.05)


def test_pulls_go_on_while_gc_runs(
    start_registry: Callable[..., Registry], with_skopeo: None, serve: Serve, start: Start, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    registry = start_registry(store)
    skopeo.push(images.write_oci_layout(tmp_path / "l", {"1": IMAGE}), "1", registry.host, "team/app")
    for number in range(6):
        old = images.image(f"old{number}", parts=1)
        skopeo.push(images.write_oci_layout(tmp_path / f"o{number}", {"x": old}), "x", registry.host, "team/old")
    with serve(store) as host:
        gc = start(
            "gc", store, "--delete-untagged", "--grace", "0s", "--settle", "1s", "--yes", "--max-delete", "100%"
        )
        pulls = 0
        while gc.poll() is None or pulls < 3:
            skopeo.pull(host, "team/app", "1")
            skopeo.pull(host, "team/old", "x")
            pulls += 1
        out, err = gc.communicate()
        assert gc.returncode == 0, err
        assert "5" in out
