"""`regstore migrate STORE DST`: a registry's store to another place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore import layout
from regstore.cli.allocator import keep_freed_memory
from regstore.cli.options import (
    Acl,
    DstCaBundle,
    DstEndpointUrl,
    DstProfile,
    DstRegion,
    PlanOnly,
    Repo,
    Sse,
    SseKmsKeyId,
    StorageClass,
    Tag,
)
from regstore.cli.output import confirm, count, counted, emit, emit_error, emit_json, size, some, table
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.settings import Json, StoreSettings, store_command
from regstore.cli.target import put_options, there_of
from regstore.cli.values import parse_share
from regstore.errors import EXIT_OK, EXIT_PARTIAL, InputError, NoSuchBucket, StorageError
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.migrate import MigrateOptions, MigrateResult, MigrateSummary
    from regstore.storage.base import Storage

_WARNING = (
    "Until the last pass is done and the registry has been switched over, no registry's own garbage-collect may run on"
    " the target: it deletes blobs that nothing links yet."
)


class _Verify(StrEnum):
    default = "default"
    full = "full"


@store_command
def migrate(
    settings: StoreSettings,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="DST", show_default=False, help="Where to: s3://bucket[/rootdirectory] or a folder."
        ),
    ] = None,
    repo: Repo = None,
    tag: Tag = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="FROM=TO", show_default=False, help="Another name for a repository (repeatable)."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what no tag or revision reaches.")] = False,
    dry_run: PlanOnly = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Passes until nothing changes: for a live source.")
    ] = False,
    create: Annotated[
        bool, typer.Option("--create", help="Create and seed the target first, as seed-bucket does.")
    ] = False,
    overwrite_tags: Annotated[
        bool,
        typer.Option(
            "--overwrite-tags", help="Also tags that somebody else, or another source, set at the target."
        ),
    ] = False,
    delete: Annotated[
        bool,
        typer.Option(
            "--delete",
            help="At the end, remove tags that our passes set and STORE no longer has (trash restore undoes it).",
        ),
    ] = False,
    max_delete: Annotated[
        float,
        typer.Option(parser=parse_share, metavar="SHARE", help="Refuse to remove more of our tags than this."),
    ] = "50%",  # type: ignore[assignment]
    verify: Annotated[
        _Verify, typer.Option(help="full: read every blob of the scope back from the target and hash it.")
    ] = _Verify.default,
    server_side: Annotated[
        bool, typer.Option("--server-side/--no-server-side", help="Let the server copy from bucket to bucket.")
    ] = True,
    storage_class: StorageClass = None,
    sse: Sse = None,
    sse_kms_key_id: SseKmsKeyId = None,
    acl: Acl = None,
    dst_endpoint_url: DstEndpointUrl = None,
    dst_region: DstRegion = None,
    dst_profile: DstProfile = None,
    dst_ca_bundle: DstCaBundle = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before --delete.")] = False,
    as_json: Json = False,
) -> int:
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
        repositories=tuple(repo or ()),
        tags=tuple(tag or ()),
        rename=parse_rename(rename or []),
        all=everything,
        overwrite_tags=overwrite_tags,
        delete=delete,
        max_delete=max_delete,
        verify=Verify(verify.value),
        concurrency=settings.concurrency,
        server_side=server_side,
        put=put_options(storage_class, sse, sse_kms_key_id, acl),
    )
    there = there_of(settings, target, dst_endpoint_url, dst_region, dst_profile, dst_ca_bundle)
    if delete and not dry_run and not confirm("Remove tags at DST that STORE no longer has?", yes=yes):
        return EXIT_OK
    keep_freed_memory()
    with progress(quiet=settings.quiet) as on_event:
        done = run_async(_migrate(settings, there, options, dry_run, follow, create, on_event))
    summary, result, configuration = done
    if summary is not None:
        emit_json(_summary_json(summary)) if as_json else _print_summary(summary, settings.quiet)
        partial = bool(summary.conflicts or summary.damaged or summary.incomplete)
    else:
        assert result is not None
        if as_json:
            emit_json(_result_json(result) | {"configuration": configuration})
        else:
            _print_result(result)
            _print_configuration(configuration)
        partial = result.partial
    return EXIT_PARTIAL if partial else EXIT_OK


async def _migrate(
    here: StoreSettings,
    there: StoreSettings,
    options: MigrateOptions,
    dry_run: bool,
    follow: bool,
    create: bool,
    on_event: OnEvent,
) -> tuple[MigrateSummary | None, MigrateResult | None, dict[str, Any]]:
    from regstore.inventory.cache import default_cache_dir
    from regstore.inventory.scan import ScanOptions
    from regstore.inventory.whose import database_told
    from regstore.migrate import check_source, migrate, plan_only
    from regstore.migrate.metadata import Metadata, notes_on_metadata, refuse_metadata
    from regstore.storage.identity import keep_id

    scanning = ScanOptions(cache_dir=default_cache_dir(), concurrency=here.concurrency)
    source, config = here.open_with_config(read_only=dry_run)
    told = database_told(config)
    async with source, there.open(read_only=dry_run) as target:
        if not dry_run:
            refuse_metadata(Metadata(source=told), source.url, target.url, options)
        if create and not dry_run:
            await check_source(source, target, options)
            await _create(target, options, on_event)
        elif not create:
            await _check_is_there(target)
        await keep_id(source)  # so that no other folder's tags pass for its own at the target
        if dry_run:
            summary = await plan_only(source, target, options, create=create, scanning=scanning, on_event=on_event)
            notes = dict.fromkeys(
                [*notes_on_metadata(Metadata(source=told), source.url, target.url), *summary.notes]
            )
            return replace(summary, notes=tuple(notes)), None, {}
        result = await migrate(source, target, options, follow=follow, scanning=scanning, on_event=on_event)
        return None, result, _configuration(target)


async def _create(target: Storage, options: MigrateOptions, on_event: OnEvent) -> None:
    from regstore.seed import SeedOptions, seed

    seeded = await seed(target, SeedOptions(put=options.put), on_event=on_event)
    if seeded.broken:
        problem = seeded.broken[0]
        raise StorageError(f"{target.url} is not ready for a registry: {problem.name}: {problem.detail}")


async def _check_is_there(target: Storage) -> None:
    try:
        await anext(target.list(layout.PREFIX), None)
    except NoSuchBucket as error:
        raise NoSuchBucket(f"{error}: --create makes it, and seeds it") from error


def _configuration(target: Storage) -> dict[str, Any]:
    """The registry's, for the target."""
    from regstore.seed.configuration import disk_configuration, s3_configuration
    from regstore.storage.disk import DiskStorage

    if isinstance(target, DiskStorage):
        return disk_configuration(target.root)
    from regstore.storage.s3 import S3Storage
    from regstore.storage.s3.settings import make_endpoint, open_session

    assert isinstance(target, S3Storage)
    settings = target.settings
    endpoint = make_endpoint(settings, open_session(settings))
    return s3_configuration(
        bucket=settings.bucket,
        root=settings.root,
        region=endpoint.region,
        endpoint=None if endpoint.is_aws else endpoint.url,
        path_style=endpoint.path_style,
        verify_tls=settings.verify_tls,
        put=target.put_options,
    )


_KINDS = (
    ("blobs", "blobs"),
    ("layer_links", "layer links"),
    ("revisions", "revisions"),
    ("signatures", "signatures"),
    ("tag_index", "tag history"),
    ("tags", "tags"),
)


def _print_summary(summary: MigrateSummary, quiet: bool) -> None:
    for note in summary.notes:
        emit(note)
    emit(f"{summary.source} to {summary.target}\n")
    rows = []
    for name, title in _KINDS:
        kind = getattr(summary, name)
        if kind.total:
            rows.append([title, count(kind.total), count(kind.to_copy), size(kind.bytes) if kind.bytes else ""])
    emit(table(["KIND", "IN SCOPE", "TO COPY", "BYTES"], rows, right=(1, 2, 3)))
    if summary.shares:
        cells = [
            [
                share.name if share.name == share.target else f"{share.name} as {share.target}",
                count(share.blobs),
                size(share.blob_bytes),
                count(share.revisions),
                count(share.tags),
            ]
            for share in summary.shares
        ]
        emit("\n" + table(["REPOSITORY", "BLOBS", "BYTES", "REVISIONS", "TAGS"], cells, right=(1, 2, 3, 4)))
    if summary.nothing_to_do:
        emit("\nNothing to do.")
    elif not quiet:
        from regstore.migrate.result import PRICES_AS_OF

        estimate = summary.estimate
        way = "copied by the server" if summary.server_side else "streamed through here"
        cost = ""
        if estimate.lists:
            cost = (
                f" On S3: {counted(estimate.writes, 'write')}, {counted(estimate.reads, 'read')},"
                f" {counted(estimate.lists, 'listing')}: about ${estimate.dollars:,.2f} of requests ({PRICES_AS_OF})."
            )
        emit(f"\nBlobs are {way}.{cost}")
    if summary.to_delete:
        _named(f"{counted(summary.to_delete, 'tag')} to remove:", summary.to_delete_tags)
    _print_left(summary)


def _print_result(result: MigrateResult) -> None:
    for note in result.notes:
        emit(note)
    rate = result.blob_bytes / result.seconds if result.seconds else 0
    if not (result.objects or result.deleted):
        emit("Nothing to do.")
    else:
        emit(
            f"Copied {counted(result.blobs, 'blob')} ({size(result.blob_bytes)}),"
            f" {counted(result.layer_links, 'layer link')}, {counted(result.revisions, 'revision')},"
            f" {counted(result.tags, 'tag')}."
        )
    if result.deleted:
        _named(f"Removed {counted(result.deleted, 'tag')}:", sorted(result.deleted_tags))
    if result.verified:
        repaired = f", {count(result.repaired)} of them copied again" if result.repaired else ""
        emit(f"Read back {counted(result.verified, 'blob')}{repaired}.")
    if result.size_only:
        emit(
            f"Of {counted(result.size_only, 'blob')} that the server copied only the size was compared:"
            " --verify full reads them back."
        )
    emit(
        f"{counted(result.passes, 'pass', 'passes')} in {result.seconds:.1f} s, {size(int(rate))}/s,"
        f" {counted(sum(result.requests.values()), 'request')}, {counted(result.retries, 'retry', 'retries')}."
    )
    if result.gone:
        emit(f"{counted(result.gone, 'link')} left the source meanwhile.")
    _print_left(result)
    _some("not copied", [str(problem) for problem in sorted(result.failed)])
    _some("left out", [str(problem) for problem in sorted(result.skipped)])


def _print_left(found: MigrateSummary | MigrateResult) -> None:
    _some("damaged at the source, left out", [str(problem) for problem in found.damaged])
    _some(
        "tag kept at the target, which somebody else set (--overwrite-tags)",
        [
            f"{conflict.repository}:{conflict.tag} is {conflict.target or 'broken'} there, {conflict.source} here"
            for conflict in found.conflicts
        ],
    )
    _some("incomplete at the source already", [str(problem) for problem in found.incomplete])
    _some("copied whole, since not all of it can be read", [str(problem) for problem in found.protected])
    if found.unknown:
        emit_error(f"{counted(found.unknown, 'unknown key')} at the source: left")
    if found.uploads:
        emit_error(f"{counted(found.uploads, 'upload')} in progress at the source: never copied")


def _named(title: str, names: Sequence[str]) -> None:
    emit(title)
    for name in some(names, "{} more (--json has them all)"):
        emit(f"  {name}")


def _some(what: str, lines: list[str]) -> None:
    for line in some(lines, "{} more (--json has them all)"):
        emit_error(f"{what}: {line}")


def _print_configuration(configuration: dict[str, Any]) -> None:
    import yaml

    emit("\nconfig.yml of the registry, to switch over:\n")
    emit(yaml.safe_dump(configuration, sort_keys=False, default_flow_style=False).rstrip())
    emit(f"\n{_WARNING}")


def _summary_json(summary: MigrateSummary) -> dict[str, Any]:
    from regstore.migrate.result import PRICES_AS_OF

    document = asdict(summary)
    document["estimate"] |= {"dollars": round(summary.estimate.dollars, 4), "prices": PRICES_AS_OF}
    return document


def _result_json(result: MigrateResult) -> dict[str, Any]:
    return asdict(result) | {"objects": result.objects, "partial": result.partial}
