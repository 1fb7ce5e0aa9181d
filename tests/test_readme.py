"""README.md says what is true: its library examples run, its commands, options and exit codes exist."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from regstore import errors
from regstore.demo_registry import build_demo_registry

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^    (?:\$ )?(regstore .*?)(?:\s+#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_library_run(example: str, tmp_path: Path) -> None:
    store = tmp_path / "registry"
    store.mkdir()
    asyncio.run(build_demo_registry(store, now=datetime.now(UTC)))
    program = example.replace("/srv/registry", str(store))
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
    assert len(COMMANDS) >= 10


@cache
def help_of(*command: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "regstore", *command, "--help"],
        capture_output=True,
        text=True,
        env={"COLUMNS": "200", "PATH": ""},
        check=False,
    )
    return result.stdout if result.returncode == 0 else ""


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
def test_commands_and_their_options_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    command = words[:2] if words[0] in ("trash", "backup") else words[:1]
    text = help_of(*command)
    assert text, f"there is no command {' '.join(command)}"
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{' '.join(command)} has no {option}"


def test_exit_codes_are_those_of_the_errors() -> None:
    stated = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert stated == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}


def test_every_command_is_named() -> None:
    listed = re.findall(r"^  ([a-z-]+) ", help_of().partition("Commands:")[2], re.MULTILINE)
    assert listed
    for command in listed:
        assert command in README, f"{command} is not in the README"
