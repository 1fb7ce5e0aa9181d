"""`gc --offline --no-trash` of a store that is full, and `--state-dir`."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from regstore.cli.output import counted, emit_error
from regstore.errors import StorageError
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.state.elsewhere import StateElsewhere
    from regstore.storage.base import Storage

#: What a full store's error says besides.
WAY_OUT = (
    "`regstore gc --offline --no-trash` frees space without writing to the store first (--trash-days 0: the trash of "
    "older runs, too); the registry must be stopped or read-only meanwhile"
)
#: What it says of a run that needs no room for its state.
NEEDS_ROOM = (
    "what lies in the trash and is referenced again is given back before anything goes, and there is no room for it: "
    "make some in another way, by as much as that takes"
)


@asynccontextmanager
async def state_elsewhere(
    storage: Storage, folder: Path | None, on_event: OnEvent
) -> AsyncIterator[StateElsewhere]:
    """The store, whose lock and journals are kept in the folder; None: in memory once the store is full. What is there
    goes into the store at the end, whatever came of the run."""
    from regstore.state.elsewhere import StateElsewhere
    from regstore.storage.opening import open_scratch, open_storage

    opened: AbstractAsyncContextManager[Storage]
    if folder is not None:
        folder = folder / hashlib.sha256(storage.url.encode(errors="surrogateescape")).hexdigest()[:16]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name, opened = str(folder), open_storage(folder)
    else:
        name, opened = "this process's memory", open_scratch()
    async with opened as other:
        elsewhere = StateElsewhere(storage, other, name=name, at_once=folder is not None, on_event=on_event)
        try:
            yield elsewhere
        finally:
            await publish(elsewhere)


async def publish(elsewhere: StateElsewhere | None) -> str:
    """Where the run's journal is: "store", or what `elsewhere` names."""
    if elsewhere is None or not elsewhere.is_used:
        return "store"
    try:
        number = await elsewhere.publish()
    except StorageError as error:
        emit_error(
            f"the journal of this run could not be put into {elsewhere.url} ({error}): it is in {elsewhere.name} only; "
            "so the next run may find that links have gone which no run of regstore has taken, and ask"
        )
        return elsewhere.name
    if number:
        emit_error(f"the journal of this run is in {elsewhere.url} now ({counted(number, 'object')})")
    return "store"
