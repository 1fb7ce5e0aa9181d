"""The manual pages say what the help says, and groff takes them as they are."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from regstore.cli.app import COMMANDS, GROUPS
from regstore.cli.manual import pages, write
from tests.cli.conftest import Run

EVERY = [*COMMANDS, *(f"{group} {name}" for group, (_, commands) in GROUPS.items() for name in commands)]


def test_each_command_has_a_page_with_all_its_options(run: Run) -> None:
    made = dict(pages())
    assert made.keys() >= {"regstore.1", *(f"regstore-{name.replace(' ', '-')}.1" for name in EVERY)}
    for name in EVERY:
        text = made[f"regstore-{name.replace(' ', '-')}.1"].replace("\\-", "-")
        options = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", run(*name.split(), "--help").out, re.MULTILINE))
        assert "--help" in options
        assert {option for option in options if f"{option}" not in text} == set(), name
        assert text.count("\n.EX\n") == 2


@pytest.mark.long
@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff")
def test_groff_has_no_complaint(tmp_path: Path) -> None:
    said = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", *write(tmp_path)], capture_output=True, text=True, check=True
    )
    assert said.stderr == ""


def test_the_wheel_is_built_with_them() -> None:
    root = Path(__file__).parents[2]
    build = tomllib.loads((root / "pyproject.toml").read_text())
    assert "custom" in build["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    assert any(each.startswith("typer") for each in build["build-system"]["requires"])
    assert "share/man/man1/" in (root / "hatch_build.py").read_text()
