"""`regstore trash list`: the runs that can be undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.command import command
from regstore.cli.options import CacheAndProcesses
from regstore.cli.outcome import Result
from regstore.cli.output import count, emit, emit_note, moment, size, table
from regstore.cli.registry_cache import Left, known_cache
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.trash._common import Run, run_json

if TYPE_CHECKING:
    from regstore.digest import Digest
    from regstore.state.trashed import TrashedRun


@command(answers=True)
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
) -> Result:
    """List the runs that left anything in the trash or can be undone, oldest first."""
    from regstore.digest import Digest

    wanted = Digest.parse(digest) if digest is not None else None
    url, runs, links, left = run_async(_list(settings, run, repo, wanted))
    if runs:
        rows = [
            [
                each.run,
                moment(each.ended) if each.complete else "cut short",
                each.command,
                count(each.blobs),
                size(each.blob_bytes),
                count(links[each.run]),
            ]
            for each in runs
        ]
        emit(table(["RUN", "ENDED", "COMMAND", "BLOBS", "SIZE", "LINKS"], rows, right=(3, 4, 5)))
        emit()
        left.show()
    else:
        emit_note(
            f"the trash of {url} is empty"
            if run is repo is digest is None
            else f"the trash of {url} has no run that took such a thing"
        )
    return Result(
        data={"runs": [run_json(each) | {"links": links[each.run]} for each in runs], **left.json()},
        numbers={
            "runs": len(runs),
            "blobs": sum(each.blobs for each in runs),
            "blob_bytes": sum(each.blob_bytes for each in runs),
        },
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
