"""The operator's own command that restarts the registry, so that its cache in memory forgets.

It is a line for /bin/sh, run in a session of its own with nothing on stdin. When it takes too long, or regstore is
interrupted, its processes get SIGTERM, and SIGKILL if that does not end them. It must return when every registry
process has been restarted, not before.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from typing import IO, Final

from regstore.errors import StorageError
from regstore.state import RUNS
from regstore.state.lock import Lock
from regstore.state.registry_state import Restart, read_state, write_state
from regstore.storage.base import Storage

#: How long the command may take, in seconds.
LIMIT: Final = 600.0
_PATIENCE: Final = 5.0
_TICK: Final = 0.05
#: A store whose time lags by so many seconds is broken.
_STANDS_STILL: Final = 60.0
#: So much of its output is kept, in bytes.
_TAIL: Final = 4096


async def restart_registry(storage: Storage, command: str, lock: Lock, *, limit: float = LIMIT) -> Restart:
    """Run it, and remember in the store how it ended. Never raises because of the command itself."""
    began = await _after_the_run(storage, lock.run)
    started = time.monotonic()
    status, output = await _run(command, limit)
    restart = Restart(
        run=lock.run, began=began, seconds=round(time.monotonic() - started, 3), status=status, output=output
    )
    state = await read_state(storage)
    if restart.done:
        state = replace(state, restart=restart, failed_restart=None)
    else:
        state = replace(state, failed_restart=restart)
    await lock.guard()
    await write_state(storage, state)
    return restart


async def _after_the_run(storage: Storage, run: str) -> int:
    """The store's time, once it is past this run's end as a listing tells it, which is where the next run has it from:
    its time is finer than that of a HEAD (seen with Ceph), and `now` may lag a little."""
    ended = 0  # where nothing was to do
    async for page in storage.list(f"{RUNS}{run}/"):
        ended = max([ended, *page.mtimes])
    deadline = time.monotonic() + _STANDS_STILL
    while (now := await storage.now()) <= ended:
        if time.monotonic() > deadline:
            raise StorageError(
                f"the clock of {storage.url} does not pass the end of run {run}: the registry was not restarted"
            )
        await asyncio.sleep(_TICK)
    return now


async def _run(command: str, limit: float) -> tuple[int | None, str]:
    """Exit status, None after the limit, and the end of what it said."""
    with tempfile.TemporaryFile() as output:  # a pipe would stay open with whatever the command leaves running
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return 127, str(error)
        try:
            async with asyncio.timeout(limit):
                status: int | None = await process.wait()
        except TimeoutError:
            status = None
            await _end(process)
        except BaseException:
            await _end(process)
            raise
        return status, _tail(output)


async def _end(process: asyncio.subprocess.Process) -> None:
    """The whole session's processes; the shell alone would leave its child."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _tail(output: IO[bytes]) -> str:
    end = output.seek(0, os.SEEK_END)
    output.seek(max(0, end - _TAIL))
    return output.read().decode("utf-8", "replace").strip()
