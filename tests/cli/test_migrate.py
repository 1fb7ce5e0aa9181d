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
    assert "team/app" in said.out and "33" in said.out
    assert "Blobs are streamed through here." in said.out and "$" not in said.out, "neither is S3"
    assert "damaged: tag 1 names sha256:" in said.err and "1 unknown key at the source: left" in said.err
    document = run("migrate", here, there, "--dry-run", "--json").plan
    assert document["blobs"]["to_copy"] == 33
    assert {share["name"] for share in document["shares"]} == {"b", "damaged", "team", "team/app", "team/app/cache"}
    assert document["estimate"]["writes"] == 0 and document["estimate"]["prices"]
    assert list(there.iterdir()) == []


def test_created_copied_and_configured(run: Run, sound: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    run("migrate", sound, there).failed(1, "no such folder", "--create makes it")
    run("migrate", sound, there, "--dry-run").failed(1, "no such folder", "--create makes it")
    said = run("migrate", sound, there, "--dry-run", "--create", "--json")
    assert (said.code, said.plan["blobs"]["to_copy"], there.exists()) == (0, 3, False), said
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
    document = said.report
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
    assert said.report["blobs"] > 0
    assert said.report["configuration"]["storage"]["s3"]["rootdirectory"] == "/reg"
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
    run("migrate", tmp_path / "empty", tmp_path / "new", "--create").failed(1, "nothing of a registry")
    run("migrate", tmp_path / "none", tmp_path / "new", "--create").failed(1, "no such folder")
    run("migrate", sound, tmp_path / "new", "--create", "--tag", "1", "--tag", "typo").failed(2, "no tag typo")
    assert not list((tmp_path / "new").rglob("data"))
    (tmp_path / "link").symlink_to(sound)
    run("migrate", sound, tmp_path / "link").failed(2, "both")
    (tmp_path / "file").write_bytes(b"")
    run("migrate", sound, tmp_path / "file", "--create", "-n").failed(1, "not a folder")


def test_a_tag_that_delete_took_comes_back(run: Run, sound: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    tags = sound / "docker/registry/v2/repositories/team/app/_manifests/tags"
    shutil.copytree(tags / "1", tags / "2")
    assert run("migrate", sound, there, "--create").code == 0
    before = files(there)
    shutil.rmtree(tags / "1")
    assert run("migrate", sound, there).code == 0 and files(there) == before
    run("migrate", sound, there, "--delete", "--yes", "--max-delete", "10%").failed(4, "--max-delete 10%")
    said = run("migrate", sound, there, "--delete", "--dry-run")
    assert said.code == 0 and "1 tag to remove:\n  team/app:1\n" in said.out
    document = run("migrate", sound, there, "--delete", "--dry-run", "--json").plan
    assert (document["to_delete"], document["to_delete_tags"]) == (1, ["team/app:1"])
    said = run("migrate", sound, there, "--delete", "--yes")
    assert said.code == 0 and "Removed 1 tag:\n  team/app:1\n" in said.out
    assert {key for key in before if "/tags/1/" in key} == before.keys() - files(there).keys()
    assert not (there / tags.relative_to(sound) / "1").exists(), "an empty folder lists as a tag"
    assert run("trash", "restore", there, "--yes").code == 0
    assert files(there) == before


def push(folder: Path, content: bytes, tag: str) -> None:
    """Another image of team/app with this tag, a minute later."""
    b = Builder(NOW - 30 * DAY + 60_000_000)
    b.push("team/app", b.image(b.blob(b"{}"), [b.blob(content)]), tag)
    b.store.write_folder(folder)


def tags_of(folder: Path) -> dict[str, bytes]:
    found = {key: body for key, body in files(folder).items() if key.endswith("current/link")}
    return {key.split("/")[-3]: body for key, body in found.items()}


def test_some_tags_only(run: Run, sound: Path, tmp_path: Path) -> None:
    push(sound, b"other", "v2")
    there = tmp_path / "there"
    said = run("migrate", sound, there, "--create", "--tag", "v*", "--json")
    assert said.code == 0, said
    assert (said.report["tags"], said.report["revisions"], set(tags_of(there))) == (1, 1, {"v2"})
    run("migrate", sound, there, "--tag", "v*", "--tag", "none").failed(2, "no tag none")
    run("migrate", sound, there, "--repo", "team/*", "--repo", "none").failed(2, "no repository none")


def test_passes_until_nothing_changes(run: Run, sound: Path, tmp_path: Path) -> None:
    said = run("migrate", sound, tmp_path / "there", "--create", "--follow", "--json")
    assert said.code == 0, said
    assert (said.report["passes"], said.report["tags"]) == (2, 1)
    assert "Nothing to do." in run("migrate", sound, tmp_path / "there", "--follow").out


def test_a_tag_that_somebody_else_set(run: Run, sound: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    assert run("migrate", sound, there, "--create").code == 0
    push(there, b"theirs", "1")
    theirs = tags_of(there)["1"]
    said = run("migrate", sound, there)
    assert said.code == 3 and f"team/app:1 is {theirs.decode()} there" in said.err
    assert tags_of(there)["1"] == theirs
    said = run("migrate", sound, there, "--overwrite-tags", "--yes")
    assert said.code == 0 and said.err == ""
    assert tags_of(there) == tags_of(sound)


def test_every_blob_is_read_back(run: Run, sound: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    said = run("migrate", sound, there, "--create", "--verify", "full")
    assert said.code == 0 and "Read back 3 blobs." in said.out
    (layer,) = [path for path in there.rglob("data") if path.read_bytes() == b"layer"]
    layer.write_bytes(b"LAYER")
    assert run("migrate", sound, there).code == 0
    said = run("migrate", sound, there, "--verify", "full")
    assert said.code == 0 and "Read back 3 blobs, 1 of them copied again." in said.out
    assert layer.read_bytes() == b"layer"
