"""`regstore trash list`: the runs that can be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.command import command
from regstore.cli.options import CacheAndProcesses, Json
from regstore.cli.output import count, emit, emit_error, emit_json, moment, size, table
from regstore.cli.registry_cache import Left, known_cache
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.trash._common import Run, run_json

if TYPE_CHECKING:
    from regstore.digest import Digest
    from regstore.state.trashed import TrashedRun


@command
def trash_list(
    settings: StoreSettings,
    run: Run = None,
    repo: Annotated[
        str | None,
        typer.Option(
            "--repo", metavar="NAME", show_default=False, help="Only runs that took links of this repository."
        ),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option(
            "--digest", metavar="DIGEST", show_default=False, help="Only runs that took this blob or manifest."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the runs that left anything in the trash or can be undone, oldest first."""
    from regstore.digest import Digest

    wanted = Digest.parse(digest) if digest is not None else None
    url, runs, links, left = run_async(_list(settings, run, repo, wanted))
    if as_json:
        emit_json(
            {"store": url, "runs": [run_json(run) | {"links": links[run.run]} for run in runs], **left.json()}
        )
    elif runs:
        rows = [
            [
                run.run,
                moment(run.ended) if run.complete else "cut short",
                run.command,
                count(run.blobs),
                size(run.blob_bytes),
                count(links[run.run]),
            ]
            for run in runs
        ]
        emit(table(["RUN", "ENDED", "COMMAND", "BLOBS", "SIZE", "LINKS"], rows, right=(3, 4, 5)))
        emit()
        left.show()
    elif not settings.quiet:
        emit_error(
            f"the trash of {url} is empty"
            if run is repo is digest is None
            else f"the trash of {url} has no run that took such a thing"
        )


async def _list(
    settings: StoreSettings, only: str | None, repository: str | None, digest: Digest | None
) -> tuple[str, list[TrashedRun], dict[str, int], Left]:
    from regstore.gc.trash_list import count_links, runs_that_took
    from regstore.state.not_freed import not_freed
    from regstore.state.trashed import find_trash

    storage, config = settings.open_with_config(read_only=True)
    async with storage:
        known = await known_cache(storage, CacheAndProcesses().of(settings), config)
        found = await find_trash(storage)
        runs = [each for each in found if only in (None, each.run)]
        runs = await runs_that_took(
            storage, runs, repository=repository, digest=digest, concurrency=settings.concurrency
        )
        links = await count_links(storage, runs, concurrency=settings.concurrency)
        now = await storage.now()
        return storage.url, runs, links, Left(known, not_freed(found, known.as_of(now), now=now))
