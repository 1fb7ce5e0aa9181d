"""`regstore backup prune`: old snapshots, and what only they needed, go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from regstore.cli.backup._common import BackupSettings
from regstore.cli.command import command, said
from regstore.cli.confirm import confirm_shown
from regstore.cli.locks import break_locks_openly, hold_lock_openly
from regstore.cli.options import BreakLock, DryRun, Yes
from regstore.cli.outcome import Result
from regstore.cli.output import blobs, counted, emit, emit_error, iso, moment, size, table, warn_some
from regstore.cli.progress import Shown, progress
from regstore.cli.run import run_async
from regstore.cli.values import parse_duration
from regstore.errors import EXIT_OK, EXIT_PARTIAL
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.backup import PruneOptions, PrunePlan, PruneResult


#: What the error of a full backup says besides.
_WAY_OUT: Final = "a prune writes a lock before it deletes anything: make a little room in another way"


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """Which snapshots stay, which go in any case, and what is too young to go."""

    keep_last: Annotated[int, typer.Option(metavar="N", min=0, help="Keep the last N snapshots.")] = 0
    keep_daily: Annotated[int, typer.Option(metavar="N", min=0, help="The newest of each of N days.")] = 0
    keep_weekly: Annotated[int, typer.Option(metavar="N", min=0, help="The newest of each of N weeks.")] = 0
    keep_monthly: Annotated[int, typer.Option(metavar="N", min=0, help="The newest of each of N months.")] = 0
    keep_within: Annotated[
        int, typer.Option(parser=parse_duration, metavar="DURATION", help="All this close to the newest.")
    ] = said("0s", parse_duration)
    forget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            show_default=False,
            help="Forget this snapshot, also a damaged one (repeatable); without --keep-…, no other.",
        ),
    ] = None
    grace: Annotated[
        int, typer.Option(parser=parse_duration, metavar="DURATION", help="Leave alone what is younger than this.")
    ] = said("24h", parse_duration)

    def options(self, settings: BackupSettings) -> PruneOptions:
        from regstore.backup import PruneOptions, Retention

        rules = {
            "last": self.keep_last,
            "daily": self.keep_daily,
            "weekly": self.keep_weekly,
            "monthly": self.keep_monthly,
            "within": self.keep_within,
        }
        return PruneOptions(
            keep=Retention(**rules) if any(rules.values()) or not self.forget else None,
            forget=tuple(self.forget or ()),
            grace=self.grace,
            concurrency=settings.concurrency,
        )


@command
def backup_prune(
    settings: BackupSettings,
    *,
    pruning: Pruning,
    dry_run: DryRun = False,
    yes: Yes = False,
    break_lock: BreakLock = False,
) -> Result:
    """Forget old snapshots, and delete the blobs that no other needs.

    Snapshots of each store, and of the same patterns, are counted apart. Of each, the newest always stays, and the
    newest that left nothing out. While something is damaged, only what --forget names goes; while a create or a
    restore runs, only snapshots.

    Exit codes: 0 done; 3 done, with something that could not be deleted, is damaged or in use, named.
    """
    options = pruning.options(settings)
    shown = progress()
    agree = _Agree(shown=shown, yes=yes)
    result = None
    with shown as on_event:
        if dry_run:
            plan = run_async(_plan(settings, options, on_event))
        else:
            result = run_async(_prune(settings, options, agree, break_lock, on_event))
            plan = result.plan
    if result is not None and not result.agreed:
        emit_error("nothing was deleted")
    else:
        if not agree.asked:
            _print_plan(plan)
        _print_result(plan, result)
    partial = result.partial if result else plan.partial
    return Result(
        exit_code=EXIT_PARTIAL if partial else EXIT_OK,
        data={"plan": _plan_json(plan), "report": None if result is None else _report_json(result)},
        numbers={"snapshots": len(plan.forget.kept), "blobs": plan.kept_blobs, "blob_bytes": plan.kept_bytes}
        | ({} if result is None else _numbers(result)),
    )


@dataclass(kw_only=True)
class _Agree:
    """Shows the plan, and asks."""

    shown: Shown
    yes: bool
    asked: bool = False

    async def __call__(self, plan: PrunePlan) -> bool:
        self.asked = True
        self.shown.clear()
        _print_plan(plan)
        if not self.yes:
            _print_result(plan, None)
        return await confirm_shown("Delete this for good?", yes=self.yes)


async def _plan(settings: BackupSettings, options: PruneOptions, on_event: OnEvent) -> PrunePlan:
    from regstore.backup import plan_prune

    async with settings.open(read_only=True) as backup:
        return await plan_prune(backup, options, on_event=on_event)


async def _prune(
    settings: BackupSettings, options: PruneOptions, agree: _Agree, break_lock: bool, on_event: OnEvent
) -> PruneResult:
    from regstore.backup import prune
    from regstore.backup.opening import check_marker
    from regstore.errors import NotARegistry

    async with settings.open() as backup:
        if not await check_marker(backup):
            raise NotARegistry(f"{backup.url} is no backup: nothing is deleted there")
        if break_lock:
            await break_locks_openly(backup)
        async with hold_lock_openly(backup, command="backup prune", way_out=_WAY_OUT) as lock:
            return await prune(backup, options, lock=lock, agree=agree, on_event=on_event)


def _report_json(result: PruneResult) -> dict[str, Any]:
    return {
        "snapshots": result.snapshots,
        "packs": result.packs,
        "blobs": result.blobs,
        "bytes": result.bytes,
        "failures": result.failures,
    }


def _numbers(result: PruneResult) -> dict[str, float]:
    return {
        "forgotten_snapshots": result.snapshots,
        "removed_blobs": result.blobs,
        "removed_blob_bytes": result.bytes,
        "failures": len(result.failures),
    }


def _plan_json(plan: PrunePlan) -> dict[str, Any]:
    return {
        "kept": [{"id": one.run, "time": iso(one.begun), "why": list(why)} for one, why in plan.forget.kept],
        "forgotten": [{"id": one.run, "time": iso(one.begun)} for one in plan.forget.forgotten],
        "forgotten_unreadable": list(plan.unreadable),
        "packs": plan.packs,
        "blobs": plan.blobs,
        "bytes": plan.bytes,
        "kept_blobs": plan.kept_blobs,
        "kept_bytes": plan.kept_bytes,
        "young": plan.young,
        "blocked": plan.blocked or None,
        "damaged": list(plan.damaged),
    }


def _print_plan(plan: PrunePlan) -> None:
    from regstore.backup.format import parse_snapshot_key, time_of

    rows = [["keep", one.run, moment(one.begun), ", ".join(why)] for one, why in plan.forget.kept]
    rows += [["forget", one.run, moment(one.begun), ""] for one in plan.forget.forgotten]
    rows += [
        ["forget", run, moment(time_of(run)), "unreadable"]
        for run in map(parse_snapshot_key, plan.unreadable)
        if run
    ]
    emit(table(["", "SNAPSHOT", "TIME", "WHY"], rows))
    emit()


def _print_result(plan: PrunePlan, result: PruneResult | None) -> None:
    """None: of what would be done."""
    if result is None:
        emit(f"would delete {blobs(plan.blobs, plan.bytes)} and {counted(plan.packs, 'pack')}")
    else:
        emit(
            f"forgot {counted(result.snapshots, 'snapshot')}; deleted {counted(result.blobs, 'blob')} "
            f"({size(result.bytes)}) and {counted(result.packs, 'pack')}"
        )
        warn_some(result.failures)
    emit(f"{blobs(plan.kept_blobs, plan.kept_bytes)} kept; {plan.young:,} more only by the grace")
    if plan.blocked:
        emit_error(plan.blocked)
    warn_some(plan.damaged)
