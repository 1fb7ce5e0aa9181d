"""Which attempt a task is, of those that an engine makes at the same work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from regstore.spark.tasks.executing import StoreWork
from regstore.state.journal import AttemptJournal
from regstore.storage.base import Storage
from regstore.tasks.runner import Context


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """number: no other attempt of the run has it, whatever it is at. repeated: the engine says that it began this work
    before. Where it begins a whole stage again, it may not say so."""

    number: int
    repeated: bool


#: Asked in the task's own process.
WhichAttempt = Callable[[], Attempt]


async def context_of(
    store: StoreWork, storage: Storage, attempt: Attempt, *, run: str, shard: int, step: str
) -> Context:
    """What another attempt has journaled tells where the engine does not. One that has journaled nothing has changed
    nothing yet; and it keeps apart from this one, for its parts have other names."""
    journal = AttemptJournal(storage, run, shard=shard, step=step, attempt=attempt.number)
    return Context(
        stores=(storage,),
        concurrency=store.concurrency,
        attempt=attempt.number,
        again=attempt.repeated or await journal.was_begun(),
    )
