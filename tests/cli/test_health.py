"""`regstore verify`, `du` and `doctor` as a user meets them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from regstore.errors import EXIT_DAMAGE, EXIT_OK
from tests.cli.conftest import Run
from tests.servers import images


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Two repositories that share an image, and a blob of nobody."""
    folder = tmp_path / "registry"
    shared, own = images.image("shared"), images.image("own")
    images.write_keys(folder, images.registry_keys("a", shared, "1"))
    images.write_keys(folder, images.registry_keys("b", shared, "1") | images.registry_keys("b", own, "own"))
    images.write_keys(folder, {images.blob_key(images.blob("lone").digest): images.blob("lone").data})
    return folder


def total(document: images.Document) -> int:
    return sum(map(len, document.closure().values()))


def test_du_adds_up(run: Run, registry: Path) -> None:
    shared, own = total(images.image("shared")), total(images.image("own"))
    said = run("du", registry, "--json").json
    assert said["blob_bytes"] == shared + own + 512
    assert (said["shared_bytes"], said["unreferenced_bytes"], said["unreferenced_blobs"]) == (shared, 512, 1)
    b, a = said["repositories"]
    assert (b["name"], b["unique"], b["shared"], b["total"]) == ("b", own, shared, own + shared)
    assert (a["name"], a["unique"], a["shared"], a["total"]) == ("a", 0, shared, shared)
    assert (b["tags"], b["revisions"]) == (2, 2)
    shown = run("du", registry, "--limit", 1)
    assert shown.code == EXIT_OK
    assert "(1 more)" in shown.out
    assert "of no repository: 1 blob, 512 B" in shown.out


def test_verify_says_what_and_whom(run: Run, registry: Path) -> None:
    assert run("verify", registry, "--read-data", "all").out.endswith("no damage found\n")
    layer = images.image("own").blobs[1].digest
    copy = registry.with_name("copy")
    shutil.copytree(registry, copy)
    (registry / images.blob_key(layer)).unlink()
    said = run("verify", registry)
    assert said.code == EXIT_DAMAGE
    assert f"blob missing: blob {layer}" in said.out
    assert "touches b:own" in said.out
    assert "1 of 3 tags can't be pulled whole" in said.out
    mended = run("verify", registry, "--repair-from", copy)
    assert mended.code == EXIT_OK
    assert "1 blob " in mended.out
    assert mended.out.endswith("no damage found\n")
    assert run("verify", registry).code == EXIT_OK


def test_verify_repairs_blobs_and_links_from_a_backup(run: Run, registry: Path) -> None:
    backup = registry.with_name("backup")
    assert run("backup", "create", "--create", registry, backup).code == EXIT_OK
    own = images.image("own")
    layer = registry / images.blob_key(own.blobs[1].digest)
    link = registry / "docker/registry/v2/repositories/b/_layers" / own.blobs[1].digest.replace(":", "/") / "link"
    link.unlink()
    layer.unlink()
    assert run("verify", registry, "--repair-from", backup).code == EXIT_DAMAGE
    assert layer.exists()
    mended = run("verify", registry, "--repair-from", backup, "--restore-links", "--storage-class", "STANDARD_IA")
    assert mended.code == EXIT_OK, mended
    assert "1 link put back" in mended.out
    assert link.read_text() == own.blobs[1].digest


def test_a_second_place_that_is_nothing_is_refused_at_once(run: Run, registry: Path, tmp_path: Path) -> None:
    run("backup", "create", "--create", registry, tmp_path / "backup")
    (tmp_path / "empty").mkdir()
    for command in (("verify", registry), ("backup", "check", tmp_path / "backup")):
        run(*command, "--repair-from", tmp_path / "nothing").failed(1, "no such folder")
        run(*command, "--repair-from", tmp_path / "empty").failed(2, "neither a registry nor a backup")
    # What tells the folder from others was put there by create, and nothing of a run.
    assert [path.name for path in (registry / "regstore").iterdir()] == ["id"]


def test_tags_are_dropped_after_their_grace(run: Run, registry: Path) -> None:
    (registry / images.blob_key(images.image("own").blobs[1].digest)).unlink()
    young = run("verify", registry, "--drop-broken-tags", "--yes")
    assert young.code == EXIT_DAMAGE
    assert "not dropped: b:own: it was set within the grace" in young.out
    said = run("verify", registry, "--drop-broken-tags", "--yes", "--grace", "0s")
    assert "dropped b:own" in said.out
    assert not (registry / "docker/registry/v2/repositories/b/_manifests/tags/own").exists()
    assert (registry / "docker/registry/v2/repositories/b/_manifests/tags/1").exists()


def test_verify_refuses_contradictions(run: Run, registry: Path) -> None:
    run("verify", registry, "--restore-links").failed(2, "--repair-from")
    run("verify", registry, "--max-age", "1d").failed(2, "--read-data")
    run("verify", registry, "--server-checksums", "maybe", "--read-data", "all").failed(2, "ignore, report, trust")
    assert run("verify", registry, "--read-data", "some").code == 2
    run("verify", registry.parent / "empty-or-not").failed(1, "no such folder")


def test_verify_knows_what_is_no_registry(run: Run, tmp_path: Path) -> None:
    run("verify", tmp_path).failed(1, "holds no registry")


def test_doctor_of_a_sound_store(run: Run, registry: Path) -> None:
    before = sorted(path for path in registry.rglob("*"))
    said = run("doctor", registry)
    assert said.code == EXIT_OK, said
    assert "0 failures, 0 warnings" in said.out
    assert sorted(path for path in registry.rglob("*")) == before, "it only looks"
    assert run("doctor", registry, "--write-probe").code == EXIT_OK
    assert sorted(path for path in registry.rglob("*") if path.name != "regstore") == before


def test_doctor_names_what_is_odd(run: Run, registry: Path) -> None:
    (registry / "docker/registry/v2/blobs/odd").write_bytes(b"")
    (registry / "docker/registry/v2/repositories/c").symlink_to("/nowhere")
    aside = registry / "regstore/trash/20260101T000000Z-abcdef00/x"
    aside.parent.mkdir(parents=True)
    aside.write_bytes(b"123")
    part = registry / "regstore/runs/20260101T000000Z-abcdef00/000001.jsonl.gz"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"")
    (registry / "regstore/trash/mine").write_bytes(b"1234")
    old = registry / "docker/registry/v2/repositories/a/_uploads/0d6b9a0e-51a7-4c63-9a1f-6d7a3f5a1c2b"
    old.mkdir(parents=True)
    for name in ("data", "startedat"):
        (old / name).write_bytes(b"12345")
        os.utime(old / name, (1, 1_600_000_000))
    said = run("doctor", registry, "--json")
    assert said.code == 1
    states = {check["name"]: (check["outcome"], check["detail"]) for check in said.json["checks"]}
    assert states["unknown keys"] == ("warn", "1, such as docker/registry/v2/blobs/odd")
    assert states["symbolic links"][0] == "fail"
    assert states["trash"][0] == "warn" and "not freed yet: 1 blobs of 1 runs, 3 bytes" in states["trash"][1]
    assert states["foreign trash"] == ("warn", "1 objects that no run left, 4 bytes, such as regstore/trash/mine")
    assert states["runs"][0] == "warn"
    assert states["uploads"] == (
        "warn",
        "1 of 1 older than 7 days, 10 bytes, such as 0d6b9a0e-51a7-4c63-9a1f-6d7a3f5a1c2b in a",
    )
    untried = {name for name, (state, _) in states.items() if state == "skip"}
    assert untried == {"permission write", "permission delete", "permission read", "conditional writes"}
    assert all(check["advice"] for check in said.json["checks"] if check["outcome"] != "ok")


def test_doctor_of_nothing(run: Run, tmp_path: Path) -> None:
    said = run("doctor", tmp_path / "nothing")
    assert said.code == 1
    assert said.out.startswith("fail  reachable")
