"""One run of gc on a store: scan, heal, plan, and the application of the plan, safe while the registry serves.

    async with open_run(storage, options) as run:      # a dry run: nothing is written
        print(run.summary)

    async with hold_lock(storage, command="gc") as lock, open_run(storage, options, lock) as run:
        report = await run.apply()

Where each part stands: what is read before the plan, and the plan (`gc.planning`); what a run with the lock heals
before it plans (`gc.begin`); what stops a plan (`gc.stops`); its application, in what order and why (`gc.apply`).

LIST passes over `repositories/`: one for the scan; while the registry serves also one before and one after the
unlinking, of the repositories that lose something only, one before blobs are moved, again whenever that takes longer
than some minutes, and one after `settle`; and one of the tags of repositories that lose tags (`state.pushed_again`).
One copy a blob and one DeleteObjects a thousand keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from regstore.errors import InputError, Refused
from regstore.events import OnEvent, ignore
from regstore.gc.caches import NoCache, RegistryCache
from regstore.gc.counts import count_inventory
from regstore.gc.plan import GcSummary
from regstore.gc.planning import Planned, compare_with_last_run, make_plan, require_registry
from regstore.gc.run_options import GcRunOptions
from regstore.gc.stops import refuse_symbolic_links, stops
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import scan
from regstore.inventory.whose import Use, refuse_database
from regstore.state.counts import Counts, write_counts
from regstore.storage.base import Storage

if TYPE_CHECKING:
    from regstore.gc.begin import Begun
    from regstore.gc.heal import Healed
    from regstore.gc.report import GcReport
    from regstore.state.lock import Lock
    from regstore.state.trashed import TrashedRun

__all__ = ["GcRun", "GcRunOptions", "open_run", "require_registry"]


@asynccontextmanager
async def open_run(
    storage: Storage,
    options: GcRunOptions,
    lock: Lock | None = None,
    *,
    cache: RegistryCache | None = None,
    on_event: OnEvent = ignore,
) -> AsyncIterator[GcRun]:
    """Scan and plan. With a lock, what earlier runs left is healed first; without, nothing is written at all.

    cache: the registry's descriptor cache; one that is not known counts as one in its memory.
    NotARegistry where neither blobs nor repositories are.
    """
    cache = cache or NoCache("unknown")
    async with scan(storage, options.scan, on_event=on_event) as inventory:
        if lock is not None:
            refuse_database(storage.url, _database(inventory, options), Use.REMOVE)
        before = await compare_with_last_run(storage, inventory, options)
        if lock is not None and before.forgets_last:
            await write_counts(storage, before.now)
        refuse_symbolic_links(storage)
        begun = None
        if lock is not None:
            from regstore.gc.begin import begin

            begun = await begin(storage, inventory, options, lock, cache, on_event)
        planned = Planned(
            storage=storage,
            inventory=inventory,
            options=options,
            cache=cache,
            before=before,
            summary=await make_plan(storage, inventory, options, before, on_event=on_event),
            on_event=on_event,
        )
        yield GcRun(planned, begun)


class GcRun:
    """A planned run; made by `open_run`, and of use within it. With the lock it can be applied, once."""

    def __init__(self, planned: Planned, begun: Begun | None) -> None:
        self._planned = planned
        self._begun = begun
        self._applied = False

    @property
    def inventory(self) -> Inventory:
        """The scan, with the plan's tables (`gc.plan`)."""
        return self._planned.inventory

    @property
    def summary(self) -> GcSummary:
        """The plan in numbers."""
        return self._planned.summary

    @property
    def healed(self) -> Healed:
        """What came back before the plan was made."""
        from regstore.gc.heal import Healed

        return self._begun.healed if self._begun is not None else Healed()

    @property
    def expired(self) -> list[TrashedRun]:
        """Older runs whose trash is emptied with this one; none without the lock."""
        return self._begun.freeing.expired if self._begun is not None else []

    @property
    def overdue(self) -> tuple[str, ...]:
        """Older runs that would be, but the registry's cache may still answer for what they took."""
        return self._begun.freeing.overdue if self._begun is not None else ()

    @property
    def nothing_to_do(self) -> bool:
        """Neither in the plan, nor in the trash."""
        return self.summary.nothing_to_do and not self.expired

    @property
    def database(self) -> str:
        """What says that the registry's metadata is in a database; "" where nothing does."""
        return _database(self._planned.inventory, self._planned.options)

    @property
    def stops(self) -> list[str]:
        """Why `apply` refuses the plan."""
        return stops(self.summary, self._planned.options)

    def check(self) -> None:
        """Refused where something stops it."""
        if found := self.stops:
            raise Refused("; ".join(found))

    async def apply(self) -> GcReport:
        """Carry the plan out, once. Interrupted at any point, the next run finishes or begins again."""
        begun = self._locked()
        if self._applied:
            raise InputError("a plan is applied once; open a new run")
        self._applied = True
        self.check()
        return await self._carry_out(begun)

    async def _carry_out(self, begun: Begun) -> GcReport:
        from regstore.gc.apply.steps import apply_plan

        return await apply_plan(self._planned, begun)

    def _count(self, runs: Collection[str], chosen: Collection[str]) -> Counts:
        """What stands, as long as nothing of the plan went."""
        return count_inventory(self.inventory, runs=runs, chosen=chosen)

    async def rest(self) -> GcReport:
        """Instead of `apply` where nothing is to do: no run is written, but what earlier ones left may wait for a
        restart."""
        from regstore.gc.apply.finish import rest

        return await rest(self._planned, self._locked())

    async def remember(self) -> None:
        """That this run has come to its end without a change, for the next one to compare with. Written where it is not
        what the last one has left."""
        before = self._planned.before
        now = self._count(before.now.runs, before.now.chosen)
        if now != before.last and self._begun is not None:
            await write_counts(self._planned.storage, now)

    def _locked(self) -> Begun:
        if self._begun is None:
            raise InputError("a run without the store's lock can't be applied")
        return self._begun


def _database(inventory: Inventory, options: GcRunOptions) -> str:
    return inventory.database or options.database
