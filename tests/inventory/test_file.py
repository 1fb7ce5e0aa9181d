"""Where an inventory is kept: a new file, or an older inventory's place, never somebody else's file."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from regstore.errors import InputError, Refused, StorageError
from regstore.inventory.inventory import Inventory
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
