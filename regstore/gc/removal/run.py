"""One removal: look at the repositories named, plan, apply, safe while the registry serves.

Blobs are not listed. Once to plan, and once before and once after the unlinking, the links of the repositories named
are; where revisions went, once more after `settle`: what was pushed meanwhile, and needs one of them, gets it back. A
push that stalls for longer gets it from the next gc (`gc.heal`), as long as the run's journal is kept.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from regstore import layout
from regstore.concurrency import in_thread, wait
from regstore.errors import InputError
from regstore.events import OnEvent, ignore
from regstore.gc.apply.application import Work
from regstore.gc.apply.going import SLICE
from regstore.gc.apply.looks import refuse_database_now
from regstore.gc.apply.unlink import Unlinked, Unlinking
from regstore.gc.caches import NoCache, RegistryCache
from regstore.gc.children import read_children
from regstore.gc.failures import Failures, try_deleting
from regstore.gc.heal import Healed
from regstore.gc.past import Past
from regstore.gc.plan import Step
from regstore.gc.removal.named import Named
from regstore.gc.removal.nested import find_nested
from regstore.gc.removal.plan import RepositoryRemoval, plan_again, plan_removal
from regstore.gc.stops import refuse_symbolic_links
from regstore.inventory.inventory import Inventory, digest_text
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.layout import RevisionLinkKey, TagCurrentKey, TagIndexKey
from regstore.state.journal import GIVEN_BACK, Journal, read_parts, write_seen
from regstore.state.lock import Lock
from regstore.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class RemovalOptions:
    """command: as locks, journals and lists name the run. settle in seconds."""

    command: str = "rm"
    scan: ScanOptions = field(default_factory=ScanOptions.default)
    settle: float = 5.0


@dataclass(frozen=True, kw_only=True)
class RemovalReport:
    """What went, by number: tags (each with its history), revisions, signature links. kept_back: how many keys had
    changed, or were in use; kept: the tags and images of these, REPO:TAG and REPO@DIGEST. given_back: links that
    somebody needed while they went, and tags that were pushed as they went, by key. failures: the store's words."""

    run: str
    tags: int = 0
    revisions: int = 0
    signatures: int = 0
    kept_back: int = 0
    kept: tuple[str, ...] = ()
    given_back: tuple[str, ...] = ()
    seconds: float = 0.0
    failures: tuple[str, ...] = ()

    @property
    def nothing_went(self) -> bool:
        return not (self.tags or self.revisions or self.signatures)


@asynccontextmanager
async def open_removal(
    storage: Storage,
    named: Named,
    options: RemovalOptions | None = None,
    lock: Lock | None = None,
    *,
    cache: RegistryCache | None = None,
    on_event: OnEvent = ignore,
) -> AsyncIterator[Removal]:
    """Look and plan. Without a lock nothing is written at all.

    cache: the registry's descriptor cache; one that is not known counts as one in its memory.
    TagUnknown, ManifestUnknown or NameUnknown where something is not there; Refused where something must not go.
    """
    options = options or RemovalOptions()
    await refuse_database_now(storage)
    with Inventory(memory_limit=options.scan.memory_limit) as inventory:
        inventory.scanned_at = await storage.now()
        scanner = Scanner(storage, inventory, options.scan, on_event)
        await scanner.list_repositories(named.names)
        refuse_symbolic_links(storage)
        if named.needs_manifests:
            await scanner.read_manifests()
            await read_children(storage, inventory, scanner, concurrency=options.scan.concurrency)
        nested = {name: await find_nested(storage, name) for name in sorted(named.repositories)}
        planned = await in_thread(lambda: plan_removal(inventory, named, url=storage.url, nested=nested))
        yield Removal(
            storage=storage,
            inventory=inventory,
            named=named,
            options=options,
            repositories=[replace(one, nested=tuple(nested.get(one.name, ()))) for one in planned],
            lock=lock,
            cache=cache or NoCache("unknown"),
            on_event=on_event,
        )


class Removal:
    """A planned one; made by `open_removal`, and of use within it. With the lock it can be applied, once."""

    def __init__(
        self,
        *,
        storage: Storage,
        inventory: Inventory,
        named: Named,
        options: RemovalOptions,
        repositories: Sequence[RepositoryRemoval],
        lock: Lock | None,
        cache: RegistryCache,
        on_event: OnEvent,
    ) -> None:
        #: What goes, a repository after the other.
        self.repositories: Final = tuple(repositories)
        self._storage = storage
        self._inventory = inventory
        self._named = named
        self._options = options
        self._lock = lock
        self._cache = cache
        self._on_event = on_event

    async def apply(self) -> RemovalReport:
        """Carry it out, once. Cut short at any point, it can be asked for again, or undone."""
        lock, self._lock = self._lock, None
        if lock is None:
            raise InputError("a removal is applied once, and with the store's lock")
        started = time.monotonic()
        await refuse_database_now(self._storage)  # the plan may have waited for somebody's yes
        journal = await self._begin(lock)
        work = self._work(lock, journal)
        unlinked = await Unlinking(work, self._plan_again, manifests=self._named.needs_manifests).run()
        settled = await self._settle(work) if unlinked.steps[Step.REVISION] else Healed()
        return await self._end(work, journal, unlinked, settled, time.monotonic() - started)

    async def _begin(self, lock: Lock) -> Journal:
        await try_deleting(self._storage, f"{layout.RUNS}{lock.run}/none")
        journal = Journal(self._storage, lock.run)
        await journal.begin(
            {"command": self._options.command, "cache": self._cache.known.kind, "names": self._names()}
        )
        return journal

    def _work(self, lock: Lock, journal: Journal) -> Work:
        return Work(
            storage=self._storage,
            inventory=self._inventory,
            scan=self._options.scan,
            offline=False,
            blobs_listed=False,
            lock=lock,
            journal=journal,
            cache=self._cache,
            failures=Failures(self._storage.url),
            on_event=self._on_event,
        )

    def _names(self) -> list[str]:
        named = self._named
        return sorted(
            [f"{name}:{tag}" for name, tag in named.tags]
            + [f"{name}@{digest}" for name, digest in named.revisions]
            + list(named.repositories)
        )

    async def _plan_again(self, look: Inventory) -> None:
        await in_thread(lambda: plan_again(look, self._named))

    async def _settle(self, work: Work) -> Healed:
        """A while later, give back what somebody needed while it went; and let the registry's cache forget once more
        what a request that was under way may have told it again."""
        await wait(self._options.settle, "waiting for pushes under way", self._on_event)
        await self._forget()
        look = self._inventory.child()
        try:
            scanner = Scanner(self._storage, look, self._options.scan)
            await scanner.list_repositories(self._named.names)
            await scanner.read_manifests()
            past = Past(look, [])  # its relations; no other run's past counts here
            async for entries in read_parts(self._storage, work.journal.parts):
                past.add_removed(work.lock.run, entries)
            return await work.give_back(look, scanner)
        finally:
            look.close()

    async def _forget(self) -> None:
        if not self._cache.in_reach:
            return
        cursor = self._inventory.connection.cursor()
        rows = cursor.execute(
            "select r.name, u.digest from main.gc_unlink u join main.repository r on r.id = u.repository"
            f" where u.step = {Step.REVISION}"
        )
        while links := rows.fetchmany(SLICE):
            await self._cache.forget_links((name, digest_text(raw)) for name, raw in links)
        cursor.close()

    async def _end(
        self, work: Work, journal: Journal, unlinked: Unlinked, settled: Healed, seconds: float
    ) -> RemovalReport:
        run = work.lock.run
        links = sorted({*unlinked.healed.links, *settled.links})
        report = RemovalReport(
            run=run,
            tags=unlinked.steps[Step.TAG],
            revisions=unlinked.steps[Step.REVISION],
            signatures=unlinked.steps[Step.SIGNATURE],
            kept_back=unlinked.kept,
            kept=tuple(sorted({word for key in unlinked.kept_keys if (word := _word(key))})),
            given_back=(*links, *unlinked.tags_back),
            seconds=seconds,
            failures=work.failures.lines(),
        )
        if links:
            await write_seen(self._storage, run, run, links, GIVEN_BACK)
        told = (
            self._cache.in_reach or self._cache.known.kind != "redis"
        )  # of one out of reach another run sees to it
        done: dict[str, Any] = {**asdict(report), "cache": self._cache.known.kind if told else "unknown"}
        await journal.end(done)
        return report


def _word(text: str) -> str:
    """The tag or the image that a link is of; "" of another key."""
    key = layout.decode(text)
    if isinstance(key, TagCurrentKey | TagIndexKey):
        return f"{key.name}:{key.tag}"
    return f"{key.name}@{key.digest}" if isinstance(key, RevisionLinkKey) else ""
