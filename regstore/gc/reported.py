"""gc with a report in place of the listing of blobs (`inventory.reported`): it removes nothing that it would not remove
with a fresh listing.

A blob that the report lacks is no candidate. What the plan goes by is looked at again before the plan is shown: each
blob that is to go, which goes only by the size and the time that it has now; and the manifests of each repository that
loses anything, for where one is lost, that repository is protected. Where that shows anything else than the report did,
the plan is made anew, until all that it goes by is as the store is.

What lies in the trash is not taken from the report: an earlier run may have moved it there since. So it is healed where
it is needed, and what stands again, too, is a candidate once the trash is emptied.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from regstore.digest import Digest
from regstore.events import OnEvent, ignore
from regstore.gc.plan import GcSummary, Step
from regstore.inventory.inventory import Inventory
from regstore.inventory.reported.again import look_again, these
from regstore.inventory.scan import Scanner
from regstore.inventory.statements import Statements
from regstore.inventory.unlinked import unseen_days
from regstore.storage.base import Storage

_SQL: Final = Statements("regstore.gc", "reported.sql", upload=str(int(Step.UPLOAD)))


async def plan_by_now(
    storage: Storage,
    inventory: Inventory,
    scanner: Scanner,
    plan: Callable[[], Awaitable[GcSummary]],
    *,
    concurrency: int,
    on_event: OnEvent = ignore,
) -> GcSummary:
    """The plan, made again until what it goes by is as the store is. Each time at least one more blob is known."""
    [(last,)] = _SQL.run(inventory, "last_repository").fetchall()
    while True:
        summary = await plan()
        if inventory.reported is None:
            return summary
        gone_by = _SQL.text("gone_by", relied_on=manifests_relied_on())
        looked = await look_again(storage, inventory, gone_by, concurrency=concurrency, on_event=on_event)
        if not looked.otherwise:
            return with_unseen_days(summary, inventory)
        _SQL.run(inventory, "read_anew", {"last": last})
        await scanner.read_manifests()


def manifests_relied_on() -> str:
    """SQL: `digest` of the manifests by which repositories lose what a plan takes from them, whatever else goes."""
    return _SQL.text("relied_on")


def with_unseen_days(summary: GcSummary, inventory: Inventory) -> GcSummary:
    """inventory: says of which report the blobs are."""
    unlinked = summary.unlinked
    return replace(summary, unlinked=replace(unlinked, unseen_days=unseen_days(inventory, unlinked.newest_link)))


async def look_for(storage: Storage, inventory: Inventory, digests: Sequence[Digest], *, concurrency: int) -> None:
    """What the store has of these now, for whoever asks about them. The plan stands."""
    if digests and inventory.reported is not None:
        await look_again(storage, inventory, these(digests), concurrency=concurrency)


def leave_trashed(inventory: Inventory) -> None:
    """After `Past.load`."""
    if inventory.reported is not None:
        _SQL.run(inventory, "leave_trashed")
