"""The program on a terminal of 80 columns, and beside it in a pipe."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from tests.cli.conftest import Run
from tests.cli.terminal import on_terminal


def test_an_interrupted_run_says_what_is_done_and_what_is_next(demo_copy: Path, tmp_path: Path) -> None:
    """In the wait before the last look, whose bar moves."""
    shown = on_terminal(
        *("gc", demo_copy, "--settle", "60s", "--cache-dir", tmp_path / "cache"),
        answer="y",
        until=lambda text: " 1 of 60 s" in text,
        number=signal.SIGINT,
    )
    assert shown.code == 130
    assert "waiting before the last look |" in shown.text
    assert shown.text.count("Remove this? [y/N]") == 1
    last = shown.text.strip().splitlines()[-1]
    run = re.search(
        r"in run (\S+), after unlinking \(\d+ of \d+ links\); removing blobs \((\d+) of \2 blobs\): ", last
    )
    assert run is not None, last
    assert f"`regstore trash restore --run {run[1]}` undoes what it did" in last


def test_what_is_cut_short_before_it_changes_anything_says_so(demo_copy: Path, tmp_path: Path) -> None:
    shown = on_terminal(
        *("gc", demo_copy, "--cache-dir", tmp_path), until=lambda text: "[y/N]" in text, number=signal.SIGTERM
    )
    assert shown.code == 143
    assert re.search(r"terminated in run \S+, before it changed anything$", shown.text.strip()), shown.text
    assert not list((demo_copy / "regstore").rglob("*.json")), "a lock or a journal is left"


def test_a_prune_on_a_terminal_asks_once_and_takes_no_for_an_answer(
    run: Run, demo_copy: Path, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    for _ in range(2):
        assert run("backup", "create", demo_copy, backup, "--create").code == 0
    snapshots = sorted((backup / "snapshots").iterdir())
    typed_before = ("", "y")  # which is no answer
    for answer, left in (("n", 2), ("y", 1)):
        shown = on_terminal(
            *("backup", "prune", backup, "--keep-last", "1"), answers=(typed_before, ("[y/N]", answer))
        )
        assert shown.code == 0, shown
        assert shown.text.count("Delete this for good? [y/N]") == 1
        assert ("nothing was deleted" in shown.text) is (answer == "n")
        assert sorted((backup / "snapshots").iterdir()) == snapshots[-left:]


def test_tables_fit_a_terminal_and_a_pipe_has_all_of_it(run: Run, demo_registry: Path) -> None:
    for words in (
        ("tags", demo_registry, "team/app", "--long", "--all"),
        ("inspect", demo_registry, "team/app:1.1"),
    ):
        shown = on_terminal(*words)
        assert shown.code == 0, shown
        piped = run(*words).out
        lines = [line for line in shown.text.splitlines() if "  " in line and ": " not in line]
        assert max(map(len, lines)) <= 80, shown.text
        assert max(map(len, piped.splitlines())) > 80
        assert "…" not in piped and "\x1b" not in piped
        assert re.search(r"sha256:[0-9a-f]{64}", piped)
    narrow = on_terminal("tags", demo_registry, "team/app", columns=60)
    assert max(len(line) for line in narrow.text.splitlines()) <= 60
    assert "…" in narrow.text


def test_colours_are_for_terminals_that_want_them(demo_registry: Path) -> None:
    assert "\x1b[32mok\x1b[0m" in on_terminal("doctor", demo_registry).raw
    assert "\x1b[3" not in on_terminal("doctor", demo_registry, NO_COLOR="1").raw
    assert "\x1b[3" not in on_terminal("doctor", demo_registry, TERM="dumb").raw
