"""`regstore verify`: is all there that links and manifests promise, and are its bytes right?"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.allocator import keep_freed_memory
from regstore.cli.locks import break_locks_openly
from regstore.cli.options import Acl, BreakLock, InventoryFile, MaxAge, Sse, SseKmsKeyId, StorageClass, TimeLimit
from regstore.cli.output import count, counted, emit, emit_error, emit_json, moment, printable, size, table
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.settings import Json, StoreSettings, store_command
from regstore.cli.target import put_options
from regstore.cli.values import parse_duration, parse_read_data
from regstore.cli.whose import refuse_told, say_whose
from regstore.errors import EXIT_DAMAGE, EXIT_OK, EXIT_PARTIAL, InputError
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.proving.reader import Reading
    from regstore.storage.registry_config import RegistryConfig
    from regstore.verify.options import VerifyOptions
    from regstore.verify.plan import Fault, Findings
    from regstore.verify.run import VerifyReport
    from regstore.verify.work import RepairOptions, Repairs

_TAGS_SHOWN = 5
_FAULTS_SHOWN = 200


@store_command
def verify(
    settings: StoreSettings,
    read_data: Annotated[
        Any,
        typer.Option(
            parser=parse_read_data,
            metavar="all|N%|N/T|SIZE",
            show_default=False,
            help="Read blobs too and hash them: all, a share, part N of T, or so many bytes; other ones each time.",
        ),
    ] = None,
    max_age: MaxAge = None,
    time_limit: TimeLimit = None,
    server_checksums: Annotated[
        str,
        typer.Option(
            metavar="ignore|report|trust",
            help="SHA-256 that the server keeps: compare and count it; trust: and do not read where it agrees.",
        ),
    ] = "ignore",
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Write damaged links anew where their path says what they hold; take back from the trash.",
        ),
    ] = False,
    repair_from: Annotated[
        str | None,
        typer.Option(
            metavar="STORE2",
            show_default=False,
            help="Repair, and fetch missing or damaged blobs from this store or backup.",
        ),
    ] = None,
    repair_from_endpoint_url: Annotated[
        str | None,
        typer.Option(metavar="URL", show_default=False, help="S3 server of STORE2, where it is another."),
    ] = None,
    repair_from_profile: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="AWS profile for STORE2.")
    ] = None,
    restore_links: Annotated[
        bool, typer.Option("--restore-links", help="Put back links that are missing here and that STORE2 has.")
    ] = False,
    storage_class: StorageClass = None,
    sse: Sse = None,
    sse_kms_key_id: SseKmsKeyId = None,
    acl: Acl = None,
    drop_broken_tags: Annotated[
        bool, typer.Option("--drop-broken-tags", help="Repair, then remove tags that can't be pulled whole.")
    ] = False,
    grace: Annotated[
        int,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            help="--drop-broken-tags spares tags that were set within this time: a push may be under way.",
        ),
    ] = "1h",  # type: ignore[assignment]
    break_lock: BreakLock = False,
    pull_through: Annotated[
        bool | None,
        typer.Option(
            "--pull-through/--no-pull-through",
            show_default=False,
            help="It is a pull-through cache, where absence is normal. Default: as its scheduler-state.json says.",
        ),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default="~/.cache/regstore", help="Remembers what was read and right."),
    ] = None,
    inventory: InventoryFile = None,
    as_json: Json = False,
) -> int:
    """Verify a store: links, tags down to their last layer, sizes, manifests and, where asked, every byte.

    A push or a deletion meanwhile is no damage: what looks wrong is looked at again. Exit code 6 when there is damage,
    or something can't be read or is archived; 3 when there is none but a manifest can't be understood.
    """
    from regstore.inventory.cache import default_cache_dir
    from regstore.inventory.scan import ScanOptions
    from regstore.proving.read_data import Checksums
    from regstore.verify.options import VerifyOptions
    from regstore.verify.work import RepairOptions

    if server_checksums not in list(Checksums):
        raise InputError(f"--server-checksums is one of {', '.join(Checksums)}, not {server_checksums!r}")
    options = VerifyOptions(
        scan=ScanOptions(concurrency=settings.concurrency, inventory=inventory),
        read=read_data,
        max_age=max_age,
        time_limit=None if time_limit is None else time_limit / 1_000_000,
        checksums=Checksums(server_checksums),
        proofs=cache_dir or default_cache_dir(),
        pull_through=pull_through,
    )
    what = RepairOptions(
        drop_broken_tags=drop_broken_tags,
        grace=grace,
        restore_links=restore_links,
        put=put_options(storage_class, sse, sse_kms_key_id, acl),
    )
    if restore_links and repair_from is None:
        raise InputError("--restore-links puts back what another copy has: say --repair-from")
    if not (repair or repair_from or drop_broken_tags):
        with progress(quiet=settings.quiet) as on_event:
            report = run_async(_verify(settings, options, on_event))
        if as_json:
            emit_json(report_json(report))
        else:
            _print(report)
        return _exit_code(report.findings)
    source = None
    if repair_from is not None:
        source = replace(
            settings,
            store=repair_from,
            registry_config=None,
            endpoint_url=repair_from_endpoint_url or settings.endpoint_url,
            profile=repair_from_profile or settings.profile,
        )
    keep_freed_memory()
    with progress(quiet=settings.quiet) as on_event:
        found, repairs, left = run_async(_repair(settings, options, what, source, break_lock, on_event))
    if as_json:
        emit_json({"found": report_json(found), "repaired": asdict(repairs), "left": report_json(left)})
    else:
        _print(found)
        _print_repairs(repairs)
        if not repairs.nothing:
            emit("\nafter the repair:\n")
            _print(left)
    return EXIT_PARTIAL if repairs.failures and not left.findings.damage else _exit_code(left.findings)


async def _verify(settings: StoreSettings, options: VerifyOptions, on_event: OnEvent) -> VerifyReport:
    from regstore.inventory.whose import database_told
    from regstore.verify.run import verify as look

    storage, config = settings.open_with_config(read_only=True)
    async with storage:
        report = await look(storage, _with_config(options, config), on_event=on_event)
        return replace(report, database=report.database or database_told(config))


async def _repair(
    settings: StoreSettings,
    options: VerifyOptions,
    what: RepairOptions,
    source: StoreSettings | None,
    break_lock: bool,
    on_event: OnEvent,
) -> tuple[VerifyReport, Repairs, VerifyReport]:
    from contextlib import AsyncExitStack

    from regstore.backup.links import BackedUpLinks
    from regstore.backup.repair import is_backup
    from regstore.inventory.whose import Use
    from regstore.state.lock import hold_lock
    from regstore.storage.base import PutOptions, store_with
    from regstore.storage.identity import place_of
    from regstore.verify.repair import repair

    storage, config = settings.open_with_config()
    refuse_told(storage.url, config, Use.REPAIR)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(storage)
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
        lock = await stack.enter_async_context(hold_lock(storage, command="verify --repair"))
        options = _with_config(options, config)
        return await repair(storage, lock, options, what, source=other, links=links, on_event=on_event)


def _with_config(options: VerifyOptions, config: RegistryConfig | None) -> VerifyOptions:
    """The registry's configuration says whether it is a pull-through cache, unless the caller has."""
    if config is None or not config.proxy_remote_url or options.pull_through is not None:
        return options
    return replace(options, pull_through=True)


def _exit_code(findings: Findings) -> int:
    if findings.damage:
        return EXIT_DAMAGE
    return EXIT_PARTIAL if findings.unproven else EXIT_OK


def report_json(report: VerifyReport) -> dict[str, Any]:
    """The report as `--json` prints it."""
    from regstore.verify.plan import FaultKind

    findings = report.findings
    return {
        "store": report.store,
        "database": report.database or None,
        "pull_through": report.pull_through,
        "damage": findings.damage,
        "unreadable_manifests": findings.counts.get(FaultKind.MANIFEST_UNREADABLE, 0),
        "unreadable_blobs": findings.counts.get(FaultKind.BLOB_UNREADABLE, 0),
        "unreadable_links": findings.counts.get(FaultKind.LINK_UNREADABLE, 0),
        "archived": findings.counts.get(FaultKind.ARCHIVED, 0),
        "repositories": findings.repositories,
        "tags": {"total": findings.tags, "touched": findings.tags_touched, "broken": findings.tags_broken},
        "revisions": findings.revisions,
        "layer_links": findings.layer_links,
        "blobs": {"total": findings.blobs, "bytes": findings.blob_bytes},
        "unknown_keys": findings.unknown,
        "absent": asdict(findings.absent),
        "counts": {str(kind): number for kind, number in findings.counts.items()},
        "faults": [_fault_json(fault) for fault in findings.faults],
        "read": None if report.reading is None else asdict(report.reading),
    }


def _fault_json(fault: Fault) -> dict[str, Any]:
    return {
        "kind": str(fault.kind),
        "area": fault.area,
        "what": fault.subject,
        "detail": fault.detail,
        "repository": fault.repository or None,
        "digest": fault.digest,
        "tag": fault.tag or None,
        "repositories": list(fault.repositories),
        "tags": [{"repository": tag.repository, "tag": tag.tag, "broken": tag.pull} for tag in fault.touched],
        "repairable": fault.repairable,
        "remedy": fault.remedy,
    }


def _print(report: VerifyReport) -> None:
    findings = report.findings
    say_whose(report.store, report.database)
    emit(
        f"{report.store}: {counted(findings.repositories, 'repository', 'repositories')}, "
        f"{counted(findings.tags, 'tag')}, {counted(findings.revisions, 'manifest')}, "
        f"{counted(findings.layer_links, 'layer link')}, "
        f"{counted(findings.blobs, 'blob')} ({size(findings.blob_bytes)})"
    )
    if report.reading is not None:
        _print_reading(report.reading)
    shown = findings.faults[:_FAULTS_SHOWN]
    for fault in shown:
        emit()
        _print_fault(fault)
    total = sum(findings.counts.values())
    if total > len(shown):
        emit(f"\n({total - len(shown):,} more; --json has {len(findings.faults):,})")
    _print_absences(report)
    emit()
    if findings.counts:
        emit(table(["FOUND", "NUMBER"], [[str(kind), count(n)] for kind, n in findings.counts.items()], right=(1,)))
        emit(f"\n{findings.tags_broken:,} of {counted(findings.tags, 'tag')} can't be pulled whole")
        if findings.tags_touched > findings.tags_broken:
            emit(f"{findings.tags_touched - findings.tags_broken:,} more have something wrong that refers to them")
    else:
        emit("no damage found")


def _print_fault(fault: Fault) -> None:
    emit(printable(f"{fault.kind}: {fault.subject}"))
    emit(printable(f"  {fault.detail}"))
    if fault.touched:
        tags = [str(tag) + ("" if tag.pull else " (by what refers to it)") for tag in fault.touched[:_TAGS_SHOWN]]
        more = len(fault.touched) - len(tags)
        emit(printable(f"  touches {', '.join(tags)}" + (f" and {more:,} more" if more else "")))
    elif fault.repositories:
        names = ", ".join(fault.repositories[:_TAGS_SHOWN])
        emit(printable(f"  touches no tag; needed in {names}"))
    else:
        emit("  touches no tag, and nothing needs it")
    emit(f"  repair: {fault.remedy}")


def _print_reading(reading: Reading) -> None:
    rate = size(int(reading.bytes / reading.seconds)) + "/s" if reading.seconds > 0 else "-"
    emit(
        f"read {counted(reading.blobs, 'blob')} ({size(reading.bytes)}) in {reading.seconds:.1f} s ({rate}), "
        f"and {counted(reading.manifests, 'manifest')}"
    )
    if reading.known:
        emit(f"{counted(reading.known, 'blob')} had been read within --max-age")
    kept = reading.checksums_agree + reading.checksums_differ + reading.checksums_absent
    if kept:
        emit(
            f"the server's own checksums: {reading.checksums_agree:,} agree, {reading.checksums_differ:,} differ, "
            f"{reading.checksums_absent:,} blobs have none; {reading.trusted:,} were trusted and not read"
        )
    if reading.left:
        emit(f"the time was over: {counted(reading.left, 'chosen blob')} ({size(reading.left_bytes)}) not read")
    if reading.never_proved:
        emit(f"never read so far: {counted(reading.never_proved, 'blob')} ({size(reading.never_proved_bytes)})")
    elif reading.oldest is not None:
        emit(f"every blob was read and right since {moment(reading.oldest)}")
    for one in reading.unstable:
        emit_error(f"read differently twice, so the way here is not to be trusted: {one}")


def _print_repairs(repairs: Repairs) -> None:
    emit()
    if repairs.nothing:
        emit("nothing was repaired")
    for number, words, what in (
        (len(repairs.rewritten), "written anew", "link"),
        (len(repairs.blobs), f"({size(repairs.blob_bytes)}) fetched", "blob"),
        (len(repairs.restored), "put back", "link"),
        (len(repairs.dropped), "dropped", "tag"),
    ):
        if number:
            emit(f"{counted(number, what)} {words}")
    for tag in repairs.dropped[:_FAULTS_SHOWN]:
        emit(printable(f"  dropped {tag}"))
    for tag in repairs.spared[:_FAULTS_SHOWN]:
        emit(printable(f"  not dropped: {tag}"))
    for failure in repairs.failures:
        emit_error(printable(failure))
    if not repairs.nothing:
        emit(f"run {repairs.run} has it in its journal")


def _print_absences(report: VerifyReport) -> None:
    absent = report.findings.absent
    lines = [
        (absent.cached, "absent from the pull-through cache", "blob"),
        (absent.foreign, "not stored, as usual for foreign layers", "layer"),
        (absent.sparse, "of an index not stored in its repository (sparse index)", "child manifest"),
        (absent.leftovers, "left over of a blob that garbage collection removed", "layer link"),
        (absent.signatures, "of a schema1 signature that is gone", "link"),
        (report.findings.unknown, "of no known kind", "key"),
    ]
    shown = [f"{counted(number, what)} {words}" for number, words, what in lines if number]
    if shown:
        emit("\nno damage:")
        for line in shown:
            emit(f"  {line}")
