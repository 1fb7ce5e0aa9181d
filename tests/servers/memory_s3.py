"""The S3 endpoint that benchmarks measure against (`benchmarks.s3_memory`), in a thread of this process."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.s3_memory import Connection, Server
from tests.servers.s3 import S3Server


@contextmanager
def memory_s3(server: Server | None = None) -> Iterator[S3Server]:
    """server: whose buckets the caller fills itself."""
    loop = asyncio.new_event_loop()
    server = server or Server()
    connections: list[Connection] = []

    def connect() -> Connection:
        connections.append(Connection(server, loop))
        return connections[-1]

    def run() -> None:
        sys.settrace(None)  # coverage would follow every line
        loop.run_forever()

    async def listen() -> tuple[asyncio.Server, str]:
        listening = await loop.create_server(connect, "127.0.0.1", 0)
        return listening, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"

    async def stop() -> None:
        listening.close()
        for connection in connections:
            connection.transport.abort()
        await asyncio.sleep(0)

    thread = threading.Thread(target=run, name="memory-s3", daemon=True)
    thread.start()
    listening, url = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    try:
        yield S3Server(url, "any", "thing", name="memory")
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
