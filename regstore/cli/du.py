"""`regstore du`: what the bytes of a store are used for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.command import command
from regstore.cli.naming import meant
from regstore.cli.options import Scanning
from regstore.cli.outcome import Result
from regstore.cli.output import count, counted, emit, emit_error, plain, size, table
from regstore.cli.progress import progress
from regstore.cli.reported import BlobsReported, reported_json, say_reported
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.whose import say_whose, whose_json
from regstore.errors import EXIT_OK, EXIT_PARTIAL, InputError, NameUnknown
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.inventory.inventory import ReportedAt
    from regstore.inventory.scan import ScanOptions
    from regstore.inventory.usage import RepositoryUsage, Usage


@command(answers=True)
def du(
    settings: StoreSettings,
    *,
    repository: Annotated[
        str | None,
        typer.Argument(
            metavar="REPOSITORY", show_default=False, help="Only this one; with a slash at its end, all below it."
        ),
    ] = None,
    sort: Annotated[str, typer.Option(metavar="size|name", help="The largest first, or by name.")] = "size",
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", metavar="N", min=1, show_default=False, help="The N largest repositories only."
        ),
    ] = None,
    reported: BlobsReported,
    scanning: Scanning,
) -> Result:
    """Show the bytes of blobs by repository: its own, shared with others, and those that nothing refers to."""
    settings, repository = settings.shifted(repository, name=True)
    if sort not in ("size", "name"):
        raise InputError(f"--sort is size or name, not {sort}")
    with progress() as on_event:
        options = replace(scanning.of(settings), blobs_from=reported.of(settings))
        url, database, at, usage = run_async(_measure(settings, options, on_event))
    chosen = _chosen(usage, repository, url)
    shown = sorted(chosen[:limit], key=lambda one: one.name) if sort == "name" else chosen[:limit]
    say_whose(url, database)
    say_reported(at, "what came since counts where anything names it, and what went since counts still\n")
    _print(url, usage, shown, more=len(chosen) - len(shown))
    repositories = [plain(one) | {"total": one.total} for one in shown]
    return Result(
        exit_code=EXIT_PARTIAL if usage.unread else EXIT_OK,
        data=whose_json(database) | reported_json(at) | plain(usage) | {"repositories": repositories},
        numbers={
            "repositories": len(usage.repositories),
            "blobs": usage.blobs,
            "blob_bytes": usage.blob_bytes,
            "unreferenced_blobs": usage.unreferenced_blobs,
            "unreferenced_bytes": usage.unreferenced_bytes,
            "upload_bytes": usage.upload_bytes,
        },
    )


def _print(url: str, usage: Usage, shown: Sequence[RepositoryUsage], *, more: int) -> None:
    rows = [
        [
            one.name,
            count(one.tags),
            count(one.revisions),
            count(one.blobs),
            size(one.unique),
            size(one.shared),
            size(one.total),
        ]
        for one in shown
    ]
    if rows:
        headings = ["REPOSITORY", "TAGS", "MANIFESTS", "BLOBS", "OWN", "SHARED", "TOTAL"]
        emit(table(headings, rows, right=(1, 2, 3, 4, 5, 6)))
    if more:
        emit(f"({more:,} more)")
    emit(f"\n{url}: {counted(usage.blobs, 'blob')}, {size(usage.blob_bytes)}")
    emit(f"  shared by repositories: {counted(usage.shared_blobs, 'blob')}, {size(usage.shared_bytes)}")
    emit(f"  of no repository: {counted(usage.unreferenced_blobs, 'blob')}, {size(usage.unreferenced_bytes)}")
    if usage.upload_bytes:
        emit(f"  in open uploads: {size(usage.upload_bytes)}")
    for line in usage.unread:
        emit_error(f"{line}; what it refers to may be missing from its repository above")


def _chosen(usage: Usage, name: str | None, url: str) -> Sequence[RepositoryUsage]:
    """NameUnknown where there is none such."""
    if name is None:
        return usage.repositories
    found = [
        one for one in usage.repositories if one.name == name or (name[-1:] == "/" and one.name.startswith(name))
    ]
    if not found:
        known = [one.name for one in usage.repositories]
        raise NameUnknown(f"{url} has no repository {name}{meant(name, known)}")
    return found


async def _measure(
    settings: StoreSettings, options: ScanOptions, on_event: OnEvent
) -> tuple[str, str, ReportedAt | None, Usage]:
    from regstore.inventory.scan import Scanner, scan
    from regstore.inventory.usage import plan_usage
    from regstore.inventory.whose import database_told

    storage, config = settings.open_with_config(read_only=True)
    async with storage, scan(storage, options, on_event=on_event) as inventory:
        await Scanner(storage, inventory, options, on_event).find_unreported()
        database = inventory.database or database_told(config)
        return storage.url, database, inventory.reported, plan_usage(inventory)
