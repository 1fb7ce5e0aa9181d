"""The blocking face of the library: the same objects and methods, without `await`.

    with regstore.sync.open("/var/lib/registry") as registry:
        for repository in registry.repositories():
            for tag in repository.tags:
                print(repository.name, tag.name, tag.digest)

Each Registry has an event loop in a thread of its own, which ends with it; use it from as many threads as you like.
An iterator is driven lazily, by growing batches: what is read ahead is at most some hundred items. Ctrl-C
cancels what is under way. Every method is the one of `regstore.registry` of that name, with its arguments, errors
and guarantees.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from os import PathLike
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, Unpack

from regstore import registry as asynchronous
from regstore.digest import Digest
from regstore.registry.opening import Options

W = TypeVar("W")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_BATCH: Final = 128


class _Portal:
    """An event loop in a thread of its own, and the way into it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon: an interpreter that ends without `close` is not held up by it.
        self._thread = threading.Thread(target=self._loop.run_forever, name="regstore", daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        return self._thread.is_alive()

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        if not self.is_open:
            coroutine.close()
            raise RuntimeError("this regstore.sync.Registry is closed")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # the coroutine, when it was this thread that was interrupted
            raise

    def iterate(self, items: AsyncGenerator[T, None], *, batch: int = _BATCH) -> Iterator[T]:
        """The items, read ahead by growing batches of at most `batch`."""
        size = 1
        error: BaseException | None = None
        try:
            while True:
                ready, more, error = self.run(_next(items, size))
                yield from ready
                if error is not None:
                    raise error
                if not more:
                    return
                size = min(2 * size, batch)
        finally:
            if self.is_open:
                self.run(items.aclose())

    def close(self) -> None:
        """Cancel what is still under way, and end the thread."""
        if self.is_open:
            try:
                self.run(self._finish())
            finally:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
        self._loop.close()

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()


async def _next(items: AsyncIterator[T], size: int) -> tuple[list[T], bool, BaseException | None]:
    """Up to `size` items, whether more may follow, and the error that ended them: no item before it is lost."""
    batch: list[T] = []
    try:
        while len(batch) < size:
            batch.append(await anext(items))
    except StopAsyncIteration:
        return batch, False, None
    except Exception as error:  # noqa: BLE001  raised again by `iterate`, in the caller's thread
        return batch, False, error
    return batch, True, None


class _Blocking(Generic[W]):
    """An asynchronous object and the portal to its loop."""

    def __init__(self, wrapped: W, portal: _Portal) -> None:
        self._wrapped = wrapped
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._wrapped)


def _call(method: Callable[Concatenate[W, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Any, P], R]:
    """The blocking form of a coroutine method."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = self._portal.run(method(self._wrapped, *args, **kwargs))
        return result

    return _named(call, method)


def _iterator(
    method: Callable[Concatenate[W, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """The blocking form of a method that gives an asynchronous generator."""

    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items: Iterator[T] = self._portal.iterate(method(self._wrapped, *args, **kwargs))
        return items

    return _named(call, method)


def _reader(
    method: Callable[Concatenate[W, P], AbstractAsyncContextManager[asynchronous.BlobReader]],
) -> Callable[Concatenate[Any, P], AbstractContextManager[BlobReader]]:
    """The blocking form of `open_read`."""

    @contextmanager
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[BlobReader]:
        portal: _Portal = self._portal
        manager = method(self._wrapped, *args, **kwargs)
        reader = portal.run(_enter(manager))
        try:
            yield BlobReader(reader, portal)
        finally:
            portal.run(_leave(manager))

    return _named(call, method)


async def _enter(manager: AbstractAsyncContextManager[T]) -> T:
    return await manager.__aenter__()


async def _leave(manager: AbstractAsyncContextManager[Any]) -> None:
    await manager.__aexit__(None, None, None)


F = TypeVar("F", bound=Callable[..., Any])


def _named(function: F, method: Callable[..., Any]) -> F:
    function.__name__ = method.__name__
    function.__doc__ = method.__doc__
    return function


async def _in_thread(content: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    """A plain iterable, read outside the loop: it may itself be a blob of this very registry."""
    chunks = iter(content)
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk


class BlobReader(_Blocking[asynchronous.BlobReader]):
    """As `regstore.registry.BlobReader`: chunks, one at a time in memory, verified at the end."""

    @property
    def size(self) -> int:
        return self._wrapped.size

    def __iter__(self) -> Iterator[bytes]:
        return self._portal.iterate(self._wrapped.__aiter__(), batch=1)

    read = _call(asynchronous.BlobReader.read)


class Tags(_Blocking[asynchronous.Tags]):
    __iter__ = _iterator(asynchronous.Tags.__aiter__)
    get = _call(asynchronous.Tags.get)
    set = _call(asynchronous.Tags.set)
    delete = _call(asynchronous.Tags.delete)


class Manifests(_Blocking[asynchronous.Manifests]):
    __iter__ = _iterator(asynchronous.Manifests.__aiter__)
    get = _call(asynchronous.Manifests.get)
    put = _call(asynchronous.Manifests.put)
    delete = _call(asynchronous.Manifests.delete)


class Blobs(_Blocking[asynchronous.Blobs]):
    __iter__ = _iterator(asynchronous.Blobs.__aiter__)
    stat = _call(asynchronous.Blobs.stat)
    read = _call(asynchronous.Blobs.read)
    open_read = _reader(asynchronous.Blobs.open_read)
    mount = _call(asynchronous.Blobs.mount)

    def put(
        self, content: bytes | Iterable[bytes], digest: Digest | str | None = None, *, size: int | None = None
    ) -> asynchronous.BlobInfo:
        """As `regstore.registry.Blobs.put`; an iterable of chunks, or an open binary file, is read in a thread."""
        chunks = content if isinstance(content, bytes) else _in_thread(content)
        return self._portal.run(self._wrapped.put(chunks, digest, size=size))


class StoreBlobs(_Blocking[asynchronous.StoreBlobs]):
    __iter__ = _iterator(asynchronous.StoreBlobs.__aiter__)
    stat = _call(asynchronous.StoreBlobs.stat)
    read = _call(asynchronous.StoreBlobs.read)
    open_read = _reader(asynchronous.StoreBlobs.open_read)


class Uploads(_Blocking[asynchronous.Uploads]):
    __iter__ = _iterator(asynchronous.Uploads.__aiter__)


class Repository(_Blocking[asynchronous.Repository]):
    def __init__(self, wrapped: asynchronous.Repository, portal: _Portal) -> None:
        super().__init__(wrapped, portal)
        self.name = wrapped.name
        self.tags = Tags(wrapped.tags, portal)
        self.manifests = Manifests(wrapped.manifests, portal)
        self.blobs = Blobs(wrapped.blobs, portal)
        self.uploads = Uploads(wrapped.uploads, portal)

    exists = _call(asynchronous.Repository.exists)
    referrers = _call(asynchronous.Repository.referrers)
    describe = _call(asynchronous.Repository.describe)
    describe_tags = _iterator(asynchronous.Repository.describe_tags)


class Registry(_Blocking[asynchronous.Registry]):
    """A registry's storage. Close it, or use it as a context manager."""

    def __init__(self, wrapped: asynchronous.Registry, portal: _Portal) -> None:
        super().__init__(wrapped, portal)
        self.url = wrapped.url
        self.blobs = StoreBlobs(wrapped.blobs, portal)

    is_registry = _call(asynchronous.Registry.is_registry)
    require = _call(asynchronous.Registry.require)

    def repository(self, name: str) -> Repository:
        """As `regstore.registry.Registry.repository`."""
        return Repository(self._wrapped.repository(name), self._portal)

    def repositories(self) -> Iterator[Repository]:
        """As `regstore.registry.Registry.repositories`."""
        for repository in self._portal.iterate(self._wrapped.repositories()):
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
    portal = _Portal()
    try:
        return Registry(portal.run(_open(url, options)), portal)
    except BaseException:
        portal.close()
        raise


async def _open(url: str | PathLike[str], options: Options) -> asynchronous.Registry:
    return await asynchronous.open_registry(url, **options).__aenter__()
