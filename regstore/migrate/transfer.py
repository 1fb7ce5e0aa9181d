"""One blob from store to store: copied by the server where it can, else streamed through and hashed on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from regstore import layout
from regstore.digest import Digest
from regstore.errors import IntegrityError, StorageError
from regstore.events import OnEvent
from regstore.migrate.on_server import Copied, OnServer, server_copies
from regstore.migrate.options import MigrateOptions
from regstore.migrate.take_back import take_back
from regstore.state.unfinished_uploads import Unfinished
from regstore.storage.base import Storage
from regstore.storage.optional import CopiesBetween, ResumesUploads
from regstore.storage.sizes import SINGLE_PUT, WHOLE
from regstore.storage.streams import BlobReader, SourceGone, copy_blob, verified_size
from regstore.storage.transfer import BY_SERVER, Road, Room, road_to


class Transfer:
    """Copies of blobs between two stores. Safe to use from many tasks. own_runs: those in the target's journals that
    are ours."""

    def __init__(self, source: Storage, target: Storage, options: MigrateOptions, on_event: OnEvent) -> None:
        self._source = source
        self._target = target
        self._options = options
        self._through = road_to(target)
        self._room = Room(self._through)
        self._unfinished: Unfinished | None = None
        self._server: OnServer | None = None
        if isinstance(target, ResumesUploads):
            self._unfinished = Unfinished(target, options.put)
            copies = server_copies(source, target, options)
            if copies is not None and isinstance(target, CopiesBetween):
                self._server = OnServer(source, target, copies, self._unfinished, on_event)
        self._taking_back = asyncio.Lock()
        self.own_runs: set[str] = set()

    @property
    def road(self) -> Road:
        """That of the blobs, as long as the server does what it is asked for."""
        return self._through if self._server is None else BY_SERVER

    @property
    def asks_server(self) -> bool:
        """Whether the server is asked to copy, as far as is known."""
        return self._server is not None and self._server.is_asked

    def note_server(self, size_only: int, refusal: StorageError | None) -> None:
        """What came of asking it elsewhere."""
        if self._server is not None:
            self._server.size_only += size_only
            if refusal is not None:
                self._server.give_up(refusal)

    def is_begun(self, digest: Digest) -> bool:
        """Whether a run has left an upload of it, which `copy` takes up."""
        return self._unfinished is not None and self._unfinished.has(layout.blob_key(digest))

    @property
    def size_only(self) -> int:
        """Copies made by the server of which it keeps no checksum, so that nothing but their size was compared."""
        return self._server.size_only if self._server is not None else 0

    async def find_unfinished(self, is_wanted: Callable[[Digest], bool]) -> None:
        """Look for uploads of blobs that runs have left, and be ready to take them up. is_wanted: whether a blob is
        still to be copied; what is left of others is aborted."""

        def wanted(key: str) -> bool:
            blob = layout.decode(key)
            return isinstance(blob, layout.BlobKey) and is_wanted(blob.digest)

        if self._unfinished is not None:
            await self._unfinished.load(wanted)

    async def copy(
        self,
        digest: Digest,
        size: int,
        *,
        suspect: bool,
        asked: Copied | None = None,
        on_bytes: Callable[[int], None] = lambda size: None,
    ) -> None:
        """SourceGone when it is absent there; IntegrityError, and nothing visible at the target, when its bytes do
        not match. suspect: never let the server copy it unseen. asked: what came of it when the server was asked to,
        None where it was not. on_bytes: told how many of its bytes are done."""
        key = layout.blob_key(digest)
        copied = asked or Copied.NO
        if asked is None and self._server is not None and self._server.is_asked and not suspect:
            copied = await self._server.copy(digest, size, on_bytes)
        if copied is Copied.YES:
            return
        try:
            await self._pass_through(key, digest, size, on_bytes)
        except (IntegrityError, SourceGone):
            if copied is Copied.DOUBTFUL:
                await self.take_back(digest, size)  # nothing may pass for the blob that is not
            raise

    async def _pass_through(self, key: str, digest: Digest, size: int, on_bytes: Callable[[int], None]) -> None:
        def reader() -> BlobReader:
            return BlobReader(self._source, key, size, on_read=on_bytes)

        try:
            await self._stream(key, digest, size, reader)
        except IntegrityError as error:
            raise self.of_source(error, digest) from error

    def of_source(self, error: IntegrityError, digest: Digest) -> IntegrityError:
        """What was refused is what the source gave: there it is to be looked at."""
        key = layout.blob_key(digest)
        return IntegrityError(str(error).replace(f"{self._target.url}/{key}", f"{self._source.url}/{key}"))

    async def _stream(self, key: str, digest: Digest, size: int, reader: Callable[[], BlobReader]) -> None:
        async with self._room.of(size):
            # What goes in parts, or may come to it, is written down, so that a later run can take it up again.
            if self._unfinished is not None and size > SINGLE_PUT:
                await self._unfinished.put(key, reader, size=size, digest=digest)
            elif size <= WHOLE:
                put = self._options.put
                await copy_blob(self._source, key, self._target, key, digest=digest, size=size, put=put)
            else:
                async with aclosing(reader()) as chunks:
                    await self._target.put_stream(key, chunks, size=size, digest=digest, options=self._options.put)

    async def read_back(self, digest: Digest, size: int) -> bool:
        """Whether the target has the blob with the bytes that its digest says. size: to be expected."""
        key = layout.blob_key(digest)
        return await verified_size(self._target, key, digest, size) is not None

    async def take_back(self, digest: Digest, size: int) -> None:
        """Remove a copy just made whose bytes are wrong; what somebody has put there by now, and is right, stays."""
        async with self._taking_back:  # one lock of the store at a time
            await take_back(self._target, digest, size, source=self._source.url, own=self.own_runs)


async def clean_up(target: Storage, options: MigrateOptions) -> None:
    """Where nothing is to be copied: abort the uploads that runs have left."""
    if isinstance(target, ResumesUploads):
        await Unfinished(target, options.put).load(lambda key: False)
