"""`regstore gc`: collect garbage, also while the registry serves."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.elsewhere import publish, state_elsewhere
from regstore.cli.gc_report import plan_json, print_freeing, print_plan, print_report, report_json
from regstore.cli.locks import break_locks_openly, hold_lock_openly
from regstore.cli.options import BreakLock, CacheDir, CacheOption, DebugUrls, InventoryFile, PlanOnly, RedisUrl, Yes
from regstore.cli.output import counted, emit, emit_error, emit_json, size
from regstore.cli.progress import Shown, progress
from regstore.cli.registry_cache import CacheOptions, open_cache, remember_cache
from regstore.cli.retention import broken_scopes, policy_of, show_reasons
from regstore.cli.run import run_async
from regstore.cli.settings import Json, StoreSettings, store_command
from regstore.cli.trash import print_healed
from regstore.cli.values import parse_duration, parse_share
from regstore.cli.whose import refuse_told, say_whose
from regstore.errors import EXIT_FAILURE, EXIT_OK, EXIT_PARTIAL, InputError, Refused

if TYPE_CHECKING:
    from regstore.gc.plan import GcSummary
    from regstore.gc.run import GcReport, GcRunOptions
    from regstore.storage.base import Storage
    from regstore.storage.registry_config import RegistryConfig


@store_command
def gc(
    settings: StoreSettings,
    delete_untagged: Annotated[
        bool,
        typer.Option("--delete-untagged", help="Only tags keep manifests, with what they reach and refers to it."),
    ] = False,
    grace: Annotated[
        int,
        typer.Option(parser=parse_duration, metavar="DURATION", help="Leave alone what is younger than this."),
    ] = "24h",  # type: ignore[assignment]
    uploads_older_than: Annotated[
        int, typer.Option(parser=parse_duration, metavar="DURATION", help="Remove abandoned uploads of this age.")
    ] = "7d",  # type: ignore[assignment]
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default=False, help="Retention rules, in TOML.")
    ] = None,
    keep_newest: Annotated[
        int | None, typer.Option(metavar="N", min=1, show_default=False, help="Newest tags of a repository stay.")
    ] = None,
    keep_younger_than: Annotated[
        int | None,
        typer.Option(parser=parse_duration, metavar="DURATION", show_default=False, help="Younger tags stay."),
    ] = None,
    newest_by: Annotated[
        str | None,
        typer.Option(
            metavar="tag|created",
            show_default="tag",
            help="A tag's age: since it was set, or since its image was made.",
        ),
    ] = None,
    keep_tag: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", show_default=False, help="Such tags stay, uncounted: a glob or /regex/."),
    ] = None,
    drop_tag: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", show_default=False, help="Only such tags may go.")
    ] = None,
    protect_tag: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", show_default=False, help="Such tags never go, in no repository."),
    ] = None,
    repo: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", show_default=False, help="Tags go from these repositories only: team/**."),
    ] = None,
    drop_broken_revisions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REPO[@DIGEST]|all",
            show_default=False,
            help="Revisions that are lost or damaged, also when read again, may go with their tags, and no longer"
            " protect the repository. What is sound and only not understood goes by its digest alone.",
        ),
    ] = None,
    explain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REPO[:TAG]", show_default=False, help="Show why tags would stay or go; write nothing."
        ),
    ] = None,
    why: Annotated[
        list[str] | None,
        typer.Option(metavar="DIGEST", show_default=False, help="Show what keeps a blob; write nothing."),
    ] = None,
    dry_run: PlanOnly = False,
    yes: Yes = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="The registry is stopped or read-only: no second look is needed.")
    ] = False,
    no_trash: Annotated[
        bool, typer.Option("--no-trash", help="Delete blobs for good, with no way back; only with --offline.")
    ] = False,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Keep the lock and the journal here until the end, not in a store that is full; only with --offline "
            "--no-trash, which keep them in memory otherwise, once the store says that it is full.",
        ),
    ] = None,
    settle: Annotated[
        int, typer.Option(parser=parse_duration, metavar="DURATION", help="Wait this long before the last look.")
    ] = "60s",  # type: ignore[assignment]
    trash_days: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Empty the trash of runs that ended so long ago, where the cache allows it (as `trash empty` does).",
        ),
    ] = 7,
    registry_cache: CacheOption = None,
    redis_url: RedisUrl = None,
    registry_debug_url: DebugUrls = None,
    restart_command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            show_default=False,
            help="Restarts every registry process whose cache is in its memory, and returns when that is done: a line "
            "for /bin/sh. Run last, where anything in the trash waits for it, so that the next gc may free that.",
        ),
    ] = None,
    max_delete: Annotated[
        float,
        typer.Option(
            parser=parse_share, metavar="SHARE", help="Refuse to remove more of the blobs, or by rules of the tags."
        ),
    ] = "50%",  # type: ignore[assignment]
    untagged_repositories: Annotated[
        bool,
        typer.Option(
            "--untagged-repositories",
            help="With --delete-untagged, also repositories that have no tag, but for those of signatures, may lose "
            "all their manifests.",
        ),
    ] = False,
    copied_times: Annotated[
        bool,
        typer.Option(
            "--copied-times",
            help="Choose the newest also among tags that were all set within one hour, as by a copy of the store.",
        ),
    ] = False,
    unlinked_blobs: Annotated[
        bool,
        typer.Option(
            "--unlinked-blobs",
            help="Go on though blobs came steadily after the newest link: no registry keeps its links in a database.",
        ),
    ] = False,
    tags_are_complete: Annotated[
        bool,
        typer.Option(
            "--tags-are-complete",
            help="Every tag that matters is in the store, though its registry is Harbor's or OpenShift's.",
        ),
    ] = False,
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty", help="Go on though no blobs, or no links, show where the last run left some."
        ),
    ] = False,
    allow_gone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            show_default=False,
            help="Go on though such repositories have lost all tags since the last run: team/**.",
        ),
    ] = None,
    max_lost: Annotated[
        float,
        typer.Option(
            parser=parse_share, metavar="SHARE", help="Refuse where more of the links have gone since the last run."
        ),
    ] = "50%",  # type: ignore[assignment]
    break_lock: BreakLock = False,
    cache_dir: CacheDir = None,
    inventory: InventoryFile = None,
    as_json: Json = False,
) -> int:
    """Remove what nothing refers to any more: blobs, links, untagged manifests, abandoned uploads.

    Safe while the registry serves. Removed blobs lie in the trash below regstore/, for `regstore trash restore`, until
    a later gc or `regstore trash empty` deletes them.
    """
    from regstore.gc.plan import GcOptions
    from regstore.gc.policy import Pattern
    from regstore.gc.run import GcRunOptions
    from regstore.inventory.cache import default_cache_dir
    from regstore.inventory.scan import ScanOptions

    options = GcRunOptions(
        plan=GcOptions(
            delete_untagged=delete_untagged,
            grace=grace,
            uploads_older_than=uploads_older_than,
            policy=policy_of(
                policy=policy,
                keep_newest=keep_newest,
                keep_younger_than=keep_younger_than,
                newest_by=newest_by,
                keep=keep_tag or [],
                drop=drop_tag or [],
                protect=protect_tag or [],
                repositories=repo or [],
            ),
            drop_broken=broken_scopes(drop_broken_revisions or []),
        ),
        scan=ScanOptions(
            concurrency=settings.concurrency, cache_dir=cache_dir or default_cache_dir(), inventory=inventory
        ),
        offline=offline,
        trash=not no_trash,
        settle=settle / 1_000_000,
        max_delete=max_delete,
        allow_empty=allow_empty,
        allow_gone=tuple(map(Pattern.repository, allow_gone or [])),
        max_lost=max_lost,
        trash_older_than=trash_days * 86_400_000_000,
        restart_command=restart_command,
        untagged_repositories=untagged_repositories,
        copied_times=copied_times,
        unlinked_blobs=unlinked_blobs,
        tags_complete=tags_are_complete,
    )
    if state_dir is not None and not (offline and no_trash):
        raise InputError(
            "--state-dir keeps the lock out of the store, and so nobody else out of it: it needs --offline --no-trash"
        )
    told = CacheOptions(
        registry_cache=registry_cache,
        redis_url=redis_url,
        debug_urls=registry_debug_url or [],
        restart_command=restart_command,
        config_path=settings.registry_config,
    )
    shown = progress(quiet=settings.quiet)
    with shown:
        if explain or why:
            return run_async(_explain(settings, options, explain or [], why or [], as_json, shown))
        if dry_run:
            return run_async(_show(settings, options, as_json, shown))
        return run_async(_collect(settings, told, options, as_json, yes, break_lock, state_dir, shown))


def _with_config(options: GcRunOptions, config: RegistryConfig | None) -> GcRunOptions:
    """With what the registry's configuration says of whose it is."""
    from regstore.inventory.whose import database_told

    if config is None:
        return options
    return replace(options, database=database_told(config), tags_in=config.tags_in)


async def _explain(
    settings: StoreSettings,
    options: GcRunOptions,
    tags: list[str],
    digests: list[str],
    as_json: bool,
    shown: Shown,
) -> int:
    from regstore.digest import Digest
    from regstore.gc.run import open_run

    wanted = [Digest.parse(digest) for digest in digests]
    storage, config = settings.open_with_config(read_only=True)
    async with storage, open_run(storage, _with_config(options, config), on_event=shown.show) as run:
        shown.clear()
        if not as_json:
            say_whose(storage.url, run.database)
        show_reasons(storage.url, run, options.plan, tags, wanted, as_json=as_json)
    return EXIT_OK


async def _show(settings: StoreSettings, options: GcRunOptions, as_json: bool, shown: Shown) -> int:
    from regstore.gc.run import open_run

    storage, config = settings.open_with_config(read_only=True)
    options = _with_config(options, config)
    async with storage, open_run(storage, options, on_event=shown.show) as run:
        shown.clear()
        if as_json:
            emit_json(plan_json(storage.url, run))
        else:
            say_whose(storage.url, run.database)
            print_plan(storage.url, run, options)
            if run.summary.nothing_to_do:
                emit("nothing to remove")
            for stop in run.stops:
                emit(f"refused without --dry-run: {stop}")
        return _exit_code(run.summary)


async def _collect(
    settings: StoreSettings,
    told: CacheOptions,
    options: GcRunOptions,
    as_json: bool,
    yes: bool,
    break_lock: bool,
    state_dir: Path | None,
    shown: Shown,
) -> int:
    from regstore.gc.run import open_run, require_registry
    from regstore.inventory.whose import Use

    store, config = settings.open_with_config()
    options = _with_config(options, config)
    refuse_told(store.url, config, Use.REMOVE)
    if config is not None and config.read_only and not options.offline:
        emit_error(
            "the registry's configuration says that it is read-only: if every registry process runs with it, "
            "--offline needs no second look"
        )
    async with AsyncExitStack() as stack:
        storage: Storage = await stack.enter_async_context(store)
        elsewhere = None
        if options.offline and not options.trash:
            elsewhere = await stack.enter_async_context(state_elsewhere(storage, state_dir, shown.show))
            storage = elsewhere
        cache = await stack.enter_async_context(open_cache(storage, told, config))
        if break_lock:
            await break_locks_openly(storage)
        await require_registry(storage)
        async with (
            hold_lock_openly(storage, command="gc") as lock,
            open_run(storage, options, lock, cache=cache, on_event=shown.show) as run,
        ):
            shown.clear()
            await remember_cache(storage, cache.known)
            if not as_json:
                print_plan(storage.url, run, options)
            run.check()
            if run.nothing_to_do:
                await run.remember()
                nothing = await run.rest()
                state = await publish(elsewhere) if elsewhere is not None else "store"
                shown.clear()
                if as_json:
                    emit_json(report_json(storage.url, run, nothing, cache.known, state))
                else:
                    print_healed(run.healed)
                    emit("nothing to remove")
                    print_freeing(nothing, cache.known)
                return _exit_code(run.summary, nothing)
            if run.expired and not as_json:
                emit(
                    f"the trash of {counted(len(run.expired), 'older run')} is emptied, too: "
                    f"{size(sum(each.blob_bytes for each in run.expired))}"
                )
            if as_json and not yes:
                raise Refused(
                    "with --json no plan is shown that one could agree to: say --yes, or look with --dry-run"
                )
            if not await _agreed(yes):
                emit_error("nothing was removed")
                return EXIT_OK
            report = await run.apply()
            state = await publish(elsewhere) if elsewhere is not None else "store"
            shown.clear()
            if as_json:
                emit_json(report_json(storage.url, run, report, cache.known, state))
            else:
                print_report(report, cache.known)
            if report.failures:
                return EXIT_FAILURE if report.nothing_went else EXIT_PARTIAL
            return _exit_code(run.summary, report)


async def _agreed(yes: bool) -> bool:
    """Ask on the terminal, without stopping the loop that keeps the lock."""
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused("this needs a yes, and there is no terminal to ask on: say --yes, or look with --dry-run")
    import asyncio

    print("Remove this? [y/N] ", end="", file=sys.stderr, flush=True)
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        loop.remove_reader(sys.stdin)
        answer.set_result(sys.stdin.readline())

    loop.add_reader(sys.stdin, read)
    try:
        return (await answer).strip().lower() in ("y", "yes")
    finally:
        loop.remove_reader(sys.stdin)


def _exit_code(summary: GcSummary, report: GcReport | None = None) -> int:
    if report is not None and report.restart is not None and not report.restart.done:
        return EXIT_PARTIAL
    if report is not None and report.healed.damaged:
        return EXIT_PARTIAL
    return EXIT_PARTIAL if summary.protected or summary.sweep_blocked or summary.uploads_blocked else EXIT_OK
