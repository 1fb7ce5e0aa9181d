"""`regstore migrate STORE DST`: a registry's store to another place."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.allocator import keep_freed_memory
from regstore.cli.cluster import Executors
from regstore.cli.command import command, said
from regstore.cli.confirm import confirm
from regstore.cli.making import is_there, refuse_missing
from regstore.cli.migrate_report import (
    print_configuration,
    print_result,
    print_summary,
    result_json,
    result_numbers,
    summary_json,
)
from regstore.cli.options import NewObjects, PlanOnly, Scope, SecondStore, ToDst
from regstore.cli.outcome import Result
from regstore.cli.progress import progress
from regstore.cli.reported import BlobsReported
from regstore.cli.run import run_async
from regstore.cli.seed_bucket import seed_target
from regstore.cli.settings import StoreSettings
from regstore.cli.values import parse_share
from regstore.cli.workers import Workers
from regstore.errors import EXIT_OK, EXIT_PARTIAL, InputError
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.inventory.scan import ScanOptions
    from regstore.migrate import MigrateOptions, MigrateResult, MigrateSummary


class _Verify(StrEnum):
    default = "default"
    full = "full"


@dataclass(frozen=True, kw_only=True)
class CopiedScope(Scope):
    """What is copied, and under which names."""

    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="FROM=TO", show_default=False, help="Another name for a repository (repeatable)."),
    ] = None
    everything: Annotated[bool, typer.Option("--all", help="Also what no tag or revision reaches.")] = False


@dataclass(frozen=True, kw_only=True)
class Passes:
    """How often, and whether the target is made first."""

    follow: Annotated[bool, typer.Option("--follow", help="Passes until nothing changes: for a live source.")] = (
        False
    )
    create: Annotated[
        bool, typer.Option("--create", help="Create and seed the target first, as seed-bucket does.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class AtTarget:
    """What of the target may be replaced or go."""

    overwrite_tags: Annotated[
        bool,
        typer.Option(
            "--overwrite-tags", help="Also tags that somebody else, or another source, set at the target."
        ),
    ] = False
    delete: Annotated[
        bool,
        typer.Option(
            "--delete",
            help="At the end, remove tags that our passes set and STORE no longer has (trash restore undoes it).",
        ),
    ] = False
    max_delete: Annotated[
        float,
        typer.Option(parser=parse_share, metavar="SHARE", help="Refuse to remove more of our tags than this."),
    ] = said("50%", parse_share)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How blobs are copied and proved."""

    verify: Annotated[
        _Verify, typer.Option(help="full: read every blob of the scope back from the target and hash it.")
    ] = _Verify.default
    server_side: Annotated[
        bool, typer.Option("--server-side/--no-server-side", help="Let the server copy from bucket to bucket.")
    ] = True


@command
def migrate(
    settings: StoreSettings,
    *,
    target: ToDst = None,
    scope: CopiedScope,
    dry_run: PlanOnly = False,
    passes: Passes,
    at_target: AtTarget,
    way: Way,
    new_objects: NewObjects,
    second: SecondStore,
    reported: BlobsReported,
    workers: Workers,
    cluster: Executors,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before --delete and --overwrite-tags.")
    ] = False,
) -> Result:
    """Copy a registry's store: disk to S3, bucket to bucket, S3 to disk.

    Copies what DST lacks or has differently, by content, in an order that keeps DST a correct registry at every
    instant. Run it again after an interruption, or for what was pushed meanwhile: only the rest is copied. Blobs that
    pass through are hashed; one that does not match its digest is named and left out, with what needs it. While gc,
    or another run that removes things, is at work on DST, no tag is set: it waits for its end, up to an hour.

    Exit codes: 0 done; 3 done, and what is damaged or in conflict was left out, or is as incomplete as at the source:
    all of it is named.
    """
    from regstore.migrate import MigrateOptions
    from regstore.migrate.options import Verify, parse_rename

    settings, target = settings.shifted(target)
    if target is None:
        raise InputError("no target: give STORE and DST")
    options = MigrateOptions(
        repositories=scope.repositories,
        tags=scope.tags,
        rename=parse_rename(scope.rename or []),
        all=scope.everything,
        overwrite_tags=at_target.overwrite_tags,
        delete=at_target.delete,
        max_delete=at_target.max_delete,
        verify=Verify(way.verify.value),
        concurrency=settings.concurrency,
        server_side=way.server_side,
        put=new_objects.put_options(),
    )
    scanning, there = _scanning(settings, reported, workers), second.settings(settings, target)
    if not dry_run and not _agreed(options, yes):
        return Result()
    keep_freed_memory()
    with progress() as on_event:
        done = run_async(
            _migrate(settings, there, options, scanning, cluster, dry_run=dry_run, passes=passes, on_event=on_event)
        )
    return _show(*done)


def _scanning(settings: StoreSettings, reported: BlobsReported, workers: Workers) -> ScanOptions:
    from regstore.inventory.cache import default_cache_dir
    from regstore.inventory.scan import ScanOptions

    return ScanOptions(
        cache_dir=default_cache_dir(),
        concurrency=settings.concurrency,
        blobs_from=reported.of(settings),
        runner=workers.runner(settings.concurrency),
    )


def _agreed(options: MigrateOptions, yes: bool) -> bool:
    overwrite, remove = "Overwrite tags at DST that name something else", "remove those that STORE no longer has"
    what = " and ".join(
        word for word, said in ((overwrite, options.overwrite_tags), (remove, options.delete)) if said
    )
    return not what or confirm(f"{what[0].upper()}{what[1:]}?", yes=yes)


def _show(
    summary: MigrateSummary | None,
    result: MigrateResult | None,
    configuration: dict[str, Any],
) -> Result:
    """The plan, or what came of it."""
    if summary is not None:
        print_summary(summary)
        partial = bool(summary.conflicts or summary.damaged or summary.incomplete)
        return Result(
            exit_code=EXIT_PARTIAL if partial else EXIT_OK, data={"plan": summary_json(summary), "report": None}
        )
    assert result is not None
    print_result(result)
    if configuration:  # a registry can be pointed there
        print_configuration(configuration)
    return Result(
        exit_code=EXIT_PARTIAL if result.partial else EXIT_OK,
        data={"plan": None, "report": result_json(result) | {"configuration": configuration}},
        numbers=result_numbers(result),
    )


async def _migrate(
    here: StoreSettings,
    there: StoreSettings,
    options: MigrateOptions,
    scanning: ScanOptions,
    cluster: Executors,
    *,
    dry_run: bool,
    passes: Passes,
    on_event: OnEvent,
) -> tuple[MigrateSummary | None, MigrateResult | None, dict[str, Any]]:
    from regstore.inventory.whose import database_told
    from regstore.migrate import check_source, migrate, plan_only
    from regstore.migrate.metadata import Metadata, notes_on_metadata, refuse_metadata
    from regstore.migrate.run import refuse_part
    from regstore.seed.configuration import registry_configuration
    from regstore.storage.identity import keep_id
    from regstore.storage.optional import store_with

    create = passes.create
    refuse_part(options, scanning, follow=passes.follow)
    source, config = here.open_with_config(read_only=dry_run)
    told = database_told(config)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(source)
        target = await stack.enter_async_context(there.open(read_only=dry_run))
        scanning, runner = await stack.enter_async_context(
            cluster.scanning(scanning, here.concurrency, on_event, source, target)
        )
        if not dry_run:
            refuse_metadata(Metadata(source=told), source.url, target.url, options)
        if create and not dry_run:
            await check_source(source, target, options)
            if not await is_there(target):
                # What is wrong with the options shows before anything is made.
                await plan_only(source, target, options, create=True, scanning=scanning, on_event=on_event)
            await seed_target(target, options.put, on_event)
        elif not create:
            await refuse_missing(target, made="makes it, and seeds it")
        await keep_id(source)  # so that no other folder's tags pass for its own at the target
        if dry_run:
            summary = await plan_only(source, target, options, create=create, scanning=scanning, on_event=on_event)
            notes = dict.fromkeys(
                [*notes_on_metadata(Metadata(source=told), source.url, target.url), *summary.notes]
            )
            return replace(summary, notes=tuple(notes)), None, {}
        if runner is not None:
            store_with(target, options.put)
            await stack.enter_async_context(runner.marked(target))
            options = replace(options, concurrency=scanning.concurrency)
        result = await migrate(source, target, options, follow=passes.follow, scanning=scanning, on_event=on_event)
        return None, result, registry_configuration(target)
