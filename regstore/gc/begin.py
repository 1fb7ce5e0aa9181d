"""What a run that holds the store's lock does before it plans: it gives back what earlier runs left to give back, so
that the plan is made of what stands then, and looks which of their trash may go."""

from __future__ import annotations

from dataclasses import dataclass

from regstore.events import OnEvent
from regstore.gc.caches import RegistryCache
from regstore.gc.forgetting import forget_past
from regstore.gc.freeing import Freeing, find_freeing
from regstore.gc.heal import Healed, heal_by
from regstore.gc.past import Past
from regstore.gc.reported import leave_trashed
from regstore.gc.run_options import GcRunOptions
from regstore.inventory.inventory import Inventory
from regstore.inventory.manifests import ReadsManifests
from regstore.inventory.scan import Scanner
from regstore.state.lock import Lock
from regstore.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A run that holds the lock. healed: what came back; freeing: what of older runs' trash goes with this run."""

    lock: Lock
    healed: Healed
    freeing: Freeing


async def begin(
    storage: Storage,
    inventory: Inventory,
    options: GcRunOptions,
    lock: Lock,
    cache: RegistryCache,
    on_event: OnEvent,
) -> Begun:
    """The inventory is a scan of the whole store, made with the lock held; it is kept up to date with what comes
    back. In this order: what stands again is noted first, for a link that this run itself gives back proves nothing
    of who wanted it; and the cache forgets what went before anything of it comes back."""
    past = await Past.load(storage, inventory)
    leave_trashed(inventory)
    scanner = Scanner(storage, inventory, options.scan, on_event)
    return await begin_by(past, storage, inventory, scanner, options, lock, cache)


async def begin_by(
    past: Past,
    storage: Storage,
    inventory: Inventory,
    scanner: ReadsManifests,
    options: GcRunOptions,
    lock: Lock,
    cache: RegistryCache,
) -> Begun:
    """The same by an inventory of the whole store, or of those of its repositories that the past is about: it is
    judged."""
    await past.note_seen(storage, lock)
    await forget_past(inventory, cache, past.records)
    healed = await heal_by(past, storage, inventory, scanner, lock, concurrency=options.scan.concurrency)
    freeing = await find_freeing(storage, cache, options, run=lock.run)
    await freeing.hold_for_unread(inventory)
    return Begun(lock=lock, healed=healed, freeing=freeing)
