"""`regstore backup` as a user types it."""

from __future__ import annotations

import re
import shutil
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from regstore.errors import StorageFull
from regstore.state import lock
from regstore.storage.base import Storage
from tests.backup.reader import problems, snapshots
from tests.backup.test_interrupted import small
from tests.cli.conftest import Run, Start
from tests.servers.process import wait_until
from tests.servers.s3 import S3Server


def objects_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def demo_registry(built_demo: Path, tmp_path: Path) -> Path:
    """A copy: a backup gives a folder that it takes an ID."""
    return Path(shutil.copytree(built_demo, tmp_path / "demo"))


def test_create_look_restore_check_and_prune(run: Run, demo_registry: Path, tmp_path: Path) -> None:
    store, backup = tmp_path / "store", tmp_path / "backup"
    shutil.copytree(demo_registry, store)
    created = run("backup", "create", "--create", store, backup, "--json")
    assert created.code == 3  # the demo has a damaged link
    first = created.json["snapshot"]
    assert first["tags"] == 7
    assert first["left_out"][0]["repository"] == "legacy/import"
    # Of one fault all commands say the same.
    migrated = run("migrate", store, tmp_path / "moved", "--create", "--all")
    told = [
        first["left_out"][0]["reason"],
        migrated.err + migrated.out,
        run("gc", store, "-n").out,
        run("verify", store).out,
    ]
    assert all(re.search(r"(its link|a link that|the link of \S+ \S+|\n  it) is empty", each) for each in told), (
        told
    )
    shutil.rmtree(store / "docker/registry/v2/repositories/team/worker")
    second = run("backup", "create", "--create", store, backup, "--repo", "*", "--json").json["snapshot"]
    assert second["new_blobs"] == 0

    listed = run("backup", "list", backup)
    assert listed.code == 0
    assert first["id"] in listed.out
    assert [one["id"] for one in run("backup", "list", backup, "--json").json["snapshots"]] == [
        first["id"],
        second["id"],
    ]
    shown = run("backup", "show", backup, first["id"], "--json").json
    assert len(shown["shown_tags"]) == 7
    assert "team/app:latest" in run("backup", "show", backup).out
    difference = run("backup", "diff", backup, first["id"], second["id"], "--json").json
    assert {f"{change['repository']}:{change['after']}" for change in difference["tags"]} == {"team/worker:"}
    assert "- team/worker" in run("backup", "diff", backup, first["id"], second["id"]).out

    planned = run("restore", backup, tmp_path / "new", "--create", "--snapshot", first["id"], "--dry-run", "--json")
    assert planned.code == 3  # what was left out then
    assert planned.plan["missing_tags"] == 7
    assert not (tmp_path / "new").exists()
    restored = run("restore", backup, tmp_path / "new", "--create", "--snapshot", first["id"])
    assert restored.code == 3
    assert "not in the snapshot: legacy/import: " in restored.err
    assert run("ls", tmp_path / "new").out.split() == run("ls", demo_registry).out.split()
    assert run("backup", "restore", backup, store, "--snapshot", first["id"], "--repo", "team/*").code == 0
    assert "team/worker" in run("ls", store).out

    assert run("backup", "check", backup, "--read-data", "all").code == 0
    known = run("backup", "check", backup, "--read-data", "all", "--max-age", "1d", "--time-limit", "1h")
    assert known.code == 0
    assert "37 blobs (2.9 MiB) proved before, within --max-age" in known.out
    run("backup", "check", backup, "--max-age", "1d").failed(2, "say how much")
    pruned = run("backup", "prune", backup, "--keep-last", "1", "--grace", "0s", "--dry-run", "--json").plan
    assert [one["id"] for one in pruned["kept"]] == [first["id"], second["id"]]  # --repo made it another scope
    assert not problems(objects_of(backup))
    assert len(snapshots(objects_of(backup))) == 2


def test_damage_has_an_exit_code_of_its_own(run: Run, demo_registry: Path, tmp_path: Path) -> None:
    backup, mirror = tmp_path / "backup", tmp_path / "mirror"
    assert run("backup", "create", "--create", demo_registry, backup, "--quiet").code == 3
    shutil.copytree(backup, mirror)
    blob = max((backup / "blobs").rglob("*/*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[100] ^= 1
    blob.write_bytes(bytes(data))
    assert run("backup", "check", backup).code == 0
    found = run("backup", "check", backup, "--read-data", "1/1")
    assert found.code == 6
    assert blob.name in found.err
    assert "touches" in found.err
    assert run("restore", backup, tmp_path / "new", "--create").code == 3
    repaired = run("backup", "check", backup, "--read-data", "all", "--repair-from", demo_registry)
    assert repaired.code == 0
    (snapshot,) = (backup / "snapshots").iterdir()
    snapshot.write_bytes(b"{}")
    assert run("backup", "check", backup, "--repair-from", demo_registry).code == 6
    assert run("backup", "check", backup, "--repair-from", mirror).code == 0
    assert snapshot.read_bytes() == (mirror / "snapshots" / snapshot.name).read_bytes()
    assert run("backup", "check", backup, "--read-data", "all", "--json").json["damage"] == []


def test_a_damaged_newest_snapshot_is_said_by_everything_that_means_the_latest(
    run: Run, demo_registry: Path, tmp_path: Path
) -> None:
    backup, part = tmp_path / "backup", ("--repo", "team/*")
    first = run("backup", "create", "--create", demo_registry, backup, *part, "--json").json["snapshot"]["id"]
    newest = run("backup", "create", "--create", demo_registry, backup, *part, "--json").json["snapshot"]["id"]
    assert "repositories team/* of" in run("restore", backup, tmp_path / "a", "--create", "--snapshot", first).out
    (file,) = (backup / "snapshots").glob(f"{newest}-*")
    file.write_bytes(b"{}")
    for command in (
        ("show", backup),
        ("diff", backup, first),
        ("restore", backup, tmp_path / "b", "--dry-run"),
        ("restore", backup, tmp_path / "c", "--create"),
    ):
        said = run("backup", *command)
        assert said.code == 3, said
        assert f"it is newer than {first}" in said.err
        result = run("backup", *command, "--json").json
        assert (result if "damaged" in result else result["plan"] or result["report"])["damaged"]
    assert run("backup", "show", backup, first).code == 0
    # Nothing goes by a rule now; by its name it does.
    pruned = run("backup", "prune", backup, "--keep-last", "1", "--json", "--yes")
    assert (pruned.code, pruned.report["snapshots"], bool(pruned.json["plan"]["blocked"])) == (3, 0, True)
    planned = run("backup", "prune", backup, "--forget", newest, "--dry-run")
    assert planned.code == 0, planned
    assert f"forget  {newest}" in planned.out
    assert file.exists()
    assert run("backup", "prune", backup, "--forget", newest, "--yes").code == 0
    assert not file.exists()
    run("backup", "prune", backup, "--forget", first).failed(4, "no whole snapshot")


def test_wrong_words(run: Run, demo_registry: Path, tmp_path: Path) -> None:
    run("backup", "list", tmp_path / "nothing").failed(1, "no such folder")
    run("backup", "list", demo_registry).failed(1, "no backup")
    run("backup", "create", "--create", demo_registry).failed(2, "STORE and BACKUP")
    run("backup", "create", "--create", demo_registry, demo_registry).failed(4, "not empty")
    run("backup", "prune", demo_registry, "--keep-last", "1").failed(1, "nothing is deleted")
    backup = tmp_path / "backup"
    run("backup", "create", "--create", demo_registry, backup)
    run("backup", "prune", backup).failed(2, "--keep-last")
    some = run("backup", "check", backup, "--read-data", "some")
    assert some.code == 2
    assert "'--read-data': 'some' says not what to read" in some.err
    run("restore", backup, tmp_path / "new", "--create", "--snapshot", "2001-01-01").failed(2, "no snapshot")
    for words in (("--repo", "typo"), ("--snapshot", "2001-01-01")):
        run("restore", backup, tmp_path / "new", "--create", *words).failed(2, words[1])
    assert not (tmp_path / "new").exists()
    run("restore", backup, tmp_path / "new", "--create", "--tag", "typo").failed(2, "no tag typo")
    before = objects_of(backup).keys()
    run("restore", backup, backup).failed(2, "is a backup")
    run("restore", backup, backup / "new").failed(2, "lies within the backup")
    assert objects_of(backup).keys() == before
    assert not (backup / "new").exists()
    run("backup", "create", "--create", demo_registry, tmp_path / "other", "--tag", "typo").failed(2, "no tag typo")


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_wrong_words_leave_nothing_behind(run: Run, demo_registry: Path, tmp_path: Path) -> None:
    backup, policy = tmp_path / "backup", tmp_path / "policy.toml"
    run("backup", "create", demo_registry, backup, "--create")
    policy.write_text("keep = 1")
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    new, empty = tmp_path / "new", tmp_path / "empty"
    for words, code in {
        ("migrate", demo_registry, new, "--create", "--repo", "typo"): 2,
        ("migrate", demo_registry, new, "--create", "--tag", "typo"): 2,
        ("migrate", demo_registry, new, "--create", "--rename", "typo=b"): 2,
        ("migrate", demo_registry, new, "--create", "--rename", "team/app=team/worker"): 2,
        ("migrate", empty, new, "--create"): 1,
        ("migrate", demo_registry, new): 1,
        ("backup", "create", demo_registry, new, "--create", "--repo", "typo"): 2,
        ("backup", "create", demo_registry, new, "--create", "--tag", "typo"): 2,
        ("backup", "create", demo_registry, empty, "--tag", "typo"): 2,
        ("backup", "create", empty, new, "--create"): 1,
        ("backup", "create", demo_registry, new): 1,
        ("restore", backup, new): 1,
        ("restore", backup, new, "--create", "--repo", "typo"): 2,
        ("restore", backup, new, "--create", "--tag", "typo"): 2,
        ("restore", backup, empty, "--tag", "typo"): 2,
        ("backup", "prune", backup, "--forget", "typo", "--yes"): 2,
        ("backup", "check", backup, "--snapshot", "typo"): 2,
        ("gc", demo_registry, "--policy", policy): 2,
        ("gc", demo_registry, "--yes", "--redis-url", "nonsense"): 2,
        ("rm", demo_registry, "team/app:typo", "--yes"): 1,
        ("rm", demo_registry, "typo", "--recursive", "--yes"): 1,
        ("tag", demo_registry, "team/app:typo", "new"): 1,
        ("trash", "restore", demo_registry, "--run", "typo"): 2,
        ("trash", "empty", demo_registry, "--run", "typo", "--yes"): 2,
        ("verify", demo_registry, "--repair-from", tmp_path / "nothing"): 1,
    }.items():
        said = run(*words)
        changed = sorted(dict(tree(tmp_path).items() ^ before.items()))
        assert not changed, f"{words} left {changed}"
        assert not new.exists()
        assert not any(empty.iterdir()), words
        said.failed(code)
    assert "--create makes it" in run("restore", backup, new).err
    assert "--create makes it" in run("backup", "create", demo_registry, new).err


def test_a_missing_bucket_is_made_only_where_that_is_said(
    run: Run, moto: S3Server, demo_registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    bucket, restored = f"s3://backup-{uuid.uuid4().hex[:12]}", f"s3://restored-{uuid.uuid4().hex[:12]}"
    run("backup", "create", demo_registry, f"{bucket}/b").failed(1, "--create makes it")
    run("backup", "create", demo_registry, f"{bucket}/b", "--create", "--repo", "typo").failed(2, "typo")
    run("backup", "list", f"{bucket}/b").failed(1, "there is no bucket")
    assert run("backup", "create", demo_registry, f"{bucket}/b", "--create").code == 3
    assert not [key for key in moto.keys(bucket[5:]) if "docker/" in key], "a backup has no seeds of a registry"
    assert moto.client().get_public_access_block(Bucket=bucket[5:])["PublicAccessBlockConfiguration"]
    run("restore", f"{bucket}/b", restored).failed(1, "--create makes it")
    assert run("restore", f"{bucket}/b", restored, "--create", "--repo", "team/*").code == 0


def test_a_full_backup_is_no_case_for_gc(
    run: Run, demo_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def full(storage: Storage, *, command: str) -> AsyncIterator[None]:
        if storage.url:
            raise StorageFull(f"{storage.url} is full")
        yield

    backup = tmp_path / "backup"
    run("backup", "create", demo_registry, backup, "--create")
    monkeypatch.setattr(lock, "hold_lock", full)
    said = run("backup", "prune", backup, "--keep-last", "1", "--yes")
    said.failed(1, "is full", "make a little room in another way")
    assert "regstore gc" not in said.err


def test_what_removes_asks_first(run: Run, demo_registry: Path, tmp_path: Path) -> None:
    """As gc does. Here is no terminal to ask on."""
    backup, store = tmp_path / "backup", tmp_path / "store"
    for _ in range(2):
        assert (
            "first snapshot of a new backup" in run("backup", "create", demo_registry, backup, "--create").err or _
        )
    shutil.copytree(demo_registry, store)
    tags = store / "docker/registry/v2/repositories/team/app/_manifests/tags"
    (tags / "latest/current/link").write_bytes((tags / "1.0/current/link").read_bytes())
    before = objects_of(tmp_path)
    for words in (
        ("backup", "prune", backup, "--keep-last", "1"),
        ("restore", backup, store, "--overwrite-tags"),
        ("verify", store, "--drop-broken-tags"),
        ("migrate", demo_registry, store, "--overwrite-tags"),
    ):
        for more in ((), ("--json",)):
            said = run(*words, *more)
            assert (said.code, "--yes" in said.err) == (4, True), said
        assert objects_of(tmp_path) == before, words
    assert "1 tag to overwrite" in run("restore", backup, store, "--overwrite-tags").out
    # Nothing is overwritten, so nothing is asked.
    assert run("restore", backup, demo_registry, "--overwrite-tags").code == 3
    assert run("restore", backup, store, "--overwrite-tags", "--yes").code == 3
    assert run("backup", "prune", backup, "--keep-last", "1", "--yes").out.startswith("        SNAPSHOT")


def test_a_terminated_create_leaves_a_sound_backup(
    run: Run, start: Start, demo_registry: Path, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    process = start("backup", "create", "--create", demo_registry, backup)
    wait_until(lambda: (backup / "intents").exists() or process.poll() is not None, "an intent", 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not problems(objects_of(backup))
    assert run("backup", "create", "--create", demo_registry, backup).code == 3
    assert not problems(objects_of(backup))
    assert run("backup", "check", backup, "--read-data", "all").code == 0


def test_two_folders_of_one_path_are_two_in_a_backup(run: Run, tmp_path: Path) -> None:
    """As two computers that back up to one place: each night the other's registry lies at the path."""
    store, backup = tmp_path / "registry", tmp_path / "backup"
    taken = []
    for name in ("one", "two"):
        small(extra=name == "two").write_folder(store)
        taken.append(run("backup", "create", "--create", store, backup, "--json").json["snapshot"])
        store.rename(tmp_path / name)
    assert taken[0]["source"] == taken[1]["source"]
    places = [one["place"] for one in taken]
    assert places[0] != places[1]
    run("restore", backup, tmp_path / "restored", "--create").failed(
        2, "give an ID", *places, *(one["id"] for one in taken)
    )
    assert not (tmp_path / "restored").exists()
    pruned = run("backup", "prune", backup, "--keep-last", "1", "--grace", "0s", "--json", "--yes")
    assert (pruned.code, pruned.json["plan"]["forgotten"]) == (0, [])
    shown = run("backup", "list", backup).out
    assert all(place in shown for place in places)
    # A run of the next night goes on with its own.
    (tmp_path / "one").rename(store)
    third = run("backup", "create", "--create", store, backup, "--json").json["snapshot"]
    assert third["place"] == places[0]
    pruned = run("backup", "prune", backup, "--keep-last", "1", "--grace", "0s", "--json", "--yes")
    assert [one["id"] for one in pruned.json["plan"]["forgotten"]] == [taken[0]["id"]]
