"""Where an inventory is kept: a new file, or an older inventory's place, never somebody else's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from regstore.errors import InputError
from regstore.inventory.inventory import Inventory


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
