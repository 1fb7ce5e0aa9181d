"""What `regstore gc` says beside the plan: why little goes, and what was not as planned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from regstore.cli.output import blobs, counted, moment, plain, size

if TYPE_CHECKING:
    from regstore.gc.plan import GcSummary
    from regstore.gc.report import GcReport


def notes_json(summary: GcSummary) -> dict[str, Any]:
    return {
        "held_by_unknown_keys": summary.held,
        "young": summary.young,
        "unlinked": plain(summary.unlinked) | {"suspicious": summary.unlinked.suspicious},
    }


def plan_notes(summary: GcSummary) -> Iterator[str]:
    if summary.unknown:
        yield _about_unknown_keys(summary)
    young = summary.young
    if (young.blobs or young.links) and young.oldest is not None and summary.blobs.dead <= young.blobs:
        yield (
            f"{blobs(young.blobs, young.blob_bytes)} and {counted(young.links, 'link')} are younger "
            f"than the grace and stay for now, the oldest from {moment(young.oldest)} (--grace says how long)"
        )
    if summary.unlinked.steady:
        yield (
            f"{summary.unlinked}: "
            + (
                "manifests are among them, as where repositories were removed"
                if summary.unlinked.manifests
                else "a registry may keep its tags and manifests in a database, and then they are live images"
            )
        )
    if young.latest is not None:
        yield (
            f"the times of {counted(young.ahead, 'key')} lie in the future, the latest {moment(young.latest)}: what "
            "wrote or copied these has a wrong clock; they stay until the grace is over after that"
        )


def _about_unknown_keys(summary: GcSummary) -> str:
    said = f"{counted(summary.unknown, 'unknown key')}, not touched"
    held = summary.held
    if not held.blobs:
        return said
    example = f", such as {held.keys[0]}" if held.keys else ""
    return (
        f"{said}. Nothing but these holds {counted(held.blobs, 'dead blob')} ({size(held.blob_bytes)}), for they name "
        f"digests{example}: look at them (--json names some), and move them out of docker/registry/v2 if nobody needs "
        "them; the next run then frees that"
    )


def report_notes(report: GcReport) -> Iterator[str]:
    if report.litter:
        yield (
            f"{counted(report.litter, 'directory marker or file', 'directory markers and files')} of NAS or desktop "
            "systems went with what they stood beside"
        )
    if report.vanished:
        yield (
            f"{counted(report.vanished, 'dead blob')} had gone when their turn came, such as "
            f"{report.vanished_digests[0]}: something else deletes from this store, too (the registry's own "
            "garbage-collect, a lifecycle rule, another tool); only one should"
        )
