"""A backend of one's own is one more line in `storage.backends.BACKENDS`: all commands work on its stores."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from regstore.digest import Digest
from regstore.layout import BlobKey, encode
from regstore.storage.backends import BACKENDS
from tests.cli.conftest import Run
from tests.cli.test_demo import keys_of
from tests.storage.third import BACKEND, make


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(BACKENDS, "sqlite", BACKEND)
    make(tmp_path / "store")
    return f"sqlite://{tmp_path / 'store'}"


def contents(store: str) -> dict[str, bytes]:
    with sqlite3.connect(store.removeprefix("sqlite://")) as connection:
        rows = {key.decode(): data for key, data in connection.execute("select key, data from object")}
    connection.close()
    return {key: data for key, data in rows.items() if not key.startswith("regstore/")}


def test_commands_on_a_store_of_a_third_backend(
    run: Run, store: str, demo_registry: Path, tmp_path: Path, isolated_environment: Path
) -> None:
    source = shutil.copytree(demo_registry, tmp_path / "registry")  # migrate notes whose store it is
    migrated = run("migrate", source, store)
    assert migrated.code == 3, migrated  # the demo has a damaged link
    assert "config.yml" not in migrated.out  # there is no registry with a driver for it
    copied = contents(store)
    assert copied.items() <= keys_of(source).items() and len(copied) > 50
    assert run("migrate", source, store, "--json").report["configuration"] == {}

    assert "team/app" in run("ls", store).out
    assert run("verify", store, "--read-data", "100%").code == 0
    assert run("du", store, "--json").json["blobs"] > 0

    seeded = run("seed-bucket", store)
    assert seeded.code == 0, seeded
    assert "config.yml" not in seeded.out
    assert run("doctor", store).code == 0

    with sqlite3.connect(store.removeprefix("sqlite://")) as connection:
        dead = encode(BlobKey(Digest.of(b"dead")))
        connection.execute("insert into object values (?, ?, ?)", [dead.encode(), b"dead", 1])
    connection.close()
    before = contents(store)
    assert run("gc", store, "--grace", "0s", "--dry-run", "--json").plan["blobs"]["dead"] == 1
    assert contents(store) == before
    done = run("gc", store, "--grace", "0s", "--offline", "--no-trash", "--yes")
    assert done.code == 0, done
    left = contents(store)
    assert before.keys() - left.keys() == {dead}

    backup = f"sqlite://{tmp_path / 'backup'}"
    make(tmp_path / "backup")
    assert run("backup", "create", "--create", store, backup).code == 0
    assert run("backup", "check", backup, "--read-data", "100%").code == 0
    folder = tmp_path / "restored"
    folder.mkdir()
    assert run("backup", "restore", backup, folder, "--create").code == 0
    restored = {key: data for key, data in keys_of(folder).items() if not key.startswith("regstore/")}
    assert restored.items() >= {key: data for key, data in left.items() if "/blobs/" in key}.items()


def test_what_a_third_backend_cannot_do_is_said(run: Run, store: str) -> None:
    run("seed-bucket", f"{store}-not-there").failed(1, "there is no", "can't make such a store")
    run("ls", "sqlite://relative").failed(2, "no location that regstore knows")
