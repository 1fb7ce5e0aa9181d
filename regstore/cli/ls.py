"""`regstore ls`: the repositories of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.command import command
from regstore.cli.outcome import Result
from regstore.cli.output import count, emit, emit_note, table
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.whose import database_of, say_whose, whose_json
from regstore.events import OnEvent, Progress

if TYPE_CHECKING:
    from regstore.registry import Repository


@command(answers=True)
def ls(
    settings: StoreSettings,
    prefix: Annotated[
        str | None,
        typer.Argument(metavar="PREFIX", show_default=False, help="Only names that begin so, such as team/."),
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Count the tags and revisions of each (it lists all their links).")
    ] = False,
) -> Result:
    """List the repositories of a store."""
    settings, prefix = settings.shifted(prefix, name=True)
    with progress() as on_event:
        url, database, rows = run_async(_read(settings, prefix or "", long, on_event))
    say_whose(url, database, to_stderr=True)
    if long and rows:
        cells = [[row["name"], count(row["tags"]), count(row["revisions"])] for row in rows]
        emit(table(["REPOSITORY", "TAGS", "REVISIONS"], cells, right=(1, 2)))
    else:
        for row in rows:
            emit(row["name"])
    if not rows:
        emit_note(f"no repository in {url} begins with {prefix}" if prefix else f"no repositories in {url} yet")
    return Result(data=whose_json(database) | {"repositories": rows}, numbers={"repositories": len(rows)})


async def _read(
    settings: StoreSettings, prefix: str, long: bool, on_event: OnEvent
) -> tuple[str, str, list[dict[str, Any]]]:
    from regstore.registry import Registry

    storage, config = settings.open_with_config(read_only=True)
    async with Registry(storage) as registry:
        rows = []
        async for repository in registry.repositories():
            if not repository.name.startswith(prefix):
                continue
            rows.append(await _facts(repository) if long else {"name": repository.name})
            on_event(Progress(phase="listing repositories", done=len(rows), unit="repositories"))
        database = await database_of(storage, config)
        return registry.url, database, sorted(rows, key=lambda row: row["name"])


async def _facts(repository: Repository) -> dict[str, Any]:
    tags = sum([1 async for _ in repository.tags])
    revisions = sum([1 async for _ in repository.manifests])
    return {"name": repository.name, "tags": tags, "revisions": revisions}
