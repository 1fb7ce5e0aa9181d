"""`regstore tag`: give an image of a repository another tag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.command import command
from regstore.cli.confirm import confirm_shown
from regstore.cli.locks import hold_lock_openly
from regstore.cli.naming import full, meaning
from regstore.cli.options import DryRun, Yes
from regstore.cli.outcome import Result
from regstore.cli.output import emit, emit_error
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.whose import refuse_told
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.gc.set_tag import TagPlan
    from regstore.reference import Reference


@command
def tag(
    settings: StoreSettings,
    *,
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="REPOSITORY:TAG|@DIGEST", show_default=False, help="An image that the repository has."
        ),
    ] = None,
    new: Annotated[
        str | None, typer.Argument(metavar="NEW", show_default=False, help="The tag that is to name it, too.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also where the tag names another image, or an index lacks some of its images."
        ),
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> Result:
    """Set a tag on an image that the repository has, as a push would. Safe while the registry serves.

    A tag that names another image is left alone unless --force says otherwise.
    """
    from dataclasses import replace

    from regstore.reference import Reference

    if settings.registry_config is not None and settings.store is not None and new is None:
        settings, image, new = replace(settings, store=None), settings.store, image
    if image is None or new is None:
        raise InputError("say an image, REPOSITORY:TAG or REPOSITORY@DIGEST, and the new tag")
    (image,) = full(settings, [image])
    return run_async(meaning(settings, [image], _tag(settings, Reference.parse(image), new, force, dry_run, yes)))


async def _tag(
    settings: StoreSettings, image: Reference, new: str, force: bool, dry_run: bool, yes: bool
) -> Result:
    from regstore.gc.set_tag import apply_tag, plan_tag
    from regstore.inventory.whose import Use

    storage, config = settings.open_with_config(read_only=dry_run)
    refuse_told(storage.url, config, Use.WRITE)
    async with storage:
        if dry_run:
            return _show(await plan_tag(storage, image, new, force=force), "")
        async with hold_lock_openly(storage, command="tag") as lock:
            plan = await plan_tag(storage, image, new, force=force)
            if plan.nothing_to_do:
                return _show(plan, "")
            if plan.was and not await _agreed(plan, yes):
                emit_error("nothing was changed")
                return Result()
            return _show(plan, await apply_tag(storage, plan, lock))


async def _agreed(plan: TagPlan, yes: bool) -> bool:
    name = f"{plan.tag.name}:{plan.tag.tag}"
    return await confirm_shown(f"{name} names {plan.was}. Move it?", yes=yes)


def _show(plan: TagPlan, run: str) -> Result:
    """run: "" where nothing was written."""
    name = f"{plan.tag.name}:{plan.tag.tag}"
    planned = {"tag": name, "digest": plan.digest, "was": plan.was or None, "already": plan.nothing_to_do}
    result = Result(data={"plan": planned, "report": {"run": run} if run else None})
    if plan.nothing_to_do:
        emit(f"{name} names {plan.digest} already")
        return result
    emit(f"{name} {'names' if run else 'would name'} {plan.digest}" + (f" (was {plan.was})" if plan.was else ""))
    if run and plan.was.startswith("sha"):
        emit(f"run {run}: undo with `regstore trash restore --run {run}`")
    return result
