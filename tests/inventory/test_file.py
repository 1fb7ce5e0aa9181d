"""Where an inventory is kept: a new file, or an older inventory's place, never somebody else's file."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from regstore.errors import InputError, Refused, RegstoreError, StorageError, StorageFull
from regstore.inventory.inventory import Inventory
from regstore.inventory.place import OwnFile
from regstore.inventory.scan import ScanOptions, scan
from regstore.testing.faulty import FaultyStorage
from tests.gc.scenes import model_storage, small_registry
from tests.model.store import ModelStore


def test_an_older_inventory_makes_way(tmp_path: Path) -> None:
    path = tmp_path / "inventory.duckdb"
    for _ in range(2):
        with Inventory(path) as inventory:
            assert inventory.count("blob") == 0
            inventory.execute("insert into blob values ('x'::blob, 1, 1)")
    assert path.stat().st_size > 0


def test_another_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("dear mum, all is well")
    with pytest.raises(InputError, match="is there already and is no inventory"):
        Inventory(path)
    assert path.read_text().startswith("dear mum")


def test_another_database_stays(tmp_path: Path) -> None:
    path = tmp_path / "mine.duckdb"
    with duckdb.connect(str(path)) as mine:
        mine.execute("create table blob as select 42 as answer")
    with pytest.raises(InputError, match="is there already and is no inventory"):
        Inventory(path)
    with duckdb.connect(str(path)) as mine:
        assert mine.execute("from blob").fetchall() == [(42,)]


async def test_a_scan_that_fails_leaves_the_older_inventory(tmp_path: Path) -> None:
    path = tmp_path / "inventory.duckdb"
    options = ScanOptions(inventory=path)
    storage = model_storage(small_registry())
    async with scan(storage, options) as inventory:
        blobs = inventory.count("blob")
    with pytest.raises(StorageError):
        async with scan(FaultyStorage(storage, fail_list_page=2), options):
            pass
    with pytest.raises(Refused):  # what comes after the scan takes nothing from it
        async with scan(model_storage(ModelStore()), ScanOptions(inventory=tmp_path / "other")):
            raise Refused("too many")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["inventory.duckdb", "other"]
    with duckdb.connect(str(path), read_only=True) as older:
        assert older.execute("select count(*) from blob").fetchall() == [(blobs,)]


# -- beside the first requests


async def test_the_listing_begins_before_the_inventory_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()
    opened = OwnFile._opened

    async def note(operation: str, key: str) -> None:
        asked.set()

    def late(self: OwnFile) -> Any:
        assert asked.wait(20), "the listing waits for the inventory"
        return opened(self)

    monkeypatch.setattr(OwnFile, "_opened", late)
    async with scan(FaultyStorage(model_storage(small_registry()), before=note)) as inventory:
        assert inventory.count("blob") > 0


@pytest.mark.parametrize(("page", "told"), [(None, "can't be made: no room"), (1, "fault in page 1")])
async def test_one_that_can_not_be_made_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, page: int | None, told: str
) -> None:
    def fail(self: OwnFile) -> Any:
        raise duckdb.IOException("no room")

    monkeypatch.setattr(OwnFile, "_opened", fail)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    storage = FaultyStorage(model_storage(small_registry()), fail_list_page=page)
    with pytest.raises(RegstoreError, match=told):
        async with scan(storage, ScanOptions(inventory=tmp_path / "kept")):
            pass
    assert [file.name for file in tmp_path.rglob("*")] == ["temporary"]


# -- memory


class ShortOfMemory:
    """A connection on which statements that hold `big` need all of its memory for one thread."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.threads = 4

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, sql: str, parameters: Any = None) -> Any:
        if sql == "set threads = 1":
            self.threads = 1
        if "big" in sql and (self.threads > 1 or "too big" in sql):
            raise duckdb.OutOfMemoryException("Out of Memory Error: could not allocate block")
        return self._real.execute(sql, parameters)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Inventory, ShortOfMemory]]:
    monkeypatch.setattr("regstore.inventory.place.usable_cores", lambda: 4)
    with Inventory() as inventory:
        connection = ShortOfMemory(inventory.connection)
        inventory._place._connection = connection  # type: ignore[union-attr]
        yield inventory, connection


def test_what_needs_too_much_memory_is_run_again_with_one_thread(short: tuple[Inventory, ShortOfMemory]) -> None:
    inventory, connection = short
    inventory.execute("create table big as select 1 as a")
    assert connection.threads == 1
    assert inventory.all("from big") == [(1,)]


def test_what_needs_too_much_for_one_thread_is_told(short: tuple[Inventory, ShortOfMemory]) -> None:
    inventory, connection = short
    with pytest.raises(StorageFull, match=r"ran out of room, in memory or on disk \(TMPDIR says where\)"):
        inventory.execute("select 'too big'")
    assert connection.threads == 1


def test_within_a_transaction_the_first_failure_is_told(short: tuple[Inventory, ShortOfMemory]) -> None:
    """A transaction in which a statement failed takes no other."""
    inventory, connection = short
    inventory.execute("begin")
    with pytest.raises(duckdb.Error):
        connection.execute("insert into nowhere values (1)")
    with pytest.raises(StorageFull, match="could not allocate block"):
        inventory.execute("create table big as select 1 as a")
    inventory.execute("rollback")
