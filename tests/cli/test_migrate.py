"""`regstore migrate` as a user types it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run
from tests.model.builder import Builder
from tests.model.random_registry import DAY, NOW, example_registry
from tests.servers.s3 import S3Server


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A registry with one damaged repository."""
    example_registry().write_folder(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    b = Builder(NOW - 30 * DAY)
    b.push("team/app", b.image(b.blob(b"{}"), [b.blob(b"layer")]), "1")
    b.store.write_folder(tmp_path / "sound")
    return tmp_path / "sound"


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] == "docker"
    }


def test_a_dry_run_writes_nothing(run: Run, here: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    said = run("migrate", here, there, "--dry-run")
    assert said.code == 3
    assert "team/app" in said.out and "33" in said.out and "about $0.00 of requests" in said.out
    assert "damaged: tag 1 names sha256:" in said.err and "1 unknown key at the source: left" in said.err
    document = run("migrate", here, there, "--dry-run", "--json").json
    assert document["blobs"]["to_copy"] == 33
    assert {share["name"] for share in document["shares"]} == {"b", "damaged", "team", "team/app", "team/app/cache"}
    assert document["estimate"]["writes"] == 93 and document["estimate"]["prices"]
    assert list(there.iterdir()) == []


def test_created_copied_and_configured(run: Run, sound: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    run("migrate", sound, there).failed(1, "no such folder", "--create makes it")
    run("migrate", sound, there, "--dry-run").failed(1, "no such folder", "--create makes it")
    said = run("migrate", sound, there, "--create")
    assert said.code == 0, said
    assert said.err == ""
    text = said.out.partition("to switch over:\n")[2].partition("\nUntil the last pass")[0]
    assert yaml.safe_load(text)["storage"]["filesystem"]["rootdirectory"] == str(there)
    assert "no registry's own garbage-collect may run" in said.out
    copied, original = files(there), files(sound)
    assert copied and all(original[key] == body for key, body in copied.items() if not key.endswith("seed"))
    said = run("migrate", sound, there)
    assert said.code == 0 and "Nothing to do." in said.out


def test_json_of_a_run(run: Run, here: Path, tmp_path: Path) -> None:
    said = run("migrate", here, tmp_path / "there", "--create", "--json")
    assert said.code == 3
    document = said.json
    assert (document["blobs"], document["tags"], document["partial"]) == (33, 8, True)
    assert document["configuration"]["storage"]["filesystem"]
    assert document["damaged"][0]["repository"] == "damaged"


def test_the_source_from_the_registrys_configuration(
    run: Run, sound: Path, tmp_path: Path, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    config = tmp_path / "config.yml"
    config.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {sound}\n")
    said = run("migrate", "--registry-config", config, f"s3://{moto_bucket}/reg", "--repo", "*", "--json")
    assert said.code == 0, said
    assert said.json["blobs"] > 0
    assert said.json["configuration"]["storage"]["s3"]["rootdirectory"] == "/reg"
    assert moto.secret_key not in said.out


def test_wrong_usage(run: Run, sound: Path, tmp_path: Path) -> None:
    run("migrate", sound).failed(2, "give STORE and DST")
    run("migrate", sound, sound).failed(2, "both")
    run("migrate", sound, tmp_path, "--rename", "a").failed(2, "from=to")
    run("migrate", sound, tmp_path, "--rename", "none=x").failed(2, "nothing to rename")
    run("migrate", sound, tmp_path, "--delete").failed(4, "--yes")
    run("migrate", sound, tmp_path, "--all", "--tag", "x").failed(2, "--all")
    run("migrate", tmp_path / "none", tmp_path).failed(1, "no such folder")
    (tmp_path / "empty").mkdir()
    run("migrate", tmp_path / "empty", sound).failed(1, "nothing of a registry")


def test_a_tag_that_delete_took_comes_back(run: Run, sound: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    tags = sound / "docker/registry/v2/repositories/team/app/_manifests/tags"
    shutil.copytree(tags / "1", tags / "2")
    assert run("migrate", sound, there, "--create").code == 0
    before = files(there)
    shutil.rmtree(tags / "1")
    assert run("migrate", sound, there).code == 0 and files(there) == before
    run("migrate", sound, there, "--delete", "--yes", "--max-delete", "10%").failed(4, "--max-delete 10%")
    said = run("migrate", sound, there, "--delete", "--yes")
    assert said.code == 0 and "Removed 1 tag." in said.out
    assert {key for key in before if "/tags/1/" in key} == before.keys() - files(there).keys()
    assert not (there / tags.relative_to(sound) / "1").exists(), "an empty folder lists as a tag"
    assert run("trash", "restore", there, "--yes").code == 0
    assert files(there) == before
