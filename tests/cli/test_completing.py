"""What shells are told when they complete a word: as they ask, in an environment variable."""

from __future__ import annotations

import shlex
import socket
import time
from pathlib import Path

import pytest

from regstore.cli.completing import rejoined
from tests.cli.conftest import Run, Start


def complete(start: Start, *words: object, shell: str = "bash") -> list[str]:
    """The last word is completed."""
    line = ["regstore", *map(str, words)]
    env = {"_REGSTORE_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    if shell == "bash":  # which cuts words at colons
        cut = [part for word in line for part in (word.replace(":", " : ").split() or [""])]
        env |= {"COMP_WORDS": " ".join(cut), "COMP_CWORD": str(len(cut) - (not str(words[-1]).endswith(":")))}
    else:
        env["_TYPER_COMPLETE_ARGS"] = shlex.join(line[:-1]) + f" {words[-1]}"
    process = start(env=env)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out.split()


def test_bash_cuts_words_at_colons() -> None:
    assert rejoined(["regstore", "ls", "s3", ":", "//b"], 4) == (["regstore", "ls", "s3://b"], 2)
    assert rejoined(["regstore", "rm", "/s", "a", ":"], 5) == (["regstore", "rm", "/s", "a:"], 3)
    assert rejoined(["regstore", "ls"], 2) == (["regstore", "ls"], 2)
    assert rejoined(["regstore", "ls", "a", ":", "b", "c"], 5) == (["regstore", "ls", "a:b", "c"], 3)


def test_names_and_choices_are_completed(start: Start, run: Run, demo_copy: Path, tmp_path: Path) -> None:
    assert complete(start, "tags", demo_copy, "team/") == ["team/app", "team/worker"]
    assert complete(start, "rm", demo_copy, "team/app:1") == ["1.0", "1.1"]
    assert complete(start, "tags", demo_copy, "team/app", "--sort", "") == ["name", "date", "size", "version"]
    assert complete(start, "gc", demo_copy, "--registry-cache", "i") == ["inmemory"]
    assert "backup" in complete(start, "ba")
    assert complete(start, "inspect", demo_copy, "team/worker:", shell="fish") == ["team/worker:stable"]
    assert "team/app" in complete(start, "ls", demo_copy, "team/a", shell="zsh")[-1]
    backup = tmp_path / "backup"
    snapshot = run("backup", "create", demo_copy, backup, "--create", "--json").json["snapshot"]["id"]
    assert complete(start, "backup", "show", backup, "") == ["latest", snapshot]
    removed = run("untag", demo_copy, "team/app:1.0", "--yes", "--json").report["run"]
    assert complete(start, "trash", "restore", demo_copy, "--run", "") == [removed]


def test_what_fails_completes_nothing_and_not_for_long(start: Start, tmp_path: Path) -> None:
    assert complete(start, "tags", tmp_path / "nothing", "team/") == []
    assert complete(start, "tags", "nonsense://x", "team/") == []
    assert not list(tmp_path.iterdir())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert complete(start, "tags", "--endpoint-url", url, "s3://bucket", "team/", shell="fish") == []
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_the_shell(run: Run, shell: str) -> None:
    assert "_REGSTORE_COMPLETE" in run("--show-completion", shell).out
