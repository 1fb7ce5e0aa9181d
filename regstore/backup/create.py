"""`backup create`: a snapshot of a registry that may be serving, and what blobs the backup lacks.

Requests, for a store of N links and blobs and a backup of M blobs, with nothing new: 2 listings of the links, one of
the blobs (N/1000 each), one LIST to learn whether links are the whole truth, 2 listings of the backup (M/1000 each:
what it has, and the proof that all is there that the snapshot needs, right before that is written), and two small
objects written; no blob is read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from regstore import layout
from regstore.backup import format as form
from regstore.backup.copying import Copying
from regstore.backup.dating import SKEW
from regstore.backup.format import Snapshot
from regstore.backup.intent import Intent, hold_intent
from regstore.backup.opening import is_sound_pack, is_temporary, prepare
from regstore.backup.options import CreateOptions, refuse_unmatched
from regstore.backup.packing import PackFile, Packing
from regstore.backup.source import Source
from regstore.concurrency import in_thread
from regstore.digest import Digest
from regstore.errors import IntegrityError, NotARegistry, NotFound
from regstore.events import Event, OnEvent, Progress, ignore
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions
from regstore.state import new_run, started_at
from regstore.storage.base import Page, Storage
from regstore.storage.identity import place_of
from regstore.storage.optional import keep_private
from regstore.storage.sizes import WHOLE
from regstore.storage.transfer import Room, each_blob, in_order, road_to

#: Times that links are read again because a blob has vanished, before what needs it is left out.
_ROUNDS: Final = 5


@dataclass(kw_only=True)
class CreateResult:
    """What a run did. new_…: blobs copied; packs: written; begins: whether the backup is new. Sizes in bytes, time in
    seconds."""

    snapshot: Snapshot
    key: str
    packs: int = 0
    unchanged: int = 0
    reread: int = 0
    seconds: float = 0.0
    begins: bool = False
    damaged: list[str] = field(default_factory=list)

    @property
    def partial(self) -> bool:
        return bool(self.snapshot.left_out)


async def create(
    source: Storage,
    backup: Storage,
    options: CreateOptions | None = None,
    *,
    scanning: ScanOptions | None = None,
    on_event: OnEvent = ignore,
) -> CreateResult:
    """Take a snapshot of `source` in `backup`, which is made where the place is empty. Only reads `source`: a folder
    that has an ID (`regstore.storage.identity.keep_id`) is told by that, another by its computer and path.

    Every tag in the snapshot has a value that it held during the run, and is complete; across repositories there is
    no single moment. What was broken at the source is left out and named (`CreateResult.partial`). Raises LockHeld
    while a prune is under way, Refused where the metadata is in a database (`inventory.whose`: a pack holds what a
    repository's links reach, so there is no place in a backup for a blob that nothing links), and whatever else
    goes wrong, in the backup, on the way or at the source as a whole; nothing is published then, what was copied
    stays, and the next run goes on from it.
    """
    options = options or CreateOptions()
    scanning = scanning or ScanOptions.default()
    began = time.monotonic()
    keep_private(backup)
    begins = await prepare(backup, options.put, first=lambda: check_source(source, options))
    begun = await backup.now()
    ahead = await _ahead(backup, begun)
    near = max((run for run in ahead if started_at(run) <= begun + SKEW), default="")
    if near:  # the order of snapshots does not depend on which server's clock was asked
        begun = max(begun, started_at(near))
    run = new_run(begun, after=near)
    after = tuple(run for run in ahead if run > near and started_at(run) > begun + SKEW)
    place = await place_of(source)
    async with hold_intent(backup, run, lease=options.lease, put=options.put) as intent:
        with Inventory(scanning.inventory, memory_limit=scanning.memory_limit) as inventory:
            creating = _Run(source, backup, inventory, options, scanning, intent, on_event)
            result = await creating.create(begun, place, after)
    result.seconds, result.begins = time.monotonic() - began, begins
    return result


async def check_source(source: Storage, options: CreateOptions) -> None:
    """Before anything is made for its backup: NotARegistry where it is empty, whatever keeps it from being listed, and
    InputError for a pattern that matches nothing. One page, or with patterns all links."""
    page = await anext(source.list(layout.PREFIX), None)
    if page is None or not page.keys:
        raise _no_registry(source)
    if not (options.repositories or options.tags):
        return
    names: set[str] = set()
    tags: set[str] = set()
    async for page in source.list(layout.REPOSITORIES):
        for key in map(layout.decode, page.keys):
            if isinstance(key, layout.TagCurrentKey | layout.RevisionLinkKey | layout.LayerLinkKey):
                names.add(key.name)
                wanted = not options.repositories or any(fnmatchcase(key.name, one) for one in options.repositories)
                if wanted and isinstance(key, layout.TagCurrentKey):
                    tags.add(key.tag)
    if names:
        refuse_unmatched("repository", options.repositories, names, source.url)
        refuse_unmatched("tag", options.tags, tags, source.url)


def _no_registry(source: Storage) -> NotARegistry:
    return NotARegistry(
        f"{source.url} has nothing of a registry: no key below {layout.PREFIX} "
        "(is the root directory part of the URL?)"
    )


async def _ahead(backup: Storage, begun: int) -> list[str]:
    """The snapshots of the second in which this one begins, and those dated later, in their order."""
    second = new_run(begun)[:16]
    return [
        run
        async for page in backup.list(form.SNAPSHOTS, start_after=form.SNAPSHOTS + second)
        for key in page.keys
        if (run := form.parse_snapshot_key(key)) is not None
    ]


class _Run:
    def __init__(
        self,
        source: Storage,
        backup: Storage,
        inventory: Inventory,
        options: CreateOptions,
        scanning: ScanOptions,
        intent: Intent,
        on_event: OnEvent,
    ) -> None:
        self._storage = source
        self._backup = backup
        self._inventory = inventory
        self._options = options
        self._intent = intent
        self._on_event = on_event
        self._source = Source(source, inventory, scanning, options, on_event)
        self._copying = Copying(source, backup, inventory, options, scanning.runner, on_event)
        self._packing = Packing(inventory)
        self._kept_packs: dict[str, tuple[int, str]] = {}
        #: The sizes of the packs that the snapshot names, as they are stored.
        self._pack_sizes: dict[str, int] = {}
        self._packs = self._reread = 0

    async def create(self, begun: int, place: str, after: tuple[str, ...]) -> CreateResult:
        self._inventory.execute("create table backup_blob (digest blob not null, size bigint not null)")
        await self._list_backup()
        await self._source.load()
        if not self._inventory.key_count() and not await self._is_new():
            raise _no_registry(self._storage)
        await self._copy_all()
        await self._write_packs()
        await self._prove_all_there()
        snapshot = self._snapshot(begun, place, after)
        body = form.encode_snapshot(snapshot)
        key = form.snapshot_key(snapshot.run, body)
        await self._intent.publish(key, body)
        return CreateResult(
            snapshot=snapshot,
            key=key,
            packs=self._packs,
            unchanged=len(self._packing.summaries) - self._packs,
            reread=self._reread,
            damaged=self._copying.damaged,
        )

    async def _is_new(self) -> bool:
        """A store that was seeded for a registry, of which nothing was ever saved. One that lost all, or whose disk is
        not mounted, has no seeds, or has blobs in its backup."""
        if self._inventory.count("backup_blob"):
            return False
        try:
            for key in layout.SEEDS:
                await self._storage.stat(layout.encode(key))
        except NotFound:
            return False
        return True

    async def _list_backup(self) -> None:
        self._inventory.execute("delete from backup_blob")
        self._kept_packs.clear()
        done = 0
        async for page in self._backup.list(form.BLOBS):
            self._take_blobs(page)
            done += len(page)
            self._on_event(Progress(phase="listing the backup", done=done))
        async for page in self._backup.list(form.PACKS):
            for info in page.objects():
                encoded = form.parse_pack_key(info.key)
                if encoded is not None:
                    self._kept_packs[encoded] = (info.size, info.etag)

    def _take_blobs(self, page: Page) -> None:
        found = [
            (digest.raw, size)
            for key, size in zip(page.keys, page.sizes, strict=True)
            if not is_temporary(key) and (digest := form.parse_blob_key(key)) is not None
        ]
        self._inventory.insert(
            "backup_blob",
            {"digest": ("binary", [raw for raw, _ in found]), "size": ("int64", [size for _, size in found])},
        )

    # -- plan and copy, until nothing vanishes any more

    async def _copy_all(self) -> None:
        names: Collection[str] = self._source.names()
        for number in range(_ROUNDS):
            await self._plan(names)
            gone = await self._copying.copy()
            suspects = self._packing.needing({*gone, *self._copying.lost, *self._copying.resized})
            self._copying.resized.clear()
            if number == 0:
                suspects |= {
                    name for name, missing in self._packing.missing.items() if missing
                } | self._packing.unlinked
            if not suspects:
                return
            missing = set(gone).union(*(self._packing.missing.get(name, frozenset()) for name in suspects))
            self._source.forget_blobs(gone)
            self._reread += len(suspects)
            await self._source.look_again(suspects, missing - self._copying.lost.keys())
            names = suspects
        # What still vanishes is left out.
        while True:
            await self._plan(names)
            gone = await self._copying.copy()
            names = self._packing.needing({*gone, *self._copying.lost, *self._copying.resized})
            self._copying.resized.clear()
            if not names:
                return
            self._copying.lost |= dict.fromkeys(gone, "is gone from the store")

    async def _plan(self, names: Collection[str]) -> None:
        """In a thread: of many millions of keys it takes minutes, and the intent must be renewed meanwhile."""
        loop = asyncio.get_running_loop()

        def tell(event: Event) -> None:
            loop.call_soon_threadsafe(self._on_event, event)

        def plan() -> None:
            self._packing.plan(sorted(names), lost=self._copying.lost, tags=self._options.tags, on_event=tell)

        await in_thread(plan)

    # -- packs, and the snapshot

    async def _write_packs(self) -> None:
        """Those that the backup lacks, no more of them in memory than there is room for."""
        road = road_to(self._backup)
        room = Room(road)

        async def one(pack: PackFile) -> None:
            if await self._has_pack(pack):
                self._pack_sizes[pack.encoded] = self._kept_packs[pack.encoded][0]
            else:
                async with room.of(pack.size):
                    await self._write_pack(pack)

        packs = in_order(list(self._packing.packs.values()), lambda pack: pack.size)
        await each_blob(road, packs, one, concurrency=self._options.concurrency)

    async def _write_pack(self, pack: PackFile) -> None:
        key = form.pack_key(pack.encoded)
        if pack.size <= WHOLE:
            await self._backup.put(key, pack.read(), options=self._options.put)
        else:
            await self._backup.put_stream(key, pack.stream(), size=pack.size, options=self._options.put)
        self._pack_sizes[pack.encoded] = pack.size
        self._packs += 1

    async def _has_pack(self, pack: PackFile) -> bool:
        """Whether it is in the backup, undamaged: packs are shared by later snapshots, so one that rotted must not be
        taken for granted. Where LIST does not prove it, it is read."""
        kept = self._kept_packs.get(pack.encoded)
        if kept is None:
            return False
        return kept == (pack.size, pack.md5) or await is_sound_pack(self._backup, pack.encoded)

    async def _prove_all_there(self) -> None:
        """By a listing, also of what was there before: a run may take a day, or sleep one, and what it found at its
        beginning is then no proof of anything. IntegrityError otherwise."""
        await self._list_backup()
        lacking = self._inventory.all(
            "select distinct n.digest from backup_need n"
            " anti join backup_blob b on b.digest = n.digest and b.size = n.size limit 1"
        )
        needed = {summary.pack for summary in self._packing.summaries.values()}
        packs = sorted(
            pack for pack in needed if self._kept_packs.get(pack, (None, ""))[0] != self._pack_sizes[pack]
        )
        if lacking or packs:
            what = f"blob {Digest.from_raw(bytes(lacking[0][0]))}" if lacking else f"pack {packs[0]}"
            raise IntegrityError(
                f"{what} was in {self._backup.url} in this run, and is not listed there with its size now; no "
                "snapshot was published: does something else delete there? Run create again"
            )

    def _snapshot(self, begun: int, place: str, after: tuple[str, ...]) -> Snapshot:
        blobs, size = self._inventory.all(
            "select count(*), coalesce(sum(size), 0)::bigint from"
            " (select digest, any_value(size) as size from backup_need group by digest)"
        )[0]
        return Snapshot(
            run=self._intent.run,
            begun=begun,
            source=self._storage.url,
            place=place,
            after=after,
            repository_patterns=self._options.repositories,
            tag_patterns=self._options.tags,
            repositories=self._packing.summaries,
            blobs=blobs,
            bytes=size,
            new_blobs=self._copying.new_blobs,
            new_bytes=self._copying.new_bytes,
            left_out=tuple(sorted(one for some in self._packing.left_out.values() for one in some)),
        )
