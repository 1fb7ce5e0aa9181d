"""A bar on stderr, fed by the library's events: only on a terminal. Elsewhere notices alone are lines on stderr."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol

from regstore.cli.output import emit_error
from regstore.cli.underway import note
from regstore.cli.voice import voice
from regstore.events import Event, Notice, OnEvent, Progress, Retry, ignore

#: Columns that the bar itself takes: phase, share, amounts, times and rate.
_BAR: Final = 70
#: Of a phase that only waits: its rate says nothing.
_WAITING: Final = "{desc} |{bar}| {n_fmt} of {total_fmt} s"
#: Seconds between two lines of retries.
_PAUSE: Final = 5.0


class _Once:
    """Says each notice once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()

    def __call__(self, event: Event) -> None:
        note(event)
        if isinstance(event, Notice) and event.message not in self._said:
            self._said.add(event.message)
            self._say(event.message)


class Retries:
    """Shows requests that are tried again, not more than one in a few seconds: a busy server refuses thousands; and
    each notice once."""

    def __init__(self) -> None:
        self._next = 0.0
        self._notices = _Once(_line)

    def __call__(self, event: Event) -> None:
        self._notices(event)
        if isinstance(event, Retry) and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PAUSE
            about = f" of {event.key}" if event.key else ""
            _line(f"{event.operation}{about}: attempt {event.attempt} failed ({event.reason}), trying again")


class Shown(Protocol):
    """How a command shows the library's events while it works."""

    def __enter__(self) -> OnEvent: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Event) -> None: ...

    def clear(self) -> None:
        """Leave the terminal to what is printed next."""


def fitting(detail: str, room: int) -> str:
    """As many of the detail's parts (between `; `) as `room` columns hold, but the first in any case."""
    while len(detail) > room and "; " in detail:
        detail = detail.rpartition("; ")[0]
    return detail


class Bar:
    """`with progress() as on_event:`; shows one phase at a time and leaves nothing behind."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._phase = ""
        self._lines = Retries()

    def __enter__(self) -> OnEvent:
        return self.show

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def show(self, event: Event) -> None:
        note(event)
        if isinstance(event, Progress):
            self._advance(event)
        else:
            self._lines(event)

    def _advance(self, event: Progress) -> None:
        from tqdm import tqdm

        if self._bar is None or event.phase != self._phase:
            self.clear()
            in_bytes = event.unit in ("B", "bytes")
            self._phase = event.phase
            self._bar = tqdm(
                desc=event.phase,
                total=event.total,
                unit="B" if in_bytes else f" {event.unit}",
                unit_scale=in_bytes,
                unit_divisor=1024,
                leave=False,
                file=sys.stderr,
                dynamic_ncols=True,
                mininterval=0.2,
                bar_format=_WAITING if event.unit == "s" else None,
            )
        bar = self._bar
        if event.total is not None:
            bar.total = event.total
        if event.detail:
            room = shutil.get_terminal_size().columns - _BAR
            bar.set_postfix_str(fitting(event.detail, room), refresh=False)
        bar.update(event.done - bar.n)

    def clear(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Notices:
    """No bar: notices only, each once, as a line on stderr."""

    def __init__(self) -> None:
        self.show = _Once(emit_error)

    def __enter__(self) -> OnEvent:
        return self.show

    def __exit__(self, *exc: object) -> None:
        pass

    def clear(self) -> None:
        pass


class _Silent:
    def __enter__(self) -> OnEvent:
        return note

    def __exit__(self, *exc: object) -> None:
        pass

    def show(self, event: Event) -> None:
        note(event)

    def clear(self) -> None:
        pass


def _line(message: str) -> None:
    from tqdm import tqdm

    from regstore.cli.output import printable

    with contextlib.suppress(OSError):  # the terminal may be gone
        tqdm.write(printable(message), file=sys.stderr)


def retries() -> OnEvent:
    """For a storage: shows its notices, and on a terminal what it tries again."""
    if voice().quiet:
        return ignore
    return Retries() if sys.stderr.isatty() else _Notices().show


def progress() -> Shown:
    if voice().quiet:
        return _Silent()
    return Bar() if sys.stderr.isatty() else _Notices()
