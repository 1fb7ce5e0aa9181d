"""Streams hashed in threads, for hashlib lets go of the interpreter while it works: the next chunks arrive while a
thread hashes the last."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Final

from regstore.errors import StorageError
from regstore.storage.base import Storage
from regstore.storage.sizes import HASHED, WHOLE
from regstore.storage.streams import read_blob

#: What is smaller in all is hashed in place.
_SMALL: Final = 64 << 10


class Hasher:
    """Hashes objects of one store."""

    def __init__(
        self,
        storage: Storage,
        threads: Executor,
        *,
        on_bytes: Callable[[int], None],
        on_step: Callable[[], None],
        stopped: Callable[[], bool],
    ) -> None:
        """on_bytes: told of the bytes that came. stopped: asked, and on_step called, every MiB."""
        self._storage = storage
        self._threads = threads
        self._on_bytes = on_bytes
        self._on_step = on_step
        self._stopped = stopped

    async def hash(self, key: str, algorithm: str, expected: int) -> tuple[int, str] | StorageError | None:
        """Bytes of an object and their hash in hex, or why there is none; None when it was stopped. expected: bytes."""
        running = hashlib.new(algorithm)
        loop = asyncio.get_running_loop()
        pending: asyncio.Future[None] | None = None
        chunks: list[bytes] = []
        gathered = size = 0

        def update(pieces: list[bytes]) -> None:
            for piece in pieces:
                running.update(piece)

        try:
            # As a stream, whatever its size: `get` is for what is wanted whole.
            async with aclosing(read_blob(self._storage, key, max(expected, WHOLE + 1))) as stream:
                async for chunk in stream:
                    chunks.append(chunk)
                    gathered += len(chunk)
                    size += len(chunk)
                    self._on_bytes(len(chunk))
                    if gathered >= HASHED:
                        if pending is not None:
                            await pending
                        pending = loop.run_in_executor(self._threads, update, chunks)
                        chunks, gathered = [], 0
                        if self._stopped():
                            return None
                        self._on_step()
        except StorageError as error:
            return error
        finally:
            if pending is not None:
                await asyncio.wait([pending])
        if gathered > _SMALL:
            await loop.run_in_executor(self._threads, update, chunks)
        else:
            update(chunks)
        return size, running.hexdigest()
