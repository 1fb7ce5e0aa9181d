"""A limit to what is sent: asked by every backend just before each request, or each key that it deletes on a disk.

A timeout cannot do this. It counts no seconds in which the machine sleeps, and what is repeated, or cut into many
requests, would go on when the machine wakes. Whoever must not change anything later than a certain time sets a check
that raises then; tasks and threads that are started meanwhile inherit it.
"""

from __future__ import annotations

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
