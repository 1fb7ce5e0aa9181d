"""Where no bar can be shown: a line now and then on standard error, of what is done, how far, and how fast.

None in a run of a few seconds. Also where nothing happens, for an endpoint that does not answer sends no event: a
thread looks (`looking`). Requests that are tried again are counted in that line. With -v there are more lines: one as
each phase ends, and one for each such request; --log-format json has these requests, too, one in a few seconds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from regstore.cli.underway import amount, note
from regstore.cli.voice import Voice
from regstore.events import Event, Notice, Progress, Retry
from regstore.words import counted, moment, size

#: Seconds between two lines of how far it is; of a run that is verbose.
EVERY: Final = 30.0
EVERY_VERBOSE: Final = 5.0
#: Seconds between two lines of requests that are tried again.
PAUSE: Final = 5.0
#: Seconds between two looks of the thread.
_LOOK: Final = 1.0


class Phases:
    """Which phase a run is in, since when, and how far. A line at the end of each, where it is verbose."""

    def __init__(self, voice: Voice, clock: Callable[[], float]) -> None:
        self._voice = voice
        self._clock = clock
        self.now: Progress | None = None
        self.began = clock()
        self.changed = clock()

    def follow(self, event: Progress) -> None:
        if self.now is not None and self.now.phase != event.phase:
            self.end()
        if self.now is None:
            self.began = self._clock()
        if self.now is None or self.now.done != event.done:
            self.changed = self._clock()
        self.now = event

    def end(self) -> None:
        phase, self.now = self.now, None
        if phase is not None and self._voice.verbose:
            seconds = self._clock() - self.began
            text = f"{amount(phase)} took {seconds:.1f} s"
            self._voice.log("info", "phase", text, phase=phase.phase, done=phase.done, seconds=round(seconds, 3))

    def per_second(self) -> float | None:
        """None of what only waits, and while it is not known."""
        seconds = self._clock() - self.began
        if self.now is None or self.now.unit == "s" or not self.now.done or seconds <= 0:
            return None
        return self.now.done / seconds


class Retries:
    """Requests that are tried again, not more than one line in `pause` seconds: a busy server refuses thousands."""

    def __init__(self, voice: Voice, pause: float, clock: Callable[[], float]) -> None:
        self._voice = voice
        self._pause = 0.0 if voice.verbose else pause
        self._clock = clock
        self._next = clock()
        self._untold = 0

    def __call__(self, event: Retry) -> None:
        now = self._clock()
        if now < self._next:
            self._untold += 1
            return
        self._next = now + self._pause
        more = f", and {counted(self._untold, 'more request')} since the last line" if self._untold else ""
        self._voice.log(
            "info",
            "retry",
            f"{_words(event)}, trying again{more}",
            operation=event.operation,
            key=event.key,
            attempt=event.attempt,
            reason=event.reason,
            untold=self._untold,
        )
        self._untold = 0


def _words(event: Retry) -> str:
    about = f" of {event.key}" if event.key else ""
    return f"{event.operation}{about}: attempt {event.attempt} failed ({event.reason})"


class Notices:
    """Each once."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self._said: set[str] = set()

    def __call__(self, event: Notice) -> None:
        if event.message not in self._said:
            self._said.add(event.message)
            self._voice.log("info", "notice", event.message)


class Lines:
    """Takes the events of one run. clock: monotonic seconds; wall: microseconds since 1970."""

    def __init__(
        self,
        voice: Voice,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._voice = voice
        self._clock = clock
        self._wall = wall
        self._every = EVERY_VERBOSE if voice.verbose else EVERY
        self._next = clock() + self._every
        self._lock = threading.RLock()
        self._phases = Phases(voice, clock)
        self._retries = Retries(voice, PAUSE, clock)
        self._tried_again = 0
        self._last: Retry | None = None
        self._notices = Notices(voice)

    def show(self, event: Event) -> None:
        note(event)
        with self._lock:
            if isinstance(event, Progress):
                self._phases.follow(event)
                self.look()
            elif isinstance(event, Retry):
                self._again(event)
            else:
                self._notices(event)

    def look(self) -> None:
        """Say how far it is, where it is time for that."""
        with self._lock:
            now = self._clock()
            if now < self._next or self._voice.answered or self._voice.others_speak:
                return
            self._next = now + self._every
            self._say(now)

    def end(self) -> None:
        with self._lock:
            self._phases.end()

    def _again(self, event: Retry) -> None:
        if self._voice.verbose or self._voice.log_json:
            self._retries(event)
        self._tried_again, self._last = self._tried_again + 1, event

    def _say(self, now: float) -> None:
        phases = self._phases
        silent = now - phases.changed
        again, self._tried_again = self._tried_again, 0
        tail = f"; {counted(again, 'request')} tried again, {_words(self._last)}" if again and self._last else ""
        if phases.now is None:
            self._log(f"nothing was heard for {silent:.0f} s{tail}", silent_seconds=round(silent, 1), retries=again)
            return
        event, rate = phases.now, phases.per_second()
        text = amount(event)
        if rate is not None:
            text += f", {size(int(rate))}/s" if event.unit in ("B", "bytes") else f", {rate:,.0f}/s"
        if silent >= self._every and event.unit != "s":
            text += f", no further for {silent:.0f} s"
        self._log(
            text + tail,
            phase=event.phase,
            done=event.done,
            total=event.total,
            unit=event.unit,
            per_second=None if rate is None else round(rate, 3),
            silent_seconds=round(silent, 1),
            retries=again,
        )

    def _log(self, text: str, **facts: object) -> None:
        said = text if self._voice.log_json else f"{moment(self._wall())} {text}"
        self._voice.log("info", "progress", said, **facts)


@contextlib.contextmanager
def looking(lines: Lines) -> Iterator[None]:
    """Look now and then within, whatever else is at work."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                lines.look()

    thread = threading.Thread(target=look, name="regstore-lines", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError, ValueError):
            lines.end()
