"""What `regstore migrate` shows: its plan, and what came of it, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from regstore.cli.output import (
    blobs,
    count,
    counted,
    emit,
    emit_error,
    emit_some,
    emit_yaml,
    plain,
    size,
    table,
    warn_some,
)

if TYPE_CHECKING:
    from regstore.migrate import MigrateResult, MigrateSummary

_MORE: Final = "{} more (--json has them all)"

_WARNING = (
    "Until the last pass is done and the registry has been switched over, no registry's own garbage-collect may run on"
    " the target: it deletes blobs that nothing links yet."
)

_KINDS = (
    ("blobs", "blobs"),
    ("layer_links", "layer links"),
    ("revisions", "revisions"),
    ("signatures", "signatures"),
    ("tag_index", "tag history"),
    ("tags", "tags"),
)


def print_summary(summary: MigrateSummary) -> None:
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
    else:
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


def print_result(result: MigrateResult) -> None:
    for note in result.notes:
        emit(note)
    rate = result.blob_bytes / result.seconds if result.seconds else 0
    if not (result.objects or result.deleted):
        emit("Nothing to do.")
    else:
        emit(
            f"Copied {blobs(result.blobs, result.blob_bytes)},"
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
    emit_some([f"  {name}" for name in names], f"  {_MORE}")


def _some(what: str, lines: list[str]) -> None:
    warn_some([f"{what}: {line}" for line in lines], f"{what}: {_MORE}")


def print_configuration(configuration: dict[str, Any]) -> None:
    emit("\nconfig.yml of the registry, to switch over:\n")
    emit_yaml(configuration)
    emit(f"\n{_WARNING}")


def summary_json(summary: MigrateSummary) -> dict[str, Any]:
    from regstore.migrate.result import PRICES_AS_OF

    document = plain(summary)
    document["estimate"] = plain(summary.estimate) | {
        "dollars": round(summary.estimate.dollars, 4),
        "prices": PRICES_AS_OF,
    }
    return document


def result_json(result: MigrateResult) -> dict[str, Any]:
    return plain(result) | {"objects": result.objects, "partial": result.partial}


def result_numbers(result: MigrateResult) -> dict[str, float]:
    """For `--metrics-file`."""
    return {
        "copied_blobs": result.blobs,
        "copied_blob_bytes": result.blob_bytes,
        "copied_tags": result.tags,
        "removed_tags": result.deleted,
        "conflicts": len(result.conflicts),
        "damaged": len(result.damaged),
        "failures": len(result.failed),
        "retries": result.retries,
    }
