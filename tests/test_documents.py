"""The documents for contributors say what is so."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

import regstore
from regstore.cli.app import COMMANDS, GROUPS
from tests.documents import FORMATS, formats
from tests.test_layers import LAYERS

PACKAGE = Path(regstore.__file__).parent
ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    PACKAGE / "ARCHITECTURE.md",
    PACKAGE / "DECISIONS.md",
    PACKAGE / "FORMATS.md",
    PACKAGE / "CHANGELOG.md",
    ROOT / ".github" / "CONTRIBUTING.md",
    ROOT / ".github" / "SECURITY.md",
    ROOT / "benchmarks" / "README.md",
]


def test_the_table_of_layers_is_the_one_that_is_tested() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", (PACKAGE / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    assert [set(re.findall(r"`([^`]+)`", row)) for row in rows] == [set(layer) for layer in reversed(LAYERS)]


def test_the_formats_are_those_of_the_code() -> None:
    assert FORMATS.read_text() == formats(), "run: python -m tests.documents"


def test_the_changelog_has_this_version_and_every_command() -> None:
    text = (PACKAGE / "CHANGELOG.md").read_text()
    assert re.search(
        rf"^## \[{re.escape(regstore.__version__)}\] - (not released yet|\d{{4}}-\d\d-\d\d)$", text, re.MULTILINE
    )
    for name in (*COMMANDS, *GROUPS):
        assert re.search(rf"`{name}[` ]", text), f"nothing says that there is {name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_is_there(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (path.parent / target).exists(), target
    for named in re.findall(
        r"`((?:tests|regstore|benchmarks|storage|inventory|gc|state|migrate|verify|backup|registry|seed|cli)/[a-z0-9_/.]+\.(?:py|sql|sh|md))`",
        text,
    ):
        assert any((folder / named).exists() for folder in (ROOT, PACKAGE, path.parent)), named


@pytest.mark.parametrize(
    "package", ["backup", "gc", "gc/apply", "inventory", "migrate", "proving", "serve", "state", "verify"]
)
def test_the_map_of_a_package_has_every_module(package: str) -> None:
    text = (PACKAGE / package / "__init__.py").read_text()
    rooms = {path.stem for path in (PACKAGE / package).glob("*.py")} | {
        path.parent.name for path in (PACKAGE / package).glob("*/__init__.py")
    }
    missing = {room for room in rooms - {"__init__"} if not re.search(rf"(?<![\w.]){room}\b", text)}
    assert not missing, "its docstring says of each what it is for"


#: Of a registry's own configuration.
FOREIGN = ("storage.cache.", "storage.maintenance.", "registry.redis")


def is_there(name: str) -> bool:
    """`gc.plan`, `state.lock.Lock`, or a field of what is there."""
    words = name.split(".")
    for end in range(len(words), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(("regstore", *words[:end])))
        except ModuleNotFoundError:
            continue
        for word in words[end:]:
            if word in getattr(thing, "__annotations__", {}):
                return True
            thing = getattr(thing, word, None)
        return thing is not None
    return False


def test_what_comments_and_docstrings_name_is_there() -> None:
    """Names with a dot that begin with a part of regstore. Moving a module leaves none behind."""
    parts = {path.stem for path in PACKAGE.iterdir()}
    texts = [
        *PACKAGE.rglob("*.py"),
        *PACKAGE.rglob("*.sql"),
        *PACKAGE.glob("*.md"),
        *(ROOT / "tests").rglob("*.py"),
    ]
    lost = [
        f"{path.relative_to(ROOT)} names {name}"
        for path in texts
        for name in re.findall(r"`(?:regstore\.)?([a-z_]+(?:\.\w+)+)(?:\(\))?`", path.read_text())
        if name.split(".")[0] in parts and not name.endswith((".py", ".sql", ".md", ".json"))
        if not name.startswith(FOREIGN) and not is_there(name)
    ]
    assert not lost
