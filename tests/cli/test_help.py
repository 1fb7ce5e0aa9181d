"""What help shows: sections, and examples that could be typed."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from regstore.cli.app import COMMANDS, GROUPS, app
from regstore.cli.examples import EXAMPLES
from regstore.cli.helping import SECTIONS
from tests.cli.conftest import Run

EVERY = [*COMMANDS, *(f"{group} {name}" for group, (_, commands) in GROUPS.items() for name in commands)]


def test_help_of_a_command_by_its_words(run: Run) -> None:
    assert run("help", "gc").out == run("gc", "--help").out
    assert run("help", "backup", "create").out == run("backup", "create", "--help").out
    assert run("help").out == run("--help").out
    said = run("help", "nothing")
    assert (said.code, said.out) == (2, "")
    assert "No such command 'nothing'" in said.err


def test_sections_have_every_command_once(run: Run) -> None:
    placed = [name for names in SECTIONS.values() for name in names]
    assert sorted(placed) == sorted([*COMMANDS, *GROUPS, "help"])
    shown = run("--help").out
    for title in SECTIONS.keys() - {"Other"}:
        assert f"\n{title}:\n" in shown


def test_what_is_rarely_needed_comes_last(run: Run) -> None:
    lines = run("migrate", "--help").out.splitlines()
    order = ["What of the registry:", "Options:", "New objects in S3:", "How the store is reached:", "Examples:"]
    assert sorted(order, key=lines.index) == order


@pytest.mark.parametrize("command", EVERY)
def test_two_examples_that_could_be_typed(run: Run, command: str) -> None:
    examples = EXAMPLES[command]
    assert len(examples) == 2
    shown = run(*command.split(), "--help").out
    for example in examples:
        assert f"  regstore {example}\n" in shown
        words = shlex.split(example)
        context = app_context(words)
        assert context.command_path == f"regstore {command}"


def app_context(words: list[str]) -> Any:
    """Of the command, with its words parsed: a wrong option or value raises."""
    import typer

    group: Any = typer.main.get_command(app)
    context = group.make_context("regstore", list(words))
    while True:
        name, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
        if not hasattr(context.command, "resolve_command"):
            return context
