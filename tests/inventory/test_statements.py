"""Sections of SQL by name (`regstore.inventory.statements`)."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

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


def recursions(sql: str) -> list[str]:
    """The bodies of the common tables that name themselves."""
    found = []
    for begin in re.finditer(r"(\w+)(?:\s*\([\w\s,]*\))?\s+as\s+(?:materialized\s+)?\(", sql):
        depth, end = 1, begin.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(sql[end], 0)
            end += 1
        body = sql[begin.end() : end - 1]
        if re.search(rf"\b(?:from|join)\s+{begin[1]}\b", body):
            found.append(body)
    return found


def test_no_recursion_keeps_what_it_has_seen() -> None:
    """`with recursive … union` remembers every row that it has made, and DuckDB does not spill that: of 300,000
    manifests it ran out of the 192 MB that an inventory has. Rounds in a table spill, and so does `union all`, which
    must drop what a round makes twice, or a tower of indexes that name each other doubles with every floor."""
    seen = 0
    package = Path(str(files("regstore")))
    for file in sorted(package.rglob("*.sql")):
        sql = re.sub(r"--.*|'(?:[^']|\'\')*'", "", file.read_text())
        bodies = recursions(sql)
        assert len(bodies) == len(re.findall(r"\bwith recursive\b", sql)), f"{file} has a recursion that is none"
        for body in bodies:
            assert re.search(r"\bunion all\s+select distinct\b", body), file
            assert not re.search(r"\bunion\b(?! all)", body), file
        seen += len(bodies)
    assert seen >= 4
