"""What `regstore gc` shows: its plan, and the report of what came of it, as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from regstore.cli.gc_notes import notes_json, plan_notes, report_notes
from regstore.cli.healed import print_healed
from regstore.cli.output import blobs, count, counted, emit, emit_error, emit_problem, plain, printable, size, table
from regstore.cli.registry_cache import Left
from regstore.cli.reported import reported_json, say_reported
from regstore.cli.retention import print_retention, retention_json
from regstore.cli.voice import voice
from regstore.cli.whose import whose_json

if TYPE_CHECKING:
    from regstore.gc.plan import GcSummary
    from regstore.gc.report import GcReport
    from regstore.gc.run import GcRun, GcRunOptions
    from regstore.state.known_cache import KnownCache

_SHARES_SHOWN = 20


def report_json(report: GcReport, known: KnownCache, state: str) -> dict[str, Any]:
    """What came of the run, for `--json`. state: where the run's journal is."""
    return plain(report) | Left(known, report.not_freed).json() | {"state": state}


def plan_json(run: GcRun) -> dict[str, Any]:
    """The result of a run that has a plan only, for `--json`."""
    if not voice().as_json:  # a plan may name every tag
        return {}
    plan = _summary_json(run.summary) | {"stops": run.stops} | retention_json(run.inventory, run.summary)
    plan |= reported_json(run.inventory.reported)
    return whose_json(run.database) | {"plan": plan, "report": None}


def plan_numbers(summary: GcSummary) -> dict[str, float]:
    """For `--metrics-file`."""
    return {
        "blobs": summary.blobs.total,
        "blob_bytes": summary.blob_bytes,
        "dead_blobs": summary.blobs.dead,
        "dead_blob_bytes": summary.dead_blob_bytes,
        "tags": summary.tags.total,
        "dead_tags": summary.tags.dead,
        "repositories": summary.repositories,
        "protected_repositories": len(summary.protected),
    }


def report_numbers(report: GcReport) -> dict[str, float]:
    return {
        "removed_blobs": report.blobs,
        "removed_blob_bytes": report.blob_bytes,
        "removed_tags": report.tags,
        "removed_revisions": report.revisions,
        "removed_uploads": report.uploads,
        "freed_blob_bytes": report.emptied.blob_bytes,
        "not_freed_bytes": report.not_freed.blob_bytes,
        "healed_blobs": len(report.healed.blobs),
        "failures": len(report.failures),
    }


def _summary_json(summary: GcSummary) -> dict[str, Any]:
    def counts(name: str) -> dict[str, int]:
        return asdict(getattr(summary, name))

    return {
        "blobs": {
            "total": summary.blobs.total,
            "live": summary.blobs.total - summary.blobs.dead,
            "dead": summary.blobs.dead,
            "total_bytes": summary.blob_bytes,
            "dead_bytes": summary.dead_blob_bytes,
        },
        "revisions": counts("revisions"),
        "layer_links": counts("layer_links"),
        "tags": counts("tags"),
        "tag_index": counts("tag_index"),
        "uploads": counts("uploads") | {"dead_bytes": summary.dead_upload_bytes},
        "litter": counts("litter"),
        "repositories": {
            "total": summary.repositories,
            "protected": len(summary.protected),
            "emptied": len(summary.emptied),
        },
        "protected": [{"name": one.name, "reasons": list(one.reasons)} for one in summary.protected],
        "emptied": list(summary.emptied),
        "untagged": list(summary.untagged),
        "by_repository": list(summary.shares),
        "orphans": {"blobs": summary.orphan_blobs, "bytes": summary.orphan_blob_bytes},
        "unknown_keys": summary.unknown,
        "sweep_blocked": summary.sweep_blocked or None,
        "uploads_blocked": summary.uploads_blocked or None,
        "problems": list(summary.problems),
        **notes_json(summary),
    }


def print_plan(url: str, run: GcRun, options: GcRunOptions) -> None:
    summary = run.summary
    emit(
        f"{url}: {counted(summary.repositories, 'repository', 'repositories')}, {size(summary.blob_bytes)} in blobs"
    )
    say_reported(run.inventory.reported, "what goes of them was looked at again")
    emit()
    rows = [
        [label, count(total), count(dead), dead_bytes]
        for label, total, dead, dead_bytes in (
            ("blobs", summary.blobs.total, summary.blobs.dead, size(summary.dead_blob_bytes)),
            ("revisions", summary.revisions.total, summary.revisions.dead, ""),
            ("layer links", summary.layer_links.total, summary.layer_links.dead, ""),
            ("tags", summary.tags.total, summary.tags.dead, ""),
            ("tag history", summary.tag_index.total, summary.tag_index.dead, ""),
            ("uploads", summary.uploads.total, summary.uploads.dead, size(summary.dead_upload_bytes)),
            ("markers, litter", summary.litter.total, summary.litter.dead, ""),
        )
        if total or label != "markers, litter"
    ]
    emit(table(["", "TOTAL", "TO REMOVE", "BYTES"], rows, right=(1, 2, 3)))
    _print_shares(summary)
    print_retention(run.inventory, options.plan, summary)
    for one in summary.protected:
        emit_problem(f"\nleft alone: {one.name}")
        for reason in one.reasons:
            emit_problem(f"  {reason}")
    for blocked in filter(None, (summary.sweep_blocked, summary.uploads_blocked)):
        emit_problem(f"\n{blocked}")
    if summary.problems:
        emit_problem("\nseen, and not touched:")
        for problem in summary.problems:
            emit_problem(f"  {problem}")
    for note in plan_notes(summary):
        emit(f"\n{note}")
    emit()


def _print_shares(summary: GcSummary) -> None:
    shown = summary.shares[:_SHARES_SHOWN]
    if not shown and not summary.orphan_blobs:
        return
    rows = [
        [
            share.name + (" (emptied)" if share.emptied else ""),
            count(share.tags),
            count(share.revisions),
            count(share.layer_links),
            count(share.uploads),
            size(share.blob_bytes),
        ]
        for share in shown
    ]
    if len(summary.shares) > len(shown):
        rows.append([f"({len(summary.shares) - len(shown):,} more)", "", "", "", "", ""])
    if summary.orphan_blobs:
        rows.append(
            [
                f"({counted(summary.orphan_blobs, 'blob')} of no repository)",
                "",
                "",
                "",
                "",
                size(summary.orphan_blob_bytes),
            ]
        )
    emit()
    emit(
        table(
            ["REPOSITORY", "TAGS", "REVISIONS", "LAYER LINKS", "UPLOADS", "BLOB BYTES"], rows, right=(1, 2, 3, 4, 5)
        )
    )


def print_freeing(report: GcReport, known: KnownCache) -> None:
    """What the cache is, what was done about it, and what takes space still."""
    restart = report.restart
    if restart is not None and restart.done:
        emit(f"the registry was restarted, in {restart.seconds:.1f} s")
    elif restart is not None:
        said = f", and said: {restart.output}" if restart.output else ""
        emit_error(f"the restart command {restart.outcome}; it frees nothing{said}")
    Left(known, report.not_freed).show()


def print_report(report: GcReport, known: KnownCache) -> None:
    """What came of the run."""
    links = f"{counted(report.revisions, 'revision')}, {counted(report.layer_links, 'layer link')}"
    where = "moved to the trash" if report.trashed else "deleted"
    emit(
        f"{blobs(report.blobs, report.blob_bytes)} {where}; removed {counted(report.tags, 'tag')}, "
        f"{links}, {counted(report.uploads, 'upload')} ({size(report.upload_bytes)}), in {report.seconds:.1f} s"
    )
    if report.kept_back:
        emit(f"{counted(report.kept_back, 'key')} had changed or came into use meanwhile, and stayed")
    for note in report_notes(report):
        emit(note)
    print_healed(report.healed)
    if report.emptied.runs:
        emit(
            f"the trash of {counted(len(report.emptied.runs), 'older run')} is emptied: "
            f"{blobs(report.emptied.blobs, report.emptied.blob_bytes)} deleted"
        )
    print_freeing(report, known)
    for failure in report.failures:
        emit_error(printable(failure))
    if report.blobs and report.trashed:
        emit(f"run {report.run}: undo with `regstore trash restore`")
