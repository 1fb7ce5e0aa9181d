"""Content that can be read more than once, and what may be wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing

from regstore.storage.base import Repeatable


class Content(Repeatable):
    """`data`, in chunks. fails_at, hangs_at: after so many bytes. `opened` and `closed`: how often."""

    def __init__(
        self,
        data: bytes,
        *,
        fails_at: int | None = None,
        hangs_at: int | None = None,
        chunk: int = 300_007,
    ) -> None:
        self.data = data
        self.opened = self.closed = 0
        self.hanging = asyncio.Event()
        self._fails_at = fails_at
        self._hangs_at = hangs_at
        self._chunk = chunk

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._read()

    def again(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return aclosing(self._read())

    async def _read(self) -> AsyncGenerator[bytes, None]:
        self.opened += 1
        try:
            for at in range(0, len(self.data), self._chunk):
                if self._fails_at is not None and at >= self._fails_at:
                    raise ConnectionResetError("the other end went away")
                if self._hangs_at is not None and at >= self._hangs_at:
                    self.hanging.set()
                    await asyncio.Event().wait()
                yield self.data[at : at + self._chunk]
        finally:
            self.closed += 1
