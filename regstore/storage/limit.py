"""Limits to what is sent: asked by every backend just before each request, or each key that it deletes on a disk.

A timeout cannot do this. It counts no seconds in which the machine sleeps, and what is repeated, or cut into many
requests, would go on when the machine wakes. Whoever must not change anything later than a certain time sets a check
that raises then; tasks and threads that are started meanwhile inherit it. So it is with a rate of requests, for which a
backend that is billed by them waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_CHECK: Final[ContextVar[Callable[[], None] | None]] = ContextVar("check", default=None)


@contextmanager
def limited(check: Callable[[], None]) -> Iterator[None]:
    """Ask `check` before anything is sent from here; what it raises comes out of the storage's method."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def check_limit() -> None:
    check = _CHECK.get()
    if check is not None:
        check()


class _Pace:
    def __init__(self, rate: float) -> None:
        self._pause = 1 / rate
        self._next = 0.0

    def take(self) -> float:
        """A turn; how many seconds later it is."""
        now = time.monotonic()
        at = max(self._next, now)
        self._next = at + self._pause
        return at - now


_PACE: Final[ContextVar[_Pace | None]] = ContextVar("pace", default=None)


@contextmanager
def paced(rate: float) -> Iterator[None]:
    """No more requests a second than that from here, to all stores together; 0 is no bound."""
    token = _PACE.set(_Pace(rate) if rate else None)
    try:
        yield
    finally:
        _PACE.reset(token)


async def wait_for_turn() -> None:
    """Before a request is signed. What must be sent before a certain time does not wait: what comes after it waits the
    longer."""
    pace = _PACE.get()
    if pace is not None:
        later = pace.take()
        if _CHECK.get() is None:
            await asyncio.sleep(later)
