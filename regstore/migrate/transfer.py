"""One blob from store to store: copied by the server where it can, else streamed through and hashed on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from regstore import layout
from regstore.digest import Digest
from regstore.errors import AccessDenied, IntegrityError, NotFound, StorageError, Unreachable, Unsupported
from regstore.events import Notice, OnEvent
from regstore.migrate.options import MigrateOptions
from regstore.migrate.take_back import take_back
from regstore.state.unfinished_uploads import Unfinished
from regstore.storage.base import Storage
from regstore.storage.optional import CopiesBetween, ResumesUploads, ServerCopies
from regstore.storage.sizes import SINGLE_PUT
from regstore.storage.streams import BlobReader, SourceGone, is_fatal, verified_size
from regstore.storage.transfer import BY_SERVER, Breaker, Road, Room, road_to

#: So many copies refused by the server without one done between them, and no more are tried.
_REFUSALS_IN_A_ROW: Final = 3


class Transfer:
    """Copies of blobs between two stores. Safe to use from many tasks.

    server_side: whether the server is still asked to copy. size_only: copies made by the server of which it keeps no
    checksum, so that nothing but their size was compared. own_runs: those in the target's journals that are ours.
    """

    def __init__(self, source: Storage, target: Storage, options: MigrateOptions, on_event: OnEvent) -> None:
        self._source = source
        self._target = target
        self._options = options
        self._on_event = on_event
        self._through = road_to(target)
        self._room = Room(self._through)
        self._unfinished: Unfinished | None = None
        self._copies = server_copies(source, target, options)
        self._refusals = Breaker(_REFUSALS_IN_A_ROW)
        self._taking_back = asyncio.Lock()
        self.size_only = 0
        self.own_runs: set[str] = set()
        self.server_side = self._copies is not None

    @property
    def road(self) -> Road:
        """That of the blobs, as long as the server does what it is asked for."""
        return BY_SERVER if self.server_side else self._through

    async def find_unfinished(self, is_wanted: Callable[[Digest], bool]) -> None:
        """Look for uploads of blobs that runs have left, and be ready to take them up. is_wanted: whether a blob is
        still to be copied; what is left of others is aborted."""
        if isinstance(self._target, ResumesUploads):

            def wanted(key: str) -> bool:
                blob = layout.decode(key)
                return isinstance(blob, layout.BlobKey) and is_wanted(blob.digest)

            unfinished = Unfinished(self._target, self._options.put)
            await unfinished.load(wanted)
            self._unfinished = unfinished

    async def copy(
        self, digest: Digest, size: int, *, suspect: bool, on_bytes: Callable[[int], None] = lambda size: None
    ) -> None:
        """SourceGone when it is absent there; IntegrityError, and nothing visible at the target, when its bytes do
        not match. suspect: never let the server copy it unseen. on_bytes: told how many of its bytes are done."""
        key = layout.encode(layout.BlobKey(digest))
        if self.server_side and not suspect:
            sound = await self._copy_on_server(digest, size, on_bytes)
            if sound:
                return
            if sound is False:
                try:
                    await self._pass_through(key, digest, size, on_bytes)
                except (IntegrityError, SourceGone):
                    await self.take_back(digest, size)  # nothing may pass for the blob that is not
                    raise
                return
        await self._pass_through(key, digest, size, on_bytes)

    async def _pass_through(self, key: str, digest: Digest, size: int, on_bytes: Callable[[int], None]) -> None:
        def reader() -> BlobReader:
            return BlobReader(self._source, key, size, on_read=on_bytes)

        try:
            await self._stream(key, digest, size, reader)
        except IntegrityError as error:
            # What was refused is what the source gave: there it is to be looked at.
            text = str(error).replace(f"{self._target.url}/{key}", f"{self._source.url}/{key}")
            raise IntegrityError(text) from error

    async def _stream(self, key: str, digest: Digest, size: int, reader: Callable[[], BlobReader]) -> None:
        async with self._room.of(size):
            # What goes in parts, or may come to it, is written down, so that a later run can take it up again.
            if self._unfinished is not None and size > SINGLE_PUT:
                await self._unfinished.put(key, reader, size=size, digest=digest)
            else:
                async with aclosing(reader()) as chunks:
                    await self._target.put_stream(key, chunks, size=size, digest=digest, options=self._options.put)

    async def _copy_on_server(self, digest: Digest, size: int, on_bytes: Callable[[int], None]) -> bool | None:
        """None when it was not copied; False when the copy can't be relied on: the checksum that the server keeps of
        it is not the blob's digest, or it did not come in time, and may come yet."""
        assert self._copies is not None and self._unfinished is not None and isinstance(self._target, CopiesBetween)
        key = layout.encode(layout.BlobKey(digest))
        done = 0

        def copied(part: int) -> None:
            nonlocal done
            done += part
            on_bytes(done)

        try:
            await self._copies.copy(key, size=size, under_way=self._unfinished.under_way, on_bytes=copied)
        except NotFound:
            return None  # gone, or the target's credentials see other buckets: passing through tells
        except Unreachable as error:
            if not isinstance(error.__cause__, OSError):
                raise
            self._refused(error)
            return False
        except StorageError as error:
            if is_fatal(error) or isinstance(error, IntegrityError):
                raise
            self._refused(error)
            return None
        self._refusals.good()
        try:
            found, kept = await self._target.stat_kept(key)
        except AccessDenied:  # an encrypted object's checksum asks for more than its size does
            found, kept = await self._target.stat(key), None
        if found.size != size:
            raise IntegrityError(f"{self._target.url}/{key} has {found.size:,} bytes after the copy, not {size:,}")
        if kept is None or digest.algorithm != "sha256":
            self.size_only += 1
            return True
        # Where the server says that these are other bytes, they are looked at on their way through.
        return kept == digest.raw

    def _refused(self, error: StorageError) -> None:
        hopeless = self._refusals.is_broken_by_one_more() or isinstance(error, Unsupported)
        if self.server_side and hopeless:
            self.server_side = False
            self._on_event(
                Notice(
                    message=f"blobs pass through here from now on: the server does not copy them from"
                    f" {self._source.url} to {self._target.url} ({error})"
                )
            )

    async def read_back(self, digest: Digest, size: int) -> bool:
        """Whether the target has the blob with the bytes that its digest says. size: to be expected."""
        key = layout.encode(layout.BlobKey(digest))
        return await verified_size(self._target, key, digest, size) is not None

    async def take_back(self, digest: Digest, size: int) -> None:
        """Remove a copy just made whose bytes are wrong; what somebody has put there by now, and is right, stays."""
        async with self._taking_back:  # one lock of the store at a time
            await take_back(self._target, digest, size, source=self._source.url, own=self.own_runs)


def server_copies(source: Storage, target: Storage, options: MigrateOptions) -> ServerCopies | None:
    """Where both are on one server, and it may be asked. What the credentials may do shows when it is tried."""
    if not (options.server_side and isinstance(target, CopiesBetween)):
        return None
    return target.copies_from(source, options.put)


async def clean_up(target: Storage, options: MigrateOptions) -> None:
    """Where nothing is to be copied: abort the uploads that runs have left."""
    if isinstance(target, ResumesUploads):
        await Unfinished(target, options.put).load(lambda key: False)
