"""The documents for contributors say what is so."""

from __future__ import annotations

import re
from pathlib import Path

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
    "package", ["backup", "gc", "gc/apply", "inventory", "migrate", "proving", "state", "verify"]
)
def test_the_map_of_a_package_has_every_module(package: str) -> None:
    text = (PACKAGE / package / "__init__.py").read_text()
    rooms = {path.stem for path in (PACKAGE / package).glob("*.py")} | {
        path.parent.name for path in (PACKAGE / package).glob("*/__init__.py")
    }
    missing = {room for room in rooms - {"__init__"} if not re.search(rf"(?<![\w.]){room}\b", text)}
    assert not missing, "its docstring says of each what it is for"
