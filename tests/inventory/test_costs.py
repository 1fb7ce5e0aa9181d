"""What a small scan asks DuckDB: each statement costs about a millisecond, which is most of a small run's time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pytest

from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.storage.base import Page
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore


def small() -> ModelStore:
    b = Builder(NOW - DAY)
    for name in ("a", "b/c"):
        image = b.image(b.blob(b"{}"), [b.blob(name.encode())])
        b.push(name, image, "latest")
    return b.store


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement, as it is run."""
    found: list[str] = []
    execute = Inventory.execute

    def counted(
        self: Inventory, sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> duckdb.DuckDBPyConnection:
        found.append(sql)
        return execute(self, sql, parameters)

    monkeypatch.setattr(Inventory, "execute", counted)
    return found


async def scanned(inventory: Inventory, store: ModelStore) -> None:
    await Scanner(ModelStorage(store, now=NOW), inventory, ScanOptions(cache_dir=None, concurrency=4)).run()


async def test_statements_of_a_small_scan(statements: list[str]) -> None:
    with Inventory() as inventory:
        await scanned(inventory, small())
        assert inventory.counts("blob", "layer_link", "revision_link", "tag", "manifest") == {
            "blob": 5,
            "layer_link": 4,
            "revision_link": 2,
            "tag": 2,
            "manifest": 2,
        }
    assert len(statements) - 1 <= SCAN, "\n\n".join(statements)


async def test_they_do_not_vary_with_what_is_there(statements: list[str]) -> None:
    """No more for a store of a hundred times as much."""
    b = Builder(NOW - DAY)
    for number in range(100):
        b.push(f"r{number}", b.image(b.blob(b"{}"), [b.blob(b"%d" % number)]), "latest")
    with Inventory() as inventory:
        await scanned(inventory, b.store)
    assert len(statements) <= SCAN


def test_a_later_look_is_one_statement_and_leaves_nothing(statements: list[str]) -> None:
    key = "docker/registry/v2/repositories/a/_manifests/tags/1/current/link"
    with Inventory() as inventory:
        inventory.insert(
            "blob", {"digest": ("binary", [b"x" * 32]), "size": ("int64", [1]), "mtime": ("int64", [1])}
        )
        statements.clear()
        with inventory.child() as look, inventory.child() as other:
            assert not statements, "it is made by its place, in one"
            look.ingest([Page([key], [71], [""], [1], True)])
            assert (look.count("tag"), other.count("tag"), inventory.count("tag")) == (1, 0, 0)
            assert look.count("blob") == 1, "the inventory's"
        assert inventory.all("select schema_name from duckdb_schemas() where schema_name like 'later%'") == []


#: Listing and decoding of blobs (3) and of links (10), links that are not proved, manifests.
SCAN = 25
