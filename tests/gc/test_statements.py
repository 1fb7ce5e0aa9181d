"""How many statements of SQL gc makes on a small registry: each costs half a millisecond or more, however little it
finds.

The numbers hardly vary, and the bounds are a few above them. One that is passed says that something is asked that
can't be there, or asked twice. Bring them down with the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pytest

from regstore.gc.plan import plan_gc
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import scan
from regstore.inventory.statements import split
from tests.gc.scenes import collect, look, model_storage, options, small_registry
from tests.model.builder import Builder
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

Parameters = Sequence[Any] | Mapping[str, Any] | None


class Counted:
    """How many statements inventories have run since it was last asked."""

    def __init__(self) -> None:
        self._number = 0

    def add(self, sql: str) -> None:
        self._number += len(split(sql))

    def taken(self) -> int:
        number, self._number = self._number, 0
        return number


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    execute = Inventory.execute

    def counting(self: Inventory, sql: str, parameters: Parameters = None) -> duckdb.DuckDBPyConnection:
        counted.add(sql)
        return execute(self, sql, parameters)

    monkeypatch.setattr(Inventory, "execute", counting)
    return counted


def one_image() -> ModelStore:
    b = Builder(NOW - 30 * DAY)
    b.push("team/app", b.image(b.blob(b"config"), [b.blob(b"layer")]), "latest")
    return b.store


@pytest.mark.parametrize(
    ("store", "bound"), [(small_registry(), 50), (one_image(), 40)], ids=["all kinds", "image"]
)
async def test_the_plan(statements: Counted, store: ModelStore, bound: int) -> None:
    async with scan(model_storage(store), options(offline=True).scan) as inventory:
        statements.taken()
        plan_gc(inventory, options(offline=True).plan, now=NOW)
        assert statements.taken() <= bound


@pytest.mark.parametrize(("offline", "bound"), [(True, 110), (False, 260)])
async def test_a_run_that_removes_all_kinds_of_keys(statements: Counted, offline: bool, bound: int) -> None:
    """While the registry serves, it looks at the links four times more."""
    await collect(model_storage(small_registry()), options(offline=offline))
    assert statements.taken() <= bound


async def test_a_dry_run(statements: Counted) -> None:
    await look(model_storage(one_image()), options(offline=True))
    assert statements.taken() <= 65
