"""A URL that names a folder inside a registry's own tree: refused by every command, with the URL that is meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from regstore.storage.within import outer_roots
from tests.cli.conftest import Run
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server

TREE = "docker/registry/v2"
INSIDE = ("docker", "docker/registry", TREE, f"{TREE}/blobs", f"{TREE}/repositories/team/app")
COMMANDS = (
    ("seed-bucket",),
    ("seed-bucket", "--check"),
    ("gc", "--yes"),
    ("gc", "--dry-run"),
    ("trash", "list"),
    ("heal",),
    ("verify",),
    ("verify", "--repair"),
    ("ls",),
    ("du",),
    ("doctor",),
    ("locks",),
)


@pytest.fixture
def registry(tmp_path: Path, demo_registry: Path) -> Path:
    return Path(shutil.copytree(demo_registry, tmp_path / "registry"))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("path", "roots"),
    [
        ("/srv/docker", {"/srv": False}),
        ("/docker/registry", {"": False}),
        ("docker", {"": False}),
        (TREE, {"": True}),
        (f"/srv/{TREE}/blobs/sha256", {"/srv": True}),
        (f"a/{TREE}/b/{TREE}/docker", {"a": True, f"a/{TREE}/b": True, f"a/{TREE}/b/{TREE}": False}),
        ("/srv/docker/registry/data", {}),
        ("/srv/docker/registry/v2x", {}),
        ("registry/v2", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_the_roots_around(path: str, roots: dict[str, bool]) -> None:
    assert outer_roots(path) == roots


@pytest.mark.parametrize("inside", INSIDE)
def test_a_folder_inside_a_registry(run: Run, registry: Path, inside: str) -> None:
    before = everything(registry)
    for name, *options in COMMANDS[:3] if inside != TREE else COMMANDS:
        run(name, *(options[:1] if name == "trash" else ()), registry / inside, *options[name == "trash" :]).failed(
            2, f"{registry / inside} lies inside the tree of the registry at {registry}:", f"; say {registry}\n"
        )
    assert everything(registry) == before


def test_no_copy_goes_into_a_registry_nor_a_backup(run: Run, registry: Path, tmp_path: Path) -> None:
    other, backup = tmp_path / "other", tmp_path / "backup"
    shutil.copytree(registry, other)
    assert run("backup", "create", "--create", other, backup).code == 3
    before = everything(registry)
    for command in (
        ("migrate", other),
        ("migrate", other, "--create"),
        ("restore", backup),
        ("backup", "create", "--create", other),
    ):
        words = [word for word in command if not str(word).startswith("-")]
        options = [word for word in command if str(word).startswith("-")]
        run(*words, registry / TREE / "new", *options).failed(2, f"inside the tree of the registry at {registry}:")
    run("verify", other, "--repair-from", registry / "docker").failed(2, f"; say {registry}\n")
    assert everything(registry) == before


def test_a_folder_inside_a_registry_by_another_name(run: Run, registry: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(registry / TREE)
    (tmp_path / "alias").symlink_to(registry)
    for path, meant in (
        (tmp_path / "link", registry),
        (tmp_path / "link/blobs/../../v2", registry),
        (registry / "docker/../docker/registry/v2", registry),
        (registry / "regstore/../docker", registry),
        (tmp_path / "alias/docker", tmp_path / "alias"),
        (f"file://{registry}/docker/registry/", registry),
    ):
        run("seed-bucket", path).failed(2, f"inside the tree of the registry at {meant}:")
    assert not (registry / TREE / "docker").exists()


def test_a_registry_whose_tree_is_behind_a_symbolic_link(run: Run, registry: Path, tmp_path: Path) -> None:
    (registry / TREE).rename(tmp_path / "data")
    (registry / TREE).symlink_to(tmp_path / "data")
    run("seed-bucket", registry / TREE).failed(2, f"inside the tree of the registry at {registry}:")


def test_an_empty_place_with_the_registrys_own_folders_in_its_name(run: Run, tmp_path: Path) -> None:
    run("seed-bucket", tmp_path / TREE).failed(2, "twice", f"; say {tmp_path}\n")
    assert not list(tmp_path.iterdir())


def test_a_root_directory_may_be_called_docker(run: Run, registry: Path, tmp_path: Path) -> None:
    """Beside nothing, and beside another registry once it is there."""
    for root in ("docker", "docker/registry"):
        assert run("seed-bucket", tmp_path / root).code == 0
        assert run("ls", tmp_path / root).code == 0
    shutil.copytree(registry / "docker", tmp_path / "whole/docker")
    shutil.copytree(registry / "docker", tmp_path / "whole/docker/docker")
    assert run("ls", tmp_path / "whole/docker").code == 0
    assert run("ls", tmp_path / "whole/docker/docker").code == 2


@pytest.mark.parametrize("root", ["", "reg/"])
def test_a_prefix_inside_a_registry(
    run: Run, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    with FaultProxy(moto.endpoint_url) as proxy:
        for name, value in moto.at(proxy.endpoint_url).environment().items():
            monkeypatch.setenv(name, value)
        meant = f"s3://{moto_bucket}/{root}".rstrip("/")
        assert run("seed-bucket", meant).code == 0
        before = moto.keys(moto_bucket)
        for inside in INSIDE:
            url = f"s3://{moto_bucket}/{root}{inside}"
            for command in ("seed-bucket", "verify"):
                run(command, url).failed(2, f"{url} lies inside", f" at {meant}:", f"; say {meant}\n")
        assert moto.keys(moto_bucket) == before
        proxy.answer(403, "AccessDenied", operation="ListObjectsV2", times=None)
        run("seed-bucket", f"s3://{moto_bucket}/{root}{TREE}").failed(2, "twice", f"; say {meant}\n")
        proxy.clear()
        moto.client().delete_objects(Bucket=moto_bucket, Delete={"Objects": [{"Key": key} for key in before]})
        assert run("seed-bucket", f"{meant}/docker").code == 0
        assert run("seed-bucket", f"s3://{moto_bucket}-none/{TREE}").code == 2
