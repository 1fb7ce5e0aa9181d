"""What a long operation tells its caller while it runs.

Events are frozen, and their counts are cumulative: losing one loses nothing. A callback must be quick and
must not raise; the library never prints.

    from regstore.events import Event, Notice, Progress
    from regstore.storage import open_storage
    from regstore.verify import verify

    def show(event: Event) -> None:
        if isinstance(event, Progress):
            print(event.phase, event.done, event.unit)
        elif isinstance(event, Notice):
            print(event.message)

    async with open_storage("/srv/registry") as storage:
        await verify(storage, on_event=show)

An Event is a Progress, a Notice or a Retry; an OnEvent takes one, and `ignore` is the one that does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Event", "Notice", "OnEvent", "Progress", "Retry", "ignore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one phase is.

    phase: a few words in lower case, such as "listing blobs"; a new phase ends the one before.
    done, total: in `unit`; total is None while it is not known.
    detail: what is being worked on, for a person.
    """

    phase: str
    done: int
    total: int | None = None
    unit: str = "keys"
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something worth a line in a log that is no error."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A request failed and is tried again."""

    operation: str
    key: str
    attempt: int
    reason: str


Event = Progress | Notice | Retry
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The callback that does nothing."""
