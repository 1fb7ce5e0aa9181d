"""The way from blocking code into an event loop, and back.

One thread has the loop of all that is open. It begins with the first thing that is opened, and ends with the last:
so a store that one call opens can be given to another, and nothing is left behind.

`Portal` is one holder's way in. It waits for what it runs even when it is interrupted (Ctrl-C): the coroutine is
cancelled, and what it does about that, such as giving a lock back, is waited for. A second Ctrl-C waits no longer.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

R = TypeVar("R")
T = TypeVar("T")

_BATCH: Final = 128


class _LoopThread:
    """An event loop in a thread of its own. holders: the open portals."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.holders = 0
        # A daemon: an interpreter that ends without `close` is not held up by it.
        self.thread = threading.Thread(target=self.loop.run_forever, name="regstore", daemon=True)
        self.thread.start()

    @property
    def is_alive(self) -> bool:
        """Not in a process that was forked: there, only the thread that called fork goes on."""
        return self.thread.is_alive()

    def end(self) -> None:
        if self.is_alive:
            asyncio.run_coroutine_threadsafe(self._finish(), self.loop).result()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()


_changing = threading.Lock()
_shared: _LoopThread | None = None


def _enter() -> _LoopThread:
    global _shared
    with _changing:
        if _shared is None or not _shared.is_alive:
            _shared = _LoopThread()
        _shared.holders += 1
        return _shared


def _leave(thread: _LoopThread) -> None:
    global _shared
    with _changing:
        thread.holders -= 1
        if thread.holders:
            return
        if _shared is thread:
            _shared = None
    thread.end()


class Portal:
    """The way into the loop, of one holder: close it. what: as it is named once it is closed."""

    def __init__(self, what: str) -> None:
        _refuse_within_a_loop()
        self._what = what
        self._thread = _enter()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = threading.Lock()
        self._is_open = True

    @property
    def is_open(self) -> bool:
        return self._is_open and self._thread.is_alive

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Its result, or what it raised. RuntimeError where the portal is closed, or this thread runs a loop itself."""
        try:
            _refuse_within_a_loop()
            with self._closing:
                if not self.is_open:
                    raise RuntimeError(f"this {self._what} is closed")
                call = self._begin(coroutine)
        except RuntimeError:
            coroutine.close()
            raise
        return self._wait(call)

    def _begin(self, coroutine: Coroutine[Any, Any, R]) -> _Call[R]:
        call = _Call[R](Future(), [])

        def begin() -> None:
            task = self._keep(self._thread.loop.create_task(coroutine))
            call.task.append(task)
            task.add_done_callback(lambda task: _settle(call.outcome, task))

        self._thread.loop.call_soon_threadsafe(begin)
        return call

    def _wait(self, call: _Call[R]) -> R:
        try:
            return call.outcome.result()
        except BaseException:
            if not call.outcome.done():  # this thread was interrupted
                self._thread.loop.call_soon_threadsafe(lambda: call.task[0].cancel())
                concurrent.futures.wait([call.outcome])
            raise

    def iterate(self, items: AsyncGenerator[T, None], *, batch: int = _BATCH) -> Iterator[T]:
        """The items, read ahead by growing batches of at most `batch`."""
        size = 1
        error: BaseException | None = None
        try:
            while True:
                ready, more, error = self.run(_next(items, size))
                yield from ready
                if error is not None:
                    raise error
                if not more:
                    return
                size = min(2 * size, batch)
        finally:
            if self.is_open:
                self.run(items.aclose())

    @contextmanager
    def enter(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """An asynchronous context manager around blocking code."""
        held = self.run(self._hold(manager))
        try:
            yield held.value
        except Exception as error:
            if not self.run(held.leave(error)):
                raise
        except BaseException:  # an interrupt: to what runs in the loop, it is a cancellation
            with suppress(concurrent.futures.CancelledError):
                self.run(held.leave(asyncio.CancelledError()))
            raise
        else:
            self.run(held.leave(None))

    def close(self) -> None:
        """Cancel what is still under way here, and wait for its end. Idempotent."""
        with self._closing:  # what began before is seen by `_cancel_all`, and nothing begins after
            was_open, self._is_open = self._is_open, False
        if was_open:
            try:
                if self._thread.is_alive:
                    self._wait(self._begin(self._cancel_all()))
            finally:
                _leave(self._thread)

    async def _cancel_all(self) -> None:
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _hold(self, manager: AbstractAsyncContextManager[T]) -> _Held[T]:
        loop = asyncio.get_running_loop()
        entered: asyncio.Future[T] = loop.create_future()
        left: asyncio.Future[BaseException | None] = loop.create_future()
        task = self._keep(loop.create_task(_enter_and_leave(manager, entered, left)))
        try:
            await asyncio.wait((entered, task), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait((task,))
            raise
        if not entered.done():
            await task  # raises why
        return _Held(await entered, task, left)

    def _keep(self, task: asyncio.Task[R]) -> asyncio.Task[R]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


@dataclass(frozen=True)
class _Call(Generic[R]):
    """task: once the loop has begun it, before anything else that is asked of the loop later."""

    outcome: Future[R]
    task: list[asyncio.Task[R]]


@dataclass(frozen=True)
class _Held(Generic[T]):
    """An asynchronous context manager that one task has entered and will leave, as timeouts and groups in it need."""

    value: T
    task: asyncio.Task[bool | None]
    left: asyncio.Future[BaseException | None]

    async def leave(self, error: BaseException | None) -> bool:
        """Whether that was the end of the error."""
        self.left.set_result(error)
        return bool(await self.task)


async def _enter_and_leave(
    manager: AbstractAsyncContextManager[T],
    entered: asyncio.Future[T],
    left: asyncio.Future[BaseException | None],
) -> bool | None:
    entered.set_result(await manager.__aenter__())
    error: BaseException | None
    try:
        error = await left
    except asyncio.CancelledError as cancelled:
        error = cancelled
    return await manager.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)


async def _next(items: AsyncIterator[T], size: int) -> tuple[list[T], bool, BaseException | None]:
    """Up to `size` items, whether more may follow, and the error that ended them: no item before it is lost."""
    batch: list[T] = []
    try:
        while len(batch) < size:
            batch.append(await anext(items))
    except StopAsyncIteration:
        return batch, False, None
    except Exception as error:  # noqa: BLE001  raised again by `iterate`, in the caller's thread
        return batch, False, error
    return batch, True, None


def _settle(outcome: Future[R], task: asyncio.Task[R]) -> None:
    if task.cancelled():
        outcome.cancel()
        outcome.set_running_or_notify_cancel()
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


def _refuse_within_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "regstore.sync would block the event loop that runs in this thread: await what regstore itself has"
    )
