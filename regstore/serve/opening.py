"""The pages of what is served: those of a store or of one snapshot, or those of a whole backup."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from regstore.backup.as_store import SnapshotStorage
from regstore.errors import InputError
from regstore.events import Event, Notice, OnEvent, ignore
from regstore.inventory.scan import ScanOptions
from regstore.serve.garbage import plan_plain
from regstore.serve.health import HealthWatch
from regstore.serve.index import Index
from regstore.serve.metrics import Figures
from regstore.serve.mounts import BackupMount, Mounts, StoreMount
from regstore.serve.pages import Pages, Site
from regstore.serve.past import Past
from regstore.serve.server import PagesOf


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """refresh: seconds between two listings of the store, at least. pull_host: `HOST[:PORT]` of the registry that
    images are pulled from, where that is not this server."""

    refresh: float = 60.0
    pull_host: str = ""
    scanning: ScanOptions = field(default_factory=ScanOptions.default)

    def __post_init__(self) -> None:
        if self.refresh < 1:
            raise InputError("--refresh must be a second or more")


@asynccontextmanager
async def open_pages(
    mounts: Mounts, title: str, options: PageOptions, *, on_event: OnEvent = ignore
) -> AsyncGenerator[PagesOf, None]:
    """The pages, with their index kept fresh inside the context. title: the address of the store or backup. on_event:
    is told when it can't be made."""
    noted = _notices(on_event)
    if isinstance(mounts, BackupMount):
        async with Past(
            mount=mounts, scanning=options.scanning, title=title, pull_host=options.pull_host, on_event=noted
        ) as past:
            yield past
        return
    assert isinstance(mounts, StoreMount)
    storage = mounts.registry.storage
    index = Index(
        storage=storage, scanning=options.scanning, refresh=options.refresh, on_event=noted, after=plan_plain
    )
    site = Site(
        mounts=mounts,
        index=index,
        title=storage.url,
        pull_host=options.pull_host,
        health=None if isinstance(storage, SnapshotStorage) else HealthWatch(storage),
    )
    async with index.kept():
        yield StorePages(site)


def _notices(on_event: OnEvent) -> OnEvent:
    """A scan has much to say that belongs to no log of a server."""

    def told(event: Event) -> None:
        if isinstance(event, Notice):
            on_event(event)

    return told


class StorePages:
    """The pages of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def add_to(self, application: web.Application) -> None:
        Pages(self._find).add_to(application)

    async def figures(self) -> Figures:
        health = self._site.health
        return Figures(index=self._site.index, health=await health.look() if health is not None else None)

    async def _find(self, request: web.Request) -> Site:
        return self._site
