"""Statements of SQL, each with a name, in a file beside the module that runs them.

A file is a list of sections. A section begins with `-- name:` and a name, goes on with comments that say what relation
it makes, and ends with the statements themselves, one or several:

    -- name: old_tags
    -- old_tag(repository, name): tags older than the cutoff.
    create or replace table old_tag as select repository, name from {tags} where mtime < $cutoff

`$cutoff` is a parameter, which DuckDB binds; `{tags}` is a piece of SQL that no parameter can stand for, such as the
name of a table. What stands before the first section is about the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from regstore.manifest import EdgeKind

if TYPE_CHECKING:
    import duckdb

    from regstore.inventory.inventory import Inventory

#: Fragments: the number of each kind of edge by its name, `{subject}`.
EDGE_KINDS: Final = {kind.name.lower(): str(int(kind)) for kind in EdgeKind}
_SECTION: Final = re.compile(r"^-- name: *([a-z][a-z0-9_]*)$", re.MULTILINE)
#: Strings and comments, in which a `$` is no parameter; then a parameter; then the end of a statement.
_TOKEN: Final = re.compile(r"'(?:[^']|'')*'|--[^\n]*|\$([a-z][a-z0-9_]*)|(;)")
_FRAGMENT: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")


@dataclass(frozen=True)
class Statement:
    """One statement, and the names of its parameters."""

    sql: str
    parameters: frozenset[str]


class Statements(Mapping[str, tuple[Statement, ...]]):
    """The sections of one file, by name. fragments: SQL in place of `{their names}` in all of them."""

    def __init__(self, package: str, file: str, **fragments: str) -> None:
        self.file = f"{package.replace('.', '/')}/{file}"
        self._texts = sections(package, file)
        self._fragments = fragments

    def __getitem__(self, name: str) -> tuple[Statement, ...]:
        return self.filled(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def text(self, name: str, **fragments: str) -> str:
        """The section's SQL, to stand within another one."""
        filled = self._fragments | fragments
        return _FRAGMENT.sub(lambda found: filled[found[1]], self._texts[name])

    def filled(self, name: str, **fragments: str) -> tuple[Statement, ...]:
        return split(self.text(name, **fragments))

    def run(
        self, inventory: Inventory, name: str, parameters: Mapping[str, Any] | None = None, **fragments: str
    ) -> duckdb.DuckDBPyConnection:
        """Run a section's statements one after the other; the result of the last. Each gets the parameters that it
        names. KeyError where one is missing."""
        given = parameters or {}
        result = None
        for statement in self.filled(name, **fragments):
            bound = {each: given[each] for each in statement.parameters}
            result = inventory.execute(statement.sql, bound or None)
        assert result is not None, f"{self.file}: {name} has no statement"
        return result


@cache
def sections(package: str, file: str) -> Mapping[str, str]:
    """Name and SQL of each section of a file."""
    text = (files(package) / file).read_text()
    marks = list(_SECTION.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    found = {mark[1]: text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)}
    assert len(found) == len(marks), f"{file}: a name stands twice"
    return found


@cache
def split(sql: str) -> tuple[Statement, ...]:
    """The statements of a text, each with the parameters that it names."""
    found, begin, names = [], 0, set[str]()
    for token in _TOKEN.finditer(sql + ";"):
        if token[1]:
            names.add(token[1])
        elif token[2]:
            one = sql[begin : token.start()]
            if _has_code(one):
                found.append(Statement(one.strip(), frozenset(names)))
            begin, names = token.end(), set()
    return tuple(found)


def _has_code(sql: str) -> bool:
    return any(line.strip() and not line.strip().startswith("--") for line in sql.splitlines())
