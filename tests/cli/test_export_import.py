"""`regstore export` and `import` as a user types them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from regstore.backup.format import MARKER, marker_body
from regstore.storage.base import Storage
from tests.cli.conftest import Run
from tests.cli.terminal import on_terminal
from tests.exchange.stores import APP, OLD, OTHER, WORKER, fill, keys, tags
from tests.servers import images


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return fill(
        tmp_path / "store", ("team/app", APP, "1.0"), ("team/app", OLD, "old"), ("team/worker", WORKER, "stable")
    )


@pytest.fixture
def copy(tmp_path: Path, run: Run) -> Path:
    assert run("seed-bucket", tmp_path / "copy").code == 0
    return tmp_path / "copy"


def test_there_and_back(run: Run, store: Path, copy: Path, tmp_path: Path) -> None:
    layout = tmp_path / "images.tar"
    said = run("export", store, "team/app", "team/worker:stable", layout)
    assert said.code == 0 and "1 image of Docker's own media types, such as team/app:old" in said.err
    first, heading, *images_ = said.out.splitlines()
    assert first.startswith(f"{layout}: 3 images, ") and first.endswith(" written")
    assert heading.split() == ["IMAGE", "DIGEST"]
    assert [line.split() for line in images_] == [
        ["team/app:1.0", APP.digest],
        ["team/app:old", OLD.digest],
        ["team/worker:stable", WORKER.digest],
    ]
    said = run("import", layout, copy, "--dry-run")
    assert said.code == 0 and said.out.splitlines()[1:] == [heading, *images_] and tags(copy) == {}
    said = run("import", layout, copy)
    assert said.code == 0 and said.out.endswith(", 3 tags\n"), said
    assert tags(copy) == tags(store)
    assert not list(copy.glob("regstore/locks/*"))
    assert run("import", layout, copy).out == f"imported {layout}: 0 blobs (0 B), 0 links, 0 tags\n"


@pytest.mark.long
def test_on_a_terminal_all_fits(store: Path, copy: Path, tmp_path: Path) -> None:
    fill(copy, ("team/worker", OTHER, "stable"))
    shown = on_terminal("export", store, "team/app", "team/worker", tmp_path / "f.tar")
    assert shown.code == 0 and max(len(line) for line in shown.text.splitlines() if "sha256:" in line) <= 80
    asked = on_terminal("import", tmp_path / "f.tar", copy, "--overwrite-tags", answer="n")
    assert asked.code == 0 and "nothing was imported" in asked.text
    assert tags(copy) == {"team/worker:stable": OTHER.digest}
    asked = on_terminal("import", tmp_path / "f.tar", copy, "--overwrite-tags", answer="y")
    assert asked.code == 0 and tags(copy) == tags(store)


def test_json(run: Run, store: Path, copy: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    planned = run("export", store, "team/worker", layout, "--json", "--dry-run").plan
    assert not layout.exists()
    done = run("export", store, "team/worker", layout, "--json").report
    assert done == planned | {"there": 0}
    assert done["blobs"] == len(WORKER.closure())
    (image,) = done["images"]
    assert (image["repository"], image["tag"], image["digest"]) == ("team/worker", "stable", WORKER.digest)
    assert (image["media_type"], image["size"]) == (images.OCI_MANIFEST, len(WORKER.data))
    planned = run("import", layout, copy, "--json", "--dry-run").plan
    said = run("import", layout, copy, "--json")
    assert said.report == planned | {"seeded": False}
    assert said.json["target"] == str(copy)
    assert planned["images"] == [{"repository": "team/worker", "tag": "stable", "digest": WORKER.digest}]


def test_a_conflict_is_told_and_overwritten_only_with_a_yes(
    run: Run, store: Path, copy: Path, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    run("export", store, "team/worker", layout)
    fill(copy, ("team/worker", OTHER, "stable"))
    for dry in (["--dry-run"], []):
        said = run("import", layout, copy, *dry)
        assert said.code == 3
        assert f"team/worker:stable is {OTHER.digest[:19]} in the store and {WORKER.digest[:19]}" in said.err
    assert tags(copy) == {"team/worker:stable": OTHER.digest}
    said = run("import", layout, copy, "--overwrite-tags")
    assert said.code == 4 and "say --yes" in said.err and "1 tag to overwrite" in said.out
    assert tags(copy) == {"team/worker:stable": OTHER.digest}
    assert run("import", layout, copy, "--overwrite-tags", "--yes").code == 0
    assert tags(copy) == {"team/worker:stable": WORKER.digest}


@pytest.mark.parametrize("command", ["import", "restore"])
def test_where_nothing_was_asked_nothing_is_overwritten(
    command: str, run: Run, store: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody sets the tag after it was looked whether there is anything to ask."""
    module, place = "regstore.cli.import_layout", tmp_path / "layout"
    if command == "import":
        run("export", store, "team/worker", place)
    else:
        module = "regstore.cli.backup.restore"
        run("backup", "create", "--create", store, place)
    hold = importlib.import_module(module).hold_lock_openly

    def pushed_meanwhile(storage: Storage, **more: str) -> object:
        fill(copy, ("team/worker", OTHER, "stable"))
        return hold(storage, **more)

    monkeypatch.setattr(f"{module}.hold_lock_openly", pushed_meanwhile)
    said = run(command, place, copy, "--overwrite-tags")
    assert said.code == 3 and f"team/worker:stable is {OTHER.digest[:19]} in the store" in said.err
    assert tags(copy)["team/worker:stable"] == OTHER.digest


def test_what_is_damaged_is_told_and_left_out(run: Run, store: Path, copy: Path, tmp_path: Path) -> None:
    (store / images.blob_key(OLD.blobs[1].digest)).unlink()
    said = run("export", store, "team/app", tmp_path / "layout")
    assert said.code == 3 and f"not exported: team/app:old: team/app links {OLD.blobs[1].digest}" in said.err
    said = run("export", store, "team/app:old", tmp_path / "other")
    assert said.code == 1 and "nothing was exported" in said.err and not (tmp_path / "other").exists()
    layer = tmp_path / "layout/blobs" / APP.children[0].blobs[1].digest.replace(":", "/")
    layer.write_bytes(bytes(layer.stat().st_size))
    said = run("import", tmp_path / "layout", copy)
    assert said.code == 3 and "not imported: team/app: tag 1.0" in said.err and tags(copy) == {}


def test_from_a_backup(run: Run, store: Path, copy: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    assert run("backup", "create", store, backup, "--create").code == 0
    fill(store, ("team/worker", OTHER, "stable"))
    assert run("export", backup, "team/worker", tmp_path / "old.tar").code == 0
    assert run("import", tmp_path / "old.tar", copy).code == 0
    assert tags(copy) == {"team/worker:stable": WORKER.digest}
    run("export", store, "team/worker", tmp_path / "x", "--snapshot", "latest").failed(2, "is no backup")


def test_a_digest_in_its_short_form(run: Run, store: Path, tmp_path: Path) -> None:
    said = run("export", store, f"team/app@{OLD.digest[:15]}", tmp_path / "layout", "--json")
    assert [image["digest"] for image in said.report["images"]] == [OLD.digest]


def test_a_layout_that_names_no_repository(run: Run, copy: Path, tmp_path: Path) -> None:
    layout = images.write_oci_layout(tmp_path / "layout", {"1": OTHER})
    said = run("import", layout, copy)
    assert said.code == 3 and "give REPOSITORY" in said.err
    assert run("import", layout, copy, "mine").code == 0
    assert tags(copy) == {"mine:1": OTHER.digest}


def test_a_registrys_configuration_says_the_store(run: Run, store: Path, copy: Path, tmp_path: Path) -> None:
    for folder in (store, copy):
        config = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(folder)}}}
        (tmp_path / f"{folder.name}.yml").write_text(json.dumps(config))
    layout = tmp_path / "layout"
    assert run("export", "--registry-config", tmp_path / "store.yml", "team/worker", layout).code == 0
    assert run("import", "--registry-config", tmp_path / "copy.yml", layout, "mine").code == 0
    assert tags(copy) == {"mine:stable": WORKER.digest}


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (("export", "STORE", "team/app"), 2, "say what to export and where to"),
        (("export", "STORE", "Team/App", "x"), 2, "not a repository name"),
        (("export", "STORE", "team/ap", "x"), 1, "no repository team/ap in"),
        (("export", "STORE", "team/ap", "x"), 1, "did you mean team/app"),
        (("export", "STORE", "team/app@sha256:0000", "x"), 2, "no digest in team/app"),
        (("export", "STORE", "team/app", "x.tar.gz"), 2, "compress it afterwards"),
        (("export", "STORE", "team/app", "no/such/folder/x"), 2, "can't be made"),
        (("export", "STORE", "team/app", "no/such/folder/x.tar"), 2, "can't be written"),
        (("export", "STORE", "team/app", "store/x"), 2, "lies within the store"),
        (("import", "LAYOUT", "BACKUP", "a"), 2, "is a backup"),
        (("import", "nowhere", "STORE"), 2, "nowhere can't be read"),
        (("import", "STORE", "STORE"), 2, "no oci-layout"),
        (("import", "nowhere"), 2, "say what to import and where to"),
        (("import", "LAYOUT", "NOWHERE", "a"), 1, "--create makes it"),
    ],
)
def test_words_that_do_not_do(
    run: Run,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    what: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = keys(store)
    layout = images.write_oci_layout(tmp_path / "layout", {"1": OTHER})
    backup = tmp_path / "backup"
    backup.mkdir()
    (backup / MARKER).write_bytes(marker_body(0))
    places = {"STORE": store, "LAYOUT": layout, "NOWHERE": tmp_path / "nowhere", "BACKUP": backup}
    run(*(places.get(word, word) for word in words)).failed(code, what)
    assert keys(store) == before and not (tmp_path / "x").exists()


def test_a_place_that_is_missing_is_made_only_when_that_is_said(run: Run, store: Path, tmp_path: Path) -> None:
    run("export", store, "team/worker", tmp_path / "f.tar")
    assert run("import", tmp_path / "f.tar", tmp_path / "new", "--create").code == 0
    assert tags(tmp_path / "new") == {"team/worker:stable": WORKER.digest}
    assert (tmp_path / "new/docker/registry/v2/blobs/_regstore/seed").exists()
