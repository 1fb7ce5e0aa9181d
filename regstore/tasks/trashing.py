"""Copies of objects to other keys of their store, each by one request for what the server copies.

A copy takes nothing away, and replaces its target with the same bytes: one that is begun twice, or that a server ends
when nobody waits for it any more, does no harm. So a copy needs no lock, and may run where the lock is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regstore.concurrency import for_each
from regstore.errors import StorageError
from regstore.tasks.packing import PackedError, pack
from regstore.tasks.runner import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyKeys:
    """copies: key, the key of the copy, and the size in bytes, from a listing."""

    copies: Sequence[tuple[str, str, int]]


async def copy_keys(context: Context, work: CopyKeys) -> dict[str, PackedError | None]:
    """What came of each key: None where the copy was made; `NotFound` where there was nothing to copy."""
    outcomes: dict[str, PackedError | None] = {}

    async def copy(one: tuple[str, str, int]) -> None:
        key, target, size = one
        try:
            await context.store.copy(key, target, size=size)
        except StorageError as error:
            outcomes[key] = pack(error)
        else:
            outcomes[key] = None

    await for_each(work.copies, copy, concurrency=context.concurrency)
    return outcomes
