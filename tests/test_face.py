"""What a library user may import: it is declared, documented, typed, has an example that runs, and a blocking twin."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, assert_type

import pytest

import regstore
import regstore.sync
from regstore.demo_registry import build_demo_registry
from tests.test_layers import HEAVY

if TYPE_CHECKING:
    from regstore.gc import GcReport, GcRun, GcRunOptions
    from regstore.migrate import MigrateOptions, MigrateResult
    from regstore.storage import Storage

ROOT = Path(regstore.__file__).parent
README = (ROOT.parent / "README.md").read_text()
#: Everything else is private.
PACKAGES = (
    "regstore",
    "regstore.backup",
    "regstore.errors",
    "regstore.events",
    "regstore.exchange",
    "regstore.gc",
    "regstore.migrate",
    "regstore.registry",
    "regstore.seed",
    "regstore.storage",
    "regstore.sync",
    "regstore.testing",
    "regstore.verify",
)
#: Of these, every name in `__all__` has a blocking twin where it needs one.
WITH_TWINS = (
    "regstore.backup",
    "regstore.exchange",
    "regstore.gc",
    "regstore.migrate",
    "regstore.seed",
    "regstore.storage",
    "regstore.verify",
)


def public(package: str) -> dict[str, object]:
    module = importlib.import_module(package)
    return {name: getattr(module, name) for name in module.__all__}


def doc(package: str) -> str:
    text = inspect.getdoc(importlib.import_module(package))
    assert text
    return text


def example(package: str) -> str:
    """The indented blocks of the docstring that are code, one after the other."""
    blocks = re.findall(r"(?:^    .*\n|^\n)+", doc(package) + "\n", re.MULTILINE)
    code = [block for block in blocks if re.search(r"^    (?:import|from) regstore", block, re.MULTILINE)]
    assert code, f"{package} has no example"
    return "".join(map(textwrap.dedent, code))


EXAMPLES = {
    **{package: example(package) for package in PACKAGES},
    **{
        f"README.md {number}": code
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE))
    },
}


@pytest.mark.long
@pytest.mark.long
@pytest.mark.parametrize("package", [package for package in PACKAGES if package != "regstore.testing"])
def test_the_example_of_a_package_runs(package: str, tmp_path: Path) -> None:
    """That of `regstore.testing` is a test, which `tests/storage/test_testing.py` runs."""
    (tmp_path / "registry").mkdir()
    asyncio.run(build_demo_registry(tmp_path / "registry", now=datetime.now(UTC)))
    program = f"""
import ast, asyncio, inspect
code = compile({EXAMPLES[package].replace("/srv", str(tmp_path))!r}, "example", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
made = eval(code, {{}})
if inspect.iscoroutine(made):
    asyncio.run(made)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": ""},
        cwd=ROOT.parent,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


@pytest.mark.parametrize("where", EXAMPLES)
def test_examples_use_only_what_is_public(where: str) -> None:
    tree = ast.parse(EXAMPLES[where])
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "regstore":
            assert node.module in PACKAGES, f"{node.module} is private"
            assert {name.name for name in node.names} <= set(public(node.module))
        elif isinstance(node, ast.Import):
            mine = {name.name for name in node.names if name.name.partition(".")[0] == "regstore"}
            assert mine <= set(PACKAGES), f"{mine} is private"
        elif isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            if re.fullmatch(r"regstore(\.\w+)+", dotted):
                holder, _, name = dotted.rpartition(".")
                assert name in public(holder), f"{dotted} is private"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_documented(package: str) -> None:
    names = public(package)
    assert list(names) == sorted(names)
    for name, thing in names.items():
        assert re.search(rf"\b{name}s?\b", doc(package)), f"the docstring of {package} does not name {name}"
        if not isinstance(thing, types.ModuleType) and getattr(thing, "__origin__", None) is None:
            assert inspect.getdoc(thing), f"{package}.{name} has no docstring"


def test_every_error_is_public() -> None:
    errors = {name for name, thing in vars(regstore.errors).items() if inspect.isclass(thing)}
    assert errors == set(regstore.errors.__all__)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_hidden_by_a_module(package: str) -> None:
    """Importing a module binds its name in the package, over a name that is looked up lazily."""
    module = importlib.import_module(package)
    folder = Path(str(module.__file__)).parent
    modules = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    if "lazily(__name__)" in inspect.getsource(module):
        hidden = {
            name for name, thing in public(package).items() if not isinstance(thing, types.ModuleType)
        } & modules
        assert not hidden


@pytest.mark.parametrize("package", PACKAGES)
def test_a_misspelled_name_is_an_error(package: str) -> None:
    with pytest.raises(AttributeError, match="has no attribute"):
        _ = importlib.import_module(package).no_such_name
    assert set(public(package)) <= set(dir(importlib.import_module(package)))


@pytest.mark.long
@pytest.mark.long
@pytest.mark.parametrize("package", PACKAGES)
def test_importing_loads_nothing_heavy(package: str) -> None:
    code = f"import {package}, sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(result.stdout.split())


def is_asynchronous(thing: object) -> bool:
    """A coroutine function, or one that gives an asynchronous iterator or context manager."""
    if inspect.iscoroutinefunction(thing) or inspect.isasyncgenfunction(inspect.unwrap(thing)):  # type: ignore[arg-type]
        return True
    returned = str(getattr(thing, "__annotations__", {}).get("return", ""))
    return bool(re.search(r"Async|\bStorage\b", returned))


def twins() -> Iterator[tuple[str, str]]:
    for package in WITH_TWINS:
        for name, thing in public(package).items():
            if inspect.isfunction(thing) and is_asynchronous(thing):
                yield package, name


@pytest.mark.parametrize(("package", "name"), list(twins()))
def test_every_asynchronous_function_has_a_blocking_twin(package: str, name: str) -> None:
    part = package.removeprefix("regstore.")
    twin = getattr(importlib.import_module(f"regstore.sync.{part}"), name)
    thing = public(package)[name]
    assert name in importlib.import_module(f"regstore.sync.{part}").__all__
    assert not inspect.iscoroutinefunction(twin)
    assert twin.__doc__
    assert inspect.signature(twin).parameters == inspect.signature(thing).parameters  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asynchronous", "blocking"),
    [
        ("regstore.registry.BlobReader", "regstore.sync.BlobReader"),
        ("regstore.registry.Blobs", "regstore.sync.Blobs"),
        ("regstore.registry.Manifests", "regstore.sync.Manifests"),
        ("regstore.registry.Registry", "regstore.sync.Registry"),
        ("regstore.registry.Repository", "regstore.sync.Repository"),
        ("regstore.registry.StoreBlobs", "regstore.sync.StoreBlobs"),
        ("regstore.registry.Tags", "regstore.sync.Tags"),
        ("regstore.registry.Uploads", "regstore.sync.Uploads"),
        ("regstore.gc.GcRun", "regstore.sync.gc.GcRun"),
        ("regstore.gc.Removal", "regstore.sync.gc.Removal"),
    ],
)
def test_every_method_has_a_blocking_twin(asynchronous: str, blocking: str) -> None:
    """All public attributes, but for those of an iterator, which is one by `__iter__`."""
    first, second = (
        getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2])
        for name in (asynchronous, blocking)
    )
    wanted = {name for name in dir(first) if not name.startswith("_")}
    wanted |= {"__iter__"} if hasattr(first, "__aiter__") else set()
    assert wanted <= set(dir(second))
    for name in wanted:
        assert not inspect.iscoroutinefunction(getattr(second, name))


def test_classes_with_asynchronous_methods_are_known() -> None:
    """Every public one has a twin above, or is given to functions only, or is used by `await` alone."""
    handed_over = {"Storage", "ReadHandle", "Lock", "RegistryCache", "NoCache"}
    known = {
        "BlobReader",
        "Blobs",
        "GcRun",
        "Manifests",
        "Registry",
        "Removal",
        "Repository",
        "StoreBlobs",
        "Tags",
        "Uploads",
    }
    for package in (*WITH_TWINS, "regstore.registry"):
        for name, thing in public(package).items():
            if inspect.isclass(thing) and any(is_asynchronous(value) for value in vars(thing).values()):
                assert name in known | handed_over, f"{package}.{name} has no blocking twin"


if TYPE_CHECKING:  # never run: mypy reads it

    async def type_checkers_see_through(storage: Storage, options: GcRunOptions) -> None:
        async with regstore.gc.open_run(storage, options) as planned:
            assert_type(planned, GcRun)
            assert_type(await planned.apply(), GcReport)
        with regstore.sync.storage.open_storage("x") as opened:
            assert_type(opened, Storage)
            assert_type(regstore.sync.migrate.migrate(opened, opened, MigrateOptions()), MigrateResult)
        with regstore.sync.gc.open_run(storage, options) as run:
            assert_type(run, regstore.sync.gc.GcRun)
            assert_type(run.apply(), GcReport)
        assert_type(regstore.sync.open("x"), regstore.sync.Registry)
        _: AbstractContextManager[object] = regstore.sync.open("x").repository("a").blobs.open_read("sha256:0")
