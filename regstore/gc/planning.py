"""Everything of a run of gc that only reads: is this a registry, is what the last run left still there, and the plan.

    before = await compare_with_last_run(storage, inventory, options)
    summary = await make_plan(storage, inventory, options, before)

The inventory holds a scan of the whole store, and in the end the plan's tables (`gc.plan`). Nothing here writes to the
store, and nothing needs its lock. Where a run has the lock, it heals between the two (`gc.run`), so that the plan is
made of what came back, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from regstore import layout
from regstore.concurrency import in_thread, task_group
from regstore.errors import NotARegistry, Refused
from regstore.events import OnEvent, ignore
from regstore.gc.caches import RegistryCache
from regstore.gc.confirm import confirm_broken
from regstore.gc.counts import count_inventory
from regstore.gc.created import read_created
from regstore.gc.plan import GcSummary, plan_gc
from regstore.gc.reported import plan_by_now
from regstore.gc.run_options import GcRunOptions
from regstore.gc.vanished import find_vanished, without_tags_removed
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import Scanner
from regstore.inventory.tag_times import load_record
from regstore.inventory.unlinked import look_for_manifests, small_unlinked
from regstore.state.counts import Counts, read_counts
from regstore.state.journal import find_runs
from regstore.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class Before:
    """How a run found the store. last: what the one before it left, None where no run has left a word; now: what the
    scan shows. now.runs: those whose journals stand. forgets_last: that all blobs, or all links, of the last run are
    gone, and the operator says that this is right: with the lock held, `now` is what is compared with from here on."""

    last: Counts | None
    now: Counts
    forgets_last: bool


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A plan of what goes, with all that it was made of. Nothing was written for it."""

    storage: Storage
    inventory: Inventory
    options: GcRunOptions
    cache: RegistryCache
    before: Before
    summary: GcSummary
    on_event: OnEvent


async def require_registry(storage: Storage, *prefixes: str) -> None:
    """NotARegistry where nothing is below these: by default neither a registry nor anything of ours."""
    for prefix in prefixes or (layout.PREFIX, layout.STATE):
        async for page in storage.list(prefix):
            if page.keys:
                return
    raise NotARegistry(
        f"{storage.url} holds no registry: there is nothing below {layout.PREFIX} "
        "(is the root directory part of the URL?)"
    )


async def compare_with_last_run(storage: Storage, inventory: Inventory, options: GcRunOptions) -> Before:
    """Refused where the scan shows much less than the last run left, and nobody has said that this is right.
    NotARegistry where nothing is, and no run ever left anything."""

    def count(runs: Collection[str], chosen: Collection[str]) -> Counts:
        return count_inventory(inventory, runs=runs, chosen=chosen)

    return await compare_counts(storage, options, count, lambda: inventory.key_count() == 0)


async def compare_counts(
    storage: Storage,
    options: GcRunOptions,
    count: Callable[[Collection[str], Collection[str]], Counts],
    is_empty: Callable[[], bool],
) -> Before:
    """The same of a scan that is not in one inventory. count: what it shows, given the runs and the chosen; is_empty:
    whether it shows no key at all."""
    async with task_group() as group:
        finding = group.create_task(find_runs(storage))
        reading = group.create_task(read_counts(storage))
    records, last = finding.result(), reading.result()
    chosen = last.chosen if last is not None else ()
    now = count({record.run for record in records}, chosen)
    missing = last.missing_in(now) if last is not None else ""
    if missing and not options.allow_empty:
        raise Refused(
            f"{storage.url} shows none of the {missing} that the last run left in it; if that is right, "
            "say --allow-empty"
        )
    if last is not None and not options.allow_empty:
        vanished = await find_vanished(storage, last, now, records)
        if refusal := vanished.refusal(allow_gone=options.allow_gone, max_lost=options.max_lost):
            raise Refused(f"{storage.url}: {refusal}")
    if last is None and not records and is_empty():
        await require_registry(storage, layout.PREFIX)  # the seed alone: an empty registry
    return Before(last=last, now=now, forgets_last=bool(missing))


async def make_plan(
    storage: Storage, inventory: Inventory, options: GcRunOptions, before: Before, *, on_event: OnEvent = ignore
) -> GcSummary:
    """Read what the rules ask for beyond the scan, look again at what seems broken, and plan."""
    policy, concurrency = options.plan.policy, options.scan.concurrency
    if policy is not None and policy.needs_time:
        await load_record(storage, inventory)
    if policy is not None:
        await read_created(storage, inventory, policy, options.scan, on_event=on_event)
    scanner = Scanner(storage, inventory, options.scan, on_event)

    async def plan() -> GcSummary:
        await confirm_broken(storage, inventory, scanner, options.plan.drop_broken, concurrency=concurrency)
        # In a thread: the lock is kept meanwhile.
        return await in_thread(lambda: plan_gc(inventory, options.plan, now=inventory.scanned_at))

    summary = await plan_by_now(storage, inventory, scanner, plan, concurrency=concurrency, on_event=on_event)
    return await look_further(storage, summary, before, lambda: small_unlinked(inventory), concurrency=concurrency)


async def look_further(
    storage: Storage,
    summary: GcSummary,
    before: Before,
    small: Callable[[], Sequence[bytes]],
    *,
    concurrency: int,
) -> GcSummary:
    """The summary with what has to be read for it. small: as `small_unlinked` gives them."""
    unlinked = await look_for_manifests(storage, small, summary.unlinked, concurrency=concurrency)
    untagged = tuple(name for name in summary.untagged if name not in before.now.chosen)
    if untagged:
        untagged = await without_tags_removed(storage, untagged, await find_runs(storage))
    return replace(summary, unlinked=unlinked, untagged=untagged)
