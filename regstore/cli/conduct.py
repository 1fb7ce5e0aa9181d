"""One run of a command, from its options to its exit code: what all commands do alike stands here."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from regstore.cli.lines import Lines, looking
from regstore.cli.monitors import Monitors
from regstore.cli.outcome import Failure, Outcome, Result, envelope
from regstore.cli.output import emit_error, emit_json
from regstore.cli.progress import has_bar
from regstore.cli.run import guard
from regstore.cli.telling import Telling
from regstore.cli.voice import Voice, speaking, voice
from regstore.errors import EXIT_USAGE, InputError

#: What the environment says for yes.
_YES: Final = ("1", "true", "yes", "on")

Work = Callable[[], "Result | int | None"]


def conduct(
    work: Work, telling: Telling, *, command: str | None, store: str | None, answers: bool, monitored: bool
) -> None:
    """Do the work and tell of it. monitored: its end is told, too. Raises typer.Exit where the exit code is not 0."""
    own = Voice(
        as_json=telling.as_json,
        quiet=telling.quiet,
        verbose=telling.verbose,
        log_json=telling.log_format == "json",
        answers=answers,
        command=command,
        store=store,
        metrics_file=telling.metrics_file,
        job=voice().job,
    )
    monitors = Monitors(telling.metrics_file, telling.ping_url) if monitored else Monitors(None, None)
    with speaking(own), _listening(own):
        outcome = guard(monitors.start, debug=telling.debug)
        if outcome.error is None or outcome.error.kind != "Interrupted":
            outcome = guard(lambda: _checked(work, telling), debug=telling.debug)
        if not own.opened and own.store is not None:
            own.store = _as_opened(own.store)
        outcome = _print(outcome, debug=telling.debug)
        guard(lambda: monitors.end(outcome), debug=telling.debug)  # whatever becomes of that
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _as_opened(store: str) -> str | None:
    """What the command line says of a place that was not opened, as an opened one is called; None where it is none, for
    there may be a secret in it then."""
    from regstore.cli.config.current import named_store
    from regstore.storage.opening import DiskLocation, parse_location

    try:
        named = named_store(store)
        location = parse_location(store if named is None else named.url or "")
    except InputError:
        return None
    return str(location.root.absolute() if isinstance(location, DiskLocation) else location)


def _checked(work: Work, telling: Telling) -> Result | int | None:
    telling.check()
    return work()


@contextlib.contextmanager
def _listening(own: Voice) -> Iterator[None]:
    """Tell of what the command hears, also where it hears nothing for long."""
    if own.quiet or has_bar():
        yield
        return
    lines = Lines(own)
    own.hear = lines.show
    with looking(lines):
        yield


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
    """The command line could not be understood. error: of click. words: which, with the environment, may still say how
    to tell that, and whom."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    command = None if context is None else name_of(context)
    as_json = "--json" in words or os.environ.get("REGSTORE_JSON", "").lower() in _YES
    log_json = _said("log-format", words) == "json"
    file = _said("metrics-file", words)
    outcome = Outcome(exit_code=EXIT_USAGE, error=Failure(kind="InputError", message=message))
    with speaking(Voice(as_json=as_json, log_json=log_json, command=command)):
        with contextlib.suppress(OSError):  # a log on a full disk: the exit code, and who is told of it, remain
            if as_json or log_json:
                emit_error(message)
            else:
                error.show()
        outcome = _print(outcome, debug=False)
        if type(error).__name__ != "NoArgsIsHelpError":
            Monitors(Path(file) if file else None, _said("ping-url", words)).end(outcome)


def _said(option: str, words: Sequence[str]) -> str | None:
    """The value of an option where the others are not understood."""
    for word, following in zip(words, [*words[1:], ""], strict=False):  # of no words, none
        if word == f"--{option}" and following:
            return following
        if word.startswith(f"--{option}="):
            return word.partition("=")[2]
    return os.environ.get(f"REGSTORE_{option.replace('-', '_').upper()}") or None


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
