"""The objects of `regstore.registry`, blocking: every method is the one of that name, with its arguments and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from os import PathLike
from typing import Unpack

from regstore import registry as asynchronous
from regstore.digest import Digest
from regstore.registry.opening import Options
from regstore.sync.blocking import Blocking, iterator, method, method_context_of
from regstore.sync.portal import Portal


async def _in_thread(content: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    """A plain iterable, read outside the loop: it may itself be a blob of this very registry."""
    chunks = iter(content)
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk


class BlobReader(Blocking[asynchronous.BlobReader]):
    """As `regstore.registry.BlobReader`: chunks, one at a time in memory, verified at the end."""

    @property
    def size(self) -> int:
        return self._wrapped.size

    def __iter__(self) -> Iterator[bytes]:
        return self._portal.iterate(self._wrapped.__aiter__(), batch=1)

    read = method(asynchronous.BlobReader.read)


class Tags(Blocking[asynchronous.Tags]):
    __iter__ = iterator(asynchronous.Tags.__aiter__)
    page = method(asynchronous.Tags.page)
    get = method(asynchronous.Tags.get)
    set = method(asynchronous.Tags.set)
    delete = method(asynchronous.Tags.delete)
    delete_all = method(asynchronous.Tags.delete_all)


class Manifests(Blocking[asynchronous.Manifests]):
    __iter__ = iterator(asynchronous.Manifests.__aiter__)
    revisions = iterator(asynchronous.Manifests.revisions)
    resolve = method(asynchronous.Manifests.resolve)
    get = method(asynchronous.Manifests.get)
    require = method(asynchronous.Manifests.require)
    read = method(asynchronous.Manifests.read)
    data = method(asynchronous.Manifests.data)
    put = method(asynchronous.Manifests.put)
    require_references = method(asynchronous.Manifests.require_references)
    delete = method(asynchronous.Manifests.delete)


class Blobs(Blocking[asynchronous.Blobs]):
    __iter__ = iterator(asynchronous.Blobs.__aiter__)
    stat = method(asynchronous.Blobs.stat)
    read = method(asynchronous.Blobs.read)
    open_read = method_context_of(asynchronous.Blobs.open_read, BlobReader)
    mount = method(asynchronous.Blobs.mount)
    resolve = method(asynchronous.Blobs.resolve)

    def put(
        self, content: bytes | Iterable[bytes], digest: Digest | str | None = None, *, size: int | None = None
    ) -> asynchronous.BlobInfo:
        """As `regstore.registry.Blobs.put`; an iterable of chunks, or an open binary file, is read in a thread."""
        chunks = content if isinstance(content, bytes) else _in_thread(content)
        return self._portal.run(self._wrapped.put(chunks, digest, size=size))


class StoreBlobs(Blocking[asynchronous.StoreBlobs]):
    __iter__ = iterator(asynchronous.StoreBlobs.__aiter__)
    stat = method(asynchronous.StoreBlobs.stat)
    read = method(asynchronous.StoreBlobs.read)
    open_read = method_context_of(asynchronous.StoreBlobs.open_read, BlobReader)


class Uploads(Blocking[asynchronous.Uploads]):
    __iter__ = iterator(asynchronous.Uploads.__aiter__)


class Repository(Blocking[asynchronous.Repository]):
    def __init__(self, wrapped: asynchronous.Repository, portal: Portal) -> None:
        super().__init__(wrapped, portal)
        self.name = wrapped.name
        self.tags = Tags(wrapped.tags, portal)
        self.manifests = Manifests(wrapped.manifests, portal)
        self.blobs = Blobs(wrapped.blobs, portal)
        self.uploads = Uploads(wrapped.uploads, portal)

    exists = method(asynchronous.Repository.exists)
    referrers = method(asynchronous.Repository.referrers)
    describe = method(asynchronous.Repository.describe)
    describe_tags = iterator(asynchronous.Repository.describe_tags)


class Registry(Blocking[asynchronous.Registry]):
    """A registry's storage. Close it, or use it as a context manager."""

    def __init__(self, wrapped: asynchronous.Registry, portal: Portal) -> None:
        super().__init__(wrapped, portal)
        #: The storage itself, for `regstore.sync.gc` and the other operations on whole stores.
        self.storage = wrapped.storage
        self.blobs = StoreBlobs(wrapped.blobs, portal)

    @property
    def url(self) -> str:
        return self._wrapped.url

    page = method(asynchronous.Registry.page)
    is_registry = method(asynchronous.Registry.is_registry)
    require = method(asynchronous.Registry.require)

    def repository(self, name: str) -> Repository:
        """As `regstore.registry.Registry.repository`."""
        return Repository(self._wrapped.repository(name), self._portal)

    def repositories(self, *, after: str = "") -> Iterator[Repository]:
        """As `regstore.registry.Registry.repositories`."""
        for repository in self._portal.iterate(self._wrapped.repositories(after=after)):
            yield Repository(repository, self._portal)

    def close(self) -> None:
        """Idempotent."""
        if self._portal.is_open:
            try:
                self._portal.run(self._wrapped.close())
            finally:
                self._portal.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open(url: str | PathLike[str], **options: Unpack[Options]) -> Registry:
    """As `regstore.open`: an `s3://bucket/root`, a `file://` URL or a folder, with the same options."""
    portal = Portal("regstore.sync.Registry")
    try:
        return Registry(portal.run(_open(url, options)), portal)
    except BaseException:
        portal.close()
        raise


async def _open(url: str | PathLike[str], options: Options) -> asynchronous.Registry:
    return await asynchronous.open_registry(url, **options).__aenter__()
