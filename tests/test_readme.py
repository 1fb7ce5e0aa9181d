"""README.md says what is true: its library examples run, its commands, options and exit codes exist."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regstore import errors
from regstore.cli.app import app
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
    listed = re.findall(r"^  ([a-z-]+) ", help_of().partition("Look:")[2], re.MULTILINE)
    assert listed
    for command in listed:
        assert command in README, f"{command} is not in the README"


@pytest.mark.long
def test_what_it_shows_was_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, but for runs, times and speeds; what follows `...` may come later."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    built = tmp_path / "built"
    asyncio.run(build_demo_registry(built, now=datetime.now(UTC)))
    looked_at = cleaned = Path(shutil.copytree(built, tmp_path / "0"))
    shown = list(shown_in(README))
    assert len(shown) > 12
    for number, (line, expected) in enumerate(shown, 1):
        words = shlex.split(line)
        store = looked_at
        # What changes a store begins with a fresh one.
        if ("--yes" in words or words[0] == "tag") and words[0] != "trash":
            store = Path(shutil.copytree(built, tmp_path / str(number)))
        if words[0] == "gc" and "--yes" in words:
            cleaned = store
        if words[0] == "trash":
            store = cleaned
        places = {"/srv/registry": store} | {f"/srv/{name}": tmp_path / name for name in PLACES}
        arguments = [str(places.get(word, word)) for word in words]
        if words[0] == "gc" and "--yes" in words:
            arguments += ["--settle", "1s"]
        said = CliRunner().invoke(app, arguments, prog_name="regstore").stdout
        for name, place in places.items():
            said = said.replace(str(place), name)
        compare(line, expected, [masked(text) for text in said.splitlines() if text.strip()])


#: What the examples make beside the registry that they look at.
PLACES = ("moved", "backup", "restored", "new", "hub", "images", "gap.tar", "other")


def shown_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """Every command whose output is shown, and the lines of it; not of servers, and of what needs S3."""
    for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", text, re.MULTILINE):
        for one in re.split(r"^    \$ ", block, flags=re.MULTILINE)[1:]:
            line, *output = one.splitlines()
            command = line.removeprefix("regstore ")
            if command != line and output and "s3://" not in line and not command.startswith(("serve", "report")):
                yield command, [masked(each.removeprefix("    ")) for each in output if each.strip()]


def masked(line: str) -> str:
    line = re.sub(r"(shown this once: )\w+", r"\1PASSWORD", line)
    line = re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{8}", "RUN", line)
    line = re.sub(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\dZ)?", "TIME", line)
    return re.sub(r"[\d.]+ [KM]iB/s", "SPEED", re.sub(r"in [\d.]+ s\b", "in SECONDS", line)).rstrip()


def compare(command: str, expected: list[str], printed: list[str]) -> None:
    place, may_come_later = 0, False
    for line in expected:
        if line == "...":
            may_come_later = True
            continue
        start, cut, _ = line.partition("...")
        found = next(
            (
                index
                for index, text in enumerate(printed)
                if index >= place and (text.startswith(start) if cut else text == line)
            ),
            None,
        )
        assert found is not None, f"{command} does not print {line!r} but {printed[place:]}"
        assert found == place or may_come_later, f"{command} prints more before {line!r}: {printed[place:found]}"
        place, may_come_later = found + 1, False
