"""`regstore backup`: snapshots of a registry's storage, and the way back."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from regstore.cli.allocator import keep_freed_memory
from regstore.cli.output import count, counted, emit, emit_error, emit_json, moment, printable, size, table
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.settings import Json, StoreSettings, store_command
from regstore.cli.target import (
    Acl,
    DstCaBundle,
    DstEndpointUrl,
    DstProfile,
    DstRegion,
    Repo,
    Sse,
    SseKmsKeyId,
    StorageClass,
    Tag,
    put_options,
    there_of,
)
from regstore.cli.values import parse_duration, parse_read_data
from regstore.cli.whose import refuse_told, say_whose
from regstore.errors import EXIT_DAMAGE, EXIT_OK, EXIT_PARTIAL, InputError, NoSuchBucket, StorageError
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.backup import (
        CheckResult,
        CreateResult,
        PrunePlan,
        PruneResult,
        RestoreOptions,
        RestorePlan,
        RestoreResult,
        Snapshot,
    )
    from regstore.backup.compare import Difference, TagShown
    from regstore.backup.opening import Listed
    from regstore.storage.base import PutOptions, Storage

_SHOWN: Final = 20

SnapshotName = Annotated[
    str,
    typer.Option(
        "--snapshot",
        metavar="ID|latest|TIME",
        help="An ID or its beginning; or the newest of the whole registry, by that time.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Show what would be done; write nothing.")]
BreakLock = Annotated[
    bool, typer.Option("--break-lock", help="Take the lock from another run; only when that is certainly dead.")
]


def _backup_command(command: Callable[..., int | None]) -> Callable[..., None]:
    """A store_command whose first argument is BACKUP."""
    run = store_command(command)
    signature: inspect.Signature = run.__signature__  # type: ignore[attr-defined]
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.name == "store":
            argument = typer.Argument(
                metavar="BACKUP", show_default=False, help="Where the backup is: s3://bucket[/prefix] or a folder."
            )
            parameter = parameter.replace(annotation=Annotated[str | None, argument])
        elif parameter.name == "registry_config":
            option = typer.Option("--registry-config", hidden=True)
            parameter = parameter.replace(annotation=Annotated[Path | None, option])
        parameters.append(parameter)
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _place(settings: StoreSettings, *, read_only: bool = False) -> Storage:
    from regstore.storage.base import keep_private

    if settings.registry_config is not None:
        raise InputError("--registry-config names a registry's store, not a backup")
    if settings.store is None:
        raise InputError("no backup: give s3://bucket[/prefix] or a folder")
    storage = settings.open(read_only=read_only)
    keep_private(storage)
    return storage


# -- create


@store_command
def backup_create(
    settings: StoreSettings,
    backup: Annotated[
        str | None,
        typer.Argument(metavar="BACKUP", show_default=False, help="Where to: s3://bucket[/prefix] or a folder."),
    ] = None,
    repo: Repo = None,
    tag: Tag = None,
    storage_class: StorageClass = None,
    sse: Sse = None,
    sse_kms_key_id: SseKmsKeyId = None,
    acl: Acl = None,
    dst_endpoint_url: DstEndpointUrl = None,
    dst_region: DstRegion = None,
    dst_profile: DstProfile = None,
    dst_ca_bundle: DstCaBundle = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default="~/.cache/regstore", help="Remembers manifests between runs."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Take a snapshot of STORE: tags, links, and the blobs that BACKUP does not have yet.

    Safe while the registry serves and while gc runs; STORE is only read. Every tag in the snapshot has a value that
    it held during the run, and is complete. Credentials that can't delete suffice for BACKUP. Whatever fails in
    BACKUP, on the way, or at STORE as a whole ends the run without a snapshot; the next one goes on from there.

    Exit codes: 0 done; 3 done, with what is broken at STORE left out and named.
    """
    settings, backup = settings.shifted(backup)
    if backup is None:
        raise InputError("no backup: give STORE and BACKUP")
    there = there_of(settings, backup, dst_endpoint_url, dst_region, dst_profile, dst_ca_bundle)
    put = put_options(storage_class, sse, sse_kms_key_id, acl)
    keep_freed_memory()
    with progress(quiet=settings.quiet) as on_event:
        result = run_async(_create(settings, there, tuple(repo or ()), tuple(tag or ()), put, cache_dir, on_event))
    if as_json:
        emit_json(_created_json(backup, result))
    else:
        _print_created(result)
    return EXIT_PARTIAL if result.partial else EXIT_OK


async def _create(
    here: StoreSettings,
    there: StoreSettings,
    repositories: tuple[str, ...],
    tags: tuple[str, ...],
    put: PutOptions,
    cache_dir: Path | None,
    on_event: OnEvent,
) -> CreateResult:
    from regstore.backup import CreateOptions, create
    from regstore.inventory.cache import default_cache_dir
    from regstore.inventory.scan import ScanOptions
    from regstore.inventory.whose import Use
    from regstore.storage.base import store_with
    from regstore.storage.identity import keep_id

    async with here.open() as source:
        await keep_id(source)  # the only thing that is ever written there, and only where that may be
    options = CreateOptions(repositories=repositories, tags=tags, put=put, concurrency=here.concurrency)
    scanning = ScanOptions(cache_dir=cache_dir or default_cache_dir(), concurrency=here.concurrency)
    source, config = here.open_with_config(read_only=True)
    refuse_told(source.url, config, Use.BACK_UP)
    async with source, _made(there) as backup:
        store_with(backup, put)
        return await create(source, backup, options, scanning=scanning, on_event=on_event)


@asynccontextmanager
async def _made(settings: StoreSettings) -> AsyncIterator[Storage]:
    """The storage; a missing folder is made."""
    from regstore.storage.base import keep_private
    from regstore.storage.disk import DiskStorage
    from regstore.storage.private import make_private_folders

    async with settings.open() as storage:
        if isinstance(storage, DiskStorage):
            make_private_folders(storage.root)
        keep_private(storage)
        yield storage


def _created_json(backup: str, result: CreateResult) -> dict[str, Any]:
    return {
        "backup": backup,
        "snapshot": _snapshot_json(result.snapshot),
        "packs": result.packs,
        "unchanged": result.unchanged,
        "reread": result.reread,
        "damaged": result.damaged,
        "seconds": result.seconds,
    }


def _print_created(result: CreateResult) -> None:
    snapshot = result.snapshot
    emit(
        f"snapshot {snapshot.run}: {counted(len(snapshot.repositories), 'repository', 'repositories')}, "
        f"{counted(snapshot.tags, 'tag')}, {counted(snapshot.blobs, 'blob')} ({size(snapshot.bytes)})"
    )
    emit(
        f"new: {counted(snapshot.new_blobs, 'blob')} ({size(snapshot.new_bytes)}), "
        f"{counted(result.packs, 'changed repository', 'changed repositories')}, in {result.seconds:.1f} s"
    )
    _print_some(result.damaged)
    _print_some([str(one) for one in snapshot.left_out])


def _print_some(lines: list[str]) -> None:
    for line in lines[:_SHOWN]:
        emit_error(printable(line))
    if len(lines) > _SHOWN:
        emit_error(f"… and {len(lines) - _SHOWN:,} more (--json names them all)")


def _snapshot_json(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.run,
        "time": moment(snapshot.begun),
        "source": snapshot.source,
        "place": snapshot.place,
        "repository_patterns": list(snapshot.repository_patterns),
        "tag_patterns": list(snapshot.tag_patterns),
        "repositories": {name: asdict(known) for name, known in snapshot.repositories.items()},
        "tags": snapshot.tags,
        "blobs": snapshot.blobs,
        "bytes": snapshot.bytes,
        "new_blobs": snapshot.new_blobs,
        "new_bytes": snapshot.new_bytes,
        "left_out": [asdict(one) for one in snapshot.left_out],
    }


# -- list, show, diff


@_backup_command
def backup_list(settings: StoreSettings, as_json: Json = False) -> int:
    """List the snapshots, oldest first."""
    from regstore.backup.opening import place_text

    url, listed = run_async(_list(settings))
    snapshots, damaged, doubtful = listed.snapshots, listed.damaged, listed.doubtful
    if as_json:
        shown = [_snapshot_json(one) for one in snapshots]
        emit_json({"backup": url, "snapshots": shown, "damaged": damaged, "doubtful": doubtful})
    elif snapshots:
        rows = [
            [
                one.run,
                moment(one.begun),
                count(len(one.repositories)),
                count(one.tags),
                size(one.bytes),
                size(one.new_bytes),
                count(len(one.left_out)),
                place_text(one)
                if len({other.place for other in snapshots if other.source == one.source}) > 1
                else one.source,
            ]
            for one in snapshots
        ]
        headings = ["SNAPSHOT", "TIME", "REPOSITORIES", "TAGS", "SIZE", "NEW", "LEFT OUT", "SOURCE"]
        emit(table(headings, rows, right=(2, 3, 4, 5, 6)))
    elif not settings.quiet:
        emit_error(f"{url} has no snapshot yet")
    _print_some([f"{key}: {why}" for key, why in sorted(damaged.items())])
    _print_some([f"{run} {why}" for run, why in sorted(doubtful.items())])
    return EXIT_DAMAGE if damaged else EXIT_OK


async def _list(settings: StoreSettings) -> tuple[str, Listed]:
    from regstore.backup import list_snapshots

    async with _place(settings, read_only=True) as backup:
        return backup.url, await list_snapshots(backup)


@_backup_command
def backup_show(
    settings: StoreSettings,
    snapshot: Annotated[
        str, typer.Argument(metavar="SNAPSHOT", help="An ID, the beginning of one, latest, or a time.")
    ] = "latest",
    new: Annotated[bool, typer.Option("--new", help="Only tags that the snapshot before did not have so.")] = False,
    as_json: Json = False,
) -> int:
    """Show a snapshot: its tags, their sizes, and what is new in it.

    Exit codes: 0 done; 3 a newer snapshot than the one shown is damaged.
    """
    chosen, tags, damaged, notes = run_async(_show(settings, snapshot))
    tags = [one for one in tags if one.new or not new]
    if as_json:
        emit_json(
            _snapshot_json(chosen)
            | {"shown_tags": [asdict(one) for one in tags], "damaged": damaged, "notes": notes}
        )
        return EXIT_PARTIAL if damaged else EXIT_OK
    emit(_heading(chosen))
    emit(
        f"{counted(chosen.tags, 'tag')}, {counted(chosen.blobs, 'blob')} ({size(chosen.bytes)}), of these new: "
        f"{counted(chosen.new_blobs, 'blob')} ({size(chosen.new_bytes)})"
    )
    emit()
    rows = [
        [f"{one.repository}:{one.tag}", one.digest[:19], size(one.size), moment(one.time), "new" if one.new else ""]
        for one in tags
    ]
    emit(table(["TAG", "DIGEST", "SIZE", "SET", ""], rows, right=(2,)))
    _print_some([str(one) for one in chosen.left_out])
    _print_some(damaged)
    _print_some(notes)
    return EXIT_PARTIAL if damaged else EXIT_OK


def _named(snapshot: Snapshot) -> str:
    from regstore.backup.opening import scope_text

    return f"snapshot {snapshot.run} of {printable(scope_text(snapshot))}"


def _heading(snapshot: Snapshot) -> str:
    return f"{_named(snapshot)}, begun {moment(snapshot.begun)}"


async def _show(settings: StoreSettings, text: str) -> tuple[Snapshot, list[TagShown], list[str], list[str]]:
    from regstore.backup import choose, list_snapshots, passed_over, untold
    from regstore.backup.compare import show_tags

    async with _place(settings, read_only=True) as backup:
        listed = await list_snapshots(backup)
        chosen = choose(listed, text, backup.url)
        earlier = [
            one
            for one in listed.snapshots
            if one.scope == chosen.scope and one.run < chosen.run and one.run not in listed.doubtful
        ]
        before = earlier[-1] if earlier else None
        shown = await show_tags(backup, chosen, before, concurrency=settings.concurrency)
        return chosen, shown, passed_over(listed, text, chosen), untold(listed, text, chosen)


@_backup_command
def backup_diff(
    settings: StoreSettings,
    one: Annotated[str | None, typer.Argument(metavar="SNAPSHOT", show_default=False, help="From this.")] = None,
    other: Annotated[str, typer.Argument(metavar="SNAPSHOT2", help="To this.")] = "latest",
    as_json: Json = False,
) -> int:
    """Show the tags that came, went or moved from one snapshot to another.

    Exit codes: 0 done; 3 a newer snapshot than one of these is damaged.
    """
    if one is None:
        raise InputError("no snapshot to compare with: give BACKUP and SNAPSHOT")
    first, second, difference, damaged = run_async(_diff(settings, one, other))
    if as_json:
        emit_json({"from": first.run, "to": second.run, "damaged": damaged} | asdict(difference))
        return EXIT_PARTIAL if damaged else EXIT_OK
    emit(f"from {first.run} to {second.run}")
    for change in difference.tags:
        name = f"{change.repository}:{change.tag}"
        if not change.before:
            emit(f"+ {name}  {change.after[:19]}")
        elif not change.after:
            emit(f"- {name}  {change.before[:19]}")
        else:
            emit(f"~ {name}  {change.before[:19]} -> {change.after[:19]}")
    emit(
        f"{counted(difference.new_blobs, 'blob')} came ({size(difference.new_bytes)}), "
        f"{difference.gone_blobs:,} went ({size(difference.gone_bytes)})"
    )
    _print_some(damaged)
    return EXIT_PARTIAL if damaged else EXIT_OK


async def _diff(settings: StoreSettings, one: str, other: str) -> tuple[Snapshot, Snapshot, Difference, list[str]]:
    from regstore.backup import choose, list_snapshots, passed_over
    from regstore.backup.compare import compare

    async with _place(settings, read_only=True) as backup:
        listed = await list_snapshots(backup)
        first, second = choose(listed, one, backup.url), choose(listed, other, backup.url)
        damaged = sorted({*passed_over(listed, one, first), *passed_over(listed, other, second)})
        difference = await compare(backup, first, second, concurrency=settings.concurrency)
        return first, second, difference, damaged


# -- restore


@_backup_command
def backup_restore(
    settings: StoreSettings,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="STORE", show_default=False, help="Where to: s3://bucket[/rootdirectory] or a folder."
        ),
    ] = None,
    snapshot: SnapshotName = "latest",
    repo: Repo = None,
    tag: Tag = None,
    overwrite_tags: Annotated[
        bool, typer.Option("--overwrite-tags", help="Also tags that name something else in STORE.")
    ] = False,
    verify_existing: Annotated[
        bool,
        typer.Option(
            "--verify-existing", help="Read and hash blobs that STORE has, and replace those that are wrong."
        ),
    ] = False,
    dry_run: DryRun = False,
    break_lock: BreakLock = False,
    storage_class: StorageClass = None,
    sse: Sse = None,
    sse_kms_key_id: SseKmsKeyId = None,
    acl: Acl = None,
    dst_endpoint_url: DstEndpointUrl = None,
    dst_region: DstRegion = None,
    dst_profile: DstProfile = None,
    dst_ca_bundle: DstCaBundle = None,
    as_json: Json = False,
) -> int:
    """Restore a snapshot into STORE, which may be empty, missing or in use.

    Blobs first, each hashed on its way, then links, in the order of a push. What is there already stays; a tag that
    names something else in STORE is a conflict, and stays too unless --overwrite-tags. What a replaced link held is in
    the run's journal, STORE/regstore/runs. Blobs in STORE are believed by their size unless --verify-existing. Run it
    again after an interruption: only the rest is written. Until it is done, no registry's own garbage-collect may run
    on STORE: it deletes blobs that nothing links yet.

    latest and TIME mean snapshots of the whole registry, where there is one; of several scopes or sources, give an ID.

    Exit codes: 0 done; 3 done, with conflicts, or with something left out and named: what is damaged (a newer snapshot
    too), and what the snapshot had left out when it was made.
    """
    from regstore.backup import RestoreOptions

    if target is None:
        raise InputError("no store: give BACKUP and STORE")
    options = RestoreOptions(
        snapshot=snapshot,
        repositories=tuple(repo or ()),
        tags=tuple(tag or ()),
        overwrite_tags=overwrite_tags,
        verify_existing=verify_existing,
        put=put_options(storage_class, sse, sse_kms_key_id, acl),
        concurrency=settings.concurrency,
    )
    there = there_of(settings, target, dst_endpoint_url, dst_region, dst_profile, dst_ca_bundle)
    keep_freed_memory()
    with progress(quiet=settings.quiet) as on_event:
        if dry_run:
            plan = run_async(_plan_restore(settings, there, options, on_event))
        else:
            result = run_async(_restore(settings, there, options, break_lock, on_event))
    if dry_run:
        emit_json(_plan_json(plan)) if as_json else _print_plan(plan, target)
        return EXIT_PARTIAL if plan.partial else EXIT_OK
    emit_json(_result_json(result)) if as_json else _print_restored(result)
    return EXIT_PARTIAL if result.partial else EXIT_OK


async def _plan_restore(
    here: StoreSettings, there: StoreSettings, options: RestoreOptions, on_event: OnEvent
) -> RestorePlan:
    from regstore.backup import plan_restore

    async with _place(here, read_only=True) as backup, there.open(read_only=True) as store:
        return await plan_restore(backup, store, options, on_event=on_event)


async def _restore(
    here: StoreSettings, there: StoreSettings, options: RestoreOptions, break_lock: bool, on_event: OnEvent
) -> RestoreResult:
    from regstore.backup import choose, list_snapshots, restore
    from regstore.backup.restore import refuse_target, refuse_unknown_repositories
    from regstore.runs.lock import hold_lock
    from regstore.storage.base import store_with

    async with _place(here) as backup, there.open() as store:
        await refuse_target(backup, store)
        # Before a bucket is made.
        chosen = choose(await list_snapshots(backup), options.snapshot, backup.url)
        refuse_unknown_repositories(chosen, options)
        store_with(store, options.put)  # the lock and the journal too
        await _make_missing(store, options, on_event)
        if break_lock:
            await _break(store)
        async with hold_lock(store, command="backup restore") as lock:
            return await restore(backup, store, options, lock=lock, on_event=on_event)


async def _make_missing(store: Storage, options: RestoreOptions, on_event: OnEvent) -> None:
    """A store that is not there, or is empty, becomes a healthy empty one."""
    from regstore import layout
    from regstore.seed import SeedOptions, seed

    try:
        async for page in store.list(layout.PREFIX):
            if page.keys:
                return
    except NoSuchBucket:
        pass
    seeded = await seed(store, SeedOptions(put=options.put), on_event=on_event)
    if seeded.broken:
        problem = seeded.broken[0]
        raise StorageError(f"{store.url} is not ready for a registry: {problem.name}: {problem.detail}")


async def _break(storage: Storage) -> None:
    from regstore.runs.lock import break_locks

    for broken in await break_locks(storage):
        emit_error(f"broke the lock of run {broken.holder.run} on {broken.holder.host}")


def _plan_json(plan: RestorePlan) -> dict[str, Any]:
    return asdict(replace(plan, snapshot=None)) | {"snapshot": plan.snapshot.run}  # type: ignore[arg-type]


def _print_plan(plan: RestorePlan, store: str) -> None:
    say_whose(store, plan.database)
    emit(_heading(plan.snapshot))
    emit(
        f"{counted(plan.repositories, 'repository', 'repositories')}, {counted(plan.tags, 'tag')}, "
        f"{counted(plan.blobs, 'blob')} ({size(plan.bytes)})"
    )
    emit(
        f"to write: {counted(plan.missing_blobs, 'blob')} ({size(plan.missing_bytes)}), "
        f"{counted(plan.missing_links, 'link')}, {counted(plan.missing_tags, 'tag')}"
    )
    _print_conflicts([(one.repository, one.tag, one.snapshot, one.there) for one in plan.conflicts])
    _print_some(list(plan.damaged))
    _print_absent(plan.absent)
    _print_some(list(plan.notes))


def _print_absent(absent: Sequence[str]) -> None:
    _print_some([f"not in the snapshot: {one}" for one in absent])


def _print_conflicts(conflicts: list[tuple[str, str, str, str]]) -> None:
    _print_some(
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
        "conflicts": [asdict(one) for one in result.conflicts],
        "damaged": result.damaged,
        "left_out": result.left_out,
        "absent": result.absent,
        "notes": result.notes,
    }


def _print_restored(result: RestoreResult) -> None:
    emit(
        f"restored {_named(result.snapshot)}: {counted(result.blobs, 'blob')} ({size(result.bytes)}), "
        f"{counted(result.links, 'link')}, {counted(result.tags, 'tag')}, in {result.seconds:.1f} s"
    )
    _print_conflicts([(one.repository, one.tag, one.snapshot, one.there) for one in result.conflicts])
    _print_some(result.damaged)
    _print_some([f"not restored: {one}" for one in result.left_out])
    _print_absent(result.absent)
    _print_some(result.notes)


# -- check


@_backup_command
def backup_check(
    settings: StoreSettings,
    snapshot: Annotated[
        str | None, typer.Option(metavar="ID|latest|TIME", show_default=False, help="Only this snapshot.")
    ] = None,
    read_data: Annotated[
        Any,
        typer.Option(
            parser=parse_read_data,
            metavar="all|N%|N/T|SIZE",
            show_default=False,
            help="Also read blobs and hash them: so many of them.",
        ),
    ] = None,
    max_age: Annotated[
        Any,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            show_default=False,
            help="Do not read again what was read and right within this time.",
        ),
    ] = None,
    time_limit: Annotated[
        Any,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            show_default=False,
            help="Stop reading blobs after this time.",
        ),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", show_default=False, help="Where it is remembered what was read and right."),
    ] = None,
    repair_from: Annotated[
        str | None,
        typer.Option(
            metavar="STORE|BACKUP",
            show_default=False,
            help="Write anew what is lost or damaged: blobs from a registry, or everything from another backup.",
        ),
    ] = None,
    storage_class: StorageClass = None,
    sse: Sse = None,
    sse_kms_key_id: SseKmsKeyId = None,
    acl: Acl = None,
    dst_endpoint_url: DstEndpointUrl = None,
    dst_region: DstRegion = None,
    dst_profile: DstProfile = None,
    dst_ca_bundle: DstCaBundle = None,
    as_json: Json = False,
) -> int:
    """Check that every snapshot is complete: its packs match their names, and its blobs are there with their sizes.

    With --read-data, blobs are read and hashed: a share and a size take those first that were never proved, then those
    that were proved longest ago; N/T is part N of T. Safe while create and prune run.

    Exit codes: 0 sound; 6 damage, named with the tags that it touches; 3 no damage, but something can't be read.
    """
    from regstore.inventory.cache import default_cache_dir

    if read_data is None and (max_age is not None or time_limit is not None):
        raise InputError("--max-age and --time-limit are about what --read-data reads: say how much")
    put = put_options(storage_class, sse, sse_kms_key_id, acl)
    reading = {
        "read_data": read_data,
        "max_age": max_age,
        "time_limit": None if time_limit is None else time_limit / 1_000_000,
        "proofs": cache_dir or default_cache_dir(),
    }
    other = (
        there_of(settings, repair_from, dst_endpoint_url, dst_region, dst_profile, dst_ca_bundle)
        if repair_from is not None
        else None
    )
    with progress(quiet=settings.quiet) as on_event:
        result = run_async(_check(settings, snapshot, reading, other, put, on_event))
    if as_json:
        emit_json(asdict(result) | {"damaged": result.damaged})
    else:
        _print_checked(result)
    if result.damaged:
        return EXIT_DAMAGE
    return EXIT_PARTIAL if result.unread else EXIT_OK


async def _check(
    settings: StoreSettings,
    snapshot: str | None,
    reading: dict[str, Any],
    other: StoreSettings | None,
    put: PutOptions,
    on_event: OnEvent,
) -> CheckResult:
    from contextlib import AsyncExitStack

    from regstore.backup import check
    from regstore.storage.base import store_with

    async with AsyncExitStack() as stack:
        backup = await stack.enter_async_context(_place(settings))
        store_with(backup, put)
        store = await stack.enter_async_context(other.open()) if other else None
        return await check(
            backup,
            snapshot=snapshot,
            **reading,
            repair_from=store,
            put=put,
            concurrency=settings.concurrency,
            on_event=on_event,
        )


def _print_checked(result: CheckResult) -> None:
    emit(
        f"{counted(result.snapshots, 'snapshot')}, {counted(result.packs, 'pack')}, "
        f"{counted(result.blobs, 'blob')} ({size(result.bytes)}); read {counted(result.read_blobs, 'blob')} "
        f"({size(result.read_bytes)}), in {result.seconds:.1f} s"
    )
    if result.known_blobs:
        emit(f"{counted(result.known_blobs, 'blob')} ({size(result.known_bytes)}) proved before, within --max-age")
    if result.left_blobs:
        emit(f"{counted(result.left_blobs, 'blob')} ({size(result.left_bytes)}) left, for the time was over")
    if result.unneeded_blobs:
        emit(
            f"{counted(result.unneeded_blobs, 'blob')} ({size(result.unneeded_bytes)}) no snapshot needs: see prune"
        )
    for one in result.damage:
        emit_error(f"{one.kind} {one.subject} {one.reason}" + ("; repaired" if one.repaired else ""))
        if not one.repaired:
            _print_some([f"  touches {place} in {', '.join(place.snapshots)}" for place in one.touches])
    for one in result.unread:
        emit_error(f"{one.kind} {one.subject}: {one.reason}")
        _print_some([f"  touches {place} in {', '.join(place.snapshots)}" for place in one.touches])
    _print_some(result.notes)
    for line in result.unstable:
        emit_error(f"read differently twice, so the way here is not to be trusted: {line}")
    if not result.damage:
        emit("no damage found" + (", but not everything can be read" if result.unread else ""))


# -- prune


@_backup_command
def backup_prune(
    settings: StoreSettings,
    keep_last: Annotated[int, typer.Option(metavar="N", min=0, help="Keep the last N snapshots.")] = 0,
    keep_daily: Annotated[int, typer.Option(metavar="N", min=0, help="The newest of each of N days.")] = 0,
    keep_weekly: Annotated[int, typer.Option(metavar="N", min=0, help="The newest of each of N weeks.")] = 0,
    keep_monthly: Annotated[int, typer.Option(metavar="N", min=0, help="The newest of each of N months.")] = 0,
    keep_within: Annotated[
        int, typer.Option(parser=parse_duration, metavar="DURATION", help="All this close to the newest.")
    ] = "0s",  # type: ignore[assignment]
    forget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            show_default=False,
            help="Forget this snapshot, also a damaged one (repeatable); without --keep-…, no other.",
        ),
    ] = None,
    grace: Annotated[
        int, typer.Option(parser=parse_duration, metavar="DURATION", help="Leave alone what is younger than this.")
    ] = "24h",  # type: ignore[assignment]
    dry_run: DryRun = False,
    break_lock: BreakLock = False,
    as_json: Json = False,
) -> int:
    """Forget old snapshots, and delete the blobs that no other needs.

    Snapshots of each store, and of the same patterns, are counted apart. Of each, the newest always stays, and the
    newest that left nothing out. While something is damaged, only what --forget names goes; while a create or a
    restore runs, only snapshots.

    Exit codes: 0 done; 3 done, with something that could not be deleted, is damaged or in use, named.
    """
    from regstore.backup import PruneOptions, Retention

    rules = (keep_last, keep_daily, keep_weekly, keep_monthly, keep_within)
    keep = (
        Retention(last=keep_last, daily=keep_daily, weekly=keep_weekly, monthly=keep_monthly, within=keep_within)
        if any(rules) or not forget
        else None
    )
    options = PruneOptions(keep=keep, forget=tuple(forget or ()), grace=grace, concurrency=settings.concurrency)
    with progress(quiet=settings.quiet) as on_event:
        plan, result = run_async(_prune(settings, options, dry_run, break_lock, on_event))
    if as_json:
        emit_json(_prune_json(plan, result))
    else:
        _print_pruned(plan, result)
    partial = result.partial if result else plan.partial
    return EXIT_PARTIAL if partial else EXIT_OK


async def _prune(
    settings: StoreSettings, options: Any, dry_run: bool, break_lock: bool, on_event: OnEvent
) -> tuple[PrunePlan, PruneResult | None]:
    from regstore.backup import plan_prune, prune
    from regstore.backup.opening import check_marker
    from regstore.errors import NotARegistry
    from regstore.runs.lock import hold_lock

    async with _place(settings, read_only=dry_run) as backup:
        if dry_run:
            return await plan_prune(backup, options, on_event=on_event), None
        if not await check_marker(backup):
            raise NotARegistry(f"{backup.url} is no backup: nothing is deleted there")
        if break_lock:
            await _break(backup)
        async with hold_lock(backup, command="backup prune") as lock:
            result = await prune(backup, options, lock=lock, on_event=on_event)
            return result.plan, result


def _prune_json(plan: PrunePlan, result: PruneResult | None) -> dict[str, Any]:
    done = (
        None
        if result is None
        else {
            "snapshots": result.snapshots,
            "packs": result.packs,
            "blobs": result.blobs,
            "bytes": result.bytes,
            "failures": result.failures,
        }
    )
    return {
        "kept": [{"id": one.run, "time": moment(one.begun), "why": list(why)} for one, why in plan.forget.kept],
        "forgotten": [{"id": one.run, "time": moment(one.begun)} for one in plan.forget.forgotten],
        "forgotten_unreadable": list(plan.unreadable),
        "packs": plan.packs,
        "blobs": plan.blobs,
        "bytes": plan.bytes,
        "kept_blobs": plan.kept_blobs,
        "kept_bytes": plan.kept_bytes,
        "young": plan.young,
        "blocked": plan.blocked or None,
        "damaged": list(plan.damaged),
        "result": done,
    }


def _print_pruned(plan: PrunePlan, result: PruneResult | None) -> None:
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
    if result is None:
        emit(f"would delete {counted(plan.blobs, 'blob')} ({size(plan.bytes)}) and {counted(plan.packs, 'pack')}")
    else:
        emit(
            f"forgot {counted(result.snapshots, 'snapshot')}; deleted {counted(result.blobs, 'blob')} "
            f"({size(result.bytes)}) and {counted(result.packs, 'pack')}"
        )
        _print_some(result.failures)
    emit(
        f"{counted(plan.kept_blobs, 'blob')} ({size(plan.kept_bytes)}) kept; {plan.young:,} more only by the grace"
    )
    if plan.blocked:
        emit_error(plan.blocked)
    _print_some(list(plan.damaged))


BACKUP_COMMANDS: Final = {
    "create": backup_create,
    "list": backup_list,
    "show": backup_show,
    "diff": backup_diff,
    "restore": backup_restore,
    "check": backup_check,
    "prune": backup_prune,
}
