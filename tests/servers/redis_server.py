"""A real Redis on a free port, nothing on disk."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.servers.process import Child, ServerError, clean_environment, free_port, tail, wait_until

PROGRAM: Final = "redis-server"
_ATTEMPTS: Final = 4


@dataclass(frozen=True)
class RedisServer:
    host: str
    port: int

    @property
    def address(self) -> str:
        """For a registry's configuration."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"


@contextlib.contextmanager
def redis_server() -> Iterator[RedisServer]:
    folder = Path(tempfile.mkdtemp(prefix="regstore-redis-"))
    child: Child | None = None
    try:
        for _ in range(_ATTEMPTS):
            port = free_port()
            options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            child = Child([PROGRAM, *options, "--dir", str(folder)], folder / "log", clean_environment(folder))
            wait_until(lambda child=child, port=port: not child.running or _answers(port), "Redis to answer")  # type: ignore[misc]
            if child.running:
                break
        else:
            raise ServerError(f"{PROGRAM} did not start:\n{tail(folder / 'log')}")
        yield RedisServer("127.0.0.1", port)
    finally:
        if child is not None:
            child.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
