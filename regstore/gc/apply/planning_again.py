"""gc's plan of some repositories made once more, in a later look at them."""

from __future__ import annotations

from regstore.concurrency import in_thread
from regstore.gc.apply.application import Work
from regstore.gc.apply.unlink import PlanAgain
from regstore.gc.created import read_created
from regstore.gc.plan import GcOptions, plan_links
from regstore.inventory.inventory import Inventory


def planning_again(work: Work, plan: GcOptions) -> PlanAgain:
    async def plan_again(look: Inventory) -> None:
        if plan.policy is not None:
            await read_created(work.storage, look, plan.policy, work.scan, on_event=work.on_event)
        await in_thread(lambda: plan_links(look, plan, now=work.now))

    return plan_again
