"""ls, tags, inspect: what they say, as text and as JSON, and what they say where there is nothing."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from regstore import layout
from regstore.demo_registry import CORRUPT_REPOSITORY
from regstore.digest import Digest
from regstore.inventory.cache import ManifestCache
from tests.cli.conftest import Run
from tests.servers import images
from tests.servers.fault_proxy import FaultProxy
from tests.servers.process import free_port
from tests.servers.s3 import S3Server

NAMES = ["legacy/import", "library/base", "team/app", "team/worker"]


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


def is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", value) is not None


# -- ls


def test_ls(run: Run, demo_registry: Path) -> None:
    said = run("ls", demo_registry)
    assert (said.code, said.err) == (0, "")
    assert said.out.split() == NAMES


def test_ls_long(run: Run, demo_registry: Path) -> None:
    lines = [line.split() for line in run("ls", "--long", demo_registry).out.splitlines()]
    assert lines[0] == ["REPOSITORY", "TAGS", "REVISIONS"]
    assert lines[3] == ["team/app", "4", "11"]


def test_ls_json(run: Run, demo_registry: Path) -> None:
    assert run("ls", "--json", demo_registry).json == {
        "database": None,
        "repositories": [{"name": name} for name in NAMES],
    }
    assert run("ls", "--json", "-l", demo_registry).json["repositories"][2] == {
        "name": "team/app",
        "tags": 4,
        "revisions": 11,
    }


def test_a_file_url_and_a_configuration_name_the_same_store(run: Run, demo_registry: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {demo_registry}\n")
    assert run("ls", f"file://{demo_registry}").out.split() == NAMES
    assert run("ls", "--registry-config", config).out.split() == NAMES
    assert run("tags", "team/worker", "--registry-config", config).out.split()[7] == "stable"
    assert run("inspect", "team/worker:stable", "--registry-config", config).code == 0


def test_the_environment_overrides_the_configuration(
    run: Run, demo_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yml"
    config.write_text("version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: /nowhere\n")
    monkeypatch.setenv("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", str(demo_registry))
    assert run("ls", "--registry-config", config).out.split() == NAMES


# -- tags


def test_tags(run: Run, demo_registry: Path) -> None:
    said = run("tags", demo_registry, "team/app")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["TAG", "1.0", "1.1", "latest"]
    assert "oci index" in lines[2]
    assert lines[2].endswith("linux/amd64, linux/arm64/v8")


def test_tags_json(run: Run, demo_registry: Path) -> None:
    document = run("tags", "--json", demo_registry, "team/app").json
    assert document["repository"] == "team/app"
    tags = {tag["tag"]: tag for tag in document["tags"]}
    signed = tags["1.1"]
    assert is_digest(signed["digest"])
    assert signed["media_type"] == "application/vnd.oci.image.index.v1+json"
    assert signed["platforms"] == ["linux/amd64", "linux/arm64/v8"]
    assert [referrer["artifact_type"] for referrer in signed["referrers"]] == [
        "application/vnd.dev.cosign.simplesigning.v1+json"
    ]
    assert signed["total_size"] > signed["size"] > 0
    assert signed["problem"] is None
    assert tags["1.0"]["referrers"] == []


def test_a_damaged_tag_is_shown_and_gives_3(run: Run, demo_registry: Path, tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    shutil.copytree(demo_registry, folder)
    (folder / layout.encode(layout.TagCurrentKey("team/app", "1.0"))).write_bytes(b"")
    said = run("tags", folder, "team/app")
    assert said.code == 3
    assert re.search(r"^1\.0 +damaged", said.out, re.MULTILINE)
    assert "regstore: team/app:1.0 is damaged: " in said.err
    said = run("tags", "--json", folder, "team/app")
    assert said.code == 3
    assert [bool(tag["problem"]) for tag in said.json["tags"]] == [True, False, False, False]


@pytest.mark.parametrize(
    ("created", "shown"),
    [
        ("0001-01-01T00:00:00Z", "0001-01-01"),
        ("0001-01-01T00:00:00+01:00", "-"),
        ("9999-12-31T23:59:59.9Z", "9999"),
    ],
)
def test_a_config_may_say_any_time(run: Run, tmp_path: Path, created: str, shown: str) -> None:
    images.write_keys(tmp_path, images.registry_keys("a", images.image("x", created=created), "1"))
    assert f" {shown}" in run("tags", tmp_path, "a").out.splitlines()[1]
    said = run("inspect", tmp_path, "a:1")
    assert said.code == 0
    assert re.search(rf"^Created: +{shown}", said.out, re.MULTILINE)


def test_the_repository_is_needed(run: Run, demo_registry: Path) -> None:
    run("tags", demo_registry).failed(2, "no repository")
    run("inspect", demo_registry).failed(2, "no repository")


def test_a_repository_that_is_not_there(run: Run, demo_registry: Path) -> None:
    run("tags", demo_registry, "team/nothing").failed(1, "team/nothing", str(demo_registry))
    run("inspect", demo_registry, "team/nothing:1").failed(1, "team/nothing")
    run("inspect", demo_registry, "team/app:nothing").failed(1, "team/app:nothing")
    run("inspect", demo_registry, "team/app@sha256:" + "0" * 64).failed(1, "0" * 64)
    run("inspect", demo_registry, "Team/App").failed(1, "Team/App")
    run("inspect", demo_registry, "team/_app").failed(2, "not a repository name")
    run("inspect", demo_registry, "team/app:").failed(2, "not a tag")
    run("inspect", demo_registry, "team/app@sha256:0").failed(2, "sha256 digest")


# -- inspect


def test_inspect_a_tag_and_its_digest(run: Run, demo_registry: Path) -> None:
    document = run("inspect", "--json", demo_registry, "team/app:1.1").json
    assert document["tags"] == ["1.1"]
    assert [reference["kind"] for reference in document["references"]] == ["manifest", "manifest"]
    assert document["layers"] == 4
    assert len(document["referrers"]) == 1
    by_digest = run("inspect", "--json", demo_registry, f"team/app@{document['digest']}").json
    assert by_digest == document
    text = run("inspect", demo_registry, "team/app:1.1").out
    assert document["digest"] in text
    assert document["referrers"][0]["digest"] in text


def test_inspect_a_signature(run: Run, demo_registry: Path) -> None:
    signed = run("inspect", "--json", demo_registry, "team/app:1.1").json
    signature = run("inspect", demo_registry, f"team/app@{signed['referrers'][0]['digest']}")
    assert re.search(rf"^Subject: +{signed['digest']}$", signature.out, re.MULTILINE)


def test_inspect_a_repository_that_no_registry_would_take(run: Run, tmp_path: Path) -> None:
    image = images.image("one")
    images.write_keys(tmp_path, images.registry_keys("Team/Worker", image, "stable"))
    assert run("ls", tmp_path).out == "Team/Worker\n"
    for reference in ("Team/Worker:stable", f"Team/Worker@{image.digest}", f"Team/Worker:x@{image.digest}"):
        assert run("inspect", "--json", tmp_path, reference).json["digest"] == image.digest
    assert run("inspect", "--json", tmp_path, "Team/Worker").json["revisions"]["total"] == 1


def test_inspect_a_repository(run: Run, demo_registry: Path) -> None:
    document = run("inspect", "--json", demo_registry, "team/app").json
    assert document["revisions"] == {"total": 11, "untagged": 7}
    assert [tag["tag"] for tag in document["tags"]][:3] == ["1.0", "1.1", "latest"]
    assert all(is_digest(tag["digest"]) for tag in document["tags"])
    worker = run("inspect", "--json", demo_registry, "team/worker").json
    assert [upload["size"] for upload in worker["uploads"]] == [700_000]
    text = run("inspect", demo_registry, "team/worker").out
    assert "Open uploads: 1 upload" in text


def test_a_damaged_revision_does_not_stop_the_rest(run: Run, demo_registry: Path) -> None:
    said = run("inspect", demo_registry, CORRUPT_REPOSITORY)
    assert said.code == 0
    assert run("inspect", demo_registry, f"{CORRUPT_REPOSITORY}:2019").code == 0


def test_a_blob_that_is_damaged_is_told(run: Run, demo_registry: Path, tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    shutil.copytree(demo_registry, folder)
    digest = run("inspect", "--json", folder, "team/worker:stable").json["digest"]
    (folder / layout.encode(layout.BlobKey(Digest.parse(digest)))).write_bytes(b"{}")
    run("inspect", folder, "team/worker:stable").failed(1, digest)


# -- who only looks writes nothing


@pytest.mark.parametrize("used", [False, True])
def test_looking_leaves_a_store_as_it_was(run: Run, demo_registry: Path, tmp_path: Path, used: bool) -> None:
    folder, other = tmp_path / "registry", tmp_path / "other"
    shutil.copytree(demo_registry, folder)
    other.mkdir()
    if used:  # it has a trash and journals
        assert run("gc", folder, "--yes", "--grace", "0s", "--settle", "0s").code in (0, 3)

    def everything() -> dict[Path, tuple[int, ...]]:
        paths = [tmp_path, *tmp_path.rglob("*")]
        return {
            path: (facts.st_ino, facts.st_size, facts.st_mtime_ns) for path in paths for facts in [path.lstat()]
        }

    before = everything()
    for arguments in (
        ("ls", "-l", folder),
        ("tags", folder, "team/app"),
        ("inspect", folder, "team/app:1.1"),
        ("gc", folder, "--dry-run"),
        ("gc", folder, "--explain", "team/app"),
        ("heal", folder, "--dry-run"),
        ("locks", folder),
        ("trash", "list", folder),
        ("du", folder),
        ("verify", folder, "--read-data", "all"),
        ("doctor", folder),
        ("migrate", folder, other, "--dry-run"),
    ):
        said = run(*arguments)
        assert said.code in (0, 1, 3, 6) and "Error" not in said.err and "opened to be" not in said.err, said
        assert everything() == before, arguments


# -- du


def test_a_user_without_a_home_has_no_cache(
    run: Run, demo_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.chdir(tmp_path)
    for command in ("du", "verify"):
        said = run(command, "--json", demo_registry)
        assert said.code in (0, 6), said
        assert said.envelope["store"] == str(demo_registry)
    assert "no home" in ManifestCache(None).trouble
    assert list(tmp_path.iterdir()) == []


# -- places where there is nothing, or nothing is permitted


def test_a_folder_that_is_not_there(run: Run, tmp_path: Path) -> None:
    run("ls", tmp_path / "none").failed(1, "no such folder", str(tmp_path / "none"))


def test_a_folder_that_is_no_registry(run: Run, tmp_path: Path) -> None:
    (tmp_path / "readme").write_text("no registry")
    run("ls", tmp_path).failed(1, "holds no registry", str(tmp_path))


def test_a_folder_that_is_empty(run: Run, tmp_path: Path) -> None:
    run("ls", tmp_path).failed(1, "is empty", str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir(mode=0)
    run("ls", tmp_path).failed(1, "docker")


@pytest.mark.parametrize("url", ["ftp://x/y", "s3://", "s3:bucket", "http://host/bucket", "file://host/x", ""])
def test_a_url_that_is_none(run: Run, url: str) -> None:
    run("ls", url).failed(2)


def test_a_registry_configuration_that_is_none(run: Run, tmp_path: Path) -> None:
    run("ls", "--registry-config", tmp_path / "none.yml").failed(2, "none.yml")
    (tmp_path / "bad.yml").write_text("storage: [")
    run("ls", "--registry-config", tmp_path / "bad.yml").failed(2, "bad.yml")


def test_an_endpoint_that_is_down(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    endpoint = f"http://127.0.0.1:{free_port()}"
    run("ls", "s3://bucket", "--endpoint-url", endpoint).failed(1, endpoint)


def test_no_credentials(run: Run, moto: S3Server) -> None:
    run("ls", "s3://bucket", "--endpoint-url", moto.endpoint_url).failed(1, "credentials")


def test_a_profile_that_is_none(run: Run, moto: S3Server) -> None:
    run("ls", "s3://bucket", "--endpoint-url", moto.endpoint_url, "--profile", "none").failed(2, "profile", "none")


def test_a_bucket_that_is_not_there(run: Run, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    use(s3_server, monkeypatch)
    run("ls", "s3://not-there").failed(1, "there is no bucket not-there", s3_server.endpoint_url)


@pytest.mark.servers
def test_a_wrong_key(run: Run, ceph: S3Server, ceph_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(ceph, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    run("ls", f"s3://{ceph_bucket}").failed(1, "credentials", "secret key")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    run("ls", f"s3://{ceph_bucket}").failed(1, "credentials", "access key")


def test_an_empty_bucket(run: Run, s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(s3_server, monkeypatch)
    run("ls", f"s3://{s3_bucket}").failed(1, "is empty")
    s3_server.write(s3_bucket, "other/key", b"")
    run("ls", f"s3://{s3_bucket}").failed(1, "holds no registry", "root directory")


def test_a_denied_listing_is_not_an_empty_store(
    run: Run, s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(s3_server, monkeypatch)
    for key, body in images.registry_keys("team/app", images.image("one"), "1").items():
        s3_server.write(s3_bucket, key, body)
    with FaultProxy(s3_server.endpoint_url) as proxy:
        proxy.answer(403, "AccessDenied", operation="ListObjectsV2", times=None)
        for command in (("ls",), ("tags", "team/app"), ("inspect", "team/app:1")):
            arguments = [command[0], f"s3://{s3_bucket}", *command[1:], "--endpoint-url", proxy.endpoint_url]
            run(*arguments).failed(1, "not permitted")
        proxy.clear()
        assert run("ls", f"s3://{s3_bucket}", "--endpoint-url", proxy.endpoint_url).out == "team/app\n"


def test_a_page_that_fails_late_is_no_shorter_list(
    run: Run, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(moto, monkeypatch)
    for number in range(3):
        for key, body in images.registry_keys(f"team/app{number}", images.image(number), "1").items():
            moto.write(moto_bucket, key, body)
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(403, "AccessDenied", query="start-after|continuation-token|prefix=docker", after=1, times=None)
        said = run("ls", "-l", f"s3://{moto_bucket}", "--endpoint-url", proxy.endpoint_url)
    said.failed(1, "not permitted")


def test_a_bucket_with_a_root(
    run: Run, s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(s3_server, monkeypatch)
    for key, body in images.registry_keys("team/app", images.multiarch("one"), "1").items():
        s3_server.write(s3_bucket, f"reg/{key}", body)
    said = run("tags", "--json", f"s3://{s3_bucket}/reg", "team/app")
    assert said.envelope["store"] == f"s3://{s3_bucket}/reg"
    assert [tag["tag"] for tag in said.json["tags"]] == ["1"]
    assert run("tags", f"s3://{s3_bucket}/reg", "team/app").code == 0
