"""How a run speaks: what of its words is printed, and how. `command` settles it before the command begins.

Standard output is for people, or with --json one object for programs. Standard error is for problems and progress:
lines, or with --log-format json one event a line. -q leaves out all that is no problem.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from regstore.events import OnEvent
from regstore.words import moment, printable

Level = Literal["error", "warning", "info"]


@dataclass(kw_only=True)
class Voice:
    """as_json: standard output is one object. answers: what the command prints is what was asked for, also with -q.
    log_json: standard error has events. command: such as `backup create`; None where it is not known. store: the first
    place that the run has opened, else what it was told. job: that it is, whose steps are processes of their own;
    others_speak: while one of these does. answered: the object of --json is printed, or would be, while the command
    waits for its clients. hear: takes the run's events, where no bar does. metrics_file: where the run's metrics go;
    steps: those of a job's steps."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    log_json: bool = False
    answers: bool = False
    command: str | None = None
    store: str | None = None
    job: str | None = None
    others_speak: bool = field(default=False, init=False)
    answered: bool = field(default=False, init=False)
    hear: OnEvent | None = field(default=None, init=False)
    metrics_file: Path | None = None
    steps: list[str] = field(default_factory=list, init=False)
    opened: bool = field(default=False, init=False)

    def prints(self, *, problem: bool) -> bool:
        """Whether a line of the report is printed."""
        return not self.as_json and (problem or self.answers or not self.quiet)

    def log(self, level: Level, event: str, text: str, **facts: Any) -> None:
        """A line on standard error. facts: of the event, for programs."""
        if level == "info" and self.quiet:
            return
        with contextlib.nullcontext() if level == "error" else contextlib.suppress(OSError):  # the terminal is gone
            _line(self._text(level, event, text, facts))

    def _text(self, level: Level, event: str, text: str, facts: dict[str, Any]) -> str:
        words = " ".join(text.split())
        if not self.log_json:
            return f"regstore: {printable(words)}"
        import orjson

        head = {"time": moment(time.time_ns() // 1000), "level": level, "event": event, "message": words}
        return orjson.dumps(head | facts, default=str).decode()

    def opens(self, store: str) -> None:
        """A place is opened; the first is the one that the run is about."""
        if not self.opened:
            self.store, self.opened = store, True


_voice = Voice()


def voice() -> Voice:
    """That of the run under way."""
    return _voice


@contextlib.contextmanager
def speaking(new: Voice) -> Iterator[Voice]:
    """Speak so within."""
    global _voice
    before, _voice = _voice, new
    try:
        yield new
    finally:
        _voice = before


def _line(text: str) -> None:
    """Over a bar, where one is shown."""
    shown = sys.modules.get("tqdm")
    if shown is not None and sys.stderr.isatty():
        shown.tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)
