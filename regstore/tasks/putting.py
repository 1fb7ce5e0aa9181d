"""Write small objects: links, many at a time. Each is there whole or not at all, so writing it again is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from regstore.concurrency import for_each
from regstore.events import Progress
from regstore.storage.base import PutOptions
from regstore.tasks.runner import Context

PHASE: Final = "writing"
#: Objects between two words on how far it is.
_TELL: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PutMany:
    """made: makes key and content of a row; a function of a module, so that it can be pickled. put: how the objects
    are stored."""

    rows: Sequence[tuple[Any, ...]]
    made: Callable[[tuple[Any, ...]], tuple[str, bytes]]
    put: PutOptions | None


async def put_many(context: Context, work: PutMany) -> None:
    """The first error ends it, and is raised: what was written by then stays."""
    done = 0

    async def one(row: tuple[Any, ...]) -> None:
        nonlocal done
        key, body = work.made(row)
        await context.store.put(key, body, options=work.put)
        done += 1
        if done % _TELL == 0:
            context.on_event(Progress(phase=PHASE, done=done))

    await for_each(work.rows, one, concurrency=context.concurrency)
