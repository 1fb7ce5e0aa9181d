"""A full disk, a bucket over its quota: the moment when gc is needed most, and can't write its lock."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from regstore.digest import Digest
from regstore.errors import StorageFull
from regstore.layout import BlobKey, encode
from regstore.state import LOCKS, RUNS, TRASH
from regstore.state.lock import hold_lock
from regstore.storage.disk import DiskStorage
from tests.cli.conftest import Run
from tests.model.builder import Builder
from tests.model.store import ModelStore
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server

NOW = ("--grace", "0s", "--uploads-older-than", "0s", "--yes")
OFFLINE = ("--offline", "--no-trash", *NOW)


def registry() -> tuple[ModelStore, str]:
    """A tagged image, and the key of a blob that nothing names."""
    b = Builder()
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "latest")
    return b.store, encode(BlobKey(b.blob(b"x" * 300_000)))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB that holds a registry, and takes nothing more."""
    root = tmp_path / "disk"
    root.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "tmpfs", str(root)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a file system")
    try:
        registry()[0].write_folder(root)
        with pytest.raises(OSError) as caught, (root / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 4096)
        assert caught.value.errno == errno.ENOSPC
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)


def check_freed(root: Path) -> None:
    store, dead = registry()
    after = ModelStore.from_folder(root)
    assert dead not in after
    assert {key: after.body(key) for key in store if key != dead} == {
        key: store.body(key) for key in store if key != dead
    }


def test_a_full_disk(run: Run, disk: Path) -> None:
    run("gc", disk, *NOW).failed(1, "No space left", "`regstore gc --offline --no-trash` frees space")
    assert registry()[1] in ModelStore.from_folder(disk)
    said = run("gc", disk, *OFFLINE)
    assert said.code == 0, said
    assert "are kept in this process's memory" in said.err
    assert "nobody else is kept out" in said.err
    assert f"the journal of this run is in {disk} now" in said.err
    check_freed(disk)
    state = [key for key in ModelStore.from_folder(disk) if key.startswith("regstore/")]
    assert not [key for key in state if key.startswith(LOCKS)]
    assert [key for key in state if key.startswith(RUNS) and key.endswith("/done.json")]
    # As usual from here on: the run before is known.
    again = run("gc", disk, *NOW, "--settle", "0s", "--json")
    assert (again.code, again.report["blobs"]) == (0, 0)


def test_a_full_disk_and_a_folder_for_the_state(run: Run, disk: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    run("gc", disk, *NOW, "--state-dir", state).failed(2, "--offline --no-trash")
    assert not state.exists()
    said = run("gc", disk, *OFFLINE, "--state-dir", state, "--json")
    assert said.code == 0, said
    assert said.report["state"] == "store"
    assert said.report["blobs"] == 1
    assert f"are kept in {state}/" in said.err
    check_freed(disk)
    assert not [path for path in state.rglob("*") if path.is_file()]


def test_a_disk_that_stays_full(run: Run, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal stays in the folder, the next run knows it, and puts it into the store."""
    state = tmp_path / "state"
    with monkeypatch.context() as patch:
        patch.setattr(DiskStorage, "_put", _full(DiskStorage._put, disk))
        said = run("gc", disk, *OFFLINE, "--state-dir", state, "--json")
    assert said.code == 0, said
    assert said.report["state"].startswith(str(state))
    assert "could not be put into" in said.err
    check_freed(disk)
    assert list(state.rglob("done.json"))
    assert run("gc", disk, *OFFLINE, "--state-dir", state).code == 0
    assert not list(state.rglob("done.json"))
    assert list(disk.rglob("done.json"))


def _full(put: Any, root: Path) -> Any:
    def refuse(self: DiskStorage, *arguments: Any) -> None:
        if self.root == root:
            raise StorageFull(f"{root}: No space left on device")
        put(self, *arguments)

    return refuse


def test_what_must_be_given_back_first_needs_room(run: Run, disk: Path) -> None:
    """Nothing goes meanwhile: heal comes before all else."""
    _, dead = registry()
    layer = encode(BlobKey(Digest.of(b"layer")))
    run_name = "20260101T000000Z-00000000"
    (disk / "filler").unlink()
    for name, body in (("run.json", b"{}"), ("done.json", b"{}")):
        path = disk / RUNS / run_name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    copy = disk / TRASH / run_name / layer
    copy.parent.mkdir(parents=True)
    (disk / layer).rename(copy)
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)
    run("gc", disk, *OFFLINE, "--quiet").failed(1, "No space left", "given back before anything goes")
    assert copy.exists()
    assert dead in ModelStore.from_folder(disk)
    (disk / "filler").unlink()
    assert run("gc", disk, *OFFLINE).code == 0
    check_freed(disk)


async def test_another_run_s_lock_in_the_store_counts(disk: Path, tmp_path: Path, run: Run) -> None:
    (disk / "filler").unlink()
    async with DiskStorage(disk) as storage, hold_lock(storage, command="heal"):
        said = await asyncio.to_thread(run, "gc", disk, *OFFLINE, "--state-dir", tmp_path / "state")
    assert said.code == 5
    assert "locked by `heal`" in said.err
    assert registry()[1] in ModelStore.from_folder(disk)


@pytest.mark.parametrize(
    ("status", "code"), [(403, "QuotaExceeded"), (507, "InsufficientStorage"), (507, "XMinioStorageFull")]
)
def test_a_bucket_over_its_quota(
    run: Run, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    store, dead = registry()
    client = moto.client()
    for key in store:
        client.put_object(Bucket=moto_bucket, Key=key, Body=store.body(key))
    written = time.time()
    while time.time() // 1 <= written + 1:  # the server tells whole seconds
        time.sleep(0.05)
    with FaultProxy(moto.endpoint_url) as proxy:
        for name, value in moto.at(proxy.endpoint_url).environment().items():
            monkeypatch.setenv(name, value)
        proxy.answer(status, code, method="PUT", times=None, when=lambda _: dead in moto.keys(moto_bucket))
        bucket = f"s3://{moto_bucket}"
        run("gc", bucket, *NOW).failed(1, "`regstore gc --offline --no-trash` frees space")
        assert dead in moto.keys(moto_bucket)
        said = run("gc", bucket, *OFFLINE, "--json")
    assert said.code == 0, said
    assert said.report["state"] == "store"
    assert "are kept in this process's memory" in said.err
    keys = moto.keys(moto_bucket)
    assert {key for key in keys if key.startswith("docker/")} == set(store) - {dead}
    assert not [key for key in keys if key.startswith(LOCKS)]
    assert [key for key in keys if key.startswith(RUNS) and key.endswith("/done.json")]
