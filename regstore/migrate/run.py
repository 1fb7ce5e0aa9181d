"""Passes: list both stores, plan, apply; again, where the source is live, until nothing changes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Final

from regstore import layout
from regstore.errors import InputError, NoSuchBucket, Refused, StorageError
from regstore.events import Notice, OnEvent, ignore
from regstore.inventory import tag_times
from regstore.inventory.leftovers import remove_leftovers
from regstore.inventory.scan import ScanOptions
from regstore.inventory.whose import database_in_use
from regstore.migrate.apply import apply_plan
from regstore.migrate.deletion import delete_tags
from regstore.migrate.metadata import Metadata, carry_mark, refuse_metadata
from regstore.migrate.options import MigrateOptions, Verify
from regstore.migrate.others import Pause, wait_for_others
from regstore.migrate.planning import Planned, check_places, no_registry, planned
from regstore.migrate.result import MigrateResult, MigrateSummary, Problem
from regstore.migrate.transfer import clean_up
from regstore.migrate.work import Work
from regstore.storage.base import Storage
from regstore.storage.optional import IsFolder
from regstore.tasks.runner import HERE, Runner

#: After so many passes that gc got in the way of, the result says what there is.
_MOST_DISTURBED: Final = 5


def refuse_part(options: MigrateOptions, scanning: ScanOptions | None, *, follow: bool) -> None:
    """InputError where a report is to say all that is copied, and can't."""
    if options.all and not follow and scanning is not None and scanning.blobs_from is not None:
        raise InputError(
            "--all copies what nothing names, too, and a report lacks what of that came since it was made: say "
            "--follow, whose later passes list blobs"
        )


async def check_source(source: Storage, target: Storage, options: MigrateOptions) -> None:
    """One page of the source, before anything is made at the target: NotARegistry where it shows nothing of one.
    InputError where both are one place. Refused where its links are not the whole truth (`migrate.metadata`)."""
    check_places(source, target)
    page = await anext(source.list(layout.PREFIX), None)
    if page is None or not page.keys:
        raise no_registry(source)
    refuse_metadata(Metadata(source=await database_in_use(source)), source.url, target.url, options)


async def plan_only(
    source: Storage,
    target: Storage,
    options: MigrateOptions,
    *,
    create: bool = False,
    scanning: ScanOptions | None = None,
    on_event: OnEvent = ignore,
) -> MigrateSummary:
    """What `migrate` would do now. Writes nothing to either store. create: a target that is not there would be made
    first, and is empty then."""
    there = not create or await _is_there(target)
    async with planned(source, target, options, scanning, on_event, there=there) as plan:
        return plan.summary


async def migrate(
    source: Storage,
    target: Storage,
    options: MigrateOptions,
    *,
    follow: bool = False,
    scanning: ScanOptions | None = None,
    on_event: OnEvent = ignore,
    pause: Pause = asyncio.sleep,
) -> MigrateResult:
    """Copy what the target lacks. With `follow`, passes until one finds nothing more that it can do.

    A pass counts only when no other run, such as gc, was removing things from the target before, meanwhile or after:
    else it waits for that run's end (`pause`, up to an hour) and lists both again.

    The target is a correct registry at every instant, also when this is killed: a tag appears only when all that it
    reaches at the source is there. What could not be copied is in the result (`partial`). Raises the first error
    that concerns more than one object: a listing's, credentials, a full or missing store. The next call goes on.
    Refused where links are not the whole truth, unless all blobs are copied (`migrate.metadata`).

    scanning.blobs_from: a report of the source's blobs, for the first pass. With `follow`, or where that pass left
    anything out, which may have gone since the report, there is another one, which lists blobs. InputError with
    `options.all` and without `follow`: a report lacks what came since, and nothing may name it.
    """
    refuse_part(options, scanning, follow=follow)
    result = MigrateResult(source=source.url, target=target.url)
    spent = _Spent(source, target)
    while True:
        written = result.objects + result.deleted
        first = not result.passes
        async with planned(source, target, options, scanning, on_event, first=first) as plan:
            reported = plan.inventory.reported is not None
            runner = HERE if scanning is None else scanning.runner
            undisturbed = await _pass(source, target, options, plan, result, runner, on_event)
        if reported and scanning is not None:
            scanning = replace(scanning, blobs_from=None)
        if not undisturbed:
            still = await wait_for_others(target, pause, on_event)
            if still or result.passes >= _MOST_DISTURBED:
                result.failed.append(_disturbed(target, still))
                break
            on_event(Notice(message=f"gc was at work in {target.url} meanwhile: looking again"))
        elif reported and (follow or result.failed or result.skipped):
            continue
        elif not follow or result.objects + result.deleted == written:
            break
    spent.note(result)
    return result


class _Spent:
    """Time and requests, since this was made."""

    def __init__(self, *stores: Storage) -> None:
        self._stores = stores
        self._began = time.monotonic()
        self._retries = sum(store.counters.retries for store in stores)
        self._requests = [dict(store.counters.requests) for store in stores]

    def note(self, result: MigrateResult) -> None:
        result.seconds = time.monotonic() - self._began
        result.retries = sum(store.counters.retries for store in self._stores) - self._retries
        for store, before in zip(self._stores, self._requests, strict=True):
            for operation, count in store.counters.requests.items():
                sent = count - before.get(operation, 0)
                result.requests[operation] = result.requests.get(operation, 0) + sent


def _begin(result: MigrateResult, summary: MigrateSummary) -> None:
    result.passes += 1
    result.damaged, result.incomplete = summary.damaged, summary.incomplete
    result.protected, result.conflicts = summary.protected, summary.conflicts
    result.notes, result.unknown, result.uploads = summary.notes, summary.unknown, summary.uploads
    # What an earlier pass could not do may have been done by this one.
    result.failed, result.skipped = [], []


async def _pass(
    source: Storage,
    target: Storage,
    options: MigrateOptions,
    plan: Planned,
    result: MigrateResult,
    runner: Runner,
    on_event: OnEvent,
) -> bool:
    """Do one plan. Whether no other run was at work at the target: else the plan was void."""
    summary, inventory = plan.summary, plan.inventory
    refuse_metadata(plan.metadata, source.url, target.url, options)
    await carry_mark(source, target, plan.metadata)
    _check_share(summary, options)
    _begin(result, summary)
    await remove_leftovers(target, inventory, schema="dst")
    undisturbed = not plan.others.at_work
    if not summary.nothing_to_do or options.verify is Verify.FULL:
        work = Work(
            source=source,
            target=target,
            inventory=inventory,
            options=options,
            result=result,
            name=plan.name,
            place=plan.place,
            others=plan.others,
            runner=runner,
            on_event=on_event,
        )
        undisturbed = await apply_plan(work)
        if undisturbed and summary.to_delete:
            await delete_tags(source, target, inventory, result, on_event=on_event)
    else:
        await clean_up(target, options)
    if undisturbed:
        await _merge_record(target, plan)
    return undisturbed


def _disturbed(target: Storage, still: str) -> Problem:
    often = "was at work in every pass, so not all tags could be set"
    reason = "is at work since an hour, and until it ends no tag can be set" if still else often
    subject = f"{still or 'gc'} in {target.url}"
    return Problem(repository="", subject=subject, reason=f"{reason}: run migrate again when it has ended")


def _check_share(summary: MigrateSummary, options: MigrateOptions) -> None:
    if summary.to_delete > options.max_delete * summary.deletable:
        raise Refused(
            f"{summary.to_delete:,} of the {summary.deletable:,} tags that came from {summary.source} would go from"
            f" {summary.target}, more than --max-delete {options.max_delete:.0%} allows; if that is right, allow it"
        )


async def _merge_record(target: Storage, plan: Planned) -> None:
    """Best effort: what is not merged now is merged by a later run."""
    try:
        await tag_times.merge_record(target, plan.inventory, plan.merge)
    except StorageError:
        pass


async def _is_there(target: Storage) -> bool:
    try:
        await anext(target.list(layout.PREFIX), None)
    except NoSuchBucket:
        if isinstance(target, IsFolder) and target.folder.exists():
            raise  # a file, of which no folder is made
        return False
    return True
