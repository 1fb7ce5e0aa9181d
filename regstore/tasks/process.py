"""A worker process: it runs what it is asked to, as many tasks at a time as are asked for, until nobody asks any more.

python -c ... '{"socket": 5, "concurrency": 64}' '["the search path"]'
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from dataclasses import replace
from typing import Any

from regstore.events import Event
from regstore.storage.base import Counters, Storage
from regstore.storage.optional import StoreAddress
from regstore.tasks.messages import Answer, Ask, Cancel, Message, Told, frame, read
from regstore.tasks.packing import PackedError, pack
from regstore.tasks.runner import Context


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = json.loads(sys.argv[1])
    asyncio.run(_serve(socket.socket(fileno=told["socket"]), told["concurrency"]))


async def _serve(connection: socket.socket, concurrency: int) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    worker = Worker(writer, concurrency)
    try:
        while True:
            worker.take(await read(reader))
    except EOFError:
        pass
    finally:
        await worker.close()
        writer.close()


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
        except asyncio.CancelledError:
            pass
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
