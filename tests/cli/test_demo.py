"""The demo: its registry is a real one with the damage it claims, and the walk through it goes to its end."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from regstore import layout
from regstore.cli import demo
from regstore.cli.app import COMMANDS
from regstore.cli.run import run_async
from regstore.demo_registry import AGE, CORRUPT_REPOSITORY, build_demo_registry
from regstore.digest import Digest
from regstore.manifest import OCI_CONFIG
from tests.cli.conftest import Run
from tests.servers import skopeo
from tests.servers.distribution import Registry


def keys_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_always_the_same_but_for_the_time(demo_registry: Path, tmp_path: Path) -> None:
    run_async(build_demo_registry(tmp_path, now=datetime(2025, 1, 31, tzinfo=UTC)))
    first, second = keys_of(demo_registry), keys_of(tmp_path)
    assert first.keys() == second.keys()
    assert {key.rpartition("/")[2] for key in first if first[key] != second[key]} == {"startedat"}
    old = (datetime(2025, 1, 31, tzinfo=UTC) - AGE).timestamp()
    assert {path.stat().st_mtime for path in tmp_path.rglob("*")} == {old}


def test_its_digests_are_the_same_everywhere(run: Run, demo_registry: Path) -> None:
    """README shows some; change these only together with it."""
    shown = {
        "team/app:1.1": "sha256:ebafb5db10469a1a4e5af3abe1419502a6d7263fab9984a53d917a7303c012d0",
        "library/base:12": "sha256:5a86931b9ffb0fb1cf16af98c92bb5d4c0c86f8113f1159cdfd3f088b2b1da4e",
    }
    assert {each: run("inspect", "--json", demo_registry, each).json["digest"] for each in shown} == shown


def test_its_layers_are_archives_and_its_configs_say_so(demo_registry: Path) -> None:
    bodies = {Digest.of(body): body for body in keys_of(demo_registry).values()}
    seen = 0
    for body in bodies.values():
        document = json.loads(body) if body.startswith(b'{"schemaVersion"') else {}
        if document.get("config", {}).get("mediaType") != OCI_CONFIG:
            continue
        seen += 1
        config = json.loads(bodies[Digest.parse(document["config"]["digest"])])
        layers = [bodies[Digest.parse(layer["digest"])] for layer in document["layers"]]
        assert config["rootfs"]["diff_ids"] == [str(Digest.of(gzip.decompress(layer))) for layer in layers]
        assert len([step for step in config["history"] if "empty_layer" not in step]) == len(layers)
        for layer in layers:
            with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
                assert len([member for member in archive if member.isfile()]) > 1
    assert seen == 10


def test_every_kind_of_key_is_in_it_and_nothing_unknown(demo_registry: Path) -> None:
    kinds = {type(layout.decode(key)) for key in keys_of(demo_registry)}
    assert kinds == {
        layout.BlobKey,
        layout.SeedKey,
        layout.LayerLinkKey,
        layout.RevisionLinkKey,
        layout.TagCurrentKey,
        layout.TagIndexKey,
        layout.UploadKey,
    }


def test_one_link_is_corrupt_and_one_blob_has_no_link(demo_registry: Path) -> None:
    linked, blobs, corrupt = set(), set(), []
    for text, body in keys_of(demo_registry).items():
        match layout.decode(text):
            case layout.BlobKey(digest):
                assert digest.matches(body)
                blobs.add(digest)
            case layout.LayerLinkKey(_, digest) | layout.RevisionLinkKey(_, digest):
                linked.add(digest)
                if body != layout.link_body(digest):
                    corrupt.append((text, body))
    assert len(blobs - linked) == 1
    assert linked <= blobs
    assert [body for _, body in corrupt] == [b""]
    assert f"/{CORRUPT_REPOSITORY}/" in corrupt[0][0]


def test_a_registry_serves_it(
    start_registry: Callable[..., Registry], with_skopeo: None, demo_registry: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "registry"
    shutil.copytree(demo_registry, folder)
    registry = start_registry(folder)
    assert registry.catalog() == ["legacy/import", "library/base", "team/app", "team/worker"]
    for repository, tag in (
        ("team/app", "1.0"),
        ("team/app", "1.1"),
        ("team/app", "latest"),
        ("team/worker", "stable"),
    ):
        skopeo.pull(registry.host, repository, tag)


@pytest.mark.skipif("gc" not in COMMANDS, reason="gc is not there yet")
class TestWalk:
    @pytest.fixture(autouse=True)
    def temporary(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def test_it_goes_to_its_end_and_leaves_nothing(self, run: Run, tmp_path: Path) -> None:
        said = run("demo")
        assert said.code == 0, said
        commands = re.findall(r"^\$ regstore (\w+(?: (?:create|restore))?)", said.out, re.MULTILINE)
        assert commands == [
            *("ls", "tags", "inspect", "gc", "gc", "gc", "trash restore"),
            *("backup create", "restore", "verify", "verify", "tags"),
        ]
        assert "please report" not in said.err
        assert list(tmp_path.iterdir()) == []

    def test_it_can_keep_the_registry(self, run: Run, tmp_path: Path, demo_registry: Path) -> None:
        said = run("demo", "--keep")
        assert said.code == 0, said
        (top,) = tmp_path.iterdir()
        assert str(top / "registry") in said.out.splitlines()[-1]
        assert said.out.splitlines()[-2].endswith(f": regstore serve {top / 'registry'}")
        before, after = keys_of(demo_registry), keys_of(top / "registry")
        assert {key for key in before if key not in after} <= {
            key for key in before if "/_uploads/" in key or "/index/" in key
        }
        assert all((top / name).is_dir() for name in ("backup", "restored"))
        for tag in (
            "team/app:1.0",
            "team/app:1.1",
            "team/app:latest",
            "team/worker:stable",
            f"{CORRUPT_REPOSITORY}:2019",
        ):
            assert run("inspect", top / "registry", tag).code == 0

    @pytest.mark.parametrize("wrong", [{"expected": 0}, {"told": ("what nobody says",)}])
    def test_it_fails_where_something_is_not_as_told(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
    ) -> None:
        steps = [replace(step, **wrong) if "--dry-run" in step.command else step for step in demo._STEPS]
        monkeypatch.setattr(demo, "_STEPS", steps)
        said = run("demo")
        assert said.code == 1
        assert said.out.count("$ regstore") == 4
        assert "this is not as it should be: " in said.err
