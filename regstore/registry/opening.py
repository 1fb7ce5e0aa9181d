"""Opening a registry by URL or path."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from os import PathLike
from typing import TypedDict, Unpack

from regstore.events import OnEvent
from regstore.registry.registry import Registry


class Options(TypedDict, total=False):
    """The fields of `regstore.storage.opening.OpenOptions`, as keywords."""

    endpoint_url: str | None
    region: str | None
    profile: str | None
    path_style: bool | None
    ca_bundle: str | PathLike[str] | None
    access_key: str | None
    secret_key: str | None
    session_token: str | None
    concurrency: int | None
    create: bool
    read_only: bool
    on_event: OnEvent


def open_registry(url: str | PathLike[str], **options: Unpack[Options]) -> Registry:
    """The registry there; no request is made yet. Close it, or use it as an async context manager."""
    from regstore.storage.opening import OpenOptions, open_storage

    return Registry(open_storage(url, OpenOptions(**options)))


@asynccontextmanager
async def open(url: str | PathLike[str], **options: Unpack[Options]) -> AsyncGenerator[Registry, None]:
    """The registry under `s3://bucket[/rootdirectory]`, a `file://` URL or a folder.

        async with regstore.open("s3://bucket/root", endpoint_url="http://127.0.0.1:9000") as registry:
            async for repository in registry.repositories():
                print(repository.name)

    options: the fields of `regstore.storage.opening.OpenOptions`. Nothing needs to be there yet; see
    `Registry.require`.
    """
    async with open_registry(url, **options) as registry:
        yield registry
