"""`regstore locks`: who is changing the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.command import command
from regstore.cli.elsewhere import NEEDS_ROOM, WAY_OUT
from regstore.cli.outcome import Result
from regstore.cli.output import emit, emit_error, emit_note, iso, moment, table
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.underway import note_run
from regstore.errors import StorageError, StorageFull

if TYPE_CHECKING:
    from regstore.state.holder import FoundLock
    from regstore.state.lock import Lock
    from regstore.storage.base import Storage


@command(answers=True)
def locks(
    settings: StoreSettings,
    break_lock: Annotated[
        bool, typer.Option("--break-lock", help="Remove them; their runs stop before their next change.")
    ] = False,
) -> Result:
    """List the locks of a store: run, command, holder, and when each expires unless it is renewed."""
    url, now, found = run_async(_find(settings, break_lock))
    if found:
        cells = [
            [
                lock.holder.run,
                lock.holder.command,
                f"{lock.holder.user}@{lock.holder.host}",
                str(lock.holder.pid),
                moment(lock.expires) + (" (expired)" if lock.expires < now else ""),
            ]
            for lock in found
        ]
        emit(table(["RUN", "COMMAND", "HOLDER", "PID", "EXPIRES"], cells, right=(3,)))
        if break_lock:
            emit_error("these locks are broken: their runs stop before their next change")
    else:
        emit_note(f"{url} is not locked")
    rows = [
        {
            "run": lock.holder.run,
            "command": lock.holder.command,
            "user": lock.holder.user,
            "host": lock.holder.host,
            "pid": lock.holder.pid,
            "written": iso(lock.written),
            "expires": iso(lock.expires),
            "expired": lock.expires < now,
        }
        for lock in found
    ]
    return Result(data={"broken": break_lock, "locks": rows}, numbers={"locks": len(rows)})


async def _find(settings: StoreSettings, break_lock: bool) -> tuple[str, int, list[FoundLock]]:
    from regstore.state.lock import break_locks, find_locks

    async with settings.open(read_only=not break_lock) as storage:
        found = await (break_locks(storage) if break_lock else find_locks(storage))
        return storage.url, await storage.now(), found


async def break_locks_openly(storage: Storage) -> None:
    """Break them, and say whose they were."""
    from regstore.state.lock import break_locks

    for broken in await break_locks(storage):
        emit_error(f"broke the lock of run {broken.holder.run} on {broken.holder.host}")


@asynccontextmanager
async def hold_lock_openly(storage: Storage, *, command: str, way_out: str = WAY_OUT) -> AsyncIterator[Lock]:
    """Hold the store's lock, and say so where it stands afterwards: the store would not delete it. Of one that is full,
    say what frees space (way_out)."""
    from regstore.state.elsewhere import StateElsewhere
    from regstore.state.lock import find_locks, hold_lock

    run = ""
    try:
        async with hold_lock(storage, command=command) as lock:
            run = lock.run
            note_run(run)
            yield lock
    except StorageFull as error:
        if storage.url not in str(error):
            raise  # of a temporary folder
        raise StorageFull(f"{error}; {NEEDS_ROOM if isinstance(storage, StateElsewhere) else way_out}") from error
    finally:
        with suppress(StorageError):
            if run and any(found.holder.run == run for found in await find_locks(storage)):
                emit_error(
                    f"the lock of run {run} could not be deleted from {storage.url}, so other runs wait until it "
                    "expires; or look with `regstore locks`"
                )
