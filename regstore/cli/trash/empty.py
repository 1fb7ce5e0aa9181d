"""`regstore trash empty`: what runs took goes for good."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.command import command, said
from regstore.cli.confirm import confirm
from regstore.cli.healed import print_healed
from regstore.cli.locks import hold_lock_openly
from regstore.cli.options import CacheAndProcesses, DryRun, Scanning, Yes
from regstore.cli.outcome import Result
from regstore.cli.output import counted, emit, emit_error, plain, printable, size
from regstore.cli.progress import progress
from regstore.cli.registry_cache import CacheOptions, Left, find_left, open_cache, remember_cache
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.trash._common import Run, run_json
from regstore.cli.values import parse_duration, parse_time
from regstore.cli.whose import refuse_told
from regstore.errors import EXIT_OK, EXIT_PARTIAL
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.gc.trash import Emptied, EmptyOptions, Kept
    from regstore.state.trashed import TrashedRun


@dataclass(frozen=True, kw_only=True)
class RunsToEmpty:
    """Whose trash is emptied."""

    run: Run = None
    older_than: Annotated[
        int | None,
        typer.Option(
            parser=parse_duration, metavar="DURATION", show_default=False, help="Only runs that ended so long ago."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CacheForgotten(CacheAndProcesses):
    """With what says that the cache can't answer for the blobs any more."""

    restarted_after: Annotated[
        int | None,
        typer.Option(
            parser=parse_time,
            metavar="TIME",
            show_default=False,
            help="Every registry process was started after this time, such as 2026-01-31T12:00Z (UTC).",
        ),
    ] = None
    offline: Annotated[
        bool,
        typer.Option("--offline", help="The registry is stopped or read-only: empty what ended just now, too."),
    ] = False
    settle: Annotated[
        int,
        typer.Option(
            parser=parse_duration, metavar="DURATION", help="Wait so long once Redis has forgotten anything."
        ),
    ] = said("60s", parse_duration)


@command
def trash_empty(
    settings: StoreSettings,
    *,
    which: RunsToEmpty,
    forgotten: CacheForgotten,
    dry_run: DryRun = False,
    yes: Yes = False,
    scanning: Scanning,
) -> Result:
    """Delete for good what runs took away, and what undoes them. By default of every run.

    Runs go whole, never a repository or a digest of theirs: a run without some of its blobs could not be undone.

    First the store is scanned, and whatever is referenced again is put back. Refused where the registry's descriptor
    cache may still answer for the blobs. A run stays for an hour after its end, unless the registry is offline or was
    restarted since; one that was cut short, or was not told the outcome of all that it deleted, for a day.
    """
    from regstore.gc.trash import EmptyOptions

    options = EmptyOptions(
        run=which.run,
        older_than=which.older_than,
        restarted_after=forgotten.restarted_after,
        offline=forgotten.offline,
        settle=forgotten.settle / 1_000_000,
        scan=scanning.of(settings),
    )
    told = forgotten.of(settings)
    url, ready, kept, left = run_async(_choose(settings, options, told))
    _print_runs(url, ready)
    for each in kept:
        emit_error(f"run {each.run} stays: {each.reason}")
    planned = {"plan": {"runs": list(map(run_json, ready)), "kept": kept}, "report": None}
    if dry_run or not ready:
        left.show()
        return Result(exit_code=EXIT_PARTIAL if kept else EXIT_OK, data=planned | left.json())
    if not confirm("Delete this for good?", yes=yes):
        emit_error("nothing was deleted")
        return Result()
    options = replace(options, agreed=frozenset(run.run for run in ready))
    with progress() as on_event:
        emptied, versioned, left = run_async(_empty(settings, options, told, on_event))
    _print_emptied(emptied, left, [each for each in emptied.kept if each not in kept])
    for failure in emptied.failures:
        emit_error(failure)
    return Result(
        exit_code=EXIT_PARTIAL if emptied.failures or emptied.kept or emptied.healed.damaged else EXIT_OK,
        data=planned | {"report": plain(emptied) | {"versioned": versioned}} | left.json(),
        numbers={
            "emptied_runs": len(emptied.runs),
            "freed_blobs": emptied.blobs,
            "freed_blob_bytes": emptied.blob_bytes,
            "kept_runs": len(emptied.kept),
            "not_freed_bytes": left.not_freed.blob_bytes,
            "failures": len(emptied.failures),
        },
    )


async def _choose(
    settings: StoreSettings, options: EmptyOptions, told: CacheOptions
) -> tuple[str, list[TrashedRun], list[Kept], Left]:
    from regstore.gc.trash import choose_runs
    from regstore.inventory.whose import Use

    storage, config = settings.open_with_config(read_only=True)
    refuse_told(storage.url, config, Use.REMOVE)
    async with storage, open_cache(storage, told, config) as cache:
        ready, kept = await choose_runs(storage, options, cache)
        return storage.url, ready, kept, await find_left(storage, cache.known)


async def _empty(
    settings: StoreSettings, options: EmptyOptions, told: CacheOptions, on_event: OnEvent
) -> tuple[Emptied, bool | None, Left]:
    from regstore.gc.trash import empty_trash

    storage, config = settings.open_with_config()
    async with (
        storage,
        open_cache(storage, told, config) as cache,
        hold_lock_openly(storage, command="trash empty") as lock,
    ):
        await remember_cache(storage, cache.known)
        emptied = await empty_trash(storage, options, lock, cache=cache, on_event=on_event)
        versioned = (await storage.capabilities()).versioned
        deleted = (emptied.blobs, emptied.blob_bytes) if versioned else None
        return emptied, versioned, await find_left(storage, cache.known, versions=deleted)


def _print_runs(url: str, runs: list[TrashedRun]) -> None:
    blobs, total = sum(run.blobs for run in runs), sum(run.blob_bytes for run in runs)
    emit(f"{url}: {counted(len(runs), 'run')} to empty, {counted(blobs, 'blob')}, {size(total)}")
    for run in runs:
        emit(f"  {run.run}  {run.command}  {counted(run.blobs, 'blob')}  {size(run.blob_bytes)}")


def _print_emptied(emptied: Emptied, left: Left, also_kept: list[Kept]) -> None:
    """also_kept: those that were to go."""
    emit(
        f"emptied {counted(len(emptied.runs), 'run')}: {counted(emptied.blobs, 'blob')} "
        f"({size(emptied.blob_bytes)}) deleted"
    )
    print_healed(emptied.healed)
    for each in also_kept:
        emit_error(f"run {each.run} stays: {printable(each.reason)}")
    left.show()
