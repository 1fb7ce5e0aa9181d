"""Blocking calls in threads of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import ParamSpec, TypeVar

from regstore.errors import StorageError

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """number: of them, and so of calls at once. url: of the storage whose they are, for messages."""

    def __init__(self, number: int, url: str) -> None:
        self._url = url
        self._pool = ThreadPoolExecutor(number, thread_name_prefix="regstore-disk")
        self._closed = False

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call in a thread. When cancelled, it is waited for first: its descriptors are not pulled from under
        it, and no change happens after the task has ended."""
        if self._closed:
            raise StorageError(f"{self._url} is closed")
        context = copy_context()  # a thread knows the task's limit
        future = asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(call, *args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # taken note of
            raise

    def close(self) -> None:
        """Idempotent."""
        if not self._closed:
            self._closed = True
            self._pool.shutdown(wait=False)
