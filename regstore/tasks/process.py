"""A worker process: it runs what it is asked to, as many tasks at a time as are asked for, until nobody asks any more.

python -c ... '{"concurrency": 64}' '["the search path"]' VERSION

Its standard input is the socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from dataclasses import replace
from typing import Any

from regstore.concurrency import was_cancelled
from regstore.errors import RegstoreError
from regstore.events import Event
from regstore.machine import collect_seldom
from regstore.storage.base import Counters, Storage
from regstore.storage.optional import StoreAddress
from regstore.tasks.messages import (
    BEAT,
    PATIENCE,
    Alive,
    Answer,
    Ask,
    Cancel,
    Message,
    Told,
    frame,
    read,
)
from regstore.tasks.packing import PackedError, pack
from regstore.tasks.runner import Context


def main() -> None:
    collect_seldom()
    # Handled, not ignored: what a worker starts (a `credential_process`) is to take them as usual.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    told = json.loads(sys.argv[1])
    asyncio.run(_serve(_take_socket(), told["concurrency"]))


def _take_socket() -> socket.socket:
    """Out of the way of what reads standard input, and of what is started from here."""
    taken = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return taken


async def _serve(connection: socket.socket, concurrency: int) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    worker = Worker(writer, concurrency)
    beating = asyncio.create_task(worker.beat())
    try:
        while True:
            worker.take(await read(reader))
    except EOFError:
        pass
    finally:
        _end_in(PATIENCE)
        beating.cancel()
        await worker.close()
        writer.close()


def _end_in(seconds: float) -> None:
    """By then at the latest, whatever a thread waits for: nobody may be there any more who would kill it."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


class Worker:
    """What one process has under way."""

    def __init__(self, writer: asyncio.StreamWriter, concurrency: int) -> None:
        self._writer = writer
        self._concurrency = concurrency
        self._stores: dict[StoreAddress, Storage] = {}
        self._told: dict[StoreAddress, Counters] = {}
        self._open: dict[int, asyncio.Task[None]] = {}
        #: Numbers of those that touched a store last: who is told of what happens to it.
        self._latest = 0

    async def beat(self) -> None:
        while True:
            self._write(Alive())
            await asyncio.sleep(BEAT)

    def take(self, message: Ask | Cancel) -> None:
        if isinstance(message, Cancel):
            if message.number in self._open:
                self._open[message.number].cancel()
            return
        task = asyncio.create_task(self._run(message))
        self._open[message.number] = task
        task.add_done_callback(lambda _: self._open.pop(message.number, None))

    async def close(self) -> None:
        left = list(self._open.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for store in self._stores.values():
            await store.close()

    async def _run(self, asked: Ask) -> None:
        result: Any = None
        error: PackedError | None = None
        self._latest = asked.number
        try:
            context = Context(
                stores=tuple(self._store(address) for address in asked.stores),
                concurrency=self._concurrency,
                attempt=asked.attempt,
                on_event=lambda event: self._tell(asked.number, event),
            )
            result = await asked.task(context, asked.work)
        except asyncio.CancelledError as raised:
            if not was_cancelled():  # without an error this would be taken for a result
                error = pack(RegstoreError(f"a worker's task was cancelled by nobody: {raised!r}"))
        except Exception as raised:  # noqa: BLE001 - it is raised where it was asked for
            error = pack(raised)
        counters = self._counted(asked.stores)
        try:
            self._write(Answer(number=asked.number, result=result, error=error, counters=counters))
        except Exception as raised:  # noqa: BLE001 - the result can't be pickled; who asked must not wait for ever
            self._write(Answer(number=asked.number, error=pack(raised), counters=counters))

    def _store(self, address: StoreAddress) -> Storage:
        if address not in self._stores:
            share = self._concurrency
            self._stores[address] = address.open(share, lambda event: self._tell(self._latest, event))
            self._told[address] = Counters()
        return self._stores[address]

    def _counted(self, addresses: tuple[StoreAddress, ...]) -> dict[StoreAddress, Counters]:
        """What came since it was told last."""
        new = {}
        for address in addresses:
            if address in self._stores:
                now = self._stores[address].counters
                new[address] = now.since(self._told[address])
                self._told[address] = replace(now, requests=dict(now.requests))
        return new

    def _tell(self, number: int, event: Event) -> None:
        self._write(Told(number=number, event=event))

    def _write(self, message: Message) -> None:
        if not self._writer.is_closing():
            self._writer.write(frame(message))
