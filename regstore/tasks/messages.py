"""What goes between who asks and a worker: frames on a socket that only the two hold, each a length and a pickle.

Both are one program of one user, started by the one of the other, so what is unpickled is their own.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from regstore.events import Event
from regstore.storage.base import Counters
from regstore.storage.optional import StoreAddress
from regstore.tasks.packing import PackedError

#: Seconds.
BEAT: Final = 1.0
#: Seconds that a worker gets to clean up behind what was cancelled.
PATIENCE: Final = 10.0
_LENGTH: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Run this. stores: where the worker is to open them."""

    number: int
    task: Callable[..., Any]
    work: Any
    stores: tuple[StoreAddress, ...]
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Of an `Ask`. It is answered when the task has ended."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An event of a task."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """result or error, both None where it was cancelled. counters: of each of the stores, what came since the answer
    before."""

    number: int
    result: Any = None
    error: PackedError | None = None
    counters: Mapping[StoreAddress, Counters]


@dataclass(frozen=True, slots=True)
class Alive:
    """A worker's event loop turns: said each `BEAT`, from the start."""


Message = Ask | Cancel | Told | Answer | Alive


def frame(message: Message) -> bytes:
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader) -> Any:
    """The next message; EOFError where the other has gone."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return pickle.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError from error
