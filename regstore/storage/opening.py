"""Opening a storage: from a location, or from a registry's own configuration.

Nothing is read or asked here but the configuration file: a store that is missing shows at the first operation.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from regstore.errors import InputError
from regstore.storage.backends import OpenOptions, open_location, parse_location
from regstore.storage.base import Storage
from regstore.storage.location import DiskLocation, S3Location
from regstore.storage.registry_config import RegistryConfig, parse_registry_config

__all__ = [
    "DiskLocation",
    "OpenOptions",
    "RegistryConfig",
    "S3Location",
    "open_registry_config",
    "open_storage",
    "parse_location",
    "read_registry_config",
]


def open_storage(text: str | os.PathLike[str], options: OpenOptions | None = None) -> Storage:
    """The storage at `s3://bucket[/rootdirectory]`, a path, `file:///path` or `memory://name`.

    Close it, or use it as an async context manager. InputError where the text is none of these. A PathLike is always a
    path."""
    location = parse_location(text) if isinstance(text, str) else DiskLocation(Path(os.fspath(text)))
    return open_location(location, options)


@asynccontextmanager
async def open_scratch() -> AsyncIterator[Storage]:
    """An empty store in this process's memory, that is gone afterwards."""
    from regstore.storage.memory import MemoryStorage, forget

    name = f"scratch-{secrets.token_hex(8)}"
    try:
        async with MemoryStorage(name) as storage:
            yield storage
    finally:
        forget(name)


def read_registry_config(path: str | os.PathLike[str], environ: Mapping[str, str]) -> RegistryConfig:
    """A registry's config.yml with the `REGISTRY_*` overrides of `environ`. InputError where it can't be used."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"cannot read the registry's configuration {os.fspath(path)}: {reason}") from error
    return parse_registry_config(text, environ, where=os.fspath(path))


def open_registry_config(
    path: str | os.PathLike[str], environ: Mapping[str, str], options: OpenOptions | None = None
) -> tuple[Storage, RegistryConfig]:
    """The storage that a registry's configuration names, which stores things as the registry does, and what else the
    configuration says that matters here."""
    config = read_registry_config(path, environ)
    return open_location(config.location, options, config.s3, config.put), config
