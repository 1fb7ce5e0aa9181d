"""The program on a terminal of 80 columns, and beside it in a pipe."""

from __future__ import annotations

import re
import signal
from pathlib import Path

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
