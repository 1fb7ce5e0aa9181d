"""`regstore export`: images out of a store or a backup, as an OCI image layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.command import command
from regstore.cli.naming import full_in, meaning
from regstore.cli.options import DryRun
from regstore.cli.outcome import Result
from regstore.cli.output import blobs, counted, emit, emit_error, emit_rows, warn_some
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.whose import database_of, say_whose
from regstore.errors import EXIT_FAILURE, EXIT_OK, EXIT_PARTIAL, InputError
from regstore.events import OnEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regstore.exchange.exporting import ExportResult
    from regstore.exchange.gathering import ExportPlan
    from regstore.exchange.image_layout import Entry
    from regstore.storage.base import Storage


@command
def export_layout(
    settings: StoreSettings,
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REPOSITORY[:TAG|@DIGEST]... DIR|FILE.tar",
            show_default=False,
            help="All tags of a repository, a tag, or an image by its digest; and where to.",
        ),
    ] = None,
    referrers: Annotated[
        bool,
        typer.Option("--referrers/--no-referrers", help="With what refers to the images: signatures, SBOMs, …"),
    ] = True,
    snapshot: Annotated[
        str,
        typer.Option(
            metavar="ID|latest|TIME", show_default="latest", help="Of a backup: which snapshot to export from."
        ),
    ] = "",
    dry_run: DryRun = False,
) -> Result:
    """Write images as an OCI image layout, which skopeo, umoci, podman and `regstore import` read.

    STORE may be a backup. Digests stay as they are, with all platforms. Each byte is hashed on its way; index.json
    comes last, so what was cut short does not look whole. A layout that is there already gets the images beside its
    own. Of one repository an image is named by its tag, DIR:1.0; of several by both, DIR:team/app:1.0.

    Exit codes: 0 done; 1 nothing could be exported; 3 done, but for images that are damaged, and named.
    """
    settings, words = settings.shifted_all(names)
    if len(words) < 2:
        raise InputError("say what to export and where to: STORE REPOSITORY[:TAG|@DIGEST]... DIR|FILE.tar")
    *what, last = words
    target = Path(last)
    asked = _Asked(what=what, referrers=referrers, snapshot=snapshot, target=None if dry_run else target)
    with progress() as on_event:
        plan, result = run_async(meaning(settings, what, _export(settings, asked, on_event)))
    entries, left_out = (plan.entries, plan.left_out) if result is None else (result.entries, result.left_out)
    notes = plan.notes if result is None else result.notes
    _print(target, plan, result)
    warn_some([f"not exported: {one}" for one in left_out])
    warn_some(notes)
    exit_code = (EXIT_PARTIAL if entries else EXIT_FAILURE) if left_out else EXIT_OK
    data = _as_json(target, plan, result)
    numbers = {"images": len(entries), "left_out": len(left_out)}
    if result is not None:
        numbers |= {"written_blobs": result.written, "written_blob_bytes": result.bytes}
    return Result(exit_code=exit_code, data=data, numbers=numbers)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """target: None where nothing is to be written."""

    what: list[str]
    referrers: bool
    snapshot: str
    target: Path | None


async def _export(
    settings: StoreSettings, asked: _Asked, on_event: OnEvent
) -> tuple[ExportPlan, ExportResult | None]:
    from regstore.exchange.exporting import check_target, export, refuse_within
    from regstore.exchange.gathering import ExportOptions, plan_export
    from regstore.exchange.places import open_target
    from regstore.reference import Reference
    from regstore.registry import Registry

    storage, config = settings.open_with_config(read_only=True)
    async with storage:
        source = await _source(storage, asked.snapshot)
        if source is storage:
            say_whose(storage.url, await database_of(storage, config), to_stderr=True)
        what = await full_in(Registry(source), asked.what)
        options = ExportOptions(
            what=tuple(map(Reference.parse, what)), referrers=asked.referrers, concurrency=settings.concurrency
        )
        plan = await plan_export(source, options, on_event=on_event)
        if asked.target is None:
            return plan, None
        refuse_within(storage, asked.target)
        async with open_target(asked.target) as there:
            await check_target(there)
            done = await export(source, plan, there, concurrency=options.concurrency, on_event=on_event)
        return plan, done


async def _source(storage: Storage, snapshot: str) -> Storage:
    """The store itself, or a snapshot where it is a backup."""
    from regstore.backup.as_store import SnapshotStorage
    from regstore.backup.opening import check_marker, choose, list_snapshots

    if await check_marker(storage):
        return SnapshotStorage(storage, choose(await list_snapshots(storage), snapshot or "latest", storage.url))
    if snapshot:
        raise InputError(f"{storage.url} is no backup, so it has no snapshot {snapshot!r}: leave --snapshot out")
    return storage


def _print(target: Path, plan: ExportPlan, result: ExportResult | None) -> None:
    entries = plan.entries if result is None else result.entries
    rows = [[_name(entry), str(entry.digest)] for entry in entries]
    if result is None:
        emit(f"would go to {target}: {counted(len(entries), 'image')}, {blobs(len(plan.contents), plan.bytes)}")
    elif entries:
        there = f", {counted(result.there, 'blob')} there before" if result.there else ""
        emit(f"{target}: {counted(len(entries), 'image')}, {blobs(result.written, result.bytes)} written{there}")
    else:
        emit_error("nothing was exported")
    emit_rows(["IMAGE", "DIGEST"], rows)


def _name(entry: Entry) -> str:
    return entry.name if entry.tag else f"{entry.repository} ({entry.artifact_type or 'no tag'})"


def _as_json(target: Path, plan: ExportPlan, result: ExportResult | None) -> dict[str, Any]:
    if result is None:
        planned = _facts(plan.entries, len(plan.contents), plan.bytes, plan.left_out, plan.notes)
        return {"target": str(target), "plan": planned, "report": None}
    done = _facts(result.entries, result.written, result.bytes, result.left_out, result.notes)
    return {"target": str(target), "plan": None, "report": done | {"there": result.there}}


def _facts(
    entries: Sequence[Entry], blobs: int, size: int, left_out: Sequence[str], notes: Sequence[str]
) -> dict[str, Any]:
    images = [
        {
            "repository": entry.repository,
            "tag": entry.tag or None,
            "digest": entry.digest,
            "media_type": entry.media_type,
            "size": entry.size,
        }
        for entry in entries
    ]
    return {"images": images, "blobs": blobs, "bytes": size, "left_out": left_out, "notes": notes}
