"""What some stores can do besides: protocols that a storage may have, and that a caller asks for.

    if isinstance(storage, HashesObjects):
        found = await storage.hash_objects(...)

Nobody outside `regstore.storage` asks which backend it is. Where a storage without the protocol is simply left as it
is, there is a function that asks: `store_with`, `keep_private`, `identity.keep_id`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from regstore.digest import Digest
from regstore.errors import RegstoreError, StorageError
from regstore.events import OnEvent
from regstore.storage.base import ObjectInfo, PutOptions, Storage


@runtime_checkable
class TakesDefaults(Protocol):
    """A store that can be told how to store what is put without options of its own: locks, journals, records."""

    def store_with(self, options: PutOptions) -> None:
        """From now on. What the options leave open stays as it was."""
        ...


def store_with(storage: Storage, options: PutOptions | None) -> None:
    """Where the storage knows such things."""
    if options is not None and isinstance(storage, TakesDefaults):
        storage.store_with(options)


@runtime_checkable
class HasModes(Protocol):
    """A store whose folders and files other users of the computer may be able to read."""

    def keep_private(self) -> None:
        """From now on, what is made is the user's alone, whatever the umask."""
        ...

    def open_to_all(self) -> str:
        """The path of something below which other users can read what is stored, "" where they can't."""
        ...


def keep_private(storage: Storage) -> None:
    """Where the storage knows such things."""
    if isinstance(storage, HasModes):
        storage.keep_private()


@runtime_checkable
class ReadsMany(Protocol):
    """A store where several small objects are read in less time at once than one by one."""

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | StorageError]:
        """As `get`, of each: what it holds, or why it was not read."""
        ...


@runtime_checkable
class HashesObjects(Protocol):
    """A store that hashes objects where they lie: quicker than handing their bytes through the event loop."""

    async def hash_objects(
        self, wanted: Sequence[tuple[str, str]], *, on_bytes: Callable[[int], None], stopped: Callable[[], bool]
    ) -> dict[str, tuple[int, str] | StorageError]:
        """For each (key, algorithm): its bytes and their hash in hex, or why it could not be read (NotFound where
        it is absent). The keys are read one after the other; what `stopped()` cut short is left out.

        Both callbacks are called from another thread, every few hundred KiB.
        """
        ...


@runtime_checkable
class TellsChanges(Protocol):
    """A store that knows when an object itself was last changed, which no copy of it can pretend (a disk's ctime)."""

    async def changed_at(self, keys: Sequence[str]) -> Sequence[int]:
        """Of each key, in microseconds; 0 where it is absent, or can't be looked at."""
        ...


class StoreAddress(Hashable, Protocol):
    """A store that another process can open. It can be pickled, and may hold secrets."""

    def open(self, concurrency: int, on_event: OnEvent) -> Storage:
        """As the storage that gave it, but with so many requests at once, and telling somebody else."""
        ...


@runtime_checkable
class OpensElsewhere(Protocol):
    """A store that more than one process can open."""

    def address(self) -> StoreAddress:
        """Two of one storage are equal, as long as it is told nothing new (`store_with`, `keep_private`)."""
        ...


@runtime_checkable
class TellsDate(Protocol):
    """A store whose answers bear a Date, which whatever is between here and there may have written."""

    async def date(self) -> int | None:
        """In microseconds; None where there is none."""
        ...


@runtime_checkable
class BoundsTime(Protocol):
    """A store whose `now` may be earlier than its time is."""

    async def latest(self) -> int:
        """As `now`, and no earlier than its time was when this was asked."""
        ...


async def latest(storage: Storage) -> int:
    """A time, in microseconds, that the store's clock had not passed when this was asked: for what must not be too
    old."""
    return await (storage.latest() if isinstance(storage, BoundsTime) else storage.now())


@runtime_checkable
class KeepsChecksums(Protocol):
    """A store that keeps a checksum beside an object (S3's additional checksums)."""

    async def kept_sha256(self, key: str) -> bytes | None:
        """The SHA-256 (32 bytes) that the store keeps for the whole object, or None where it keeps none.

        It says what the bytes are only where the server checks and maintains it: some keep what a client said.
        NotFound when absent.
        """
        ...


@runtime_checkable
class ReachedByMany(Protocol):
    """A store whose `identity` may mean another one on another computer: a folder's path, a server at localhost."""

    async def identity_everywhere(self) -> str:
        """As `Storage.identity`, among all computers. Only reads."""
        ...


@runtime_checkable
class KeepsId(Protocol):
    """A store that is told from others by an ID which is left in it."""

    async def keep_id(self) -> None:
        """Give a registry's store its ID, if it has none and may be written. What is no registry is left alone."""
        ...


@runtime_checkable
class ServesRegistries(Protocol):
    """A store that a registry has a driver for."""

    def registry_configuration(self, put: PutOptions | None = None) -> Mapping[str, Mapping[str, Any]]:
        """The driver's name with its parameters, as the storage section of the registry's configuration has it; no
        secret is in it. put: how the registry is to store its objects, as far as its driver can; None: as what is put
        here without options of its own."""
        ...


@runtime_checkable
class IsFolder(Protocol):
    """A store that is a folder on this computer."""

    @property
    def folder(self) -> Path:
        """Its absolute path. It need not be there."""
        ...


@runtime_checkable
class HasBucket(Protocol):
    """A store that is a bucket of S3, for work on the bucket itself."""

    @property
    def bucket(self) -> str:
        """Its name. It need not be there."""
        ...

    @property
    def rootdirectory(self) -> str:
        """What all keys in the bucket begin with, without slashes at its ends."""
        ...

    def aioboto3_client(self) -> AbstractAsyncContextManager[Any]:
        """An aioboto3 S3 client, for seconds. What it raises is for `translate`."""
        ...

    def translate(self, error: BaseException, what: str) -> RegstoreError:
        """An error of boto3, botocore or aiohttp as regstore's. what: was being done."""
        ...


@runtime_checkable
class StandsFor(Protocol):
    """A storage that is another one, but for what is ours in it."""

    @property
    def stands_for(self) -> Storage:
        """The other one."""
        ...


def bucket_of(storage: Storage) -> tuple[str, str] | None:
    """The bucket that a store's registry lies in, and its root there, "" or with a slash at its end; None where that is
    no bucket."""
    while isinstance(storage, StandsFor):
        storage = storage.stands_for
    if not isinstance(storage, HasBucket):
        return None
    return storage.bucket, f"{storage.rootdirectory}/" if storage.rootdirectory else ""


class UploadGone(StorageError):
    """The multipart upload was completed or aborted by somebody else."""


@dataclass(slots=True)
class Resume:
    """An upload that can be taken up again: it is aborted only where its bytes are wrong, not when it is cut short.

    upload_id: "" for a new one; parts: what is stored of it, number to (ETag, bytes); begun: awaited with its id
    before the first part goes. ended: set once there is no such upload any more.
    """

    upload_id: str
    parts: Mapping[int, tuple[str, int]]
    begun: Callable[[str], Awaitable[None]]
    ended: bool = False


@dataclass(frozen=True, slots=True)
class StoredParts:
    """What an unfinished upload holds: part number to (ETag, bytes); newest: when the last one came, 0 without any,
    in microseconds by the store's clock."""

    parts: Mapping[int, tuple[str, int]]
    newest: int


@runtime_checkable
class ResumesUploads(Storage, Protocol):
    """A store whose uploads of many parts can be taken up again, by another process too."""

    #: How objects are stored that are put without options of their own.
    put_options: PutOptions

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        digest: Digest | None = None,
        options: PutOptions | None = None,
        resume: Resume | None = None,
    ) -> int:
        """resume: of a multipart upload, should it come to one. The stream is read and hashed from its start all the
        same, but a part that is stored with these very bytes is not sent again. UploadGone where somebody ended it."""
        ...

    async def stored_parts(self, key: str, upload_id: str) -> StoredParts | None:
        """None when there is no such upload any more."""
        ...


#: Gives the upload of parts to take up, for a key and what names the parts.
UnderWay = Callable[[str, str], AbstractAsyncContextManager[Resume]]


class ServerCopies(Protocol):
    """Copies of objects from one store to the same keys of another, with the other's credentials, made by the server
    that holds both. What they are stored with is what the options say, not what the source has."""

    #: Up to so many bytes are copied in one request.
    whole: int

    async def copy(
        self, key: str, *, size: int, under_way: UnderWay, on_bytes: Callable[[int], None] = lambda size: None
    ) -> None:
        """size: bytes, from a listing. under_way: for what is copied in parts. on_bytes: told of the bytes of each part
        that is there.

        NotFound when the source is absent for these credentials; AccessDenied when they may not read it; Unsupported
        when they see no such bucket, or the server does not copy; Unreachable, from an OSError, when no answer came
        in time.
        """
        ...


@runtime_checkable
class CopiesBetween(ResumesUploads, Protocol):
    """A store whose server also copies from others of its stores."""

    def copies_from(self, source: Storage, options: PutOptions | None = None) -> ServerCopies | None:
        """None where the source is not on the same server. What the credentials may do shows when it is tried.
        options: how the copies are stored."""
        ...

    async def stat_kept(self, key: str) -> tuple[ObjectInfo, bytes | None]:
        """`stat` and `KeepsChecksums.kept_sha256` in one request."""
        ...


@runtime_checkable
class Presigns(Protocol):
    """A store from which a client can fetch an object itself, by an address that is good for a while."""

    async def presigned_url(self, key: str, *, seconds: int) -> str:
        """Who has it may GET this object for so many seconds, or until the credentials that it was made with expire.
        Whether the object is there is not looked at."""
        ...
