"""`regstore tags`: the tags of a repository, with what they name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from regstore.cli.command import command
from regstore.cli.naming import meaning, version_key
from regstore.cli.outcome import Result
from regstore.cli.output import count, counted, emit, emit_error, emit_note, iso, moment, size, table
from regstore.cli.progress import progress
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.whose import database_of, say_whose, whose_json
from regstore.errors import EXIT_OK, EXIT_PARTIAL, InputError, RegstoreError
from regstore.events import OnEvent, Progress
from regstore.reference import is_digest_tag

if TYPE_CHECKING:
    from regstore.registry import Description, Repository


@command(answers=True)
def tags(
    settings: StoreSettings,
    repository: Annotated[
        str | None, typer.Argument(metavar="REPOSITORY", show_default=False, help="Its name, such as team/app.")
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            metavar="name|date|size|version",
            help="By name, the newest image or the largest first, or as versions: 1.9 before 1.10.",
        ),
    ] = "name",
    long: Annotated[bool, typer.Option("--long", "-l", help="With whole digests and times.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Also tags that name a digest, as of signatures (--json has them).")
    ] = False,
) -> Result:
    """List the tags of a repository: digest, kind, size, platforms, referrers."""
    settings, repository = settings.shifted(repository, name=True)
    if repository is None:
        raise InputError("no repository: say its name after the store")
    if sort not in _ORDERS:
        raise InputError(f"--sort is one of {', '.join(_ORDERS)}, not {sort}")
    with progress() as on_event:
        url, database, rows = run_async(meaning(settings, [repository], _read(settings, repository, on_event)))
    rows.sort(key=_ORDERS[sort])
    damaged = [row for row in rows if row["problem"] is not None]
    say_whose(url, database, to_stderr=True)
    shown = [row for row in rows if everything or row["problem"] or not is_digest_tag(row["tag"])]
    if shown:
        headings = ["TAG", "DIGEST", "TYPE", "SIZE", "CREATED", "REFERRERS", "PLATFORMS"]
        emit(table(headings, _cells(shown, long=long), right=(3, 5)))
    say_hidden(len(rows) - len(shown), "--all")
    for row in damaged:
        emit_error(f"{repository}:{row['tag']} is damaged: {row['problem']}")
    if not rows:
        emit_note(f"{repository} has no tags in {url}")
    return Result(
        exit_code=EXIT_PARTIAL if damaged else EXIT_OK,
        data=whose_json(database) | {"repository": repository, "tags": list(map(_row_json, rows))},
        numbers={"tags": len(rows), "damaged_tags": len(damaged)},
    )


def say_hidden(number: int, way: str) -> None:
    """Of tags that name a digest, and are not shown. way: what shows them."""
    if number:
        emit(f"({counted(number, 'more tag names', 'more tags name')} a digest, as of signatures: {way})")


def _row_json(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"created": iso(row["created"])} if "created" in row else row


#: By what rows are sorted. What can't be read stands first.
_ORDERS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "name": lambda row: row["tag"].encode(errors="surrogateescape"),
    "date": lambda row: (row["problem"] is None, -(row.get("created") or 0), row["tag"]),
    "size": lambda row: (row["problem"] is None, -row.get("total_size", 0), row["tag"]),
    "version": lambda row: version_key(row["tag"]),
}


def _cells(rows: list[dict[str, Any]], *, long: bool) -> list[list[str]]:
    return [
        [row["tag"], "damaged", "-", "-", "-", "-", "-"]
        if row["problem"] is not None
        else [
            row["tag"],
            str(row["digest"]) if long else row["digest"].short,
            kind(row["media_type"]),
            size(row["total_size"]),
            moment(row["created"])[: None if long else 10] if row["created"] is not None else "-",
            count(len(row["referrers"])),
            ", ".join(map(str, row["platforms"])) or "-",
        ]
        for row in rows
    ]


async def _read(settings: StoreSettings, name: str, on_event: OnEvent) -> tuple[str, str, list[dict[str, Any]]]:
    from regstore.registry import Registry

    storage, config = settings.open_with_config(read_only=True)
    async with Registry(storage) as registry:
        repository = registry.repository(name)
        rows: list[dict[str, Any]] = []
        async for tag, description in repository.describe_tags():
            problem = None if description is not None else await _problem(repository, tag)
            rows.append({"tag": tag, "problem": problem} | (description_json(description) if description else {}))
            on_event(Progress(phase="reading tags", done=len(rows), unit="tags"))
        return registry.url, await database_of(storage, config), rows


async def _problem(repository: Repository, tag: str) -> str:
    try:
        await repository.manifests.get(tag)
    except RegstoreError as error:
        return str(error)
    return "it could not be read a moment ago"


def description_json(description: Description) -> dict[str, Any]:
    """A Description as plain values; digests and platforms become text in JSON."""
    return {
        "digest": description.digest,
        "media_type": description.media_type,
        "size": description.size,
        "total_size": description.total_size,
        "platforms": list(description.platforms),
        "created": description.created,
        "layers": description.layers,
        "subject": description.subject,
        "artifact_type": description.artifact_type,
        "annotations": dict(description.annotations),
        "missing": list(description.missing),
        "referrers": [
            {
                "digest": referrer.digest,
                "media_type": referrer.media_type,
                "artifact_type": referrer.artifact_type,
                "size": referrer.size,
                "tag": referrer.tag,
            }
            for referrer in description.referrers
        ],
    }


def kind(media_type: str) -> str:
    """A word or two for a manifest's media type; the media type itself where there is none."""
    from regstore import manifest

    words = {
        manifest.DOCKER_SCHEMA1: "schema1",
        manifest.DOCKER_SCHEMA1_SIGNED: "schema1",
        manifest.DOCKER_MANIFEST: "docker manifest",
        manifest.DOCKER_LIST: "docker list",
        manifest.OCI_MANIFEST: "oci manifest",
        manifest.OCI_INDEX: "oci index",
        manifest.OCI_ARTIFACT: "oci artifact",
    }
    return words.get(media_type, media_type)
