"""Stores that are written the same are told apart: neither is restored, nor forgotten, in the place of the other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from regstore.backup import choose, list_snapshots
from regstore.backup.format import decode_snapshot, encode_snapshot, snapshot_key
from regstore.backup.opening import untold
from regstore.errors import InputError, IntegrityError
from regstore.layout import STORE_ID
from regstore.storage import identity
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.storage.identity import keep_id, place_of
from regstore.storage.s3 import S3Settings, S3Storage
from tests.backup.places import collect, give_back, memory, take
from tests.backup.test_interrupted import LATER, small
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore
from tests.servers.s3 import S3Server


def bucket(endpoint: str, name: str = "registry") -> S3Storage:
    return S3Storage(S3Settings(bucket=name, endpoint_url=endpoint, region="x", access_key="a", secret_key="b"))


class Elsewhere(ModelStorage):
    """A store that is at `place`, written as s3://registry."""

    url = "s3://registry"
    place = ""


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, ModelStore], Storage]:
    async def place(storage: Storage) -> str:
        return getattr(storage, "place", storage.url)

    monkeypatch.setattr(import_module("regstore.backup.create"), "place_of", place)

    def make(place: str, store: ModelStore) -> Storage:
        found = Elsewhere(store, now=NOW)
        found.place = place
        return found

    return make


async def test_two_servers_with_one_bucket_name_are_two_in_a_backup(
    elsewhere: Callable[[str, ModelStore], Storage],
) -> None:
    backup = ModelStore()
    one = await take(elsewhere("s3://registry at http://one:9000", small()), memory(backup))
    two = await take(
        elsewhere("s3://registry at http://two:9000", small(extra=True)), memory(backup, now=NOW + DAY)
    )
    with pytest.raises(InputError, match=r"could be several.*http://one:9000.*http://two:9000.*give an ID"):
        await give_back(memory(backup), memory())
    done = await collect(memory(backup, now=NOW + LATER), last=1)
    assert done.snapshots == 0
    for taken in (one, two):
        restored = await give_back(memory(backup), memory(), snapshot=taken.snapshot.run)
        assert (restored.snapshot.run, restored.partial) == (taken.snapshot.run, False)


async def test_buckets_are_told_by_their_endpoint() -> None:
    places = set()
    for endpoint in ("http://one:9000", "http://two:9000", "http://ONE:9000/"):
        async with bucket(endpoint) as storage:
            places.add(await place_of(storage))
    assert places == {"s3://registry at http://one:9000", "s3://registry at http://two:9000"}


def without_place(backup: ModelStore, key: str) -> str:
    """As an older regstore wrote it; its run."""
    body, mtime = backup.objects.pop(key)
    document = json.loads(body)
    del document["place"]
    old = json.dumps(document, indent=1).encode() + b"\n"
    run = decode_snapshot(body, key).run
    backup.objects[snapshot_key(run, old)] = (old, mtime)
    return run


async def test_snapshots_of_an_older_version_are_read_and_never_forgotten_by_a_rule() -> None:
    backup = ModelStore()
    runs = []
    for day in range(3):
        taken = await take(memory(small(extra=day == 1)), memory(backup, now=NOW + day * DAY))
        runs.append(without_place(backup, taken.key))
    listed = await list_snapshots(memory(backup))
    assert [one.place for one in listed.snapshots] == ["", "", ""]
    # As before, and what can't be told is said.
    old = await give_back(memory(backup), memory())
    assert (old.snapshot.run, old.partial) == (runs[2], False)
    assert "do not say which store model was" in old.notes[0]
    assert not (await give_back(memory(backup), memory(), snapshot=runs[0])).notes

    new = await take(memory(small()), memory(backup, now=NOW + 4 * DAY))
    newest = await give_back(memory(backup), memory())
    assert newest.snapshot.run == new.snapshot.run
    assert len(newest.notes) == 1
    done = await collect(memory(backup, now=NOW + 9 * DAY), last=1)
    assert done.snapshots == 0
    assert {why for one, why in done.plan.forget.kept if one.run in runs} == {
        ("not counted: an older regstore did not say which store it is of",)
    }
    assert (await collect(memory(backup, now=NOW + 9 * DAY), forget=tuple(runs))).snapshots == 3
    assert not (await give_back(memory(backup), memory())).notes

    # One that is newer, and does not say whose it is, may be the one that is meant.
    again = await take(memory(small(extra=True)), memory(backup, now=NOW + 10 * DAY))
    run = without_place(backup, again.key)
    listed = await list_snapshots(memory(backup))
    with pytest.raises(InputError, match="did not say which"):
        choose(listed, "latest", "here")
    assert not untold(listed, run, choose(listed, run, "here"))


async def test_a_snapshot_that_says_nonsense_of_its_store_is_damaged() -> None:
    backup = ModelStore()
    taken = await take(memory(small()), memory(backup))
    document = json.loads(encode_snapshot(taken.snapshot))
    for wrong in ({"place": 3}, {"after": [1]}, {"after": 7}):
        body = json.dumps(document | wrong).encode()
        with pytest.raises(IntegrityError, match="is no snapshot"):
            decode_snapshot(body, snapshot_key(taken.snapshot.run, body))
    body = json.dumps(document | {"after": ["x"], "what a later version adds": 1}).encode()
    assert decode_snapshot(body, snapshot_key(taken.snapshot.run, body)).after == ("x",)


def registry(folder: Path, *, extra: bool = False) -> Path:
    small(extra=extra).write_folder(folder)
    return folder


async def place(folder: Path, *, read_only: bool = False) -> str:
    async with DiskStorage(folder, read_only=read_only) as storage:
        await keep_id(storage)
        return await place_of(storage)


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    """Go to the computer of this machine ID ("": it has none, as a container) and host name."""

    def be(machine: str, host: str = "host") -> None:
        file = tmp_path / "machine-id"
        file.write_text(f"{machine}\n")
        monkeypatch.setattr(identity, "_MACHINE_ID", file)
        monkeypatch.setattr("platform.node", lambda: host)

    be("1" * 32)
    return be


async def test_a_folder_has_its_own_id_and_keeps_it(tmp_path: Path, computer: Callable[[str, str], None]) -> None:
    one = registry(tmp_path / "one")
    first = await place(one)
    assert await place(one) == first and first.startswith("folder ")
    (tmp_path / "link").symlink_to(one)
    assert await place(tmp_path / "link") == first
    one.rename(tmp_path / "moved")
    assert await place(tmp_path / "moved") == first
    assert await place(registry(tmp_path / "one")) != first, "another one in its place"
    # A container has another name each night, and another path for the same folder.
    computer("", "c0ffee")
    assert await place(tmp_path / "moved") == first


async def test_a_copy_of_a_folder_is_another_store(tmp_path: Path, computer: Callable[[str, str], None]) -> None:
    one = registry(tmp_path / "one")
    places = {await place(one)}
    shutil.copytree(one, tmp_path / "two")
    for machine in ("1" * 32, "2" * 32, ""):
        computer(machine, "host")
        places.add(await place(tmp_path / "two"))
        assert await place(tmp_path / "two") in places, "and stays that"
    # Its blocks were copied, with all numbers of files, and it lies at the same path of another computer.
    computer("2" * 32, "host")
    places.add(await place(one))
    assert len(places) == 5


async def test_a_folder_that_may_not_be_written_is_told_by_the_computer(
    tmp_path: Path, computer: Callable[[str, str], None]
) -> None:
    one = registry(tmp_path / "one")
    places = set()
    for machine, host in (
        ("1" * 32, "a"),
        ("1" * 32, "b"),
        ("2" * 32, "a"),
        ("", "a"),
        ("", "b"),
        ("nonsense", "b"),
    ):
        computer(machine, host)
        places.add(await place(one, read_only=True))
    assert len(places) == 4
    assert not (one / STORE_ID).exists()
    (one / "regstore").mkdir()
    for body in (b"", b"[]", b'{"id": 1, "inode": 2, "computer": ""}', b'{"id": "xy", "inode": 2, "computer": ""}'):
        (one / STORE_ID).write_bytes(body)
        assert await place(one) in places


async def test_what_is_no_registry_gets_no_id(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        async with DiskStorage(folder) as storage:
            await keep_id(storage)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


@pytest.mark.servers
async def test_a_bucket_of_two_endpoints_counts_as_two(s3_server: S3Server, s3_bucket: str) -> None:
    """Here it is one server by two of its names, which nothing tells: what is kept apart loses nothing."""
    backup = ModelStore()
    for number, host in enumerate(("127.0.0.1", "localhost")):
        settings = s3_server.at(s3_server.endpoint_url.replace("127.0.0.1", host)).settings(s3_bucket)
        async with S3Storage(settings) as storage:
            if not number:
                await small().write_storage(storage)
            await take(storage, memory(backup, now=NOW + number * DAY))
    assert (await collect(memory(backup, now=NOW + LATER), last=1)).snapshots == 0
    with pytest.raises(InputError, match="could be several"):
        await give_back(memory(backup), memory())
