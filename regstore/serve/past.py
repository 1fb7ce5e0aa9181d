"""A whole backup on pages: its snapshots, each of them as a site of its own, and one tag through all of them."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from http import HTTPStatus

from aiohttp import web

from regstore.errors import NameUnknown, StorageError, TagUnknown
from regstore.events import OnEvent, ignore
from regstore.inventory.scan import ScanOptions
from regstore.reference import parse_name, parse_tag
from regstore.registry import Registry
from regstore.serve.index import Index
from regstore.serve.metrics import Figures, Snapshots
from regstore.serve.mounts import LATEST, BackupMount
from regstore.serve.pages import PageError, Pages, Site, guarded_page
from regstore.serve.rendering import page
from regstore.words import printable

#: Snapshots whose index is kept at a time.
_KEPT = 3
#: Snapshots in the drawing of their growth.
_BARS = 60


@dataclass(slots=True)
class _Kept:
    site: Site
    stack: AsyncExitStack


@dataclass(kw_only=True)
class Past:
    """The pages of a backup. Close it, or use it as an async context manager."""

    mount: BackupMount
    scanning: ScanOptions
    title: str
    pull_host: str = ""
    on_event: OnEvent = ignore
    _kept: OrderedDict[str, _Kept] = field(default_factory=OrderedDict)

    def add_to(self, application: web.Application) -> None:
        application.router.add_get("/", guarded_page(self.snapshots))
        application.router.add_get("/tags/{name:.+}:{tag}", guarded_page(self.tag))
        Pages(self.find, base="/at/{snapshot}").add_to(application)

    async def snapshots(self, request: web.Request) -> web.StreamResponse:
        """All of them, the newest first."""
        found = await self.mount.refresh()
        rows = [(prefix, one.snapshot) for prefix, one in found.items() if prefix != LATEST]
        largest = max((snapshot.bytes for _, snapshot in rows), default=0) or 1
        bars = [(prefix, snapshot, snapshot.bytes / largest) for prefix, snapshot in rows[-_BARS:]]
        return await page(request, None, None, "snapshots.html", rows=rows[::-1], bars=bars, title=self.title)

    async def tag(self, request: web.Request) -> web.StreamResponse:
        """What a tag named in each snapshot."""
        name, tag = parse_name(request.match_info["name"]), parse_tag(request.match_info["tag"])
        rows = []
        for prefix, one in reversed(list((await self.mount.refresh()).items())):
            if prefix == LATEST or name not in one.snapshot.repositories:
                continue
            await self.mount.touch(one)
            try:
                digest, said = await Registry(one).repository(name).tags.get(tag), ""
            except (TagUnknown, NameUnknown):
                digest, said = None, "not there"
            except StorageError as error:
                digest, said = None, f"can't be read: {error}"
            rows.append((prefix, one.snapshot, digest, said))
        if not any(digest for _, _, digest, _ in rows):
            raise PageError(HTTPStatus.NOT_FOUND, f"No snapshot has the tag {printable(name)}:{printable(tag)}.")
        return await page(request, None, None, "past.html", name=name, tag=tag, rows=rows, title=self.title)

    async def find(self, request: web.Request) -> Site:
        """The site of the snapshot that an address names; its index is begun when it is first asked for."""
        prefix = request.match_info["snapshot"]
        snapshots = await self.mount.refresh() if prefix not in self._kept else {}
        if prefix == LATEST and LATEST in snapshots:
            prefix = snapshots[LATEST].snapshot.run.lower()
        kept = self._kept.get(prefix)
        if kept is None:
            if prefix not in snapshots:
                raise PageError(HTTPStatus.NOT_FOUND, f"There is no snapshot {printable(prefix)} in this backup.")
            storage = snapshots[prefix]
            await self.mount.touch(storage)
            index = Index(storage=storage, scanning=self.scanning, refresh=0, on_event=self.on_event)
            stack = AsyncExitStack()
            await stack.enter_async_context(index.kept())
            kept = _Kept(
                Site(
                    mounts=self.mount,
                    index=index,
                    title=storage.url,
                    base=f"/at/{prefix}",
                    prefix=f"{prefix}/",
                    pull_host=self.pull_host,
                    has_past=True,
                ),
                stack,
            )
            self._kept[prefix] = kept
        self._kept.move_to_end(prefix)
        while len(self._kept) > _KEPT:
            await self._kept.popitem(last=False)[1].stack.aclose()
        return kept.site

    async def figures(self) -> Figures:
        snapshots = [one.snapshot for prefix, one in (await self.mount.refresh()).items() if prefix != LATEST]
        newest = max((snapshot.begun for snapshot in snapshots), default=0)
        return Figures(snapshots=Snapshots(number=len(snapshots), newest=newest))

    async def __aenter__(self) -> Past:
        return self

    async def __aexit__(self, *exc: object) -> None:
        while self._kept:
            await self._kept.popitem()[1].stack.aclose()
