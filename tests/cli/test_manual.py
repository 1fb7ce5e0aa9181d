"""The manual pages say what the help says, and groff takes them as they are."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
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


@pytest.mark.long
def test_the_wheel_has_them_and_a_program_that_runs(tmp_path: Path) -> None:
    """What `pip install`, `pipx install` and `uv tool install` do: the wheel into an environment of its own. What it
    depends on is taken from the one that the tests run in."""
    root = Path(__file__).parents[2]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(root / name, source / name)
    for name in (".ci", "regstore"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    place = tmp_path / "tool"
    venv.create(place, with_pip=False)
    target = next(place.glob("lib/python3*/site-packages"))
    (target / "depends.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("-packages")))
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python")]
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--quiet", str(wheel)], check=True, capture_output=True
    )
    assert {page.name for page in (place / "share/man/man1").iterdir()} == set(dict(pages()))
    said = subprocess.run(
        [place / "bin" / "regstore", "init", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (said.returncode, said.stderr) == (0, "")
    assert "Usage: regstore init" in said.stdout
    where = "import regstore, sys; print(regstore.__file__)"
    found = subprocess.run([place / "bin" / "python", "-c", where], cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout.startswith(str(target))
    for path in (root / "regstore").rglob("*"):  # nothing that a command reads is left out
        if path.is_file() and "__pycache__" not in path.parts:
            assert (target / path.relative_to(root)).is_file(), path
