"""Both stores listed, and what is to be done: a plan, with the inventories that it is made of."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from regstore import layout
from regstore.concurrency import task_group
from regstore.errors import AccessDenied, InputError, NotARegistry
from regstore.events import Notice, OnEvent
from regstore.inventory import tag_times
from regstore.inventory.inventory import Inventory, ReportedAt
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.migrate.estimate import Sides
from regstore.migrate.metadata import Metadata, notes_on_metadata
from regstore.migrate.on_server import server_copies
from regstore.migrate.options import MigrateOptions
from regstore.migrate.others import NOBODY, Others, find_others
from regstore.migrate.plan import plan_migrate
from regstore.migrate.result import MigrateSummary
from regstore.migrate.source import is_pull_through, scan_source
from regstore.state import tag_record
from regstore.storage.base import Storage
from regstore.storage.identity import place_of
from regstore.storage.optional import store_with
from regstore.words import moment


@dataclass(frozen=True)
class Planned:
    """others: the other runs at the target, before it was listed. name: of the pass; place: of the source, in the
    record. merge: the files of the record that were read."""

    inventory: Inventory
    summary: MigrateSummary
    others: Others
    name: str
    place: str
    merge: Mapping[str, int]
    metadata: Metadata


@dataclass(frozen=True)
class _Listed:
    """The source in `main`, the target in `dst`."""

    inventory: Inventory
    others: Others
    metadata: Metadata


@asynccontextmanager
async def planned(
    source: Storage,
    target: Storage,
    options: MigrateOptions,
    scanning: ScanOptions | None,
    on_event: OnEvent,
    *,
    there: bool = True,
    first: bool = True,
) -> AsyncIterator[Planned]:
    """there: False for a target that counts as empty, and is not looked at. first: of the passes."""
    check_places(source, target)
    async with _listed(source, target, scanning or ScanOptions.default(), on_event, there=there) as listed:
        inventory = listed.inventory
        pull_through = await is_pull_through(source)
        notes = notes_on_metadata(listed.metadata, source.url, target.url)
        if pull_through:
            notes.append(f"{source.url} is a pull-through cache: what it has not fetched is no damage")
        if inventory.reported is not None:
            notes.append(_as_of(source, inventory.reported))
        place = await place_of(source)
        record = await tag_record.list_record(target) if there else {}
        read = await _load_records(source, target, inventory, options, record, on_event)
        if options.delete and inventory.count("dst.tag") and not _is_recorded(inventory, place):
            notes.append(
                f"--delete removes nothing: no record in {target.url} says that a tag there came from {source.url}"
                f" ({place}); older versions did not write down enough to tell"
            )
        summary = plan_migrate(
            inventory,
            options,
            now=inventory.scanned_at,
            source=source.url,
            place=place,
            target=target.url,
            pull_through=pull_through,
            sides=_sides(source, target, options),
            notes=tuple(notes),
            first=first,
        )
        store_with(target, options.put)  # what is ours, too
        name = tag_record.next_pass(record)
        yield Planned(inventory, summary, listed.others, name, place, read, listed.metadata)


@asynccontextmanager
async def _listed(
    source: Storage, target: Storage, scanning: ScanOptions, on_event: OnEvent, *, there: bool
) -> AsyncIterator[_Listed]:
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
            raise no_registry(source)
        inventory.execute(f"attach '{str(other).replace(chr(39), chr(39) * 2)}' as dst (read_only)")
        yield _Listed(inventory, others, Metadata(source=inventory.database, target=scanned.result()))
    finally:
        inventory.close()
        shutil.rmtree(folder, ignore_errors=True)


async def _scan_target(
    target: Storage, path: Path, scanning: ScanOptions, on_event: OnEvent, *, there: bool
) -> str:
    """Its keys are enough: what its manifests say does not decide what it lacks. Returns what says that its metadata is
    in a database."""
    with Inventory(path, memory_limit=scanning.memory_limit) as inventory:
        if not there:
            return ""
        scanner = Scanner(target, inventory, replace(scanning, blobs_from=None), on_event)
        await scanner.list_blobs()
        await scanner.list_links()
        return inventory.database


def _as_of(source: Storage, reported: ReportedAt) -> str:
    return (
        f"blobs of {source.url} are those of the S3 Inventory report of {moment(reported.created)}, and what it lacks "
        "was looked for"
    )


def check_places(source: Storage, target: Storage) -> None:
    if source is target or source.identity() == target.identity():
        raise InputError(f"source and target are both {source.url}")


def no_registry(source: Storage) -> NotARegistry:
    return NotARegistry(
        f"{source.url} has nothing of a registry below {layout.PREFIX} (is the root directory part of the URL?)"
    )


async def _load_records(
    source: Storage,
    target: Storage,
    inventory: Inventory,
    options: MigrateOptions,
    record: Mapping[str, int],
    on_event: OnEvent,
) -> Mapping[str, int]:
    """When tags were set, and by whom, as far as that decides anything; the files of the target's record that were
    read."""
    differ = _tags_differ(inventory)
    read: Mapping[str, int] = {}
    if options.delete or options.rename or differ == "otherwise":
        read = await tag_times.load_record(target, inventory, record)
    else:
        tag_times.empty_record(inventory)  # it has nothing to say
    tag_times.empty_record(inventory, "source_record")
    if options.rename or differ:
        await _load_source_record(source, inventory, on_event)
    return read


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


def _sides(source: Storage, target: Storage, options: MigrateOptions) -> Sides:
    copies = server_copies(source, target, options)
    return Sides(
        source_s3=source.bills_requests,
        target_s3=target.bills_requests,
        copied_whole=copies.whole if copies is not None else None,
    )
