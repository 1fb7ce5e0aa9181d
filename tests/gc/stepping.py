"""A toolkit that stands still before each of its storage operations until somebody lets it go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from regstore.errors import StorageError
from regstore.storage.base import Capabilities, ObjectInfo, Page, PutOptions
from regstore.storage.limit import check_limit
from tests.gc.actors import World
from tests.model.memory import ModelStorage


class WorldStorage(ModelStorage):
    """The world's store as a Storage: listings are asked for page by page, times are the world's."""

    serves_in_parallel = False

    def __init__(self, world: World, *, page: int = 1000) -> None:
        super().__init__(world.store, now=0, page=page, etags=world.etags, repeats=world.repeats)
        self.serves_in_parallel = False
        self.unreadable, self.archived = world.unreadable, world.archived
        self.world = world

    async def turn(self, operation: str, *keys: str) -> None:
        """Before each operation."""

    async def capabilities(self) -> Capabilities:
        return Capabilities(conditional_put=self.world.conditional)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        complete, last = False, None
        while not complete:
            await self.turn("list", prefix)
            keys = [key for key in self.store if key.startswith(prefix) and key > start_after]
            complete, keys = len(keys) <= self.page, keys[: self.page]
            infos = [self._info(key) for key in keys]
            start_after = keys[-1] if keys else start_after
            yield self.shown(infos, last, complete=complete)
            last = infos[-1] if infos else last

    async def stat(self, key: str) -> ObjectInfo:
        await self.turn("stat", key)
        return self._info(key)

    async def get(self, key: str) -> bytes:
        await self.turn("get", key)
        return self._content(key)

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        await self.turn("put", key)
        check_limit()
        self.clock = self._tick()
        await super().put(key, data, if_absent=if_absent)
        self.world.renew(key)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        """Not atomic: key by key."""
        for key in keys:
            await self.turn("delete", key, *keys)
            check_limit()
            self._tick()
            self.store.objects.pop(key, None)
        return dict.fromkeys(keys)

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        await self.turn("copy", source, target)
        self.clock = self._tick()
        self.store.objects[target] = (self._content(source), self.clock)
        self.world.renew(target)

    async def now(self) -> int:
        return self.world.now // 1_000_000 * 1_000_000

    def _tick(self) -> int:
        self.world.now += 10_000
        return self.world.mtime()


class Toolkit(WorldStorage):
    """Runs one piece of work on the world, step by step. `waiting`: (operation, keys) that it is about to do. What it
    asks for at the same time is done one after the other, in that order."""

    def __init__(self, world: World, loop: asyncio.AbstractEventLoop, *, page: int) -> None:
        super().__init__(world, page=page)
        self._loop = loop
        self.waiting: tuple[str, tuple[str, ...]] | None = None
        #: Every operation that was asked for, also those that were cancelled before their turn came.
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self._go: asyncio.Future[None] | None = None
        self._turn = asyncio.Lock()
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        async def begin() -> None:
            self._task = asyncio.create_task(work)
            self._task.add_done_callback(lambda _: self._stopped.set())
            await self._stopped.wait()

        self._loop.run_until_complete(begin())

    async def turn(self, operation: str, *keys: str) -> None:
        self.asked.append((operation, keys))
        async with self._turn:
            self.waiting = operation, keys
            self._go = self._loop.create_future()
            self._stopped.set()
            try:
                await self._go
            finally:
                self.waiting = self._go = None

    @property
    def done(self) -> bool:
        return self._task is None or self._task.done()

    def step(self) -> None:
        """Do the operation that it waits for, and go on to the next, or to the end."""
        if self.done:
            return
        self._stopped.clear()
        if self._go is not None:  # else a batch was cut off, and it is on its way to what comes next
            self._go.set_result(None)
        self._loop.run_until_complete(self._stopped.wait())

    def kill(self) -> tuple[str, tuple[str, ...]] | None:
        """End it as SIGKILL would: nothing more is done, no clean-up either. What it was about to do."""
        last = self.waiting
        if self._task is not None and not self._task.done():
            self.turn = _never  # type: ignore[method-assign]
            self._task.cancel()
            self._loop.run_until_complete(asyncio.gather(self._task, return_exceptions=True))
        return last

    def result(self) -> Any:
        """What the work returned; what it raised comes out."""
        assert self._task is not None and self._task.done()
        return self._task.result()


async def _never(operation: str, *keys: str) -> None:
    raise asyncio.CancelledError
