"""`regstore backup restore`, which is `regstore restore`: a snapshot into a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.allocator import keep_freed_memory
from regstore.cli.backup._common import BackupSettings, heading, named
from regstore.cli.command import command
from regstore.cli.confirm import confirm_shown
from regstore.cli.locks import break_locks_openly, hold_lock_openly
from regstore.cli.making import is_there, refuse_missing
from regstore.cli.options import (
    BreakLock,
    CreateStore,
    DryRun,
    NewObjects,
    Scope,
    SecondStore,
    ToStore,
    YesToOverwrite,
)
from regstore.cli.outcome import Result
from regstore.cli.output import blobs, counted, emit, emit_error, emit_some, plain, warn_some
from regstore.cli.progress import Shown, progress
from regstore.cli.run import run_async
from regstore.cli.seed_bucket import seed_target
from regstore.cli.settings import StoreSettings
from regstore.cli.whose import say_whose
from regstore.cli.workers import Workers
from regstore.errors import EXIT_OK, EXIT_PARTIAL, InputError
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.backup import RestoreOptions, RestorePlan, RestoreResult
    from regstore.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class RestoredScope(Scope):
    """What is restored, and what of STORE is not believed or kept."""

    overwrite_tags: Annotated[
        bool, typer.Option("--overwrite-tags", help="Also tags that name something else in STORE.")
    ] = False
    verify_existing: Annotated[
        bool,
        typer.Option(
            "--verify-existing", help="Read and hash blobs that STORE has, and replace those that are wrong."
        ),
    ] = False

    def options(self, settings: BackupSettings, snapshot: str, new_objects: NewObjects) -> RestoreOptions:
        from regstore.backup import RestoreOptions

        return RestoreOptions(
            snapshot=snapshot,
            repositories=self.repositories,
            tags=self.tags,
            overwrite_tags=self.overwrite_tags,
            verify_existing=self.verify_existing,
            put=new_objects.put_options(),
            concurrency=settings.concurrency,
        )


@dataclass(frozen=True, kw_only=True)
class How:
    """What is made, shown and asked first."""

    create: CreateStore = False
    dry_run: DryRun = False
    yes: YesToOverwrite = False
    break_lock: BreakLock = False


@command
def backup_restore(
    settings: BackupSettings,
    *,
    target: ToStore = None,
    snapshot: Annotated[
        str,
        typer.Option(
            "--snapshot",
            metavar="ID|latest|TIME",
            help="An ID or its beginning; or the newest of the whole registry, by that time.",
        ),
    ] = "latest",
    scope: RestoredScope,
    how: How,
    new_objects: NewObjects,
    second: SecondStore,
    workers: Workers,
) -> Result:
    """Restore a snapshot into STORE, which may be empty, in use or, with --create, missing.

    Blobs first, each hashed on its way, then links, in the order of a push. What is there already stays; a tag that
    names something else in STORE is a conflict, and stays too unless --overwrite-tags. What a replaced link held is in
    the run's journal, STORE/regstore/runs. Blobs in STORE are believed by their size unless --verify-existing. Run it
    again after an interruption: only the rest is written. Until it is done, no registry's own garbage-collect may run
    on STORE: it deletes blobs that nothing links yet.

    latest and TIME mean snapshots of the whole registry, where there is one; of several scopes or sources, give an ID.

    Exit codes: 0 done; 3 done, with conflicts, or with something left out and named: what is damaged (a newer snapshot
    too), and what the snapshot had left out when it was made.
    """
    if target is None:
        raise InputError("no store: give BACKUP and STORE")
    options = scope.options(settings, snapshot, new_objects)
    there = second.settings(settings, target)
    keep_freed_memory()
    if how.dry_run:
        with progress() as on_event:
            plan = run_async(_plan_restore(settings, there, options, workers, on_event))
        _print_plan(plan, target)
        return Result(
            exit_code=EXIT_PARTIAL if plan.partial else EXIT_OK, data={"plan": _plan_json(plan), "report": None}
        )
    restoring = _Restoring(here=settings, there=there, options=options, how=how, workers=workers, shown=progress())
    with restoring.shown:
        result = run_async(restoring.run())
    if result is None:
        emit_error("nothing was restored")
        return Result()
    _print_restored(result)
    return Result(
        exit_code=EXIT_PARTIAL if result.partial else EXIT_OK,
        data={"plan": None, "report": _result_json(result)},
        numbers=_numbers(result),
    )


async def _plan_restore(
    here: BackupSettings, there: StoreSettings, options: RestoreOptions, workers: Workers, on_event: OnEvent
) -> RestorePlan:
    from regstore.backup import plan_restore

    async with here.open(read_only=True) as backup, there.open(read_only=True) as store:
        runner = workers.runner(options.concurrency)
        return await plan_restore(backup, store, options, runner=runner, on_event=on_event)


@dataclass(frozen=True, kw_only=True)
class _Restoring:
    """A restore that writes."""

    here: BackupSettings
    there: StoreSettings
    options: RestoreOptions
    how: How
    workers: Workers
    shown: Shown

    async def run(self) -> RestoreResult | None:
        """None where somebody was asked, and said no."""
        from regstore.backup import choose, list_snapshots, restore
        from regstore.backup.restore import refuse_target, refuse_unknown_repositories
        from regstore.storage.optional import store_with

        options = self.options
        async with self.here.open() as backup, self.there.open() as store:
            await refuse_target(backup, store)
            # Before anything is made.
            chosen = choose(await list_snapshots(backup), options.snapshot, backup.url)
            refuse_unknown_repositories(chosen, options)
            if not self.how.create:
                await refuse_missing(store, made="makes it, and seeds it")
            doubtful = bool(options.tags) or (options.overwrite_tags and not self.how.yes)
            agreed = await self._agreed(backup, store) if doubtful else options
            if agreed is None:
                return None
            store_with(store, options.put)  # the lock and the journal too
            await _seed_empty(store, options, self.shown.show)
            if self.how.break_lock:
                await break_locks_openly(store)
            async with hold_lock_openly(store, command="backup restore") as lock:
                runner = self.workers.runner(agreed.concurrency)
                return await restore(backup, store, agreed, lock=lock, runner=runner, on_event=self.shown.show)

    async def _agreed(self, backup: Storage, store: Storage) -> RestoreOptions | None:
        """None where the tags that would be overwritten may not be. Where there was nothing to ask, none is, whatever
        comes. InputError for a pattern of tags that matches none."""
        from regstore.backup import plan_restore

        as_they_are = replace(self.options, overwrite_tags=False)
        plan = await plan_restore(backup, store, as_they_are, on_event=self.shown.show)
        self.shown.clear()
        if self.how.yes:
            return self.options
        if not (self.options.overwrite_tags and plan.conflicts):
            return as_they_are
        emit(f"{counted(len(plan.conflicts), 'tag')} to overwrite in {store.url}:")
        lines = [
            f"  {one.repository}:{one.tag}  {one.there[:19] or 'unreadable'}  becomes  {one.snapshot[:19]}"
            for one in plan.conflicts
        ]
        emit_some(lines, "  … and {} more")
        return self.options if await confirm_shown("Overwrite these tags?", yes=self.how.yes) else None


async def _seed_empty(store: Storage, options: RestoreOptions, on_event: OnEvent) -> None:
    """A store that is not there, or is empty, becomes a healthy empty one."""
    from regstore import layout

    if await is_there(store):
        async for page in store.list(layout.PREFIX):
            if page.keys:
                return
    await seed_target(store, options.put, on_event)


def _plan_json(plan: RestorePlan) -> dict[str, Any]:
    return plain(plan) | {"snapshot": plan.snapshot.run, "database": plan.database or None}


def _print_plan(plan: RestorePlan, store: str) -> None:
    say_whose(store, plan.database)
    emit(heading(plan.snapshot))
    emit(
        f"{counted(plan.repositories, 'repository', 'repositories')}, {counted(plan.tags, 'tag')}, "
        f"{blobs(plan.blobs, plan.bytes)}"
    )
    emit(
        f"to write: {blobs(plan.missing_blobs, plan.missing_bytes)}, "
        f"{counted(plan.missing_links, 'link')}, {counted(plan.missing_tags, 'tag')}"
    )
    _print_conflicts([(one.repository, one.tag, one.snapshot, one.there) for one in plan.conflicts])
    warn_some(plan.damaged)
    _print_absent(plan.absent)
    warn_some(plan.notes)


def _print_absent(absent: Sequence[str]) -> None:
    warn_some([f"not in the snapshot: {one}" for one in absent])


def _print_conflicts(conflicts: list[tuple[str, str, str, str]]) -> None:
    warn_some(
        [
            f"{name}:{tag} is {there[:19] or 'unreadable'} in the store and {snapshot[:19]} in the snapshot;"
            " it was left (--overwrite-tags sets it)"
            for name, tag, snapshot, there in conflicts
        ]
    )


def _result_json(result: RestoreResult) -> dict[str, Any]:
    return {
        "snapshot": result.snapshot.run,
        "blobs": result.blobs,
        "bytes": result.bytes,
        "links": result.links,
        "tags": result.tags,
        "seeded": result.seeded,
        "seconds": result.seconds,
        "conflicts": list(result.conflicts),
        "damaged": result.damaged,
        "left_out": result.left_out,
        "absent": result.absent,
        "notes": result.notes,
    }


def _numbers(result: RestoreResult) -> dict[str, float]:
    return {
        "restored_blobs": result.blobs,
        "restored_blob_bytes": result.bytes,
        "restored_links": result.links,
        "restored_tags": result.tags,
        "conflicts": len(result.conflicts),
        "left_out": len(result.left_out),
    }


def _print_restored(result: RestoreResult) -> None:
    emit(
        f"restored {named(result.snapshot)}: {blobs(result.blobs, result.bytes)}, "
        f"{counted(result.links, 'link')}, {counted(result.tags, 'tag')}, in {result.seconds:.1f} s"
    )
    _print_conflicts([(one.repository, one.tag, one.snapshot, one.there) for one in result.conflicts])
    warn_some(result.damaged)
    warn_some([f"not restored: {one}" for one in result.left_out])
    _print_absent(result.absent)
    warn_some(result.notes)
