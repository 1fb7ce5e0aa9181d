"""`regstore import`: images of an OCI image layout into a store."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.command import command
from regstore.cli.confirm import confirm_shown
from regstore.cli.locks import break_locks_openly, hold_lock_openly
from regstore.cli.making import refuse_missing
from regstore.cli.options import BreakLock, CreateStore, DryRun, NewObjects, YesToOverwrite
from regstore.cli.outcome import Result
from regstore.cli.output import blobs, counted, emit, emit_error, emit_rows, emit_some, warn_some
from regstore.cli.progress import Shown, progress
from regstore.cli.run import run_async
from regstore.cli.seed_bucket import seed_target
from regstore.cli.settings import StoreSettings
from regstore.cli.whose import refuse_told, say_whose
from regstore.errors import EXIT_OK, EXIT_PARTIAL, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regstore.backup.restore_links import Conflict
    from regstore.exchange.importing import ImportOptions, ImportPlan, ImportResult
    from regstore.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class FromLayout(StoreSettings):
    """The layout is the first argument, and the store the second."""

    store: Annotated[
        str | None,
        typer.Argument(metavar="DIR|FILE.tar", show_default=False, help="The layout: a folder, or a tar archive."),
    ] = None

    def apart(self, names: list[str] | None) -> tuple[Path, StoreSettings, list[str]]:
        """The layout, the store, and the names that follow."""
        words = list(names or [])
        if self.store is None or (self.registry_config is None and not words):
            raise InputError("say what to import and where to: DIR|FILE.tar STORE [REPOSITORY[:TAG]...]")
        store = None if self.registry_config is not None else words.pop(0)
        said = {each.name: getattr(self, each.name) for each in fields(StoreSettings)}
        return Path(self.store), StoreSettings(**{**said, "store": store}), words


@dataclass(frozen=True, kw_only=True)
class How:
    """What is made, shown and asked first."""

    overwrite_tags: Annotated[
        bool, typer.Option("--overwrite-tags", help="Also tags that name something else in STORE.")
    ] = False
    sparse: Annotated[
        bool, typer.Option("--sparse", help="Also an index that lists images which the layout lacks.")
    ] = False
    create: CreateStore = False
    dry_run: DryRun = False
    yes: YesToOverwrite = False
    break_lock: BreakLock = False


@command
def import_layout(
    settings: FromLayout,
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="STORE [REPOSITORY[:TAG]]...",
            show_default=False,
            help="Where to; and what of a layout with several repositories, or what one that names none is to be.",
        ),
    ] = None,
    how: How,
    new_objects: NewObjects,
) -> Result:
    """Bring images of an OCI image layout into a store, under the names that the layout has, or that are given.

    Safe while the registry serves. Every digest is verified; blobs come before links, links before tags. A tag that
    names something else in STORE is a conflict, and stays unless --overwrite-tags. An image of which something is
    missing or wrong is left out and named. Run again after an interruption, it writes the rest. Until it is done, no
    registry's own garbage-collect may run on STORE: it deletes blobs that nothing links yet.

    A layout of one repository goes to REPOSITORY, where one is given; one made by skopeo or umoci has tags only, and
    needs it. Of a layout with several, the names say which are meant.

    Exit codes: 0 done; 3 done, with conflicts, or with something left out.
    """
    from regstore.exchange.importing import ImportOptions
    from regstore.reference import Reference

    layout, store, words = settings.apart(names)
    options = ImportOptions(
        what=tuple(Reference.parse(word) for word in words),
        overwrite_tags=how.overwrite_tags,
        sparse=how.sparse,
        put=new_objects.put_options(),
        concurrency=settings.concurrency,
    )
    shown = progress()
    with shown:
        plan, result = run_async(_Importing(layout, store, options, how, shown).run())
    if result is None and not how.dry_run:
        emit_error("nothing was imported")
        return Result()
    _print(layout, plan, result)
    done = plan if result is None else result
    numbers = {"conflicts": len(done.conflicts), "left_out": len(done.left_out)}
    if result is not None:
        numbers |= {
            "written_blobs": result.blobs,
            "written_blob_bytes": result.bytes,
            "written_links": result.links,
            "written_tags": result.tags,
        }
    exit_code = EXIT_PARTIAL if done.partial else EXIT_OK
    return Result(exit_code=exit_code, data=_as_json(store, plan, result), numbers=numbers)


@dataclass(frozen=True)
class _Importing:
    layout: Path
    settings: StoreSettings
    options: ImportOptions
    how: How
    shown: Shown

    async def run(self) -> tuple[ImportPlan, ImportResult | None]:
        """No result of a dry run, and where somebody was asked, and said no."""
        from regstore.exchange.importing import plan_import
        from regstore.exchange.places import open_source
        from regstore.inventory.whose import Use

        storage, config = self.settings.open_with_config(read_only=self.how.dry_run)
        refuse_told(storage.url, config, Use.WRITE)
        async with open_source(self.layout) as source, storage:
            if self.how.dry_run:
                return await plan_import(source, storage, self.options, on_event=self.shown.show), None
            return await self._run(source, storage)

    async def _run(self, source: Storage, storage: Storage) -> tuple[ImportPlan, ImportResult | None]:
        from regstore.exchange.importing import import_layout, plan_import
        from regstore.storage.optional import store_with

        if not self.how.create:
            await refuse_missing(storage, made="makes it, and seeds it")
        plan = await plan_import(source, storage, self.options, on_event=self.shown.show)
        options = await self._agreed(source, storage) if self.options.overwrite_tags else self.options
        if options is None:
            return plan, None
        store_with(storage, self.options.put)  # the lock and the journal too
        if self.how.create:
            await seed_target(storage, self.options.put, self.shown.show)
        if self.how.break_lock:
            await break_locks_openly(storage)
        async with hold_lock_openly(storage, command="import") as lock:
            return plan, await import_layout(source, storage, plan, options, lock=lock, on_event=self.shown.show)

    async def _agreed(self, source: Storage, storage: Storage) -> ImportOptions | None:
        """None where somebody said no. Where there was nothing to ask, nothing is overwritten, whatever comes."""
        from regstore.exchange.importing import plan_import

        if self.how.yes:
            return self.options
        as_they_are = replace(self.options, overwrite_tags=False)
        plan = await plan_import(source, storage, as_they_are)
        self.shown.clear()
        if not plan.conflicts:
            return as_they_are
        emit(f"{counted(len(plan.conflicts), 'tag')} to overwrite in {storage.url}:")
        emit_some([f"  {_conflict(one)}" for one in plan.conflicts], "  … and {} more")
        return self.options if await confirm_shown("Overwrite these tags?", yes=False) else None


def _conflict(one: Conflict) -> str:
    return f"{one.repository}:{one.tag}  {one.there[:19] or 'unreadable'}  becomes  {one.snapshot[:19]}"


def _print(layout: Path, plan: ImportPlan, result: ImportResult | None) -> None:
    if result is None:
        say_whose(str(layout), plan.database)
        emit(
            f"{layout}: to write: {blobs(len(plan.lacking), sum(plan.lacking.values()))}, "
            f"{counted(plan.links, 'link')}, {counted(plan.tags, 'tag')}"
        )
        rows = [
            [f"{pack.name}:{tag}", str(packed.digest)] for pack in plan.packs for tag, packed in pack.tags.items()
        ]
        emit_rows(["IMAGE", "DIGEST"], rows)
        _warn(plan.conflicts, plan.left_out)
        return
    emit(
        f"imported {layout}: {blobs(result.blobs, result.bytes)}, {counted(result.links, 'link')}, "
        f"{counted(result.tags, 'tag')}"
    )
    _warn(result.conflicts, result.left_out)


def _warn(conflicts: Sequence[Conflict], left_out: Sequence[str]) -> None:
    warn_some(
        [
            f"{one.repository}:{one.tag} is {one.there[:19] or 'unreadable'} in the store and {one.snapshot[:19]} in "
            "the layout; it was left (--overwrite-tags sets it)"
            for one in conflicts
        ]
    )
    warn_some([f"not imported: {one}" for one in left_out])


def _as_json(store: StoreSettings, plan: ImportPlan, result: ImportResult | None) -> dict[str, Any]:
    images = [
        {"repository": pack.name, "tag": tag, "digest": packed.digest}
        for pack in plan.packs
        for tag, packed in pack.tags.items()
    ]
    facts: dict[str, Any] = {"images": images}
    if result is None:
        facts |= {"blobs": len(plan.lacking), "bytes": sum(plan.lacking.values())}
    else:
        facts |= {"blobs": result.blobs, "bytes": result.bytes, "seeded": result.seeded}
    done = plan if result is None else result
    facts |= {"links": done.links, "tags": done.tags, "left_out": list(done.left_out)}
    facts["conflicts"] = [
        {"repository": one.repository, "tag": one.tag, "layout": one.snapshot, "there": one.there or None}
        for one in done.conflicts
    ]
    target = store.store or str(store.registry_config)
    return {
        "target": target,
        "plan": facts if result is None else None,
        "report": facts if result is not None else None,
    }
