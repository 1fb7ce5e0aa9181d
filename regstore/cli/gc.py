"""`regstore gc`: collect garbage, also while the registry serves."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from regstore.cli.command import command
from regstore.cli.confirm import confirm_shown
from regstore.cli.elsewhere import publish, state_elsewhere
from regstore.cli.gc_options import Consent, Garbage, GcCache, Questions, TagsToGo, Way, plan_options, run_options
from regstore.cli.gc_report import (
    plan_json,
    plan_numbers,
    print_freeing,
    print_plan,
    print_report,
    report_json,
    report_numbers,
)
from regstore.cli.gc_spark import Cluster, open_on_cluster
from regstore.cli.healed import print_healed
from regstore.cli.locks import break_locks_openly, hold_lock_openly
from regstore.cli.naming import full_digest, saying_what_was_meant
from regstore.cli.options import BreakLock, InventoryFile, PlanOnly, Scanning, Yes
from regstore.cli.outcome import Result
from regstore.cli.output import counted, emit, emit_error, emit_problem, size
from regstore.cli.progress import Shown, progress
from regstore.cli.registry_cache import CacheOptions, open_cache, remember_cache
from regstore.cli.reported import BlobsReported
from regstore.cli.retention import show_reasons
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.voice import voice
from regstore.cli.whose import refuse_told, say_whose
from regstore.errors import EXIT_FAILURE, EXIT_OK, EXIT_PARTIAL

if TYPE_CHECKING:
    from regstore.gc.caches import RegistryCache
    from regstore.gc.plan import GcSummary
    from regstore.gc.report import GcReport
    from regstore.gc.run import GcRun, GcRunOptions
    from regstore.state.known_cache import KnownCache
    from regstore.state.lock import Lock
    from regstore.storage.base import Storage
    from regstore.storage.registry_config import RegistryConfig


@command
def gc(
    settings: StoreSettings,
    *,
    garbage: Garbage,
    tags: TagsToGo,
    questions: Questions,
    dry_run: PlanOnly = False,
    yes: Yes = False,
    way: Way,
    cache: GcCache,
    consent: Consent,
    break_lock: BreakLock = False,
    reported: BlobsReported,
    scanning: Scanning,
    inventory: InventoryFile = None,
    cluster: Cluster,
) -> Result:
    """Remove what nothing refers to any more: blobs, links, untagged manifests, abandoned uploads.

    Safe while the registry serves. Removed blobs lie in the trash below regstore/, for `regstore trash restore`, until
    a later gc or `regstore trash empty` deletes them.
    """
    if questions.policy_example:
        from regstore.gc.policy import example

        voice().answers = True
        emit(example().rstrip())
        return Result(data={"policy_example": example()})
    options = run_options(
        plan_options(garbage, tags.with_full_digests(settings)),
        replace(scanning.of(settings, inventory=inventory), blobs_from=reported.of(settings)),
        way,
        consent,
        cache.restart_command,
    )
    if cluster.is_used:
        cluster.check(questions, inventory, way.state_dir)
    told = cache.of(settings)
    shown = progress()
    with shown:
        if questions.explain or questions.why:
            return run_async(_explain(settings, options, questions, shown))
        if dry_run:
            return run_async(_show(settings, options, cluster, shown))
        collection = _Collection(
            settings=settings,
            told=told,
            options=options,
            cluster=cluster,
            yes=yes,
            break_lock=break_lock,
            state_dir=way.state_dir,
            shown=shown,
        )
        return run_async(collection.run())


def _with_config(options: GcRunOptions, config: RegistryConfig | None) -> GcRunOptions:
    """With what the registry's configuration says of whose it is."""
    from regstore.inventory.whose import database_told

    if config is None:
        return options
    return replace(options, database=database_told(config), tags_in=config.tags_in)


async def _explain(
    settings: StoreSettings,
    options: GcRunOptions,
    questions: Questions,
    shown: Shown,
) -> Result:
    from regstore.gc.reported import look_for
    from regstore.gc.run import open_run

    tags = questions.explain or []
    storage, config = settings.open_with_config(read_only=True)
    async with saying_what_was_meant(settings, tags), storage:
        wanted = [await full_digest(storage, digest) for digest in questions.why or []]
        async with open_run(storage, _with_config(options, config), on_event=shown.show) as run:
            shown.clear()
            voice().answers = True
            say_whose(storage.url, run.database)
            await look_for(storage, run.inventory, wanted, concurrency=settings.concurrency)
            return Result(data=show_reasons(run, options.plan, tags, wanted))


def _open(
    storage: Storage,
    options: GcRunOptions,
    cluster: Cluster,
    lock: Lock | None = None,
    *,
    cache: RegistryCache | None = None,
    shown: Shown,
) -> AbstractAsyncContextManager[GcRun]:
    if cluster.is_used:
        return open_on_cluster(storage, options, cluster, lock, cache, shown.show)
    from regstore.gc.run import open_run

    return open_run(storage, options, lock, cache=cache, on_event=shown.show)


async def _show(settings: StoreSettings, options: GcRunOptions, cluster: Cluster, shown: Shown) -> Result:
    storage, config = settings.open_with_config(read_only=True)
    options = _with_config(options, config)
    async with storage, _open(storage, options, cluster, shown=shown) as run:
        shown.clear()
        say_whose(storage.url, run.database)
        print_plan(storage.url, run, options)
        if run.summary.nothing_to_do:
            emit("nothing to remove")
        for stop in run.stops:
            emit_problem(f"refused without --dry-run: {stop}")
        return Result(exit_code=_exit_code(run.summary), data=plan_json(run), numbers=plan_numbers(run.summary))


@dataclass(frozen=True, kw_only=True)
class _Collection:
    """A run that removes things. state_dir: for the lock and the journal, where the store has no room."""

    settings: StoreSettings
    told: CacheOptions
    options: GcRunOptions
    cluster: Cluster
    yes: bool
    break_lock: bool
    state_dir: Path | None
    shown: Shown

    async def run(self) -> Result:
        from regstore.gc.planning import require_registry
        from regstore.inventory.whose import Use

        store, config = self.settings.open_with_config()
        options = _with_config(self.options, config)
        refuse_told(store.url, config, Use.REMOVE)
        if config is not None and config.read_only and not options.offline:
            emit_error(
                "the registry's configuration says that it is read-only: if every registry process runs with it, "
                "--offline needs no second look"
            )
        async with AsyncExitStack() as stack:
            storage: Storage = await stack.enter_async_context(store)
            elsewhere = None
            if options.offline and not options.trash and not self.cluster.is_used:
                elsewhere = await stack.enter_async_context(
                    state_elsewhere(storage, self.state_dir, self.shown.show)
                )
                storage = elsewhere
            cache = await stack.enter_async_context(open_cache(storage, self.told, config))
            if self.break_lock:
                await break_locks_openly(storage)
            await require_registry(storage)
            async with (
                hold_lock_openly(storage, command="gc") as lock,
                _open(storage, options, self.cluster, lock, cache=cache, shown=self.shown) as run,
            ):
                self.shown.clear()
                await remember_cache(storage, cache.known)
                print_plan(storage.url, run, options)
                run.check()
                nothing = run.nothing_to_do
                if nothing:
                    await run.remember()
                    report = await run.rest()
                elif await self._agreed(run):
                    report = await run.apply()
                else:
                    emit_error("nothing was removed")
                    return Result()
                state = await publish(elsewhere)
                self.shown.clear()
                return _told(run, report, cache.known, state, nothing=nothing)

    async def _agreed(self, run: GcRun) -> bool:
        if run.expired:
            emit(
                f"the trash of {counted(len(run.expired), 'older run')} is emptied, too: "
                f"{size(sum(each.blob_bytes for each in run.expired))}"
            )
        return await confirm_shown("Remove this?", yes=self.yes)


def _told(run: GcRun, report: GcReport, known: KnownCache, state: str, *, nothing: bool) -> Result:
    """Of a run at its end."""
    if nothing:
        print_healed(run.healed)
        emit("nothing to remove")
        print_freeing(report, known)
    else:
        print_report(report, known)
    return Result(
        exit_code=_exit_code(run.summary, report),
        data=plan_json(run) | {"report": report_json(report, known, state)},
        numbers=plan_numbers(run.summary) | report_numbers(report),
    )


def _exit_code(summary: GcSummary, report: GcReport | None = None) -> int:
    if report is not None and report.failures:
        return EXIT_FAILURE if report.nothing_went else EXIT_PARTIAL
    if report is not None and report.restart is not None and not report.restart.done:
        return EXIT_PARTIAL
    if report is not None and report.healed.damaged:
        return EXIT_PARTIAL
    return EXIT_PARTIAL if summary.protected or summary.sweep_blocked or summary.uploads_blocked else EXIT_OK
