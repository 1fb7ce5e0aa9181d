"""`regstore backup check`: is every snapshot complete, and are its bytes right?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.backup._common import BackupSettings
from regstore.cli.command import command
from regstore.cli.config.complete import store_names
from regstore.cli.options import NewObjects, ProofsDir, Reading, SecondStore, cache_dir_or_default
from regstore.cli.outcome import Result
from regstore.cli.output import blobs, counted, emit, emit_error, plain, size, warn_some
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.workers import Workers
from regstore.errors import EXIT_DAMAGE, EXIT_OK, EXIT_PARTIAL, InputError
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.backup import CheckResult
    from regstore.storage.base import PutOptions


@command
def backup_check(
    settings: BackupSettings,
    *,
    snapshot: Annotated[
        str | None, typer.Option(metavar="ID|latest|TIME", show_default=False, help="Only this snapshot.")
    ] = None,
    reading: Reading,
    cache_dir: ProofsDir = None,
    repair_from: Annotated[
        str | None,
        typer.Option(
            metavar="STORE|BACKUP",
            autocompletion=store_names,
            show_default=False,
            help="Write anew what is lost or damaged: blobs from a registry, or everything from another backup.",
        ),
    ] = None,
    new_objects: NewObjects,
    second: SecondStore,
    workers: Workers,
) -> Result:
    """Check that every snapshot is complete: its packs match their names, and its blobs are there with their sizes.

    With --read-data, blobs are read and hashed: a share and a size take those first that were never proved, then those
    that were proved longest ago; N/T is part N of T. Safe while create and prune run.

    Exit codes: 0 sound; 6 damage, named with the tags that it touches; 3 no damage, but something can't be read.
    """
    if reading.read_data is None and (reading.max_age is not None or reading.time_limit is not None):
        raise InputError("--max-age and --time-limit are about what --read-data reads: say how much")
    put = new_objects.put_options()
    proving = {
        "read_data": reading.read_data,
        "max_age": reading.max_age,
        "time_limit": reading.seconds,
        "proofs": cache_dir_or_default(cache_dir),
        "runner": workers.runner(settings.concurrency),
    }
    other = second.settings(settings, repair_from) if repair_from is not None else None
    with progress() as on_event:
        result = run_async(_check(settings, snapshot, proving, other, put, on_event))
    _print_checked(result)
    return Result(
        exit_code=EXIT_DAMAGE if result.damaged else EXIT_PARTIAL if result.unread else EXIT_OK,
        data=plain(result) | {"damaged": result.damaged},
        numbers={
            "snapshots": result.snapshots,
            "blobs": result.blobs,
            "blob_bytes": result.bytes,
            "read_blobs": result.read_blobs,
            "read_bytes": result.read_bytes,
            "damage": len(result.damage),
            "unread": len(result.unread),
        },
    )


async def _check(
    settings: BackupSettings,
    snapshot: str | None,
    proving: dict[str, Any],
    other: StoreSettings | None,
    put: PutOptions,
    on_event: OnEvent,
) -> CheckResult:
    from contextlib import AsyncExitStack

    from regstore.backup import check
    from regstore.storage.optional import store_with

    async with AsyncExitStack() as stack:
        backup = await stack.enter_async_context(settings.open())
        store_with(backup, put)
        store = await stack.enter_async_context(other.open()) if other else None
        return await check(
            backup,
            snapshot=snapshot,
            **proving,
            repair_from=store,
            put=put,
            concurrency=settings.concurrency,
            on_event=on_event,
        )


def _print_checked(result: CheckResult) -> None:
    emit(
        f"{counted(result.snapshots, 'snapshot')}, {counted(result.packs, 'pack')}, "
        f"{blobs(result.blobs, result.bytes)}; read {counted(result.read_blobs, 'blob')} "
        f"({size(result.read_bytes)}), in {result.seconds:.1f} s"
    )
    if result.known_blobs:
        emit(f"{blobs(result.known_blobs, result.known_bytes)} proved before, within --max-age")
    if result.left_blobs:
        emit(f"{blobs(result.left_blobs, result.left_bytes)} left, for the time was over")
    if result.unneeded_blobs:
        emit(f"{blobs(result.unneeded_blobs, result.unneeded_bytes)} no snapshot needs: see prune")
    for one in result.damage:
        emit_error(f"{one.kind} {one.subject} {one.reason}" + ("; repaired" if one.repaired else ""))
        if not one.repaired:
            warn_some([f"  touches {place} in {', '.join(place.snapshots)}" for place in one.touches])
    for one in result.unread:
        emit_error(f"{one.kind} {one.subject}: {one.reason}")
        warn_some([f"  touches {place} in {', '.join(place.snapshots)}" for place in one.touches])
    warn_some(result.notes)
    for line in result.unstable:
        emit_error(f"read differently twice, so the way here is not to be trusted: {line}")
    if not result.damage:
        emit("no damage found" + (", but not everything can be read" if result.unread else ""))
