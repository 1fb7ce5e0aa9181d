"""Blobs: those of a repository, through its layer links, and those of the whole store."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass

from regstore import layout
from regstore.digest import Digest, Verifier
from regstore.errors import BlobUnknown, IntegrityError, NotFound, StorageError
from regstore.reference import parse_name
from regstore.registry import links
from regstore.storage.base import ObjectInfo, ReadHandle, Storage

#: What a blob may be written from. A plain iterable is read inside the event loop: let it be quick.
Content = bytes | AsyncIterable[bytes] | Iterable[bytes]


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """size in bytes; mtime in microseconds since 1970, UTC, by the store's clock.

    stored_as: the digest that the blob lies under. It differs from `digest` only for a blob that was pushed by
    its sha512: Distribution stores every blob by its sha256.
    """

    digest: Digest
    size: int
    mtime: int
    stored_as: Digest


class BlobReader:
    """A blob's bytes as chunks. Read to its end, a whole blob is checked against its digest: IntegrityError."""

    def __init__(self, handle: ReadHandle, digest: Digest | None) -> None:
        self._handle = handle
        self._digest = digest
        #: Bytes of the whole blob, also when only a part is read.
        self.size = handle.info.size

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        verifier = Verifier(self._digest) if self._digest else None
        async for chunk in self._handle:
            if verifier:
                verifier.update(chunk)
            yield chunk
        if verifier:
            verifier.verify(self._handle.info.key)

    async def read(self) -> bytes:
        """The rest, in memory."""
        return b"".join([chunk async for chunk in self])


class Blobs:
    """The blobs that a repository may read: those it has a layer link to.

    Iterating gives their digests, from the listing alone: a link may name a blob that is gone.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self._name = name

    async def __aiter__(self) -> AsyncGenerator[Digest, None]:
        empty = True
        async with aclosing(links.iter_keys(self._storage, layout.layers_prefix(self._name))) as keys:
            async for info in keys:
                key = layout.decode(info.key)
                if isinstance(key, layout.LayerLinkKey) and key.name == self._name:
                    empty = False
                    yield key.digest
        if empty:
            await links.require_repository(self._storage, self._name)

    async def stat(self, digest: Digest | str) -> BlobInfo:
        """BlobUnknown when the repository has no link to it, or when the link leads to nothing."""
        digest = as_digest(digest)
        target = await self.resolve(digest)
        try:
            info = await self._storage.stat(layout.blob_key(target))
        except NotFound as error:
            raise self._gone(digest, error) from error
        return BlobInfo(digest, info.size, info.mtime, target)

    async def read(self, digest: Digest | str) -> bytes:
        """The whole blob in memory, verified: for configs and other small ones."""
        async with self.open_read(digest) as reader:
            return await reader.read()

    @asynccontextmanager
    async def open_read(
        self, digest: Digest | str, *, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[BlobReader, None]:
        """A stream of the blob, or of `length` bytes from `start`; a whole blob is verified at its end."""
        digest = as_digest(digest)
        target = await self.resolve(digest)
        async with AsyncExitStack() as stack:
            try:
                handle = await stack.enter_async_context(
                    self._storage.open_read(layout.blob_key(target), start=start, length=length)
                )
            except NotFound as error:
                raise self._gone(digest, error) from error
            yield BlobReader(handle, digest if start == 0 and length is None else None)

    async def put(
        self, content: Content, digest: Digest | str | None = None, *, size: int | None = None
    ) -> BlobInfo:
        """Store a blob and link it here; returns where it is.

        IntegrityError when the content has not the digest (or size) that was promised, and then nothing became
        visible. A blob that the store holds already, whole, is verified and linked but not written again.
        A stream of unknown digest, or one named by its sha512, goes through the repository's uploads, as a
        push does.

            info = await repository.blobs.put(b"{}")
            await repository.blobs.put(chunks, digest="sha256:…", size=1_234)
        """
        parse_name(self._name)
        expected = None if digest is None else as_digest(digest)
        if isinstance(content, bytes | bytearray | memoryview):
            content = bytes(content)
            if size not in (None, len(content)):
                raise IntegrityError(f"the content has {len(content):,} bytes, not the promised {size:,}")
            stored_as, size = Digest.of(content), len(content)
            if expected is not None and expected != stored_as and not expected.matches(content):
                raise IntegrityError(f"expected {expected}, but the content has {stored_as}")
            await self._store(_one(content), stored_as, size)
        elif expected is not None and await self._fits(expected, size):
            stored_as, size = expected, await self._store(_chunks(content), expected, size)
        else:
            stored_as, size = await self._upload(_chunks(content), expected, size)
        return await self._link(expected or stored_as, stored_as, size)

    async def mount(self, digest: Digest | str, from_repository: str) -> BlobInfo:
        """Link a blob that another repository of this store can read. BlobUnknown when that one can't."""
        parse_name(self._name)
        info = await Blobs(self._storage, from_repository).stat(digest)
        return await self._link(info.digest, info.stored_as, info.size)

    async def _link(self, digest: Digest, stored_as: Digest, size: int) -> BlobInfo:
        """Link, then look once more: a collection may have taken an old blob just before the link was there."""
        for linked in dict.fromkeys((stored_as, digest)):
            await links.write_link(self._storage, layout.LayerLinkKey(self._name, linked), stored_as)
        try:
            stored = await self._storage.stat(layout.blob_key(stored_as))
        except NotFound as error:
            raise BlobUnknown(
                f"the blob {stored_as} went away while {self._name} linked it in {self._storage.url}: put it again"
            ) from error
        if stored.size != size:
            raise IntegrityError(f"{stored.key}: {stored.size:,} bytes in {self._storage.url}, not {size:,}")
        return BlobInfo(digest, stored.size, stored.mtime, stored_as)

    async def resolve(self, digest: Digest) -> Digest:
        """The digest that the blob lies under, by its link; it differs only for one that was pushed by its sha512.
        BlobUnknown when the repository has no link to it; whether the blob is there is not looked at."""
        key = layout.LayerLinkKey(self._name, digest)
        try:
            target = await links.read_link(self._storage, key)
        except NotFound as error:
            await links.require_repository(self._storage, self._name)
            raise BlobUnknown(f"{self._name} has no blob {digest} in {self._storage.url}") from error
        if digest.algorithm == "sha256" and target != digest:
            raise IntegrityError(f"the link {layout.encode(key)} names {target}, not its own digest")
        return target

    def _gone(self, digest: Digest, error: NotFound) -> BlobUnknown:
        return BlobUnknown(f"{self._name} links {digest}, but the blob {error.key} is not in {self._storage.url}")

    async def _fits(self, digest: Digest, size: int | None) -> bool:
        """Whether a stream can go straight to its key: with no size, a blob that is there can't be judged yet."""
        return digest.algorithm == "sha256" and (
            size is not None or await _stored_size(self._storage, digest) is None
        )

    async def _store(self, chunks: AsyncIterable[bytes], digest: Digest, size: int | None) -> int:
        """Straight to the blob's own key, verified on the way by the storage; returns its bytes."""
        if size is not None and await _stored_size(self._storage, digest) == size:
            verifier = Verifier(digest)
            async for chunk in chunks:
                verifier.update(chunk)
            verifier.verify(f"the content of blob {digest}")
            return size
        return await self._storage.put_stream(layout.blob_key(digest), chunks, size=size, digest=digest)

    async def _upload(
        self, chunks: AsyncIterable[bytes], expected: Digest | None, size: int | None
    ) -> tuple[Digest, int]:
        """What the content's sha256 is shows only at its end: write it aside, verify, then move it."""
        upload = str(uuid.uuid4())
        started, data = (
            layout.encode(layout.UploadKey(self._name, upload, part)) for part in ("startedat", "data")
        )
        verifiers = [Verifier(expected)] if expected else []
        stored = Verifier(algorithm="sha256")
        try:
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            await self._storage.put(started, now.encode())
            await self._storage.put_stream(data, _hashing(chunks, [*verifiers, stored]), size=size)
            for verifier in verifiers:
                verifier.verify("the content")
            digest = stored.digest
            if await _stored_size(self._storage, digest) != stored.size:
                target = layout.blob_key(digest)
                await self._storage.move(data, target, size=stored.size)
            return digest, stored.size
        finally:
            # What can't be removed is an abandoned upload, which gc knows: no reason to fail a finished write.
            with suppress(StorageError):
                await self._storage.delete_many([data, started])
                await links.remove_folders(self._storage, f"{layout.uploads_prefix(self._name)}{upload}/")


class StoreBlobs:
    """Every blob of the store, linked or not. Iterating lists them with their sizes; nothing is read."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def __aiter__(self) -> AsyncGenerator[BlobInfo, None]:
        async with aclosing(links.iter_keys(self._storage, layout.BLOBS)) as keys:
            async for info in keys:
                key = layout.decode(info.key)
                if isinstance(key, layout.BlobKey):
                    yield _blob_info(key.digest, info)

    async def stat(self, digest: Digest | str) -> BlobInfo:
        digest = as_digest(digest)
        try:
            return _blob_info(digest, await self._storage.stat(layout.blob_key(digest)))
        except NotFound as error:
            raise BlobUnknown(f"no blob {digest} in {self._storage.url}") from error

    async def read(self, digest: Digest | str) -> bytes:
        """The whole blob in memory, verified."""
        async with self.open_read(digest) as reader:
            return await reader.read()

    @asynccontextmanager
    async def open_read(
        self, digest: Digest | str, *, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[BlobReader, None]:
        """A stream of the blob, or of `length` bytes from `start`; a whole blob is verified at its end."""
        digest = as_digest(digest)
        async with AsyncExitStack() as stack:
            try:
                handle = await stack.enter_async_context(
                    self._storage.open_read(layout.blob_key(digest), start=start, length=length)
                )
            except NotFound as error:
                raise BlobUnknown(f"no blob {digest} in {self._storage.url}") from error
            yield BlobReader(handle, digest if start == 0 and length is None else None)


def as_digest(value: Digest | str) -> Digest:
    return value if isinstance(value, Digest) else Digest.parse(value)


def _blob_info(digest: Digest, info: ObjectInfo) -> BlobInfo:
    return BlobInfo(digest, info.size, info.mtime, digest)


async def _stored_size(storage: Storage, digest: Digest) -> int | None:
    try:
        return (await storage.stat(layout.blob_key(digest))).size
    except NotFound:
        return None


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _chunks(content: AsyncIterable[bytes] | Iterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(content, AsyncIterable):
        async for chunk in content:
            yield chunk
    else:
        for chunk in content:
            yield chunk


async def _hashing(chunks: AsyncIterable[bytes], verifiers: list[Verifier]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        for verifier in verifiers:
            verifier.update(chunk)
        yield chunk
