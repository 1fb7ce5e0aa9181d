"""A bar on stderr, fed by the library's events: only on a terminal. Elsewhere there are lines (`lines`)."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import Any, Final, Protocol

from regstore.cli.lines import PAUSE, Lines, Notices, Phases, Retries
from regstore.cli.underway import note
from regstore.cli.voice import voice
from regstore.events import Event, Notice, OnEvent, Progress, Retry, ignore

#: Columns that the bar itself takes: phase, share, amounts, times and rate.
_BAR: Final = 70
#: Of a phase that only waits: its rate says nothing.
_WAITING: Final = "{desc} |{bar}| {n_fmt} of {total_fmt} s"


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
        self._phases = Phases(voice(), time.monotonic)
        self._lines = _between_bars()

    def __enter__(self) -> OnEvent:
        return self.show

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
        self._phases.end()

    def show(self, event: Event) -> None:
        note(event)
        if isinstance(event, Progress):
            self._phases.follow(event)
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


class _Told:
    """No bar: the run's lines are told."""

    def __init__(self, show: OnEvent) -> None:
        self.show = show

    def __enter__(self) -> OnEvent:
        return self.show

    def __exit__(self, *exc: object) -> None:
        pass

    def clear(self) -> None:
        pass


def _between_bars() -> OnEvent:
    """Lines of what is no progress."""
    own = voice()
    told_retries, told_notices = Retries(own, PAUSE, time.monotonic), Notices(own)

    def tell(event: Event) -> None:
        if isinstance(event, Retry):
            told_retries(event)
        elif isinstance(event, Notice):
            told_notices(event)

    return tell


def has_bar() -> bool:
    """Whether this run may show one."""
    return sys.stderr.isatty() and not voice().log_json


def _lines() -> OnEvent:
    own = voice()
    return own.hear or Lines(own).show


def retries() -> OnEvent:
    """For a storage: shows its notices, and what it tries again."""
    if voice().quiet:
        return ignore
    return _between_bars() if has_bar() else _lines()


def progress() -> Shown:
    if voice().quiet:
        return _Told(note)
    return Bar() if has_bar() else _Told(_lines())
