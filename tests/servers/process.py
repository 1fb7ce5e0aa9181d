"""Ports, waiting, and child processes that never outlive the tests."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_PATH: Final = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


class ServerError(Exception):
    """A server or a client tool failed; the message has the end of what it said."""


def which(program: str) -> str | None:
    """Debian keeps some daemons in /usr/sbin, which is not in every user's PATH."""
    return shutil.which(program, path=_PATH)


def free_port() -> int:
    """A port that was free a moment ago: whoever binds it must be ready to try another."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of the caller's settings: no AWS_*, no proxies, no AWS_CA_BUNDLE (Distribution 2.x panics on it)."""
    return {
        "PATH": _PATH,
        "HOME": str(home),
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
        "LC_ALL": "C.UTF-8",
    } | more


def wait_until(ready: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Poll until ready; ServerError at the deadline."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while not ready():
        if time.monotonic() > deadline:
            raise ServerError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def tail(log: Path, characters: int = 3000) -> str:
    try:
        return log.read_text(errors="replace")[-characters:]
    except FileNotFoundError:
        return ""


class Child:
    """A server process of ours with its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        program = which(command[0])
        if program is None:
            raise ServerError(f"{command[0]} is not installed")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        self.log = log
        atexit.register(self.stop)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self, *, grace: float = 3.0) -> None:
        """Terminate, then kill. Idempotent."""
        atexit.unregister(self.stop)
        if self.running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        if self.running:
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
