"""`regstore du`: what the bytes of a store are used for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.command import command
from regstore.cli.options import Scanning
from regstore.cli.outcome import Result
from regstore.cli.output import count, counted, emit, emit_error, plain, size, table
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.whose import say_whose, whose_json
from regstore.errors import EXIT_OK, EXIT_PARTIAL
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.inventory.scan import ScanOptions
    from regstore.inventory.usage import Usage


@command(answers=True)
def du(
    settings: StoreSettings,
    *,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", metavar="N", min=1, show_default=False, help="The N largest repositories only."
        ),
    ] = None,
    scanning: Scanning,
) -> Result:
    """Show the bytes of blobs by repository: its own, shared with others, and those that nothing refers to."""
    with progress() as on_event:
        url, database, usage = run_async(_measure(settings, scanning.of(settings), on_event))
    shown = usage.repositories[:limit]
    say_whose(url, database)
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
    if len(shown) < len(usage.repositories):
        emit(f"({len(usage.repositories) - len(shown):,} more)")
    emit(f"\n{url}: {counted(usage.blobs, 'blob')}, {size(usage.blob_bytes)}")
    emit(f"  shared by repositories: {counted(usage.shared_blobs, 'blob')}, {size(usage.shared_bytes)}")
    emit(f"  of no repository: {counted(usage.unreferenced_blobs, 'blob')}, {size(usage.unreferenced_bytes)}")
    if usage.upload_bytes:
        emit(f"  in open uploads: {size(usage.upload_bytes)}")
    for line in usage.unread:
        emit_error(f"{line}; what it refers to may be missing from its repository above")
    repositories = [plain(one) | {"total": one.total} for one in shown]
    return Result(
        exit_code=EXIT_PARTIAL if usage.unread else EXIT_OK,
        data=whose_json(database) | plain(usage) | {"repositories": repositories},
        numbers={
            "repositories": len(usage.repositories),
            "blobs": usage.blobs,
            "blob_bytes": usage.blob_bytes,
            "unreferenced_blobs": usage.unreferenced_blobs,
            "unreferenced_bytes": usage.unreferenced_bytes,
            "upload_bytes": usage.upload_bytes,
        },
    )


async def _measure(settings: StoreSettings, options: ScanOptions, on_event: OnEvent) -> tuple[str, str, Usage]:
    from regstore.inventory.scan import scan
    from regstore.inventory.usage import plan_usage
    from regstore.inventory.whose import database_told

    storage, config = settings.open_with_config(read_only=True)
    async with storage, scan(storage, options, on_event=on_event) as inventory:
        return storage.url, inventory.database or database_told(config), plan_usage(inventory)
