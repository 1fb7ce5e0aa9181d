"""scan: list the store once, decode its keys, resolve its links, read the manifests not seen before.

The order is part of gc's safety (DESIGN: step 3): blobs are listed first, then the links, so a blob that is in the
inventory and that no link of the inventory reaches was unreferenced after it had been listed.

One object that the store has and does not give is damage of that object: a manifest in the state `unreadable`, or a
link whose `unread` says why (`storage.outage` says when that is an outage instead, which ends the scan).

Requests for N keys in S ranges with M unseen manifests: at most N/1000 + S ListObjectsV2, M GetObject, none for
links whose size and ETag prove their body (LAYOUT: section 1); plus one ListMultipartUploads a thousand uploads. The
listing of blobs also shows whether links are the whole truth (`inventory.whose`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regstore import layout
from regstore.concurrency import for_each, in_thread, task_group
from regstore.errors import AccessDenied, Unsupported
from regstore.events import OnEvent, Progress, ignore
from regstore.inventory.cache import default_cache_dir
from regstore.inventory.inventory import Inventory
from regstore.inventory.links import LinkBodies
from regstore.inventory.listing import list_in_parallel
from regstore.inventory.manifests import ManifestReader
from regstore.inventory.whose import database_told_by
from regstore.storage.base import MultipartUpload, Page, Storage
from regstore.tasks.runner import HERE, Runner

if TYPE_CHECKING:
    from regstore.inventory.reported.blobs import Reported
    from regstore.inventory.reported.report import BlobsFrom

_BATCH_KEYS: Final = 40_000
#: A core parses some 400 pages a second, and more that wait for it only hold memory.
_RANGES_A_WORKER: Final = 32


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """concurrency: requests in flight. cache_dir None: remember no manifests. inventory: keep the DuckDB file there.
    runner: who lists and reads what is much. blobs_from: a report that says the blobs, in place of their listing
    (`inventory.reported`)."""

    concurrency: int = 32
    cache_dir: Path | None = None
    inventory: Path | None = None
    memory_limit: str = "192MB"
    runner: Runner = HERE
    blobs_from: BlobsFrom | None = None

    @classmethod
    def default(cls) -> ScanOptions:
        return cls(cache_dir=default_cache_dir())


@asynccontextmanager
async def scan(
    storage: Storage, options: ScanOptions | None = None, *, on_event: OnEvent = ignore
) -> AsyncIterator[Inventory]:
    """The inventory of a store, closed on exit. Raises on the first page that can't be had."""
    options = options or ScanOptions.default()
    inventory = Inventory(options.inventory, memory_limit=options.memory_limit)
    try:
        await Scanner(storage, inventory, options, on_event).run()
        inventory.complete = True
        yield inventory
    finally:
        inventory.close()


class _Intake:
    """Pages on their way into the inventory, some 10^4 keys at a time, in a thread of its own."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._pages: list[Page] = []
        self._keys = 0
        self._lock = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Open the inventory, while the first requests are on their way."""
        if self._opening is None:
            self._opening = asyncio.create_task(in_thread(self._inventory.open))
            # `flush` raises what it does; where the listing has failed before, nobody asks.
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def add(self, page: Page) -> None:
        self._pages.append(page)
        self._keys += len(page)
        if self._keys >= _BATCH_KEYS:
            await self.flush(_BATCH_KEYS)

    async def flush(self, least: int = 1) -> None:
        async with self._lock:  # one thread at a time on the connection; who waits here slows the listing down
            if self._keys < least:
                return  # who waited before has taken them along
            if self._opening is not None:
                await self._opening
            pages, self._pages, self._keys = self._pages, [], 0
            await in_thread(self._inventory.ingest, pages)  # it must not outlast the connection


class Scanner:
    """One run of scan; its parts can be called one by one where only some are wanted."""

    def __init__(
        self, storage: Storage, inventory: Inventory, options: ScanOptions, on_event: OnEvent = ignore
    ) -> None:
        self._storage = storage
        self._inventory = inventory
        self._on_event = on_event
        #: Where manifests are read that do not stand in their place: digest and key. Whoever knows any puts them here.
        self.stored_at: dict[bytes, str] = {}
        self._concurrency = options.concurrency
        self._runner = options.runner
        self._intake = _Intake(inventory)
        self._reported = _reported(storage, inventory, options, on_event)
        self._links = LinkBodies(storage, inventory, options.concurrency, on_event)
        self._manifests = ManifestReader(
            storage,
            inventory,
            cache_dir=options.cache_dir,
            concurrency=options.concurrency,
            runner=options.runner,
            stored_at=self.stored_at,
            on_event=on_event,
        )

    async def run(self) -> None:
        self._intake.begin()
        self._inventory.scanned_at = await self._storage.now()
        await self.list_blobs()
        await self.list_links()
        await self.read_manifests()

    async def list_blobs(self) -> None:
        """Before `list_links`, which puts them into the inventory with what it finds. GitLab's marks sort before the
        blobs, so the same listing tells whether links are the whole truth. From a report where there is one."""
        if self._reported is not None:
            await self._reported.load()
            return
        await self._list(layout.BLOBS, "listing blobs", begin=layout.REGISTRY)

    async def list_links(self) -> None:
        """Links, tags and uploads, with every body known that can be known."""
        if self._reported is not None:
            self._reported.look_anew()
        async with task_group() as group:
            group.create_task(self._list(layout.REPOSITORIES, "listing repositories"))
            uploads = group.create_task(self.find_multipart_uploads())
        await self._intake.flush()
        self.add_multipart_uploads(uploads.result())
        await self._links.resolve()

    async def list_repositories(self, names: Sequence[str], *, uploads_of: Iterable[str] = ()) -> None:
        """The same of a few repositories only: one LIST a thousand keys, at least one each. Multipart uploads of those
        in `uploads_of` only, one ListMultipartUploads each."""

        async def list_one(name: str) -> None:
            async for page in self._storage.list(layout.repository_prefix(name) + "_"):
                await self._intake.add(page)

        await for_each(names, list_one, concurrency=self._concurrency)
        await self._intake.flush()
        for name in uploads_of:
            self.add_multipart_uploads(await self.find_multipart_uploads(layout.uploads_prefix(name)))
        await self._links.resolve()

    async def resolve_links(self) -> None:
        """The bodies of links that others have listed."""
        await self._links.resolve()

    async def read_manifests(self) -> None:
        """Every revision, every tag's target and, from these, every child manifest, to a fixpoint."""
        await self._manifests.read()
        while self._reported is not None and await self._reported.complete_manifests():
            await self._manifests.read()

    async def find_unreported(self) -> None:
        """Where a report says the blobs: those that anything names and the report lacks, as far as they are there."""
        while self._reported is not None and await self._reported.complete():
            await self.read_manifests()

    async def _list(self, prefix: str, phase: str, *, begin: str | None = None) -> None:
        done = 0
        self._intake.begin()

        async def sink(page: Page) -> None:
            nonlocal done
            if page.keys and page.keys[0] < prefix:
                self._inventory.database = self._inventory.database or database_told_by(page.keys)
                page = page.from_key(prefix)
            done += len(page)
            self._on_event(Progress(phase=phase, done=done))
            await self._intake.add(page)

        concurrency = self._concurrency if self._storage.serves_in_parallel else 1
        if self._runner.reaches(self._storage):
            concurrency = min(concurrency, _RANGES_A_WORKER * self._runner.size)
        self._inventory.ranges += await list_in_parallel(
            self._storage, prefix, sink, concurrency=concurrency, begin=begin, runner=self._runner
        )

    async def find_multipart_uploads(
        self, prefix: str = layout.REPOSITORIES
    ) -> list[tuple[layout.UploadKey, MultipartUpload]]:
        """The inventory's `multipart_uploads_unknown` says why there are none, where the store does not list them."""
        found = []
        try:
            async for upload in self._storage.list_multipart_uploads(prefix):
                key = layout.decode(upload.key)
                if isinstance(key, layout.UploadKey):
                    found.append((key, upload))
        except (AccessDenied, Unsupported) as error:
            self._inventory.multipart_uploads_unknown = str(error)
            return []
        return found

    def add_multipart_uploads(self, found: Sequence[tuple[layout.UploadKey, MultipartUpload]]) -> None:
        """Into the inventory, after the other keys of their repositories."""
        if not found:
            return
        known = dict(self._inventory.all("select name, id from repository"))
        new = sorted({key.name for key, _ in found} - known.keys())
        for name in new:
            known[name] = len(known) + 1
        self._inventory.insert(
            "repository", {"id": ("int32", [known[name] for name in new]), "name": ("utf8", new)}
        )
        self._inventory.insert(
            "multipart_upload",
            {
                "repository": ("int32", [known[key.name] for key, _ in found]),
                "uuid": ("utf8", [key.uuid for key, _ in found]),
                "key": ("utf8", [upload.key for _, upload in found]),
                "upload_id": ("utf8", [upload.upload_id for _, upload in found]),
                "size": ("int64", [upload.size for _, upload in found]),
                "newest": ("int64", [upload.newest for _, upload in found]),
            },
        )


def _reported(storage: Storage, inventory: Inventory, options: ScanOptions, on_event: OnEvent) -> Reported | None:
    if options.blobs_from is None:
        return None
    from regstore.inventory.reported.blobs import Reported

    return Reported(options.blobs_from, storage, inventory, options.concurrency, on_event)
