"""`regstore trash`: what runs took away, the way back, and the end of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from regstore.cli.locks import hold_lock_openly
from regstore.cli.options import CacheDir, CacheOption, DebugUrls, DryRun, RedisUrl, Yes
from regstore.cli.output import (
    confirm,
    count,
    counted,
    emit,
    emit_error,
    emit_json,
    moment,
    printable,
    size,
    some,
    table,
)
from regstore.cli.progress import progress
from regstore.cli.registry_cache import CacheOptions, Left, find_left, known_cache, open_cache, remember_cache
from regstore.cli.run import run_async
from regstore.cli.settings import Json, StoreSettings, store_command
from regstore.cli.values import parse_duration, parse_time
from regstore.cli.whose import refuse_told
from regstore.errors import EXIT_OK, EXIT_PARTIAL
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.digest import Digest
    from regstore.gc.heal import Healed
    from regstore.gc.restore import Restored, RestoreOptions, RestorePlan
    from regstore.gc.trash import Emptied, EmptyOptions, Kept
    from regstore.state.trashed import TrashedRun

Run = Annotated[
    str | None, typer.Option("--run", metavar="RUN", show_default=False, help="A run, as `trash list` names it.")
]


@store_command
def trash_list(
    settings: StoreSettings,
    run: Run = None,
    repo: Annotated[
        str | None,
        typer.Option(
            "--repo", metavar="NAME", show_default=False, help="Only runs that took links of this repository."
        ),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option(
            "--digest", metavar="DIGEST", show_default=False, help="Only runs that took this blob or manifest."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the runs that left anything in the trash or can be undone, oldest first."""
    from regstore.digest import Digest

    wanted = Digest.parse(digest) if digest is not None else None
    url, runs, links, left = run_async(_list(settings, run, repo, wanted))
    if as_json:
        emit_json(
            {"store": url, "runs": [_run_json(run) | {"links": links[run.run]} for run in runs], **left.json()}
        )
    elif runs:
        rows = [
            [
                run.run,
                moment(run.ended) if run.complete else "cut short",
                run.command,
                count(run.blobs),
                size(run.blob_bytes),
                count(links[run.run]),
            ]
            for run in runs
        ]
        emit(table(["RUN", "ENDED", "COMMAND", "BLOBS", "SIZE", "LINKS"], rows, right=(3, 4, 5)))
        emit()
        left.show()
    elif not settings.quiet:
        emit_error(
            f"the trash of {url} is empty"
            if run is repo is digest is None
            else f"the trash of {url} has no run that took such a thing"
        )


async def _list(
    settings: StoreSettings, only: str | None, repository: str | None, digest: Digest | None
) -> tuple[str, list[TrashedRun], dict[str, int], Left]:
    from regstore.gc.trash import count_links
    from regstore.gc.trash_search import runs_that_took
    from regstore.state.not_freed import not_freed
    from regstore.state.trashed import find_trash

    storage, config = settings.open_with_config(read_only=True)
    async with storage:
        known = await known_cache(storage, CacheOptions(config_path=settings.registry_config), config)
        found = await find_trash(storage)
        runs = [each for each in found if only in (None, each.run)]
        runs = await runs_that_took(
            storage, runs, repository=repository, digest=digest, concurrency=settings.concurrency
        )
        links = await count_links(storage, runs, concurrency=settings.concurrency)
        now = await storage.now()
        return storage.url, runs, links, Left(known, not_freed(found, known.as_of(now), now=now))


@store_command
def trash_restore(
    settings: StoreSettings,
    run: Run = None,
    repo: Annotated[
        str | None,
        typer.Option("--repo", metavar="NAME", show_default=False, help="Only what this repository lost."),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option(
            "--digest", metavar="DIGEST", show_default=False, help="Only this blob or manifest, with all it needs."
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Undo a run: put back the blobs, links and tags that it took. By default the newest run's.

    Nothing that stands is written over. The trash keeps its copies until it is emptied.
    """
    from regstore.digest import Digest
    from regstore.gc.restore import RestoreOptions

    options = RestoreOptions(
        run=run,
        repository=repo,
        digest=Digest.parse(digest) if digest is not None else None,
        concurrency=settings.concurrency,
    )
    url, plan = run_async(_plan(settings, options))
    if not as_json:
        _print_restore_plan(url, plan)
    if dry_run or plan.nothing_to_do:
        if as_json:
            emit_json({"store": url, **_plan_json(plan)})
        elif plan.nothing_to_do:
            emit("nothing to put back")
        return EXIT_PARTIAL if plan.conflicts else EXIT_OK
    if not confirm("Put this back?", yes=yes):
        emit_error("nothing was put back")
        return EXIT_OK
    with progress(quiet=settings.quiet) as on_event:
        restored = run_async(_restore(settings, options, on_event))
    if as_json:
        emit_json({"store": url, **_restored_json(restored)})
    else:
        emit(
            f"put back {counted(restored.blobs, 'blob')} ({size(restored.blob_bytes)}) and "
            f"{counted(restored.links, 'link')} of run {restored.run}"
        )
        # What only now stood in the way was not shown before.
        _print_conflicts([each for each in _conflicts(restored) if each not in _conflicts(plan)])
    return EXIT_PARTIAL if restored.conflicts else EXIT_OK


async def _plan(settings: StoreSettings, options: RestoreOptions) -> tuple[str, RestorePlan]:
    from regstore.gc.restore import plan_restore

    async with settings.open(read_only=True) as storage:
        return storage.url, await plan_restore(storage, options)


async def _restore(settings: StoreSettings, options: RestoreOptions, on_event: OnEvent) -> Restored:
    from regstore.gc.restore import apply_restore, plan_restore

    async with settings.open() as storage, hold_lock_openly(storage, command="trash restore") as lock:
        plan = await plan_restore(storage, options)
        return await apply_restore(storage, plan, lock, concurrency=options.concurrency, on_event=on_event)


@store_command
def trash_empty(
    settings: StoreSettings,
    run: Run = None,
    older_than: Annotated[
        int | None,
        typer.Option(
            parser=parse_duration, metavar="DURATION", show_default=False, help="Only runs that ended so long ago."
        ),
    ] = None,
    registry_cache: CacheOption = None,
    redis_url: RedisUrl = None,
    registry_debug_url: DebugUrls = None,
    restarted_after: Annotated[
        int | None,
        typer.Option(
            parser=parse_time,
            metavar="TIME",
            show_default=False,
            help="Every registry process was started after this time, such as 2026-01-31T12:00Z (UTC).",
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="The registry is stopped or read-only: empty what ended just now, too."),
    ] = False,
    settle: Annotated[
        int,
        typer.Option(
            parser=parse_duration, metavar="DURATION", help="Wait so long once Redis has forgotten anything."
        ),
    ] = "60s",  # type: ignore[assignment]
    dry_run: DryRun = False,
    yes: Yes = False,
    cache_dir: CacheDir = None,
    as_json: Json = False,
) -> int:
    """Delete for good what runs took away, and what undoes them. By default of every run.

    Runs go whole, never a repository or a digest of theirs: a run without some of its blobs could not be undone.

    First the store is scanned, and whatever is referenced again is put back. Refused where the registry's descriptor
    cache may still answer for the blobs. A run stays for an hour after its end, unless the registry is offline or was
    restarted since; one that was cut short, or was not told the outcome of all that it deleted, for a day.
    """
    from regstore.gc.trash import EmptyOptions
    from regstore.inventory.cache import default_cache_dir
    from regstore.inventory.scan import ScanOptions

    options = EmptyOptions(
        run=run,
        older_than=older_than,
        restarted_after=restarted_after,
        offline=offline,
        settle=settle / 1_000_000,
        scan=ScanOptions(concurrency=settings.concurrency, cache_dir=cache_dir or default_cache_dir()),
    )
    told = CacheOptions(
        registry_cache=registry_cache,
        redis_url=redis_url,
        debug_urls=registry_debug_url or [],
        config_path=settings.registry_config,
    )
    url, ready, kept, left = run_async(_choose(settings, options, told))
    if not as_json:
        _print_runs(url, ready)
        for each in kept:
            emit_error(f"run {each.run} stays: {each.reason}")
    if dry_run or not ready:
        if as_json:
            runs = [_run_json(each) for each in ready]
            emit_json({"store": url, "runs": runs, "kept": [asdict(each) for each in kept], **left.json()})
        else:
            left.show()
        return EXIT_PARTIAL if kept else EXIT_OK
    if not confirm("Delete this for good?", yes=yes):
        emit_error("nothing was deleted")
        return EXIT_OK
    with progress(quiet=settings.quiet) as on_event:
        emptied, versioned, left = run_async(_empty(settings, options, told, on_event))
    if as_json:
        emit_json({"store": url, "versioned": versioned, **asdict(emptied), **left.json()})
    else:
        emit(
            f"emptied {counted(len(emptied.runs), 'run')}: {counted(emptied.blobs, 'blob')} "
            f"({size(emptied.blob_bytes)}) deleted"
        )
        print_healed(emptied.healed)
        for each in emptied.kept:
            if each not in kept:
                emit_error(f"run {each.run} stays: {printable(each.reason)}")
        left.show()
    for failure in emptied.failures:
        emit_error(failure)
    return EXIT_PARTIAL if emptied.failures or emptied.kept or emptied.healed.damaged else EXIT_OK


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


def print_healed(healed: Healed) -> None:
    if healed.blobs or healed.links:
        emit(f"given back: {counted(len(healed.blobs), 'blob')}, {counted(len(healed.links), 'link')}")
    print_damaged(healed)


def print_damaged(healed: Healed) -> None:
    """Copies that were wanted and not given back."""
    for key in healed.damaged:
        emit_error(f"{key} is wanted, and has other bytes than its digest says: not given back; push it again")


def _print_runs(url: str, runs: list[TrashedRun]) -> None:
    blobs, total = sum(run.blobs for run in runs), sum(run.blob_bytes for run in runs)
    emit(f"{url}: {counted(len(runs), 'run')} to empty, {counted(blobs, 'blob')}, {size(total)}")
    for run in runs:
        emit(f"  {run.run}  {run.command}  {counted(run.blobs, 'blob')}  {size(run.blob_bytes)}")


def _print_restore_plan(url: str, plan: RestorePlan) -> None:
    emit(
        f"{url}: run {plan.run}: {counted(len(plan.blobs), 'blob')} ({size(plan.blob_bytes)}) and "
        f"{counted(plan.link_count, 'link')} to put back, {count(len(plan.standing))} there already"
    )
    _print_conflicts(_conflicts(plan))


def _conflicts(found: RestorePlan | Restored) -> list[tuple[str, str]]:
    return [(conflict.key, conflict.reason) for conflict in found.conflicts]


def _print_conflicts(conflicts: list[tuple[str, str]]) -> None:
    lines = [f"left as it is: {printable(key)}: {reason}" for key, reason in conflicts]
    for line in some(lines, "{} more are left as they are (--json names all)"):
        emit_error(line)


def _run_json(run: TrashedRun) -> dict[str, Any]:
    return {
        "run": run.run,
        "command": run.command,
        "started": moment(run.started),
        "ended": moment(run.ended) if run.complete else None,
        "complete": run.complete,
        "blobs": run.blobs,
        "bytes": run.blob_bytes,
    }


def _plan_json(plan: RestorePlan) -> dict[str, Any]:
    return {
        "run": plan.run,
        "blobs": [{"digest": blob.digest, "size": blob.size} for blob in plan.blobs],
        "bytes": plan.blob_bytes,
        "links": [link.key for step in plan.links for link in step],
        "standing": len(plan.standing),
        "conflicts": _conflicts_json(plan),
    }


def _restored_json(restored: Restored) -> dict[str, Any]:
    return {
        "run": restored.run,
        "blobs": restored.blobs,
        "bytes": restored.blob_bytes,
        "links": restored.links,
        "standing": restored.standing,
        "conflicts": _conflicts_json(restored),
    }


def _conflicts_json(found: RestorePlan | Restored) -> list[dict[str, str]]:
    return [{"key": key, "reason": reason} for key, reason in _conflicts(found)]


TRASH_COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "list": trash_list,
    "restore": trash_restore,
    "empty": trash_empty,
}
