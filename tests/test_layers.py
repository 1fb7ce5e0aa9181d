"""Each layer imports only what stands below it; only the command line prints; heavy modules load when used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

import regstore

ROOT = Path(regstore.__file__).parent

PURE = frozenset(
    {"digest", "reference", "events", "errors", "hosts", "htpasswd", "layout", "lazy", "manifest", "words"}
)
#: Lowest first. Parts of one layer do not know each other, except in the pure one.
LAYERS = (
    PURE,
    frozenset({"concurrency", "machine"}),
    frozenset({"storage"}),
    frozenset({"tagging"}),
    frozenset({"registry", "state", "seed"}),
    frozenset({"tasks"}),
    frozenset({"inventory"}),
    frozenset({"proving"}),
    frozenset({"gc", "migrate", "backup", "verify"}),
    frozenset({"exchange"}),
    frozenset({"sync", "demo_registry", "serve", "deployment", "spark"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
    frozenset({"testing"}),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
#: Not in the pure modules, and not loaded before they are used anywhere.
HEAVY = (
    "aioboto3",
    "aiobotocore",
    "aiohttp",
    "arro3",
    "boto3",
    "botocore",
    "cryptography",
    "duckdb",
    "lxml",
    "obstore",
    "pandas",
    "pyarrow",
    "pyspark",
    "redis",
)

#: Of these, what is imported may be a module.
PACKAGES = ("regstore", "regstore.storage")

MODULES = sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    """`regstore/storage/s3/client.py` and `regstore/storage.py` are both of `storage`; `__init__` is the package."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def nodes(path: Path) -> Sequence[ast.AST]:
    return list(ast.walk(ast.parse(path.read_bytes())))


@cache
def imported(path: Path) -> Sequence[tuple[int, str]]:
    """Line and dotted name of every import, also of those within functions."""
    return list(_imported(path))


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    package = ("regstore", *path.relative_to(ROOT).parts[:-1])
    for node in nodes(path):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for name in node.names:
                yield node.lineno, f"{module}.{name.name}" if module in PACKAGES else module


def test_every_part_has_a_place_in_the_layers() -> None:
    """Give it one here and in the documentation."""
    assert {part_of(path) for path in MODULES} - {"__init__"} == RANK.keys()


def test_imports_point_down() -> None:
    wrong = []
    for path in MODULES:
        part = part_of(path)
        for line, name in imported(path) if part != "__init__" else ():
            words = name.split(".")
            if words[0] != "regstore" or len(words) == 1 or words[1] in (part, "__version__"):
                continue
            assert words[1] in RANK, f"{path}:{line}: the package itself must not be asked for {words[1]}"
            same_layer = RANK[words[1]] == RANK[part]
            if RANK[words[1]] > RANK[part] or (same_layer and part not in PURE):
                wrong.append(f"{path}:{line} imports {name}")
    assert not wrong


def test_nobody_else_knows_a_backend() -> None:
    """What a store can do is asked of it (`storage.optional`), and `storage.opening` makes it."""
    backends = ("regstore.storage.s3", "regstore.storage.disk", "regstore.storage.memory")
    wrong = [
        f"{path}:{line} imports {name}"
        for path in MODULES
        if part_of(path) != "storage"
        for line, name in imported(path)
        if f"{name}.".startswith(tuple(f"{backend}." for backend in backends))
    ]
    assert not wrong


@pytest.mark.parametrize("part", sorted(PURE))
def test_the_core_is_pure(part: str) -> None:
    allowed = sys.stdlib_module_names - {"asyncio", "os", "pathlib", "socket", "subprocess", "threading", "time"}
    foreign = {name.partition(".")[0] for _, name in imported(ROOT / f"{part}.py")} - allowed
    assert foreign <= {"regstore", "orjson"}


def test_only_the_command_line_prints() -> None:
    wrong = [
        f"{path}:{node.lineno}"
        for path in MODULES
        if part_of(path) != "cli"
        for node in nodes(path)
        if (isinstance(node, ast.Name) and node.id == "print")
        or (
            isinstance(node, ast.Attribute)
            and node.attr in ("stdout", "stderr")
            and isinstance(node.value, ast.Name)
            and node.value.id == "sys"
        )
    ]
    assert not wrong


@pytest.mark.long
@pytest.mark.long
@pytest.mark.parametrize("module", ["regstore", "regstore.cli", "regstore.sync"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(result.stdout.split())


def test_every_public_name_is_there() -> None:
    for name in regstore.__all__:
        assert getattr(regstore, name) is not None
    assert list(regstore.__all__) == sorted(regstore.__all__)
