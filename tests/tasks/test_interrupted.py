"""Ctrl-C while workers are at each kind of batch: all processes end, and one line says why. Killed -9, a command can't
end its workers; they do."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from regstore.storage.s3 import S3Storage
from tests.gc.scenes import small_registry, write_long_ago
from tests.servers.s3 import S3Server
from tests.tasks.test_killed import COPYING, HASHING, LISTING, MANIFESTS
from tests.tasks.test_pool import is_there

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import sys
from importlib import import_module
from regstore.cli import main
from regstore.tasks import Pool
from tests.tasks.jobs import Waiting
place, begun, *sys.argv[1:] = sys.argv[1:]
module, _, name = place.rpartition(".")
setattr(import_module(module), name, Waiting(begun))
Pool.takes = lambda self, count, least, *stores: self.reaches(*stores)
main()
"""
GC = ("gc", "--grace", "0s", "--delete-untagged", "--offline")


@dataclass
class Command:
    process: subprocess.Popen[str]
    begun: Path

    def worker(self) -> int:
        """Once its task has begun."""
        end = time.monotonic() + 60
        while not (self.begun.exists() and self.begun.read_text().endswith("\n")):
            assert self.process.poll() is None and time.monotonic() < end, self.process.communicate()
            time.sleep(0.02)
        return int(self.begun.read_text())

    def end(self) -> None:
        """With all that it started, and whatever became of the test."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def start(place: str, begun: Path, words: Sequence[str], server: S3Server) -> Command:
    """With a cache of its own: what others have read leaves it no task."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, place, str(begun), *words, "--workers", "2"],
        cwd=ROOT,
        env=os.environ | server.environment() | {"XDG_CACHE_HOME": f"{begun}-cache"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that the group is its own, as a terminal's would be
    )
    return Command(process, begun)


async def test_all_processes_end(moto: S3Server, moto_bucket: str, tmp_path: Path) -> None:
    settings = moto.settings(moto_bucket)
    async with S3Storage(settings) as storage:
        await write_long_ago(small_registry(), storage)
    store = f"s3://{moto_bucket}"
    commands = [
        start(place, tmp_path / str(number), words, moto)
        for number, (place, words) in enumerate(
            [
                (LISTING[0], ("du", store)),
                (MANIFESTS[0], (*GC, store, "--dry-run")),
                (HASHING[0], ("verify", store, "--read-data", "all")),
                (COPYING[0], (*GC, store, "--yes", "--max-delete", "100%", "--unlinked-blobs")),
                (HASHING[0], ("verify", store, "--read-data", "all")),
            ]
        )
    ]
    try:
        await asyncio.to_thread(check_ends, commands)
    finally:
        for command in commands:
            command.end()


def check_ends(commands: Sequence[Command]) -> None:
    *interrupted, killed = commands
    workers = [command.worker() for command in commands]
    for command in interrupted:
        os.killpg(command.process.pid, signal.SIGINT)
    killed.process.kill()
    for command, worker in zip(interrupted, workers, strict=False):
        _, said = command.process.communicate(timeout=60)
        assert command.process.returncode == 130, said
        assert "interrupted" in said and "Traceback" not in said
        assert not is_there(worker)
    killed.process.communicate(timeout=60)
    end = time.monotonic() + 60
    while is_there(workers[-1]):
        assert time.monotonic() < end
        time.sleep(0.02)
