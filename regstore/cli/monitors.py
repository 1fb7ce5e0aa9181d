"""Whom a run tells of itself besides who started it: a file of metrics, and a monitor that is pinged.

Neither ever makes a run fail, or changes its exit code: what could not be told is said on stderr.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from regstore.cli.outcome import Outcome
from regstore.cli.output import emit_error
from regstore.cli.voice import voice
from regstore.errors import InputError


class Monitors:
    """Of one run. clock: seconds since 1970."""

    def __init__(
        self, metrics_file: Path | None, ping_url: str | None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._file = metrics_file
        self._clock = clock
        self._began = clock()
        self._ping = None
        if ping_url is not None:
            from regstore.cli.ping import Ping, parse_ping_url

            try:
                self._ping = Ping(url=parse_ping_url(ping_url), say=_say)
            except InputError:  # which ends the run
                return

    def start(self) -> None:
        if self._ping is not None:
            self._ping.start()

    def end(self, outcome: Outcome) -> None:
        if self._file is not None:
            self._write(self._file, outcome)
        if self._ping is not None:
            self._ping.end(outcome.exit_code)

    def _write(self, path: Path, outcome: Outcome) -> None:
        from regstore.cli.metrics import Ran, write_metrics

        own = voice()
        ran = Ran(
            command=own.command or "",
            store=own.store or "",
            job=own.job or "",
            exit_code=outcome.exit_code,
            began=self._began,
            ended=self._clock(),
            numbers=outcome.result.numbers if outcome.result is not None else {},
        )
        try:
            write_metrics(path, ran, own.steps)
        except OSError as error:
            _say(f"the metrics can't be written to {path}: {error.strerror or error}")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # a log on a full disk
        emit_error(text)
