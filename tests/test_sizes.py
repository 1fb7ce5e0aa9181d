"""No module, class or function of regstore is longer than one reads in one go.

An exception has its length of today as its bound, so that it doesn't grow, and fails once it is not needed any more.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

import regstore

ROOT: Final = Path(regstore.__file__).parent

#: Lines: of a file, of a class or function from its `class` or `def` to its last.
LIMITS: Final = {"module": 500, "class": 300, "function": 60}

#: What is longer, how long it may be, and why. Only to be struck out.
EXCEPTIONS: Final[dict[str, tuple[int, str]]] = {}


def _parts(path: Path) -> Iterator[tuple[str, str, int]]:
    module = path.relative_to(ROOT).as_posix()
    source = path.read_text()
    yield "module", module, len(source.splitlines())
    yield from _parts_within(ast.parse(source), module, " ")


def _parts_within(node: ast.AST, above: str, joint: str) -> Iterator[tuple[str, str, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert child.end_lineno is not None
            name = f"{above}{joint}{child.name}"
            kind = "class" if isinstance(child, ast.ClassDef) else "function"
            yield kind, name, child.end_lineno - child.lineno + 1
            yield from _parts_within(child, name, ".")
        else:
            yield from _parts_within(child, above, joint)


@cache
def too_long() -> dict[str, tuple[int, int]]:
    """Lines and limit of all that is longer than its limit, by name."""
    parts = [part for path in sorted(ROOT.rglob("*.py")) for part in _parts(path)]
    return {name: (lines, LIMITS[kind]) for kind, name, lines in parts if lines > LIMITS[kind]}


def test_nothing_is_too_long() -> None:
    wrong = [
        f"{name} has {lines} lines, {EXCEPTIONS[name][0] if name in EXCEPTIONS else limit} are allowed"
        for name, (lines, limit) in too_long().items()
        if name not in EXCEPTIONS or lines > EXCEPTIONS[name][0]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_is_needed(name: str) -> None:
    assert name in too_long(), f"{name} is not too long any more: strike it out of EXCEPTIONS"


def test_every_exception_has_a_reason() -> None:
    assert all(why for _, why in EXCEPTIONS.values())
