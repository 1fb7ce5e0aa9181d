"""A cache that another user may have written is not believed, and nothing of it is touched."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from regstore.errors import InputError
from regstore.inventory.cache import ManifestCache
from regstore.proving.proofs import Proofs
from regstore.storage.private import open_private_database

NAME = "x.sqlite"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def a_folder_of_another(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, 65534, 65534)


def a_folder_that_all_may_write(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def a_folder_that_a_group_may_write(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def a_link_to_a_folder(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    folder.symlink_to(folder.parent / "elsewhere")


def a_folder_in_one_of_another(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder.parent, 65534, 65534)


def a_file_in_its_place(folder: Path) -> None:
    folder.write_bytes(b"")


def a_link_to_a_file(folder: Path) -> None:
    folder.mkdir()
    target = folder.parent / "a file of some importance"
    target.write_bytes(b"")
    target.chmod(0o644)
    (folder / NAME).symlink_to(target)


def a_file_of_another(folder: Path) -> None:
    folder.mkdir()
    (folder / NAME).write_bytes(b"")
    os.chown(folder / NAME, 65534, 65534)


def a_file_that_all_may_write(folder: Path) -> None:
    folder.mkdir()
    (folder / NAME).write_bytes(b"")
    (folder / NAME).chmod(0o666)


def a_second_name_of_a_file(folder: Path) -> None:
    folder.mkdir()
    (folder.parent / "other").write_bytes(b"")
    os.link(folder.parent / "other", folder / NAME)


def a_log_of_another_beside_it(folder: Path) -> None:
    """SQLite would take its pages from there."""
    folder.mkdir()
    (folder / f"{NAME}-wal").write_bytes(b"")
    os.chown(folder / f"{NAME}-wal", 65534, 65534)


def a_pipe(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / NAME)


@pytest.mark.parametrize(
    "planted",
    [
        a_folder_of_another,
        a_folder_that_all_may_write,
        a_folder_that_a_group_may_write,
        a_link_to_a_folder,
        a_folder_in_one_of_another,
        a_file_in_its_place,
        a_link_to_a_file,
        a_file_of_another,
        a_file_that_all_may_write,
        a_second_name_of_a_file,
        a_log_of_another_beside_it,
        a_pipe,
    ],
)
def test_it_is_refused_and_left_alone(tmp_path: Path, planted: Callable[[Path], None]) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    folder = parent / "cache"
    try:
        planted(folder)
    except PermissionError:
        pytest.skip("only root can give files away")
    before = {path: mode(path) for path in parent.rglob("*")}
    with pytest.raises((InputError, FileExistsError)):
        open_private_database(folder, NAME)
    assert {path: mode(path) for path in parent.rglob("*")} == before


def test_what_is_the_user_s_own_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "cache"
    for _ in range(2):
        open_private_database(folder, NAME).close()
        assert (mode(folder), mode(folder / NAME)) == (0o700, 0o600)
        (folder / NAME).chmod(0o644)  # as a copy of it may be: it is the user's all the same


def test_a_run_goes_on_without_and_says_why(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    cache = ManifestCache(tmp_path)
    assert list(cache.load([b"x" * 32])) == []
    assert "manifests are not remembered between runs" in cache.trouble
    assert f"{tmp_path} can be written by other users" in cache.trouble
    proofs = Proofs(tmp_path, "store")
    assert list(proofs.load()) == []
    assert "can be written by other users" in proofs.trouble
    assert not list(tmp_path.iterdir())
