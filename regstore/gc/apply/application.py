"""What every step of an applied plan is given, whole from the beginning: `Work` where links go, `Application` where
gc's own plan is applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from regstore.events import OnEvent
from regstore.gc.caches import RegistryCache
from regstore.gc.failures import Failures
from regstore.gc.freeing import Freeing
from regstore.gc.heal import Healed, give_back, heal_by
from regstore.gc.past import Past
from regstore.gc.plan import GcSummary
from regstore.gc.run_options import GcRunOptions
from regstore.inventory.inventory import Inventory
from regstore.inventory.manifests import ReadsManifests
from regstore.inventory.scan import ScanOptions
from regstore.state.journal import Journal, JournalWriter
from regstore.state.lock import Leave, Lock
from regstore.storage.base import Storage

#: Keys that are journaled, and then change, together.
BATCH: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Work:
    """A plan of links that go, being applied: made when the store's lock is held and the run's journal has begun.

    inventory: the plan's tables, and the scan that they were made of. scan: how later looks are made. offline: nothing
    but this run changes the store. blobs_listed: the inventory holds them. failures: gets what the store would not do.
    """

    storage: Storage
    inventory: Inventory
    scan: ScanOptions
    offline: bool
    blobs_listed: bool = True
    lock: Leave
    journal: JournalWriter
    cache: RegistryCache
    failures: Failures
    on_event: OnEvent

    @property
    def concurrency(self) -> int:
        return self.scan.concurrency

    @property
    def now(self) -> int:
        """When the scan began, by the store's clock: what every age is judged by, also in later looks."""
        return self.inventory.scanned_at

    async def give_back(self, look: Inventory, scanner: ReadsManifests) -> Healed:
        """What a later look, which has `gc.past`'s relations, shows to be needed."""
        return await give_back(self.storage, look, scanner, self.lock, concurrency=self.concurrency)


@dataclass(frozen=True, kw_only=True)
class Application(Work):
    """A plan of gc. The inventory's `blob` is kept up to date with what goes. freeing: gets what turns out to be needed
    of older runs' trash."""

    lock: Lock
    journal: Journal
    options: GcRunOptions
    summary: GcSummary
    freeing: Freeing

    async def heal(self, past: Past, look: Inventory, scanner: ReadsManifests) -> Healed:
        """What a later look at all links, or at those of the repositories that the past is about, shows to be needed of
        all runs. The past is judged by it."""
        healed = await heal_by(past, self.storage, look, scanner, self.lock, concurrency=self.concurrency)
        await self.freeing.hold_for_unread(look)
        return healed
