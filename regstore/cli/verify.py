"""`regstore verify`: is all there that links and manifests promise, and are its bytes right?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.cluster import Executors
from regstore.cli.command import command, said
from regstore.cli.config.complete import store_names
from regstore.cli.confirm import confirm_meanwhile, refuse_unasked
from regstore.cli.locks import break_locks_openly, hold_lock_openly
from regstore.cli.options import (
    BreakLock,
    InventoryFile,
    NewObjects,
    ProofsDir,
    Reading,
    SecondStore,
    cache_dir_or_default,
)
from regstore.cli.outcome import Result
from regstore.cli.output import emit, emit_some, printable
from regstore.cli.progress import progress
from regstore.cli.reported import BlobsReported
from regstore.cli.run import run_async
from regstore.cli.settings import PlacedStore, StoreSettings
from regstore.cli.values import parse_duration
from regstore.cli.verify_report import print_repairs, print_report, repair_numbers, report_json, report_numbers
from regstore.cli.whose import refuse_told, whose_json
from regstore.cli.workers import Workers
from regstore.errors import EXIT_DAMAGE, EXIT_OK, EXIT_PARTIAL, InputError
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.proving.read_data import Checksums
    from regstore.storage.registry_config import RegistryConfig
    from regstore.verify.fault import Findings
    from regstore.verify.options import VerifyOptions
    from regstore.verify.repairing import Agree
    from regstore.verify.run import VerifyReport
    from regstore.verify.work import RepairOptions, Repairs


@dataclass(frozen=True, kw_only=True)
class VerifyReading(Reading):
    """With what the server knows of them."""

    server_checksums: Annotated[
        str,
        typer.Option(
            metavar="ignore|report|trust",
            help="SHA-256 that the server keeps: compare and count it; trust: and do not read where it agrees.",
        ),
    ] = "ignore"

    def checksums(self) -> Checksums:
        from regstore.proving.read_data import Checksums

        if self.server_checksums not in list(Checksums):
            raise InputError(f"--server-checksums is one of {', '.join(Checksums)}, not {self.server_checksums!r}")
        return Checksums(self.server_checksums)


@dataclass(frozen=True, kw_only=True)
class Repairing:
    """What is repaired, and from where."""

    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Write damaged links anew where their path says what they hold; take back from the trash.",
        ),
    ] = False
    repair_from: Annotated[
        str | None,
        typer.Option(
            metavar="STORE2",
            autocompletion=store_names,
            show_default=False,
            help="Repair, and fetch missing or damaged blobs from this store or backup.",
        ),
    ] = None
    restore_links: Annotated[
        bool, typer.Option("--restore-links", help="Put back links that are missing here and that STORE2 has.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class RepairStore(SecondStore):
    """With what two of its options were called before."""

    repair_from_endpoint_url: Annotated[str | None, typer.Option(hidden=True)] = None
    repair_from_profile: Annotated[str | None, typer.Option(hidden=True)] = None

    def settings(self, first: StoreSettings, store: str) -> StoreSettings:
        first = first.placed()
        if self.repair_from_profile is not None and isinstance(first, PlacedStore):
            first = replace(first, keys={})
        said_before = replace(
            first,
            endpoint_url=self.repair_from_endpoint_url or first.endpoint_url,
            profile=self.repair_from_profile or first.profile,
        )
        return super().settings(said_before, store)


@dataclass(frozen=True, kw_only=True)
class Dropping:
    """What goes that can't be repaired."""

    drop_broken_tags: Annotated[
        bool, typer.Option("--drop-broken-tags", help="Repair, then remove tags that can't be pulled whole.")
    ] = False
    grace: Annotated[
        int,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            help="--drop-broken-tags spares tags that were set within this time: a push may be under way.",
        ),
    ] = said("1h", parse_duration)


@command
def verify(
    settings: StoreSettings,
    *,
    reading: VerifyReading,
    repairing: Repairing,
    new_objects: NewObjects,
    second: RepairStore,
    dropping: Dropping,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --drop-broken-tags.")] = False,
    break_lock: BreakLock = False,
    pull_through: Annotated[
        bool | None,
        typer.Option(
            "--pull-through/--no-pull-through",
            show_default=False,
            help="It is a pull-through cache, where absence is normal. Default: as its scheduler-state.json says.",
        ),
    ] = None,
    cache_dir: ProofsDir = None,
    inventory: InventoryFile = None,
    reported: BlobsReported,
    workers: Workers,
    cluster: Executors,
) -> Result:
    """Verify a store: links, tags down to their last layer, sizes, manifests and, where asked, every byte.

    A push or a deletion meanwhile is no damage: what looks wrong is looked at again. Exit code 6 when there is damage,
    or something can't be read or is archived; 3 when there is none but a manifest can't be understood.
    """
    from regstore.inventory.scan import ScanOptions
    from regstore.verify.options import VerifyOptions

    options = VerifyOptions(
        scan=ScanOptions(
            concurrency=settings.concurrency,
            inventory=inventory,
            runner=workers.runner(settings.concurrency),
            blobs_from=reported.of(settings),
        ),
        read=reading.read_data,
        max_age=reading.max_age,
        time_limit=reading.seconds,
        checksums=reading.checksums(),
        proofs=cache_dir_or_default(cache_dir),
        pull_through=pull_through,
    )
    what = _repairs(repairing, dropping, new_objects)
    if repairing.restore_links and repairing.repair_from is None:
        raise InputError("--restore-links puts back what another copy has: say --repair-from")
    if not (repairing.repair or repairing.repair_from or dropping.drop_broken_tags):
        return _look(settings, options, cluster)
    if options.scan.blobs_from is not None:
        raise InputError("--blobs-from is for who only looks: a repair goes by what is there, so it lists blobs")
    source = None if repairing.repair_from is None else second.settings(settings, repairing.repair_from)
    return _mend(settings, options, cluster, what, source, yes, break_lock)


def _repairs(repairing: Repairing, dropping: Dropping, new_objects: NewObjects) -> RepairOptions:
    from regstore.verify.work import RepairOptions

    return RepairOptions(
        drop_broken_tags=dropping.drop_broken_tags,
        grace=dropping.grace,
        restore_links=repairing.restore_links,
        put=new_objects.put_options(),
    )


def _look(settings: StoreSettings, options: VerifyOptions, cluster: Executors) -> Result:
    with progress() as on_event:
        report = run_async(_verify(settings, options, cluster, on_event))
    print_report(report)
    return Result(
        exit_code=_exit_code(report.findings),
        data=whose_json(report.database) | {"found": report_json(report), "repaired": None, "left": None},
        numbers=report_numbers(report),
    )


def _mend(
    settings: StoreSettings,
    options: VerifyOptions,
    cluster: Executors,
    what: RepairOptions,
    source: StoreSettings | None,
    yes: bool,
    break_lock: bool,
) -> Result:
    shown = progress()
    if what.drop_broken_tags:
        refuse_unasked(yes=yes, else_say=", or leave --drop-broken-tags out")

    async def agree(tags: Sequence[str]) -> bool:
        shown.clear()
        if not yes:
            emit("these tags can't be pulled whole, and go unless they were set within the grace:")
            emit_some([f"  {printable(tag)}" for tag in tags], "  … and {} more")
        return await confirm_meanwhile("Remove these tags?", yes=yes)

    with shown as on_event:
        found, repairs, left = run_async(
            _repair(settings, options, cluster, what, source, agree, break_lock, on_event)
        )
    print_report(found)
    print_repairs(repairs)
    if not repairs.nothing:
        emit("\nafter the repair:\n")
        print_report(left)
    return Result(
        exit_code=EXIT_PARTIAL if repairs.failures and not left.findings.damage else _exit_code(left.findings),
        data=whose_json(found.database)
        | {"found": report_json(found), "repaired": repairs, "left": report_json(left)},
        numbers=report_numbers(left) | repair_numbers(repairs),
    )


async def _verify(
    settings: StoreSettings, options: VerifyOptions, cluster: Executors, on_event: OnEvent
) -> VerifyReport:
    from regstore.inventory.whose import database_told
    from regstore.verify.run import verify as look

    storage, config = settings.open_with_config(read_only=True)
    async with storage, cluster.scanning(options.scan, settings.concurrency, on_event, storage) as (scan, _):
        options = replace(options, scan=scan)
        report = await look(storage, _with_config(options, config), on_event=on_event)
        return replace(report, database=report.database or database_told(config))


async def _repair(
    settings: StoreSettings,
    options: VerifyOptions,
    cluster: Executors,
    what: RepairOptions,
    source: StoreSettings | None,
    agree: Agree,
    break_lock: bool,
    on_event: OnEvent,
) -> tuple[VerifyReport, Repairs, VerifyReport]:
    from contextlib import AsyncExitStack

    from regstore.backup.links import BackedUpLinks
    from regstore.backup.repair import is_backup
    from regstore.inventory.whose import Use
    from regstore.storage.base import PutOptions
    from regstore.storage.identity import place_of
    from regstore.storage.optional import store_with
    from regstore.verify.repairing import repair

    storage, config = settings.open_with_config()
    refuse_told(storage.url, config, Use.REPAIR)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(storage)
        scanning = cluster.scanning(options.scan, settings.concurrency, on_event, storage)
        scan, _ = await stack.enter_async_context(scanning)
        options = replace(options, scan=scan)
        other = None if source is None else await stack.enter_async_context(source.open())
        put = what.put or PutOptions()
        what = replace(what, put=put if config is None else put.over(config.put))
        store_with(storage, what.put)
        links = None
        if other is not None and await is_backup(other):
            links = BackedUpLinks(other, place=await place_of(storage))
            if what.restore_links:
                await links.load()
        if break_lock:
            await break_locks_openly(storage)
        lock = await stack.enter_async_context(hold_lock_openly(storage, command="verify --repair"))
        options = _with_config(options, config)
        return await repair(storage, lock, options, what, source=other, links=links, agree=agree, on_event=on_event)


def _with_config(options: VerifyOptions, config: RegistryConfig | None) -> VerifyOptions:
    """The registry's configuration says whether it is a pull-through cache, unless the caller has."""
    if config is None or not config.proxy_remote_url or options.pull_through is not None:
        return options
    return replace(options, pull_through=True)


def _exit_code(findings: Findings) -> int:
    if findings.damage:
        return EXIT_DAMAGE
    return EXIT_PARTIAL if findings.unproven else EXIT_OK
