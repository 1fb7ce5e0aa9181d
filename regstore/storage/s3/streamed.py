"""A request's body that is sent as it is read, and hashed on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from regstore.digest import Digest, Verifier
from regstore.errors import IntegrityError
from regstore.storage.base import Repeatable
from regstore.storage.s3.pieces import Gathered, Pieces
from regstore.storage.sizes import HASHED, ONE_REQUEST, MiB

#: Bytes of content that goes in one request, as it is read. Less is gathered first; more goes in parts, of which few
#: are lost when a request fails.
STREAMED: Final = range(MiB + 1, ONE_REQUEST + 1)
#: Chunks that are read and hashed before they are sent.
_AHEAD: Final = 8


class Streamed:
    """A body of known size and SHA-256, read anew for each try. Its last bytes go only when all of them have the
    digest: with the Content-Length that was announced, a server takes nothing less for the object.

    The digest of the content is also the hash that the request's signature covers, so there is one hash, and the
    server checks it too.
    """

    def __init__(self, chunks: Repeatable, *, size: int, digest: Digest, name: str) -> None:
        """digest: of sha256. name: for messages."""
        self._chunks = chunks
        self._digest = digest
        self._name = name
        self.size = size
        self.sha256 = digest.encoded
        #: What reading failed on, in the last try: no failure of the request.
        self.error: BaseException | None = None

    def __len__(self) -> int:
        return self.size

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AsyncIterator[bytes | memoryview]]:
        """The body for one try. What is still being read is ended on leaving."""
        self.error = None
        queue: asyncio.Queue[bytes | memoryview | None] = asyncio.Queue()
        room = asyncio.Semaphore(_AHEAD)

        async def read() -> None:
            async for pieces in self._checked():
                for piece in pieces:
                    await room.acquire()
                    queue.put_nowait(piece)

        async def body() -> AsyncIterator[bytes | memoryview]:
            while (piece := await queue.get()) is not None:
                room.release()
                yield piece
            reading.result()

        reading = asyncio.create_task(read())
        reading.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            yield body()
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            self.error = None if reading.cancelled() else reading.exception()

    async def _checked(self) -> AsyncIterator[Pieces]:
        """The content; the end of it once it is known to be right."""
        verifier = Verifier(self._digest)
        gathered = Gathered()
        held = Pieces((), 0)
        async with self._chunks.again() as chunks:
            async for chunk in chunks:
                gathered.add(chunk if isinstance(chunk, bytes) else bytes(chunk))  # kept until it is sent
                if gathered.size >= HASHED:
                    yield held
                    held = gathered.take(gathered.size)
                    await asyncio.to_thread(held.update, verifier)
                    if verifier.size > self.size:
                        break
            last = gathered.take(gathered.size)
            last.update(verifier)
        if verifier.size > self.size:
            raise IntegrityError(f"{self._name} has more than the {self.size:,} bytes promised")
        if verifier.size != self.size:
            raise IntegrityError(f"{self._name} has {verifier.size:,} bytes, not the {self.size:,} promised")
        verifier.verify(self._name)
        yield held
        yield last
