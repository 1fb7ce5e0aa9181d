"""Sections of SQL by name (`regstore.inventory.statements`)."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements, split

ONE = "tests.inventory"


def test_a_parameter_is_one_only_outside_of_strings_and_comments() -> None:
    first, second = split("select '$no; it''s $no' -- nor $here;\n, $yes;\n-- nothing;\nselect $a + $b;\n")
    assert first.parameters == {"yes"}
    assert second.parameters == {"a", "b"}
    assert second.sql.endswith("select $a + $b")


def test_a_section_is_run_with_its_parameters_and_fragments() -> None:
    statements = Statements(ONE, "statements.sql", table="two")
    assert list(statements) == ["make", "read"]
    with Inventory() as inventory:
        statements.run(inventory, "make", {"low": 3, "unused": 0})
        assert statements.run(inventory, "read", column="n").fetchall() == [(3,), (4,)]
        with pytest.raises(KeyError, match="low"):
            statements.run(inventory, "make")


def test_no_plan_of_a_whole_store_keeps_what_a_recursion_has_seen() -> None:
    """`with recursive … union` remembers every row that it has made, and DuckDB does not spill that: of 300,000
    manifests it ran out of the 192 MB that an inventory has. Rounds in a table spill, and so does `union all`."""
    for package in ("inventory", "migrate", "backup", "verify"):
        for file in (path for path in files(f"regstore.{package}").iterdir() if path.name.endswith(".sql")):
            for recursion in re.findall(r"with recursive\b.*?(?=^-- name:|\Z)", file.read_text(), re.M | re.S):
                assert not re.search(r"\bunion\b(?! all)", re.sub(r"--.*", "", recursion)), f"{package}/{file.name}"
