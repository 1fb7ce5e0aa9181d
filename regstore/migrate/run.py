"""Passes: list both stores, plan, apply; again, where the source is live, until nothing changes."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from regstore import layout
from regstore.concurrency import for_each, task_group
from regstore.digest import Digest
from regstore.errors import InputError, NotARegistry, NotFound
from regstore.events import OnEvent, ignore
from regstore.inventory import tag_record
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import Scanner, ScanOptions
from regstore.manifest import EdgeKind
from regstore.migrate.apply import Applier
from regstore.migrate.options import MigrateOptions, Verify
from regstore.migrate.plan import plan_migrate
from regstore.migrate.result import MigrateResult, MigrateSummary
from regstore.migrate.transfer import can_copy
from regstore.storage.base import Storage

_MiB: Final = 1024 * 1024
#: A link written up to this long before the listing began may be part of a push that the listing saw half of.
_PUSH: Final = 60 * 1_000_000


async def plan_only(
    source: Storage,
    target: Storage,
    options: MigrateOptions,
    *,
    scanning: ScanOptions | None = None,
    on_event: OnEvent = ignore,
) -> MigrateSummary:
    """What `migrate` would do now. Writes nothing to either store."""
    async with _planned(source, target, options, scanning, on_event) as (_, summary):
        return summary


async def migrate(
    source: Storage,
    target: Storage,
    options: MigrateOptions,
    *,
    follow: bool = False,
    scanning: ScanOptions | None = None,
    on_event: OnEvent = ignore,
) -> MigrateResult:
    """Copy what the target lacks. With `follow`, passes until one finds nothing more that it can do.

    The target is a correct registry at every instant, also when this is killed: a tag appears only when all that it
    reaches at the source is there. What could not be copied is in the result (`partial`). Raises the first error
    that concerns more than one object: a listing's, credentials, a full or missing store. The next call goes on.
    """
    result = MigrateResult(source=source.url, target=target.url)
    began = time.monotonic()
    retries = source.counters.retries + target.counters.retries
    before = [dict(store.counters.requests) for store in (source, target)]
    while True:
        written = result.objects + result.deleted
        async with _planned(source, target, options, scanning, on_event) as (inventory, summary):
            result.passes += 1
            result.damaged, result.incomplete, result.protected = (
                summary.damaged,
                summary.incomplete,
                summary.protected,
            )
            result.conflicts = summary.conflicts
            # What an earlier pass could not do may have been done by this one.
            result.failed, result.skipped = [], []
            if not summary.nothing_to_do or options.verify is Verify.FULL:
                name = tag_record.pass_name(await target.now()) if not summary.nothing_to_do else ""
                await Applier(source, target, inventory, options, result, name, on_event).run()
        if not follow or result.objects + result.deleted == written:
            break
    result.seconds = time.monotonic() - began
    result.retries = source.counters.retries + target.counters.retries - retries
    for store, counts in zip((source, target), before, strict=True):
        for operation, count in store.counters.requests.items():
            sent = count - counts.get(operation, 0)
            result.requests[operation] = result.requests.get(operation, 0) + sent
    return result


@asynccontextmanager
async def _planned(
    source: Storage, target: Storage, options: MigrateOptions, scanning: ScanOptions | None, on_event: OnEvent
) -> AsyncIterator[tuple[Inventory, MigrateSummary]]:
    if source is target or _same_place(source, target):
        raise InputError(f"source and target are both {source.url}")
    scanning = scanning or ScanOptions.default()
    folder = Path(tempfile.mkdtemp(prefix="regstore-migrate-"))
    inventory = Inventory(scanning.inventory, memory_limit=scanning.memory_limit)
    try:
        other = folder / "target.duckdb"
        async with task_group() as group:
            group.create_task(_scan_target(target, other, scanning, on_event))
            group.create_task(_scan_source(source, inventory, scanning, on_event))
        if not inventory.key_count():
            raise NotARegistry(f"{source.url} has nothing of a registry: no key below {layout.PREFIX}")
        inventory.execute(f"attach '{str(other).replace(chr(39), chr(39) * 2)}' as dst (read_only)")
        await tag_record.load_record(target, inventory)
        summary = plan_migrate(
            inventory,
            options,
            now=inventory.scanned_at,
            source=source.url,
            target=target.url,
            server_side=options.server_side and can_copy(source, target),
            part_size=8 * _MiB,
            single_put=16 * _MiB,
        )
        yield inventory, summary
    finally:
        inventory.close()
        shutil.rmtree(folder, ignore_errors=True)


def _same_place(source: Storage, target: Storage) -> bool:
    if source.url != target.url:
        return False
    from regstore.storage.s3 import S3Storage

    return not isinstance(source, S3Storage) or can_copy(source, target)


async def _scan_target(target: Storage, path: Path, scanning: ScanOptions, on_event: OnEvent) -> None:
    """Its keys are enough: what its manifests say does not decide what it lacks."""
    with Inventory(path, memory_limit=scanning.memory_limit) as inventory:
        scanner = Scanner(target, inventory, scanning, on_event)
        await scanner.list_links()
        await scanner.list_blobs()


async def _scan_source(source: Storage, inventory: Inventory, scanning: ScanOptions, on_event: OnEvent) -> None:
    """Links before blobs: a push writes blobs first, so a link that was listed has its blob in the listing."""
    inventory.scanned_at = await source.now()
    scanner = Scanner(source, inventory, scanning, on_event)
    await scanner.list_links()
    await scanner.list_blobs()
    await scanner.read_manifests()
    await _complete_pushes(source, inventory, scanner, scanning)


async def _complete_pushes(source: Storage, inventory: Inventory, scanner: Scanner, scanning: ScanOptions) -> None:
    """A push during the listing can show its manifest and not its layer links, or an index and not its children:
    they sort before it. What a young manifest names and the listing lacks is looked for by name."""
    asked: set[tuple[int, bytes, str]] = set()
    while True:
        rows = inventory.all(
            f"""
            select distinct r.repository, e.target, case e.kind when {int(EdgeKind.MANIFEST)} then 'revision_link'
                else 'layer_link' end as kind
            from revision_link r join edge e on e.source = r.digest
            where r.mtime >= {inventory.scanned_at - _PUSH} and e.kind not in (
                {int(EdgeKind.SUBJECT)}, {int(EdgeKind.FOREIGN_LAYER)})
                and not exists (from layer_link l where l.repository = r.repository and l.digest = e.target)
                and not exists (from revision_link x where x.repository = r.repository and x.digest = e.target)
            """
        )
        wanted = [row for row in ((row[0], bytes(row[1]), row[2]) for row in rows) if row not in asked]
        if not wanted:
            return
        asked.update(wanted)
        names = dict(inventory.all("select id, name from repository"))
        found: list[tuple[str, int, bytes, bytes]] = []

        async def look(
            row: tuple[int, bytes, str],
            names: dict[int, str] = names,
            found: list[tuple[str, int, bytes, bytes]] = found,
        ) -> None:
            repository, raw, kind = row
            digest = Digest.from_raw(raw)
            make = layout.RevisionLinkKey if kind == "revision_link" else layout.LayerLinkKey
            try:
                body = await source.get(layout.encode(make(names[repository], digest)))
            except NotFound:
                return
            target = layout.parse_link(body)
            if target is not None:
                found.append((kind, repository, raw, target.raw))

        await for_each(wanted, look, concurrency=scanning.concurrency)
        for table in ("layer_link", "revision_link"):
            chosen = [row for row in found if row[0] == table]
            inventory.insert(
                table,
                {
                    "repository": ("int32", [row[1] for row in chosen]),
                    "digest": ("binary", [row[2] for row in chosen]),
                    "target": ("binary", [row[3] for row in chosen]),
                    "size": ("int64", [71] * len(chosen)),
                    "mtime": ("int64", [inventory.scanned_at] * len(chosen)),
                },
            )
        await scanner.read_manifests()
