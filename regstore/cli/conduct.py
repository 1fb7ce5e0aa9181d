"""One run of a command, from its options to its exit code: what all commands do alike stands here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from regstore.cli.outcome import Failure, Outcome, Result, envelope
from regstore.cli.output import emit_error, emit_json
from regstore.cli.run import guard
from regstore.cli.telling import Telling
from regstore.cli.voice import Voice, speaking, voice
from regstore.errors import EXIT_USAGE

Work = Callable[[], "Result | int | None"]


def conduct(work: Work, telling: Telling, *, command: str | None, store: str | None, answers: bool) -> None:
    """Do the work and tell of it. Raises typer.Exit where the exit code is not 0."""
    own = Voice(as_json=telling.as_json, quiet=telling.quiet, answers=answers, command=command, store=store)
    with speaking(own):
        outcome = _print(guard(work, debug=telling.debug), debug=telling.debug)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _print(outcome: Outcome, *, debug: bool) -> Outcome:
    """With --json the envelope. What becomes of that may be the run's end."""
    own = voice()
    if not own.as_json or own.answered:
        return outcome

    data = outcome.result.data if outcome.result is not None else None
    printed = guard(
        lambda: emit_json(
            envelope(own.command, own.store, exit_code=outcome.exit_code, error=outcome.error, data=data)
        ),
        debug=debug,
    )
    return printed if printed.exit_code else outcome


def refuse_usage(error: Any, words: Sequence[str]) -> None:
    """The command line could not be understood. error: of click. words: which may still say how to tell that."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    command = None if context is None else name_of(context)
    if "--json" not in words:
        error.show()
        return
    with speaking(Voice(as_json=True, command=command)):
        emit_error(message)
        _print(Outcome(exit_code=EXIT_USAGE, error=Failure(kind="InputError", message=message)), debug=False)


def name_of(context: typer.Context) -> str | None:
    """`backup create`; None for the program itself."""
    return " ".join(context.command_path.split()[1:]) or None


def answer_now(data: dict[str, Any]) -> None:
    """For a command that runs until it is interrupted: with --json print the object now, and none at its end."""
    own = voice()
    if own.as_json:
        emit_json(envelope(own.command, own.store, exit_code=None, data=data))
        sys.stdout.flush()
        own.answered = True
