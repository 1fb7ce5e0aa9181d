"""Blobs that the server copies by itself, and how far its copies can be relied on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import AccessDenied, IntegrityError, NotFound, StorageError, Unreachable, Unsupported
from regstore.events import Notice, OnEvent, ignore
from regstore.migrate.options import MigrateOptions
from regstore.state.unfinished_uploads import Unfinished
from regstore.storage.base import PutOptions, Storage
from regstore.storage.optional import CopiesBetween, ServerCopies
from regstore.storage.outage import IN_A_ROW
from regstore.storage.streams import is_fatal
from regstore.storage.transfer import Breaker
from regstore.tasks.packing import PackedError, pack
from regstore.tasks.runner import Context

#: So many copies refused by the server without one done between them, and no more are tried.
_REFUSALS_IN_A_ROW: Final = 3


class Copied(Enum):
    """Whether the server has copied a blob. DOUBTFUL: the checksum that it keeps of the copy is not the blob's digest,
    or the copy did not come in time, and may come yet."""

    YES = auto()
    DOUBTFUL = auto()
    NO = auto()


class OnServer:
    """is_asked: whether it still is. size_only: copies of which it keeps no checksum, so that nothing but their size
    was compared."""

    def __init__(
        self,
        source: Storage,
        target: CopiesBetween,
        copies: ServerCopies,
        unfinished: Unfinished,
        on_event: OnEvent,
    ) -> None:
        self._source = source
        self._target = target
        self._copies = copies
        self._unfinished = unfinished
        self._on_event = on_event
        self._refusals = Breaker(_REFUSALS_IN_A_ROW)
        self.is_asked = True
        self.size_only = 0
        #: Why it is asked no more.
        self.refusal: StorageError | None = None

    async def copy(self, digest: Digest, size: int, on_bytes: Callable[[int], None]) -> Copied:
        """IntegrityError where the copy has another size. on_bytes: told how many bytes are done."""
        key = layout.blob_key(digest)
        done = 0

        def copied(part: int) -> None:
            nonlocal done
            done += part
            on_bytes(done)

        try:
            await self._copies.copy(key, size=size, under_way=self._unfinished.under_way, on_bytes=copied)
        except NotFound:
            return Copied.NO  # gone, or the target's credentials see other buckets: passing through tells
        except Unreachable as error:
            if not isinstance(error.__cause__, OSError):
                raise
            self._refused(error)
            return Copied.DOUBTFUL
        except StorageError as error:
            if is_fatal(error) or isinstance(error, IntegrityError):
                raise
            self._refused(error)
            return Copied.NO
        self._refusals.good()
        return await self._looked_at(key, digest, size)

    async def _looked_at(self, key: str, digest: Digest, size: int) -> Copied:
        try:
            found, kept = await self._target.stat_kept(key)
        except AccessDenied:  # an encrypted object's checksum asks for more than its size does
            found, kept = await self._target.stat(key), None
        if found.size != size:
            raise IntegrityError(f"{self._target.url}/{key} has {found.size:,} bytes after the copy, not {size:,}")
        if kept is None or digest.algorithm != "sha256":
            self.size_only += 1
            return Copied.YES
        # Where the server says that these are other bytes, they are looked at on their way through.
        return Copied.YES if kept == digest.raw else Copied.DOUBTFUL

    def _refused(self, error: StorageError) -> None:
        if self._refusals.is_broken_by_one_more() or isinstance(error, Unsupported):
            self.give_up(error)

    def give_up(self, error: StorageError) -> None:
        """It is asked no more."""
        if not self.is_asked:
            return
        self.is_asked, self.refusal = False, error
        self._on_event(
            Notice(
                message=f"blobs pass through here from now on: the server does not copy them from"
                f" {self._source.url} to {self._target.url} ({error})"
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBatch:
    """blobs: the hash's own bytes, and the size. put: how the copies are stored."""

    blobs: Sequence[tuple[bytes, int]]
    put: PutOptions | None


@dataclass(frozen=True, slots=True)
class ServerResult:
    """Numbers are places in `ServerBatch.blobs`. done: the copies that are good. otherwise: what the server has not
    copied for good, and the error where that was no refusal. What is not named was not asked for. refusal: why it is
    asked no more."""

    done: list[int] = field(default_factory=list)
    otherwise: list[tuple[int, Copied, PackedError | None]] = field(default_factory=list)
    size_only: int = 0
    refusal: PackedError | None = None


async def copy_on_server(context: Context, work: ServerBatch) -> ServerResult:
    """A task; the source is first. Raises what every blob would meet."""
    source, target = context.stores
    copies = target.copies_from(source, work.put) if isinstance(target, CopiesBetween) else None
    if copies is None or not isinstance(target, CopiesBetween):
        return ServerResult()
    server = OnServer(source, target, copies, Unfinished(target, work.put), ignore)
    watch, stopped = Breaker(IN_A_ROW), False
    otherwise: list[tuple[int, Copied, PackedError | None]] = []
    done: list[int] = []

    async def one(numbered: tuple[int, tuple[bytes, int]]) -> None:
        nonlocal stopped
        number, (raw, size) = numbered
        if stopped or not server.is_asked:
            return
        try:
            copied = await server.copy(Digest.from_raw(raw), size, lambda done: None)
        except StorageError as error:
            if is_fatal(error):
                raise
            otherwise.append((number, Copied.NO, pack(error)))
            stopped = stopped or watch.is_broken_by_one_more()
        else:
            watch.good()
            if copied is Copied.YES:
                done.append(number)
            else:
                otherwise.append((number, copied, None))

    await for_each(enumerate(work.blobs), one, concurrency=context.concurrency)
    refusal = None if server.refusal is None else pack(server.refusal)
    return ServerResult(done, otherwise, server.size_only, refusal)


def server_copies(source: Storage, target: Storage, options: MigrateOptions) -> ServerCopies | None:
    """Where both are on one server, and it may be asked. What the credentials may do shows when it is tried."""
    if not (options.server_side and isinstance(target, CopiesBetween)):
        return None
    return target.copies_from(source, options.put)
