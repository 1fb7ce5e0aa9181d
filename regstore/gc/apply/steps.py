"""The application of a plan: its steps, one after the other. Their order, and the reasons for it: `gc.apply`."""

from __future__ import annotations

import time
from dataclasses import replace

from regstore.gc.apply.application import Application
from regstore.gc.apply.finish import Outcome, finish
from regstore.gc.apply.leftovers import forget_run, remove_folders, remove_outer_litter
from regstore.gc.apply.looks import refuse_database_now
from regstore.gc.apply.planning_again import planning_again
from regstore.gc.apply.sweep import Sweep
from regstore.gc.apply.unlink import Unlinking
from regstore.gc.begin import Begun
from regstore.gc.failures import Failures, try_deleting
from regstore.gc.heal import Healed
from regstore.gc.planning import Planned
from regstore.gc.report import GcReport
from regstore.gc.trash import Emptied, empty_runs, without_damaged
from regstore.state import RUNS
from regstore.state.journal import Journal


async def apply_plan(planned: Planned, begun: Begun) -> GcReport:
    """Carry the plan out, once. Interrupted at any point, the next run finishes or begins again."""
    started = time.monotonic()
    await refuse_database_now(planned.storage)  # the plan may have waited for somebody's yes
    application = await _open(planned, begun)
    unlinked = await Unlinking(application, planning_again(application, application.options.plan)).run()
    sweep = Sweep(application)
    swept = await sweep.run()
    changed = unlinked.anything_but_litter or swept.blobs or begun.freeing.expired
    settled = await sweep.settle() if changed and not planned.options.offline else Healed()
    litter = await remove_outer_litter(application)
    await forget_run(application)
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
    return await finish(application, outcome, planned.before)


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
