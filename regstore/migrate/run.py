"""Passes: list both stores, plan, apply; again, where the source is live, until nothing changes."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regstore import layout
from regstore.concurrency import task_group
from regstore.errors import AccessDenied, InputError, NoSuchBucket, NotARegistry, Refused, StorageError
from regstore.events import Notice, OnEvent, ignore
from regstore.inventory import tag_times
from regstore.inventory.inventory import Inventory
from regstore.inventory.leftovers import remove_leftovers
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.inventory.whose import database_in_use
from regstore.migrate.apply import apply_plan
from regstore.migrate.deletion import delete_tags
from regstore.migrate.estimate import Sides
from regstore.migrate.metadata import Metadata, carry_mark, notes_on_metadata, refuse_metadata
from regstore.migrate.options import MigrateOptions, Verify
from regstore.migrate.others import NOBODY, Others, Pause, find_others, wait_for_others
from regstore.migrate.plan import plan_migrate
from regstore.migrate.result import MigrateResult, MigrateSummary, Problem
from regstore.migrate.source import is_pull_through, scan_source
from regstore.migrate.transfer import clean_up, server_copies
from regstore.migrate.work import Work
from regstore.state import tag_record
from regstore.storage.base import Storage
from regstore.storage.identity import place_of
from regstore.storage.optional import IsFolder, store_with

#: After so many passes that gc got in the way of, the result says what there is.
_MOST_DISTURBED: Final = 5


@dataclass(frozen=True)
class _Planned:
    """others: the other runs at the target, before it was listed. name: of the pass; place: of the source, in the
    record. merge: the files of the record that were read."""

    inventory: Inventory
    summary: MigrateSummary
    others: Others
    name: str
    place: str
    merge: Mapping[str, int]
    metadata: Metadata


async def check_source(source: Storage, target: Storage, options: MigrateOptions) -> None:
    """One page of the source, before anything is made at the target: NotARegistry where it shows nothing of one.
    InputError where both are one place. Refused where its links are not the whole truth (`migrate.metadata`)."""
    _check_places(source, target)
    page = await anext(source.list(layout.PREFIX), None)
    if page is None or not page.keys:
        raise _no_registry(source)
    refuse_metadata(Metadata(source=await database_in_use(source)), source.url, target.url, options)


def _check_places(source: Storage, target: Storage) -> None:
    if source is target or source.identity() == target.identity():
        raise InputError(f"source and target are both {source.url}")


def _no_registry(source: Storage) -> NotARegistry:
    return NotARegistry(
        f"{source.url} has nothing of a registry below {layout.PREFIX} (is the root directory part of the URL?)"
    )


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
    async with _planned(source, target, options, scanning, on_event, there=there) as planned:
        return planned.summary


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
    """
    result = MigrateResult(source=source.url, target=target.url)
    began = time.monotonic()
    retries = source.counters.retries + target.counters.retries
    before = [dict(store.counters.requests) for store in (source, target)]
    while True:
        written = result.objects + result.deleted
        first = not result.passes
        async with _planned(source, target, options, scanning, on_event, first=first) as planned:
            summary = planned.summary
            refuse_metadata(planned.metadata, source.url, target.url, options)
            await carry_mark(source, target, planned.metadata)
            _check_share(summary, options)
            result.passes += 1
            result.damaged, result.incomplete, result.protected = (
                summary.damaged,
                summary.incomplete,
                summary.protected,
            )
            result.conflicts, result.notes = summary.conflicts, summary.notes
            result.unknown, result.uploads = summary.unknown, summary.uploads
            # What an earlier pass could not do may have been done by this one.
            result.failed, result.skipped = [], []
            undisturbed = not planned.others.at_work
            await remove_leftovers(target, planned.inventory, schema="dst")
            if not summary.nothing_to_do or options.verify is Verify.FULL:
                work = Work(
                    source=source,
                    target=target,
                    inventory=planned.inventory,
                    options=options,
                    result=result,
                    name=planned.name,
                    place=planned.place,
                    others=planned.others,
                    on_event=on_event,
                )
                undisturbed = await apply_plan(work)
                if undisturbed and summary.to_delete:
                    await delete_tags(source, target, planned.inventory, result, on_event=on_event)
            else:
                await clean_up(target, options)
            if undisturbed:
                await _merge_record(target, planned)
        if not undisturbed:
            still = await wait_for_others(target, pause, on_event)
            if still or result.passes >= _MOST_DISTURBED:
                result.failed.append(_disturbed(target, still))
                break
            on_event(Notice(message=f"gc was at work in {target.url} meanwhile: looking again"))
        elif not follow or result.objects + result.deleted == written:
            break
    result.seconds = time.monotonic() - began
    result.retries = source.counters.retries + target.counters.retries - retries
    for store, counts in zip((source, target), before, strict=True):
        for operation, count in store.counters.requests.items():
            sent = count - counts.get(operation, 0)
            result.requests[operation] = result.requests.get(operation, 0) + sent
    return result


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


@asynccontextmanager
async def _planned(
    source: Storage,
    target: Storage,
    options: MigrateOptions,
    scanning: ScanOptions | None,
    on_event: OnEvent,
    *,
    there: bool = True,
    first: bool = True,
) -> AsyncIterator[_Planned]:
    """there: False for a target that counts as empty, and is not looked at. first: of the passes."""
    _check_places(source, target)
    scanning = scanning or ScanOptions.default()
    folder = Path(tempfile.mkdtemp(prefix="regstore-migrate-"))
    inventory = Inventory(scanning.inventory, memory_limit=scanning.memory_limit)
    try:
        other = folder / "target.duckdb"
        others = await find_others(target) if there else NOBODY
        async with task_group() as group:
            scanned = group.create_task(_scan_target(target, other, scanning, on_event, there=there))
            group.create_task(scan_source(source, inventory, scanning, on_event))
        inventory.complete = True
        if not inventory.key_count():
            raise _no_registry(source)
        inventory.execute(f"attach '{str(other).replace(chr(39), chr(39) * 2)}' as dst (read_only)")
        pull_through = await is_pull_through(source)
        metadata = Metadata(source=inventory.database, target=scanned.result())
        notes = notes_on_metadata(metadata, source.url, target.url)
        notes += (
            [f"{source.url} is a pull-through cache: what it has not fetched is no damage"] if pull_through else []
        )
        place = await place_of(source)
        record = await tag_record.list_record(target) if there else {}
        differ = _tags_differ(inventory)
        read: Mapping[str, int] = {}
        if options.delete or options.rename or differ == "otherwise":
            read = await tag_times.load_record(target, inventory, record)
        else:
            tag_times.empty_record(inventory)  # it has nothing to say
        tag_times.empty_record(inventory, "source_record")
        if options.rename or differ:
            await _load_source_record(source, inventory, on_event)
        if options.delete and inventory.count("dst.tag") and not _is_recorded(inventory, place):
            notes.append(
                f"--delete removes nothing: no record in {target.url} says that a tag there came from {source.url}"
                f" ({place}); older versions did not write down enough to tell"
            )
        sides = _sides(source, target, options)
        summary = plan_migrate(
            inventory,
            options,
            now=inventory.scanned_at,
            source=source.url,
            place=place,
            target=target.url,
            pull_through=pull_through,
            sides=sides,
            notes=tuple(notes),
            first=first,
        )
        store_with(target, options.put)  # what is ours, too
        yield _Planned(inventory, summary, others, tag_record.next_pass(record), place, read, metadata)
    finally:
        inventory.close()
        shutil.rmtree(folder, ignore_errors=True)


def _tags_differ(inventory: Inventory) -> str:
    """Whether the target lacks a tag of the source ("absent"), or names something else by it ("otherwise"): only then
    does it matter who wrote it; "" where neither."""
    absent, otherwise = inventory.all(
        """
        select count(*) filter (d.name is null), count(*) filter (d.name is not null)
        from tag t join repository r on r.id = t.repository
        left join dst.repository o on o.name = r.name
        left join dst.tag d on d.repository = o.id and d.name = t.name
        where d.target is distinct from t.target
        """
    )[0]
    return "otherwise" if otherwise else "absent" if absent else ""


async def _load_source_record(source: Storage, inventory: Inventory, on_event: OnEvent) -> None:
    """The times of tags that migrate wrote there."""
    try:
        await tag_times.load_record(source, inventory, table="source_record")
    except AccessDenied as error:
        tag_times.empty_record(inventory, "source_record")
        on_event(Notice(message=f"tags count from when they were set in {source.url}, not before: {error}"))


def _is_recorded(inventory: Inventory, place: str) -> bool:
    return bool(inventory.one("select count(*) from migrate_record where place = ?", [place]))


async def _merge_record(target: Storage, planned: _Planned) -> None:
    """Best effort: what is not merged now is merged by a later run."""
    try:
        await tag_times.merge_record(target, planned.inventory, planned.merge)
    except StorageError:
        pass


def _sides(source: Storage, target: Storage, options: MigrateOptions) -> Sides:
    copies = server_copies(source, target, options)
    return Sides(
        source_s3=source.bills_requests,
        target_s3=target.bills_requests,
        copied_whole=copies.whole if copies is not None else None,
    )


async def _is_there(target: Storage) -> bool:
    try:
        await anext(target.list(layout.PREFIX), None)
    except NoSuchBucket:
        if isinstance(target, IsFolder) and target.folder.exists():
            raise  # a file, of which no folder is made
        return False
    return True


async def _scan_target(
    target: Storage, path: Path, scanning: ScanOptions, on_event: OnEvent, *, there: bool
) -> str:
    """Its keys are enough: what its manifests say does not decide what it lacks. Returns what says that its metadata is
    in a database."""
    with Inventory(path, memory_limit=scanning.memory_limit) as inventory:
        if not there:
            return ""
        scanner = Scanner(target, inventory, scanning, on_event)
        await scanner.list_blobs()
        await scanner.list_links()
        return inventory.database
