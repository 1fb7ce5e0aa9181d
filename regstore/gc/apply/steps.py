"""The application of a plan: its steps, one after the other. Their order, and the reasons for it: `gc.apply`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from regstore.gc.apply.application import Application
from regstore.gc.apply.finish import Outcome, finish
from regstore.gc.apply.leftovers import forget_run, remove_folders, remove_outer_litter
from regstore.gc.apply.looks import refuse_database_now
from regstore.gc.apply.planning_again import planning_again
from regstore.gc.apply.sweep import Sweep, Swept
from regstore.gc.apply.unlink import Unlinked, Unlinking
from regstore.gc.begin import Begun
from regstore.gc.counts import count_left
from regstore.gc.failures import Failures, try_deleting
from regstore.gc.heal import Healed
from regstore.gc.planning import Planned
from regstore.gc.report import GcReport
from regstore.gc.trash import Emptied, empty_runs, without_damaged
from regstore.state import RUNS
from regstore.state.counts import Counts
from regstore.state.journal import Journal


class Hands(Protocol):
    """Who carries out what of an application goes by all links and blobs: this process, or a cluster."""

    async def unlink(self) -> Unlinked: ...

    async def sweep(self) -> Swept:
        """After `unlink`, once."""
        ...

    async def settle(self) -> Healed:
        """The last look, `settle` seconds after `sweep`."""
        ...

    async def forget_run(self) -> None:
        """The registry's cache forgets all that this run removed, once more: a request that was under way may have told
        it of that again."""
        ...

    def count(self, outcome: Outcome, runs: Collection[str], chosen: Collection[str]) -> Counts:
        """What the run leaves in the store."""
        ...


class OwnHands:
    """This process, by the application's inventory of the whole store."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._sweep: Final = Sweep(application)

    async def unlink(self) -> Unlinked:
        application = self._application
        return await Unlinking(application, planning_again(application, application.options.plan)).run()

    async def sweep(self) -> Swept:
        return await self._sweep.run()

    async def settle(self) -> Healed:
        return await self._sweep.settle()

    async def forget_run(self) -> None:
        await forget_run(self._application)

    def count(self, outcome: Outcome, runs: Collection[str], chosen: Collection[str]) -> Counts:
        return count_left(self._application.inventory, runs=runs, chosen=chosen, gone_links=outcome.unlinked.links)


async def apply_plan(planned: Planned, begun: Begun, hands: Callable[[Application], Hands] = OwnHands) -> GcReport:
    """Carry the plan out, once. Interrupted at any point, the next run finishes or begins again."""
    started = time.monotonic()
    await refuse_database_now(planned.storage)  # the plan may have waited for somebody's yes
    application = await _open(planned, begun)
    work = hands(application)
    counters = planned.storage.counters
    repeated = counters.repeated_deletes
    unlinked = await work.unlink()
    swept = await work.sweep()
    changed = unlinked.anything_but_litter or swept.blobs or begun.freeing.expired
    # A process that was lost may have taken, beside the one that was told of, what that one found gone.
    changed = changed or counters.repeated_deletes > repeated
    settled = await work.settle() if changed and not planned.options.offline else Healed()
    litter = await remove_outer_litter(application)
    await work.forget_run()
    emptied = await _empty(application, begun.healed + unlinked.healed + settled + swept.healed)
    outcome = Outcome(
        healed=begun.healed,
        unlinked=unlinked,
        swept=swept,
        settled=settled,
        litter=litter,
        emptied=emptied,
        folders=await remove_folders(application),
        seconds=time.monotonic() - started,
    )
    return await finish(application, outcome, planned.before, partial(work.count, outcome))


async def _open(planned: Planned, begun: Begun) -> Application:
    """The run's journal begins; AccessDenied, and no journal, where the store permits no deletes."""
    await try_deleting(planned.storage, f"{RUNS}{begun.lock.run}/none")
    journal = Journal(planned.storage, begun.lock.run)
    plan = planned.options.plan
    await journal.begin(
        {
            "command": "gc",
            "cache": planned.cache.known.kind,
            "delete_untagged": plan.delete_untagged,
            "rules": [rule.name for rule in plan.policy.rules] if plan.policy else [],
            "drop_broken": [str(scope) for scope in plan.drop_broken],
            "grace_seconds": plan.grace // 1_000_000,
            "offline": planned.options.offline,
            "planned_blobs": planned.summary.blobs.dead,
            "planned_bytes": planned.summary.dead_blob_bytes,
        }
    )
    return Application(
        storage=planned.storage,
        inventory=planned.inventory,
        scan=planned.options.scan,
        offline=planned.options.offline,
        options=planned.options,
        summary=planned.summary,
        lock=begun.lock,
        journal=journal,
        cache=planned.cache,
        freeing=begun.freeing,
        failures=Failures(planned.storage.url),
        on_event=planned.on_event,
    )


async def _empty(application: Application, healed: Healed) -> Emptied:
    """The trash of older runs, but for those of which a look wanted what it could not give back, or could not see."""
    freeing = application.freeing
    expired, spoilt = without_damaged(freeing.expired, healed)
    emptied = await empty_runs(application.storage, application.lock, expired, on_event=application.on_event)
    return replace(emptied, kept=(*spoilt, *freeing.held))
