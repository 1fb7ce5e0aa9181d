"""What regstore makes on a disk outside a registry's own tree is for its user alone, whatever the umask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from regstore.backup import create
from regstore.storage.disk import DiskStorage
from tests.backup.places import SCANNING, collect, give_back, memory, read_all, take
from tests.backup.test_interrupted import small
from tests.cli.conftest import Run
from tests.cli.conftest import run as run
from tests.model.store import ModelStore


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    mask: int = request.param
    before = os.umask(mask)
    yield mask
    os.umask(before)


def modes(folder: Path) -> dict[str, set[int]]:
    """Of the folders (the one itself included) and files in it."""
    found: dict[str, set[int]] = {"folders": {folder.stat().st_mode & 0o777}, "files": set()}
    for path in folder.rglob("*"):
        found["folders" if path.is_dir() else "files"].add(path.stat().st_mode & 0o777)
    return found


PRIVATE = {"folders": {0o700}, "files": {0o600}}


def test_backups_caches_and_inventories_are_private_and_a_restored_registry_is_not(
    umask: int, run: Run, tmp_path: Path
) -> None:
    store, cache = tmp_path / "store", tmp_path / "caches/of/mine"
    backup, inventory = tmp_path / "backups/new/here", tmp_path / "kept.duckdb"
    small().write_folder(store)
    assert run("backup", "create", "--create", store, backup, "--cache-dir", cache).code == 0
    small(extra=True).write_folder(store)
    assert run("backup", "create", "--create", store, backup, "--cache-dir", cache).code == 0
    # A lock, intents, a proof, what is repaired.
    next((backup / "blobs/sha256").rglob("*/*")).unlink()
    repaired = run("backup", "check", backup, "--read-data", "all", "--repair-from", store, "--cache-dir", cache)
    assert (repaired.code, repaired.err.count("repaired")) == (0, 1)
    assert "can read" not in repaired.err
    assert run("backup", "prune", backup, "--keep-last", "1", "--grace", "0s", "--yes").code == 0
    looked = run("gc", store, "--dry-run", "--cache-dir", cache, "--inventory", inventory)
    assert looked.code == 0, looked
    restored = tmp_path / "restored"
    assert run("restore", backup, restored, "--create").code == 0
    assert modes(tmp_path / "backups") == PRIVATE
    assert modes(tmp_path / "caches") == PRIVATE
    assert inventory.stat().st_mode & 0o777 == 0o600
    # A registry under another user reads it, where the umask lets it.
    usual = {"folders": {0o755 & ~umask}, "files": {0o644 & ~umask}}
    assert modes(restored / "docker") == usual
    with_id = store / "regstore"
    assert modes(with_id) == {"folders": {(store / "docker").stat().st_mode & 0o755}, "files": usual["files"]}


async def test_the_library_keeps_backups_private_too(umask: int, tmp_path: Path) -> None:
    async with DiskStorage(tmp_path / "above/backup", create=True) as backup:
        await create(memory(small()), backup, scanning=SCANNING)
    async with DiskStorage(tmp_path / "above/backup") as backup:
        await take(memory(small(extra=True)), backup)
        await give_back(backup, memory(ModelStore()))
        await collect(backup, last=1)
    found = modes(tmp_path / "above")
    # The lock was taken before prune was called: its folder is in a private one.
    assert (found["files"], found["folders"] - {0o755 & ~umask}) == ({0o600}, {0o700} - {0o755 & ~umask})


async def test_an_older_backup_that_all_can_read_is_told_and_goes_on(
    umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backup"
    old = ModelStore()
    await take(memory(small()), memory(old))
    old.write_folder(folder)
    tmp_path.chmod(0o755)  # pytest's own are private
    monkeypatch.setattr(Path, "resolve", lambda self: self)
    monkeypatch.setattr(Path, "parents", property(lambda self: [tmp_path]))
    async with DiskStorage(folder) as backup:
        notes = (await read_all(backup)).notes
        assert len(notes) == (umask != 0o077)
        assert all(f"chmod -R go-rwx {folder}" in note for note in notes)
        await take(memory(small(extra=True)), backup)
    new = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).as_posix() not in old]
    assert new and {path.stat().st_mode & 0o777 for path in new} == {0o600}
    folder.chmod(0o700)
    async with DiskStorage(folder) as backup:
        assert not (await read_all(backup)).notes
