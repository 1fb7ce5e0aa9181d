"""The restart command: how it ends, and what is kept of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from regstore.gc.restart import restart_registry
from regstore.state.lock import hold_lock
from regstore.state.registry_state import Restart, read_state
from regstore.storage.disk import DiskStorage


async def run(folder: Path, command: str, *, limit: float = 60) -> Restart:
    (folder / "docker").mkdir(exist_ok=True)
    storage = DiskStorage(folder)
    async with hold_lock(storage, command="gc") as lock:
        restart = await restart_registry(storage, command, lock, limit=limit)
    state = await read_state(storage)
    assert restart == (state.restart if restart.done else state.failed_restart)
    return restart


@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        ("echo one; echo two >&2", 0, "one\ntwo"),
        ("exit 3", 3, ""),
        ("kill -9 $$", -9, ""),
        ("cat", 0, ""),  # nothing to read
        ("sleep 1000 & echo left running", 0, "left running"),
        ("yes | head -c 100000; echo end", 0, "y\n" * 2046 + "end"),
        ("printf '\\377'", 0, "\N{REPLACEMENT CHARACTER}"),
        ("no-such-command-anywhere 2>/dev/null", 127, ""),
    ],
)
async def test_how_it_ends(tmp_path: Path, command: str, status: int, output: str) -> None:
    restart = await run(tmp_path, command.replace("sleep 1000", "sleep 5"))
    assert (restart.status, restart.output) == (status, output)


async def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    restart = await run(tmp_path, "echo waiting; sleep 1000", limit=0.3)
    assert (restart.status, restart.output, restart.done) == (None, "waiting", False)
    assert "took too long" in restart.outcome


async def test_a_failure_does_not_undo_an_earlier_restart(tmp_path: Path) -> None:
    good = await run(tmp_path, "true")
    bad = await run(tmp_path, "false")
    state = await read_state(DiskStorage(tmp_path))
    assert (state.restart, state.failed_restart) == (good, bad)
    await run(tmp_path, "true")
    assert (await read_state(DiskStorage(tmp_path))).failed_restart is None
