"""`regstore.storage` without `await`: what is opened here is given to the functions of `regstore.sync`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from regstore import storage as asynchronous
from regstore.storage import OpenOptions, RegistryConfig, Storage
from regstore.sync.blocking import context

__all__ = ["open_registry_config", "open_storage"]

open_storage = context(asynchronous.open_storage)


@contextmanager
def open_registry_config(
    path: str | os.PathLike[str], environ: Mapping[str, str], options: OpenOptions | None = None
) -> Iterator[tuple[Storage, RegistryConfig]]:
    """As `regstore.storage.open_registry_config`; written out, for it gives the storage in a tuple."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[Storage, RegistryConfig]]:
        storage, config = asynchronous.open_registry_config(path, environ, options)
        async with storage:
            yield storage, config

    with context(opened)() as both:
        yield both
