"""Heal: give back what an earlier step took and what is referenced again.

- A blob that anything names, that is gone and lies in some run's trash, is copied back (never moved), once its copy
  is read and has its digest, and its manifest read, to a fixpoint.
- A link that a journal says we removed from a repository comes back, with the journaled body, when that repository
  needs it (`gc.claims`): a layer link is a right to read, so no other missing link is ever made. A removal that was
  undone since (`gc.past`) is no longer ours to undo: whoever removed the link next meant it.
- What a run that was cut short, or was not told the outcome of all that it sent, had asked the store to delete may yet
  go, even after it was seen to stand. So for a day, its removals stay ours to undo; and where it took a tag's
  current/link, and an index link shows that the tag was pushed since, the tag gets it back: until a gc that began
  after that day has come to its end.

Nothing that stands is overwritten.

What comes back is planned and given back round by round, for what one round gives back shows what the next one must
(`gc.heal_plan`): tags first, for these name manifests; then blobs; then links, a layer's before a revision's, for the
time of a revision's link says that its layers were there. `plan_heal` goes the same rounds and only reads: the copies,
as they lie in the trash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from regstore import layout
from regstore.concurrency import for_each, in_thread
from regstore.errors import NotFound
from regstore.events import OnEvent, ignore
from regstore.gc.caches import NoCache, RegistryCache
from regstore.gc.claims import LinkBack
from regstore.gc.copying_back import copy_back, is_whole
from regstore.gc.forgetting import forget_past
from regstore.gc.heal_plan import CopyBack, HealPlan, TagBack
from regstore.gc.past import Past
from regstore.gc.plan import Step
from regstore.gc.stops import refuse_symbolic_links
from regstore.inventory.inventory import Inventory
from regstore.inventory.manifests import ReadsManifests
from regstore.inventory.scan import Scanner, ScanOptions, scan
from regstore.inventory.tag_times import TagTimes
from regstore.state.journal import find_runs
from regstore.state.lock import Leave, Lock
from regstore.storage.base import Storage
from regstore.storage.transfer import READ, each_blob, in_order
from regstore.tagging import put_missing


@dataclass(frozen=True, kw_only=True)
class HealOptions:
    scan: ScanOptions = field(default_factory=ScanOptions.default)


@dataclass(frozen=True, kw_only=True)
class Healed:
    """What came back: blobs by digest, links by key. damaged: keys of copies in the trash that were wanted, and have
    other bytes than their digest says; they stay where they are."""

    blobs: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        return not self.blobs and not self.links

    def __add__(self, other: Healed) -> Healed:
        return Healed(
            blobs=self.blobs + other.blobs,
            links=self.links + other.links,
            damaged=tuple(sorted({*self.damaged, *other.damaged})),
        )


async def plan_heal(storage: Storage, options: HealOptions, *, on_event: OnEvent = ignore) -> Healed:
    """What `heal_store` would give back. Nothing is written."""
    async with scan(storage, options.scan, on_event=on_event) as inventory:
        refuse_symbolic_links(storage)
        await Past.load(storage, inventory)
        scanner = Scanner(storage, inventory, options.scan, on_event)
        reading = _Reading(storage, scanner.stored_at)
        return await _heal(storage, inventory, scanner, reading, concurrency=options.scan.concurrency)


async def heal_store(
    storage: Storage,
    options: HealOptions,
    lock: Lock,
    *,
    cache: RegistryCache | None = None,
    on_event: OnEvent = ignore,
) -> Healed:
    """Scan, and give back what is referenced and gone; the registry's Redis forgets what went and stays gone."""
    cache = cache or NoCache("unknown")
    async with scan(storage, options.scan, on_event=on_event) as inventory:
        healed = await heal_all(storage, inventory, options.scan, lock, on_event)
        await forget_past(inventory, cache, await find_runs(storage))
        return healed


async def heal_all(
    storage: Storage, inventory: Inventory, options: ScanOptions, lock: Lock, on_event: OnEvent
) -> Healed:
    """Give back whatever a fresh inventory of the whole store shows to be referenced, from all runs."""
    refuse_symbolic_links(storage)
    past = await Past.load(storage, inventory)
    await past.note_seen(storage, lock)
    scanner = Scanner(storage, inventory, options, on_event)
    return await heal_by(past, storage, inventory, scanner, lock, concurrency=options.concurrency)


async def heal_by(
    past: Past, storage: Storage, inventory: Inventory, scanner: ReadsManifests, lock: Lock, *, concurrency: int
) -> Healed:
    """`give_back` of all runs: what came back is no longer theirs to claim. The past is judged by the inventory."""
    healed = await give_back(storage, inventory, scanner, lock, concurrency=concurrency)
    await past.note_given_back(storage, lock, healed.links)
    return healed


async def give_back(
    storage: Storage, inventory: Inventory, scanner: ReadsManifests, lock: Leave, *, concurrency: int
) -> Healed:
    """Heal a store by one inventory, which is kept up to date with what came back. The scanner fills that inventory,
    which holds `gc.past`'s relations."""
    hand = _Writing(storage, lock, concurrency)
    return await _heal(storage, inventory, scanner, hand, concurrency=concurrency)


class _Hand(Protocol):
    """Who carries a round out."""

    async def give_tags(self, tags: Sequence[TagBack]) -> None: ...

    async def give_blob(self, copy: CopyBack) -> int | None:
        """The size with which the blob stands; None where its copy is damaged, and so it does not."""
        ...

    async def give_links(self, links: Sequence[LinkBack]) -> None: ...


async def _heal(
    storage: Storage, inventory: Inventory, scanner: ReadsManifests, hand: _Hand, *, concurrency: int
) -> Healed:
    """To a fixpoint: a blob that comes back may be a manifest that names more."""
    plan = HealPlan(inventory)
    healed = Healed()
    if tags := plan.tags():
        await hand.give_tags(tags)
        plan.tags_stand(tags)
        await scanner.read_manifests()
        healed = Healed(links=tuple(tag.key for tag in tags))
    while True:
        blobs, stood = await _heal_blobs(storage, plan, scanner, hand, concurrency=concurrency)
        links = await in_thread(plan.links)
        if links:
            await hand.give_links(links)
            plan.links_stand(links, now=await storage.now())
            await scanner.read_manifests()
        step = blobs + Healed(links=tuple(link.key for link in links))
        healed += step
        if step.nothing and not stood and not step.damaged:  # there may be an older copy of what is damaged
            return healed


async def _heal_blobs(
    storage: Storage, plan: HealPlan, scanner: ReadsManifests, hand: _Hand, *, concurrency: int
) -> tuple[Healed, bool]:
    """What was given back; and whether any was found to stand that the inventory lacked."""
    standing: list[tuple[CopyBack, int]] = []
    given: list[str] = []
    damaged: list[str] = []

    async def give(copy: CopyBack) -> None:
        try:
            size: int | None = (await storage.stat(layout.blob_key(copy.digest))).size
        except NotFound:
            size = await hand.give_blob(copy)
            if size is not None:
                given.append(str(copy.digest))
        if size is None:
            damaged.append(copy.key)
        else:
            standing.append((copy, size))

    blobs = in_order(await in_thread(plan.blobs), lambda copy: copy.size)
    await each_blob(READ, blobs, give, concurrency=concurrency)
    if damaged:
        plan.copies_are_damaged(damaged)
    if standing:
        plan.blobs_stand(standing, now=await storage.now())
        await scanner.read_manifests()
    return Healed(blobs=tuple(sorted(given)), damaged=tuple(damaged)), len(standing) > len(given)


class _Writing:
    """Gives back, with the lock held."""

    def __init__(self, storage: Storage, lock: Leave, concurrency: int) -> None:
        self._storage = storage
        self._lock = lock
        self._concurrency = concurrency

    async def give_tags(self, tags: Sequence[TagBack]) -> None:
        times = TagTimes(self._storage, "heal")
        async with times.setting([times.line(tag.name, tag.tag, tag.digest, tag.mtime) for tag in tags]):
            for tag in tags:
                async with self._lock.batch():
                    await put_missing(self._storage, tag.key, tag.body, since=tag.mtime)

    async def give_blob(self, copy: CopyBack) -> int | None:
        await self._lock.guard()  # a copy takes nothing away, and a large one takes its time
        given = await copy_back(self._storage, copy.key, copy.digest, size=copy.size)
        return copy.size if given else None

    async def give_links(self, links: Sequence[LinkBack]) -> None:
        async def give(link: LinkBack) -> None:
            async with self._lock.batch():
                await put_missing(self._storage, link.key, link.body)

        for step in (Step.LAYER, Step.REVISION):
            await for_each([link for link in links if link.step is step], give, concurrency=self._concurrency)


class _Reading:
    """Gives nothing back, and reads what would be. copies: gets the keys of the good ones, by digest."""

    def __init__(self, storage: Storage, copies: dict[bytes, str]) -> None:
        self._storage = storage
        self._copies = copies

    async def give_tags(self, tags: Sequence[TagBack]) -> None:
        return

    async def give_blob(self, copy: CopyBack) -> int | None:
        if not await is_whole(self._storage, copy.key, copy.digest, size=copy.size):
            return None
        self._copies[copy.raw] = copy.key
        return copy.size

    async def give_links(self, links: Sequence[LinkBack]) -> None:
        return
