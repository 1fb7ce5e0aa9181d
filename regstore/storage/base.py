"""The Storage protocol: what regstore asks of a disk or of an S3 bucket. What only some stores can do is in `optional`.

Keys are opaque text here, relative to the root that the storage was opened with; they never begin with `/`.
Every method raises only the errors of `regstore.errors`; a foreign exception is translated where it enters and
chained. Throttling, 5xx and broken connections are retried with back-off before anything is raised.

**Absent** means that the store said so (404, ENOENT). A failed request is never reported as absent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from regstore.digest import Digest
from regstore.errors import StorageError

#: How the name of a file begins that a disk is writing. One that a killed run left behind lists as an unknown key.
TEMPORARY: Final = ".regstore-"
#: Storage classes of objects that must be restored before they can be read; GLACIER_IR is read at once. (Amazon S3 User
#: Guide, "Understanding S3 Glacier storage classes".)
ARCHIVE_CLASSES: Final = ("GLACIER", "DEEP_ARCHIVE")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """size in bytes; etag unquoted, "" where the store has none; mtime in microseconds since 1970, UTC, by the
    store's own clock."""

    key: str
    size: int
    etag: str
    mtime: int


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, as columns of equal length, in byte order of the UTF-8 keys.

    complete: nothing follows this page. Only then has the listing ended; a page may be short, or empty,
    and not complete. archived: storage classes of keys that the listing says can't be read at once (S3's GLACIER and
    DEEP_ARCHIVE); nothing else is in it. A copy that was restored for a while can be read all the same, and what
    Intelligent-Tiering has archived is not shown: only reading tells (`Archived`).
    """

    keys: list[str]
    sizes: list[int]
    etags: list[str]
    mtimes: list[int]
    complete: bool
    archived: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def from_key(self, key: str) -> Page:
        """Without what sorts before the key."""
        return self._part(slice(bisect_left(self.keys, key), None))

    def up_to(self, key: str) -> Page:
        """Without what sorts after the key."""
        if not self.keys or self.keys[-1] <= key:
            return self
        return self._part(slice(bisect_right(self.keys, key)))

    def _part(self, wanted: slice) -> Page:
        keys = self.keys[wanted]
        archived = {key: self.archived[key] for key in keys if key in self.archived} if self.archived else {}
        return Page(keys, self.sizes[wanted], self.etags[wanted], self.mtimes[wanted], self.complete, archived)

    def objects(self) -> Iterator[ObjectInfo]:
        yield from map(ObjectInfo, self.keys, self.sizes, self.etags, self.mtimes)


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """An unfinished multipart upload. `newest` is the time of its newest part, or of its start, in microseconds."""

    key: str
    upload_id: str
    newest: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What this store was seen to do, by trying. Ask `Storage.capabilities()`.

    conditional_put: a second `put(..., if_absent=True)` of one key failed, as it must.
    atomic_rename: `move` is one step.
    folders: empty folders are left behind when keys are deleted, and `remove_empty_folders` removes them.
    versioned: a delete leaves a noncurrent version, which still costs space. None: the store did not say.
    """

    conditional_put: bool = False
    atomic_rename: bool = False
    folders: bool = False
    versioned: bool | None = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PutOptions:
    """How new objects are stored, where the store knows such things (S3); a disk ignores them.

    None leaves the storage's default (`TakesDefaults`), and then the bucket's own. sse: `AES256` or `aws:kms`.
    """

    storage_class: str | None = None
    sse: str | None = None
    sse_kms_key_id: str | None = None
    acl: str | None = None

    def over(self, default: PutOptions) -> PutOptions:
        """These, and where they say nothing the default's; no key with an encryption that is not its own."""
        key = default.sse_kms_key_id if self.sse in (None, default.sse) else None
        return PutOptions(
            storage_class=self.storage_class or default.storage_class,
            sse=self.sse or default.sse,
            sse_kms_key_id=self.sse_kms_key_id or key,
            acl=self.acl or default.acl,
        )


_NUMBERS: Final = ("retries", "repeated_deletes", "bytes_read", "bytes_written")


@dataclass(slots=True)
class Counters:
    """Requests sent (retries too) and bytes moved since the storage was opened.

    repeated_deletes: deletes that were sent again with the outcome of the first try unknown, which may take effect yet.
    """

    requests: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    repeated_deletes: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def count(self, operation: str, times: int = 1) -> None:
        self.requests[operation] = self.requests.get(operation, 0) + times

    @property
    def total(self) -> int:
        return sum(self.requests.values())

    def add(self, other: Counters) -> None:
        """What another one, of the same store, has counted."""
        for operation, times in other.requests.items():
            self.count(operation, times)
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def since(self, before: Counters) -> Counters:
        """What came after the state that `before` has."""
        requests = {name: times - before.requests.get(name, 0) for name, times in self.requests.items()}
        return Counters(
            {name: times for name, times in requests.items() if times},
            *(getattr(self, name) - getattr(before, name) for name in _NUMBERS),
        )


class Repeatable(ABC, AsyncIterable[bytes]):
    """Content that can be read more than once."""

    @abstractmethod
    def again(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """All of it, from its start; leaving ends what is still being read."""


class Whole(Repeatable):
    """Content that is in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data

    @asynccontextmanager
    async def again(self) -> AsyncIterator[AsyncIterator[bytes]]:
        yield aiter(self)


@runtime_checkable
class ReadHandle(Protocol):
    """An open object: its facts as of now, and its bytes as chunks of some 64 KiB to 8 MiB."""

    info: ObjectInfo

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@runtime_checkable
class InFile(Protocol):
    """A ReadHandle whose object is a file of this computer, from its first byte: it can be sent without being read."""

    def fileno(self) -> int:
        """Its descriptor, open while the handle is."""
        ...


@runtime_checkable
class Storage(Protocol):
    """A key-value store of bytes under one root.

    Safe to use from many tasks of one event loop. Opened by `regstore.storage.open_storage`; close it, or use
    it as an async context manager.
    """

    #: For messages: `s3://bucket/root` or a path. No credentials in it.
    url: str
    counters: Counters
    #: Whether requests of one task gain from running at the same time (S3: a listing cut into ranges, a large object
    #: read in ranges), or not (a disk).
    serves_in_parallel: bool
    #: Whether each request has its price (S3), so that a plan says how many there will be.
    bills_requests: bool

    def identity(self) -> str:
        """What tells the store from every other one that is reached from this computer, however it was written: two
        storages of one place have the same. `storage.identity.place_of` tells it from those of other computers too.
        Asks the store nothing."""
        ...

    @property
    def symlinks(self) -> Collection[str]:
        """Keys of symbolic links that listings passed over so far: what lies behind them is not known. None on S3."""
        ...

    async def capabilities(self) -> Capabilities:
        """Probed once, on the first call, then remembered. Writes at most one small key, under `regstore/`, and
        deletes it again. Where writing is not permitted, the answer is the cautious one."""
        ...

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        """Every key that begins with `prefix` and sorts after `start_after`, in byte order, page by page.

        Keys are strictly increasing across the whole listing, whatever the server sends: an entry that it repeats is
        given once; StorageError, which ends the run, where one comes twice with different facts, or out of order.
        Keys come exactly as they are: `a//b`, `a/`, control and non-ASCII characters included (a file name
        that is not UTF-8 comes with its odd bytes as `\\xNN`; such a key can't be read by that name). Nothing
        under the prefix is no error: one empty, complete page. A page that cannot be had raises; it is never
        skipped. One page at a time is in memory, and the next is asked for only when it is wanted. Symbolic
        links are neither listed nor followed on a disk.

        On a disk, where reading is as cheap as looking, files of at most 256 bytes have their content's MD5 as
        etag, as S3 gives it; larger ones, and those that can't be read, have "".

        NoSuchBucket when the bucket, or the root folder itself, is missing.
        """
        ...

    async def stat(self, key: str) -> ObjectInfo:
        """NotFound when absent."""
        ...

    async def get(self, key: str) -> bytes:
        """The whole of a small object (a link, a manifest, a journal). NotFound when absent."""
        ...

    def open_read(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[ReadHandle]:
        """A stream of the object, or of `length` bytes from `start`. Memory is bounded.

        A body that ends early raises; it never passes as complete. NotFound when absent.
        """
        ...

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        """Store a small object: visible whole or not at all, durable on return, replacing what was there.

        if_absent: AlreadyExists when the key is there, where `capabilities().conditional_put`; elsewhere
        Unsupported, never an unchecked write.
        """
        ...

    async def put_stream(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        digest: Digest | None = None,
        options: PutOptions | None = None,
    ) -> int:
        """Store a stream of any length with bounded memory; returns its bytes.

        Visible whole or not at all. With `digest` (and `size`), IntegrityError unless the stream has it, and
        then nothing becomes visible. What an interrupted call leaves (a temporary file, a multipart upload)
        is removed where possible. chunks: a `Repeatable` may be read more than once.
        """
        ...

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        """Delete; each key's outcome: None when it is gone (or never was there), else why not.

        Any number of keys; sent in batches of at most 1,000. A batch whose outcome is unknown after retries
        says so for each of its keys. Only a failure that hits every request alike (credentials, no bucket)
        raises. Deletes files only: folders stay.
        """
        ...

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        """Copy within the store without moving bytes through here; replaces the target.

        On S3 the storage class, encryption, content type and metadata of the source survive, and objects over
        5 GiB are copied in parts (size, when known, saves a HEAD). On a disk a hard link is not used: the copy
        is independent. NotFound when the source is absent.
        """
        ...

    async def move(self, source: str, target: str, *, size: int) -> None:
        """The key under another name: a rename on a disk; on S3 a copy, a listing that shows the copy with
        the given size (in bytes), and only then the delete. NotFound when the source is absent."""
        ...

    def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        """Unfinished multipart uploads of keys under the prefix, each with the time of its newest part."""
        ...

    async def abort_multipart_upload(self, upload: MultipartUpload) -> None:
        """Idempotent: one that is gone is no error."""
        ...

    async def remove_empty_folders(
        self, prefix: str, *, older_than: int, keep: frozenset[str] = frozenset()
    ) -> int:
        """Remove folders at or below `prefix` that hold nothing (or only such folders) and were last changed
        before `older_than` (microseconds); returns how many. Nothing on a store without folders. A folder that
        fills meanwhile stays, and so does one whose own name is in `keep`."""
        ...

    async def remove_folders(self, folders: Sequence[str]) -> int:
        """Remove these folders, whatever their age, in this order, up to the first that holds anything; returns how
        many went. One that is not there is passed over. Nothing on a store without folders."""
        ...

    async def now(self) -> int:
        """The store's own clock, in microseconds since 1970: what its mtimes are measured by."""
        ...

    async def close(self) -> None: ...

    async def __aenter__(self) -> Storage: ...

    async def __aexit__(self, *exc: object) -> None: ...
