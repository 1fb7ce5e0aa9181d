"""Blocking forms of asynchronous functions and methods, with their arguments, results and docstrings.

The types follow from the function that is wrapped, so no signature is written down twice.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from regstore.sync.portal import Portal

W = TypeVar("W")
B = TypeVar("B")
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Closes(Protocol):
    async def close(self) -> None: ...


C = TypeVar("C", bound=Closes)


class Blocking(Generic[W]):
    """An asynchronous object and the portal to its loop."""

    def __init__(self, wrapped: W, portal: Portal) -> None:
        self._wrapped = wrapped
        self._portal = portal

    def __repr__(self) -> str:
        return repr(self._wrapped)


def function(asynchronous: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """The blocking form of a coroutine function."""

    @functools.wraps(asynchronous)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with _portal(asynchronous) as portal:
            return portal.run(asynchronous(*args, **kwargs))

    return call


def context(asynchronous: Callable[P, AbstractAsyncContextManager[T]]) -> Callable[P, AbstractContextManager[T]]:
    """The blocking form of a function that gives an asynchronous context manager."""
    return context_of(asynchronous, lambda value, portal: value)


def context_of(
    asynchronous: Callable[P, AbstractAsyncContextManager[T]], make: Callable[[T, Portal], B]
) -> Callable[P, AbstractContextManager[B]]:
    """The same, where what is entered has a blocking form itself."""

    @functools.wraps(asynchronous)
    @contextmanager
    def call(*args: P.args, **kwargs: P.kwargs) -> Iterator[B]:
        @asynccontextmanager
        async def made() -> AsyncIterator[T]:  # in the loop, where it may be used from its first moment
            async with asynchronous(*args, **kwargs) as value:
                yield value

        with _portal(asynchronous) as portal, portal.enter(made()) as value:
            yield make(value, portal)

    return call


def closed_after(
    asynchronous: Callable[P, Coroutine[Any, Any, C]],
) -> Callable[P, AbstractContextManager[C]]:
    """The blocking form of a coroutine function whose result has to be closed."""

    @functools.wraps(asynchronous)
    @asynccontextmanager
    async def opened(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[C]:
        result = await asynchronous(*args, **kwargs)
        try:
            yield result
        finally:
            await result.close()

    return context(opened)


def method(asynchronous: Callable[Concatenate[W, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Any, P], R]:
    """The blocking form of a coroutine method."""

    @functools.wraps(asynchronous)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = self._portal.run(asynchronous(self._wrapped, *args, **kwargs))
        return result

    return call


def iterator(
    asynchronous: Callable[Concatenate[W, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """The blocking form of a method that gives an asynchronous generator."""

    @functools.wraps(asynchronous)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items: Iterator[T] = self._portal.iterate(asynchronous(self._wrapped, *args, **kwargs))
        return items

    return call


def method_context_of(
    asynchronous: Callable[Concatenate[W, P], AbstractAsyncContextManager[T]], make: Callable[[T, Portal], B]
) -> Callable[Concatenate[Any, P], AbstractContextManager[B]]:
    """The blocking form of a method that gives an asynchronous context manager."""

    @functools.wraps(asynchronous)
    @contextmanager
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[B]:
        portal: Portal = self._portal
        with portal.enter(asynchronous(self._wrapped, *args, **kwargs)) as value:
            yield make(value, portal)

    return call


@contextmanager
def _portal(of: Callable[..., Any]) -> Iterator[Portal]:
    portal = Portal(of.__name__)
    try:
        yield portal
    finally:
        portal.close()
