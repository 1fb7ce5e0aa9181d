"""`regstore trash restore`: undo a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.command import command
from regstore.cli.confirm import confirm
from regstore.cli.locks import hold_lock_openly
from regstore.cli.naming import full_digest
from regstore.cli.options import DryRun, Yes
from regstore.cli.outcome import Result
from regstore.cli.output import blobs, count, counted, emit, emit_error, printable, warn_some
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.trash._common import Run
from regstore.errors import EXIT_OK, EXIT_PARTIAL
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.gc.restore import Restored, RestoreOptions, RestorePlan


@command
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
) -> Result:
    """Undo a run: put back the blobs, links and tags that it took. By default the newest run's.

    Nothing that stands is written over. The trash keeps its copies until it is emptied.
    """
    from regstore.gc.restore import RestoreOptions

    options = RestoreOptions(run=run, repository=repo, concurrency=settings.concurrency)
    url, options, plan = run_async(_plan(settings, options, digest))
    _print_restore_plan(url, plan)
    planned = {"plan": _plan_json(plan), "report": None}
    if dry_run or plan.nothing_to_do:
        if plan.nothing_to_do:
            emit("nothing to put back")
        return Result(exit_code=EXIT_PARTIAL if plan.conflicts else EXIT_OK, data=planned)
    if not confirm("Put this back?", yes=yes):
        emit_error("nothing was put back")
        return Result()
    options = replace(options, run=plan.run)  # a newer one may have ended since
    with progress() as on_event:
        restored = run_async(_restore(settings, options, on_event))
    emit(
        f"put back {blobs(restored.blobs, restored.blob_bytes)} and "
        f"{counted(restored.links, 'link')} of run {restored.run}"
    )
    # What only now stood in the way was not shown before.
    _print_conflicts([each for each in _conflicts(restored) if each not in _conflicts(plan)])
    return Result(
        exit_code=EXIT_PARTIAL if restored.conflicts else EXIT_OK,
        data=planned | {"report": _restored_json(restored)},
        numbers={
            "restored_blobs": restored.blobs,
            "restored_blob_bytes": restored.blob_bytes,
            "restored_links": restored.links,
            "conflicts": len(restored.conflicts),
        },
    )


async def _plan(
    settings: StoreSettings, options: RestoreOptions, digest: str | None
) -> tuple[str, RestoreOptions, RestorePlan]:
    """The options with the digest, of which the beginning may have been said."""
    from regstore.gc.restore import plan_restore

    async with settings.open(read_only=True) as storage:
        if digest is not None:
            options = replace(options, digest=await full_digest(storage, digest))
        return storage.url, options, await plan_restore(storage, options)


async def _restore(settings: StoreSettings, options: RestoreOptions, on_event: OnEvent) -> Restored:
    from regstore.gc.restore import apply_restore, plan_restore

    async with settings.open() as storage, hold_lock_openly(storage, command="trash restore") as lock:
        plan = await plan_restore(storage, options)
        return await apply_restore(storage, plan, lock, concurrency=options.concurrency, on_event=on_event)


def _print_restore_plan(url: str, plan: RestorePlan) -> None:
    emit(
        f"{url}: run {plan.run}: {blobs(len(plan.blobs), plan.blob_bytes)} and "
        f"{counted(plan.link_count, 'link')} to put back, {count(len(plan.standing))} there already"
    )
    _print_conflicts(_conflicts(plan))


def _conflicts(found: RestorePlan | Restored) -> list[tuple[str, str]]:
    return [(conflict.key, conflict.reason) for conflict in found.conflicts]


def _print_conflicts(conflicts: list[tuple[str, str]]) -> None:
    lines = [f"left as it is: {printable(key)}: {reason}" for key, reason in conflicts]
    warn_some(lines, "{} more are left as they are (--json names all)")


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
