"""`regstore backup create`: a snapshot of a registry's storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.allocator import keep_freed_memory
from regstore.cli.backup._common import snapshot_json
from regstore.cli.command import command
from regstore.cli.making import is_there, refuse_missing
from regstore.cli.options import NewObjects, Scanning, Scope, SecondStore, ToBackup
from regstore.cli.outcome import Result
from regstore.cli.output import blobs, counted, emit, emit_warning, warn_some
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.whose import refuse_told
from regstore.errors import EXIT_OK, EXIT_PARTIAL, InputError
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.backup import CreateOptions, CreateResult
    from regstore.inventory.scan import ScanOptions
    from regstore.storage.base import Storage


@command
def backup_create(
    settings: StoreSettings,
    *,
    backup: ToBackup = None,
    scope: Scope,
    create: Annotated[
        bool, typer.Option("--create", help="Create BACKUP first where its bucket or folder is missing.")
    ] = False,
    new_objects: NewObjects,
    second: SecondStore,
    scanning: Scanning,
) -> Result:
    """Take a snapshot of STORE: tags, links, and the blobs that BACKUP does not have yet.

    Safe while the registry serves and while gc runs; STORE is only read. Every tag in the snapshot has a value that
    it held during the run, and is complete. Credentials that can't delete suffice for BACKUP. Whatever fails in
    BACKUP, on the way, or at STORE as a whole ends the run without a snapshot; the next one goes on from there.

    Exit codes: 0 done; 3 done, with what is broken at STORE left out and named.
    """
    from regstore.backup import CreateOptions

    settings, backup = settings.shifted(backup)
    if backup is None:
        raise InputError("no backup: give STORE and BACKUP")
    there = second.settings(settings, backup)
    if there.registry_config is not None:
        raise InputError(
            f"{backup} is a registry's own store, as its registry_config says, not a place for backups"
        )
    options = CreateOptions(
        repositories=scope.repositories,
        tags=scope.tags,
        put=new_objects.put_options(),
        concurrency=settings.concurrency,
    )
    keep_freed_memory()
    with progress() as on_event:
        result = run_async(_create(settings, there, options, scanning.of(settings), create, on_event))
    _print_created(backup, result)
    snapshot = result.snapshot
    return Result(
        exit_code=EXIT_PARTIAL if result.partial else EXIT_OK,
        data=_created_json(backup, result),
        numbers={
            "repositories": len(snapshot.repositories),
            "tags": snapshot.tags,
            "blobs": snapshot.blobs,
            "blob_bytes": snapshot.bytes,
            "new_blobs": snapshot.new_blobs,
            "new_blob_bytes": snapshot.new_bytes,
            "left_out": len(snapshot.left_out),
        },
    )


async def _create(
    here: StoreSettings,
    there: StoreSettings,
    options: CreateOptions,
    scanning: ScanOptions,
    make: bool,
    on_event: OnEvent,
) -> CreateResult:
    from regstore.backup import create
    from regstore.backup.create import check_source
    from regstore.backup.opening import check_marker
    from regstore.inventory.whose import Use
    from regstore.storage.identity import keep_id
    from regstore.storage.optional import keep_private, store_with

    source, config = here.open_with_config(read_only=True)
    refuse_told(source.url, config, Use.BACK_UP)
    async with source, there.open() as backup:
        keep_private(backup)
        store_with(backup, options.put)
        if not make:
            await refuse_missing(backup, made="makes it")
        missing = not await is_there(backup)
        if missing or not await check_marker(backup):
            # Before anything is made, at either place.
            await check_source(source, options)
        async with here.open() as writable:
            await keep_id(writable)  # the only thing that is ever written there, and only where that may be
        if missing:
            await _make(backup)
        return await create(source, backup, options, scanning=scanning, on_event=on_event)


async def _make(backup: Storage) -> None:
    """The missing place of a backup, for this user alone. A bucket gets the settings of seed-bucket, and no seeds."""
    from regstore.seed.seeding import make_place
    from regstore.storage.optional import IsFolder
    from regstore.storage.private import make_private_folders

    if isinstance(backup, IsFolder):
        make_private_folders(backup.folder)
    else:
        await make_place(backup)


def _created_json(backup: str, result: CreateResult) -> dict[str, Any]:
    return {
        "backup": backup,
        "snapshot": snapshot_json(result.snapshot),
        "packs": result.packs,
        "begins": result.begins,
        "unchanged": result.unchanged,
        "reread": result.reread,
        "damaged": result.damaged,
        "seconds": result.seconds,
    }


def _print_created(backup: str, result: CreateResult) -> None:
    snapshot = result.snapshot
    if result.begins:
        emit_warning(f"{backup} was empty: this is the first snapshot of a new backup")
    emit(
        f"snapshot {snapshot.run}: {counted(len(snapshot.repositories), 'repository', 'repositories')}, "
        f"{counted(snapshot.tags, 'tag')}, {blobs(snapshot.blobs, snapshot.bytes)}"
    )
    emit(
        f"new: {blobs(snapshot.new_blobs, snapshot.new_bytes)}, "
        f"{counted(result.packs, 'changed repository', 'changed repositories')}, in {result.seconds:.1f} s"
    )
    warn_some(result.damaged)
    warn_some([str(one) for one in snapshot.left_out])
