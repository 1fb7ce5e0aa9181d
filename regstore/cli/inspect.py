"""`regstore inspect`: a repository, or one manifest of it, in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.command import command
from regstore.cli.naming import full_references, meaning
from regstore.cli.outcome import Result
from regstore.cli.output import counted, emit, iso, moment, printable, size, table
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.tags import description_json, kind, say_hidden
from regstore.cli.whose import database_of, say_whose, whose_json
from regstore.digest import Digest
from regstore.errors import InputError, NameUnknown
from regstore.reference import is_digest_tag, parse_tag

if TYPE_CHECKING:
    from regstore.manifest import Edge
    from regstore.registry import Repository
    from regstore.registry.manifests import StoredManifest


@command(answers=True)
def inspect(
    settings: StoreSettings,
    reference: Annotated[
        str | None,
        typer.Argument(
            metavar="REPOSITORY[:TAG|@DIGEST]", show_default=False, help="A repository, or one manifest of it."
        ),
    ] = None,
    config: Annotated[
        bool, typer.Option("--config", help="With an image's history, as lines of a Dockerfile, and its labels.")
    ] = False,
) -> Result:
    """Show a repository, or a manifest of it with its layers, platforms and referrers."""
    settings, reference = settings.shifted(reference, name=True)
    if reference is None:
        raise InputError("no repository: say its name after the store, with :tag or @digest for one manifest")
    url, facts = run_async(meaning(settings, [reference], _read(settings, reference, with_config=config)))
    say_whose(url, facts["database"] or "")
    if "digest" in facts:
        _print_manifest(facts)
    else:
        _print_repository(url, facts)
    return Result(data=_facts_json(facts))


def _facts_json(facts: dict[str, Any]) -> dict[str, Any]:
    if "digest" not in facts:
        return facts
    return facts | {"created": iso(facts["created"])}


def _split(reference: str) -> tuple[str, Digest | str | None]:
    """The name, which may be one that a store has and no registry takes, and the digest or else the tag."""
    name, at, digest = reference.partition("@")
    folder, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    wanted = Digest.parse(digest) if at else parse_tag(tag) if colon else None
    return folder + slash + last, wanted


async def _read(settings: StoreSettings, reference: str, *, with_config: bool) -> tuple[str, dict[str, Any]]:
    from regstore.registry import Registry

    (reference,) = await full_references(settings, [reference])
    name, wanted = _split(reference)
    storage, config = settings.open_with_config(read_only=True)
    async with Registry(storage) as registry:
        repository = registry.repository(name)
        facts = (
            await _manifest(repository, wanted, with_config=with_config)
            if wanted
            else await _repository(repository)
        )
        if not (wanted or facts["tags"] or facts["revisions"]["total"] or facts["layer_links"] or facts["uploads"]):
            raise NameUnknown(f"{registry.url} has no repository {name}")
        database = await database_of(storage, config)
        return registry.url, whose_json(database) | {"repository": name} | facts


async def _manifest(repository: Repository, wanted: Digest | str, *, with_config: bool) -> dict[str, Any]:
    description = await repository.describe(wanted)
    stored = await repository.manifests.get(description.digest)
    tags = [tag.name async for tag in repository.tags if tag.digest == description.digest]
    facts = description_json(description) | {
        "tags": tags,
        "references": [_edge(edge) for edge in stored.manifest.edges],
    }
    return facts | ({"config": await _config(repository, stored)} if with_config else {})


async def _config(repository: Repository, stored: StoredManifest) -> dict[str, Any] | None:
    """What an image's config says of how it was made; None where the manifest has none that is one of an image."""
    from regstore.registry.uploads import parse_time
    from regstore.serve.contents import read_config

    image = await read_config(repository, stored)
    if image is None:
        return None
    return {
        "labels": dict(image.labels),
        "history": [
            {
                "line": step.line,
                "created": iso(parse_time(step.created)),
                "size": step.layer.size if step.layer else None,
            }
            for step in image.history
        ],
    }


def _edge(edge: Edge) -> dict[str, Any]:
    target = edge.target
    return {
        "kind": edge.kind.name.lower().replace("_", " "),
        "digest": target.digest,
        "media_type": target.media_type,
        "size": target.size if target.size >= 0 else None,
        "platform": target.platform,
        "artifact_type": target.artifact_type,
    }


async def _repository(repository: Repository) -> dict[str, Any]:
    tags = [tag async for tag in repository.tags]
    revisions = [digest async for digest in repository.manifests]
    tagged = {tag.digest for tag in tags}
    return {
        "tags": [{"tag": tag.name, "digest": tag.digest} for tag in tags],
        "revisions": {"total": len(revisions), "untagged": sum(digest not in tagged for digest in revisions)},
        "layer_links": sum([1 async for _ in repository.blobs]),
        "uploads": [
            {"uuid": upload.uuid, "size": upload.size, "newest": iso(upload.newest)}
            async for upload in repository.uploads
        ],
    }


def _print_manifest(facts: dict[str, Any]) -> None:
    created = moment(facts["created"]) if facts["created"] is not None else "-"
    pairs = [
        ("Repository", facts["repository"]),
        ("Digest", str(facts["digest"])),
        ("Type", f"{kind(facts['media_type'])} ({facts['media_type']})"),
        ("Tags", ", ".join(facts["tags"]) or "none"),
        ("Size", f"{size(facts['total_size'])} with all it refers to, the manifest itself {size(facts['size'])}"),
        ("Layers", f"{facts['layers']:,}"),
        ("Platforms", ", ".join(map(str, facts["platforms"])) or "-"),
        ("Created", created),
        ("Artifact type", facts["artifact_type"]),
        ("Subject", str(facts["subject"] or "")),
        ("Missing", ", ".join(map(str, facts["missing"]))),
    ]
    _print_pairs([(name, value) for name, value in pairs if value])
    if facts["annotations"]:
        emit("\nAnnotations")
        _print_pairs([(f"  {name}", value) for name, value in sorted(facts["annotations"].items())])
    if facts.get("config"):
        _print_config(facts["config"])
    if facts["references"]:
        emit("\nRefers to")
        rows = [
            [
                edge["kind"],
                str(edge["digest"]),
                size(_known(edge["size"])),
                str(edge["platform"] or edge["media_type"]),
            ]
            for edge in facts["references"]
        ]
        emit(table(["KIND", "DIGEST", "SIZE", "PLATFORM OR TYPE"], rows, right=(2,)))
    if facts["referrers"]:
        emit("\nReferrers")
        rows = [
            [str(referrer["digest"]), size(referrer["size"]), referrer["artifact_type"] or referrer["media_type"]]
            for referrer in facts["referrers"]
        ]
        emit(table(["DIGEST", "SIZE", "TYPE"], rows, right=(1,)))


def _print_config(config: dict[str, Any]) -> None:
    if config["labels"]:
        emit("\nLabels")
        _print_pairs([(f"  {_one_line(name)}", _one_line(value)) for name, value in config["labels"].items()])
    if config["history"]:
        emit("\nHistory")
        rows = [
            ["" if step["size"] is None else size(step["size"]), _one_line(step["line"])]
            for step in config["history"]
        ]
        emit(table(["SIZE", "MADE BY"], rows, right=(0,)))


def _one_line(text: str) -> str:
    """What somebody has written into an image stays on its line."""
    return printable(" ".join(text.split()))


def _print_repository(url: str, facts: dict[str, Any]) -> None:
    revisions = facts["revisions"]
    _print_pairs(
        [
            ("Repository", facts["repository"]),
            ("Store", url),
            ("Tags", f"{len(facts['tags']):,}"),
            ("Revisions", f"{revisions['total']:,}, {revisions['untagged']:,} without a tag"),
            ("Layer links", f"{facts['layer_links']:,}"),
            ("Open uploads", counted(len(facts["uploads"]), "upload")),
        ]
    )
    if facts["tags"]:
        emit()
        shown = [tag for tag in facts["tags"] if not (tag["digest"] and is_digest_tag(tag["tag"]))]
        rows = [[tag["tag"], str(tag["digest"] or "damaged")] for tag in shown]
        emit(table(["TAG", "DIGEST"], rows))
        say_hidden(len(facts["tags"]) - len(shown), "regstore tags --all")


def _print_pairs(pairs: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in pairs) + 1
    for name, value in pairs:
        emit(f"{name + ':':<{width}} {value}")


def _known(number: int | None) -> int:
    return -1 if number is None else number
