"""What `regstore verify` shows: what it found, and what it repaired, as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from regstore.cli.output import (
    blobs,
    count,
    counted,
    emit,
    emit_error,
    emit_problem,
    moment,
    printable,
    size,
    table,
)
from regstore.cli.reported import reported_json, say_reported
from regstore.cli.whose import say_whose

if TYPE_CHECKING:
    from regstore.proving.result import Reading
    from regstore.verify.fault import Fault
    from regstore.verify.run import VerifyReport
    from regstore.verify.work import Repairs

_TAGS_SHOWN: Final = 5
_FAULTS_SHOWN: Final = 200


def report_json(report: VerifyReport) -> dict[str, Any]:
    """The report as `--json` prints it."""
    from regstore.verify.fault import FaultKind

    findings = report.findings
    return {
        "pull_through": report.pull_through,
        "damage": findings.damage,
        "unreadable_manifests": findings.counts.get(FaultKind.MANIFEST_UNREADABLE, 0),
        "unreadable_blobs": findings.counts.get(FaultKind.BLOB_UNREADABLE, 0),
        "unreadable_links": findings.counts.get(FaultKind.LINK_UNREADABLE, 0),
        "archived": findings.counts.get(FaultKind.ARCHIVED, 0),
        "repositories": findings.repositories,
        "tags": {"total": findings.tags, "touched": findings.tags_touched, "broken": findings.tags_broken},
        "revisions": findings.revisions,
        "layer_links": findings.layer_links,
        "blobs": {"total": findings.blobs, "bytes": findings.blob_bytes},
        "unknown_keys": findings.unknown,
        "absent": findings.absent,
        "counts": {str(kind): number for kind, number in findings.counts.items()},
        "faults": [_fault_json(fault) for fault in findings.faults],
        "read": report.reading,
    } | reported_json(report.reported)


def report_numbers(report: VerifyReport) -> dict[str, float]:
    """For `--metrics-file`."""
    findings, reading = report.findings, report.reading
    numbers: dict[str, float] = {
        "faults": sum(findings.counts.values()),
        "tags": findings.tags,
        "broken_tags": findings.tags_broken,
        "touched_tags": findings.tags_touched,
        "blobs": findings.blobs,
        "blob_bytes": findings.blob_bytes,
    }
    return numbers if reading is None else numbers | {"read_blobs": reading.blobs, "read_bytes": reading.bytes}


def repair_numbers(repairs: Repairs) -> dict[str, float]:
    return {
        "repaired_links": len(repairs.rewritten) + len(repairs.restored),
        "repaired_blobs": len(repairs.blobs),
        "dropped_tags": len(repairs.dropped),
        "failures": len(repairs.failures),
    }


def _fault_json(fault: Fault) -> dict[str, Any]:
    return {
        "kind": str(fault.kind),
        "area": fault.area,
        "what": fault.subject,
        "detail": fault.detail,
        "repository": fault.repository or None,
        "digest": fault.digest,
        "tag": fault.tag or None,
        "repositories": list(fault.repositories),
        "tags": [{"repository": tag.repository, "tag": tag.tag, "broken": tag.pull} for tag in fault.touched],
        "repairable": fault.repairable,
        "remedy": fault.remedy,
    }


def print_report(report: VerifyReport) -> None:
    findings = report.findings
    say_whose(report.store, report.database)
    emit(
        f"{report.store}: {counted(findings.repositories, 'repository', 'repositories')}, "
        f"{counted(findings.tags, 'tag')}, {counted(findings.revisions, 'manifest')}, "
        f"{counted(findings.layer_links, 'layer link')}, "
        f"{blobs(findings.blobs, findings.blob_bytes)}"
    )
    say_reported(report.reported, "what was lost since then shows only where it was read")
    if report.reading is not None:
        _print_reading(report.reading)
    shown = findings.faults[:_FAULTS_SHOWN]
    for fault in shown:
        emit_problem("")
        _print_fault(fault)
    total = sum(findings.counts.values())
    if total > len(shown):
        emit_problem(f"\n({total - len(shown):,} more; --json has {len(findings.faults):,})")
    _print_absences(report)
    emit()
    if findings.counts:
        emit(table(["FOUND", "NUMBER"], [[str(kind), count(n)] for kind, n in findings.counts.items()], right=(1,)))
        emit(f"\n{findings.tags_broken:,} of {counted(findings.tags, 'tag')} can't be pulled whole")
        if findings.tags_touched > findings.tags_broken:
            emit(f"{findings.tags_touched - findings.tags_broken:,} more have something wrong that refers to them")
    else:
        emit("no damage found")


def _print_fault(fault: Fault) -> None:
    emit_problem(printable(f"{fault.kind}: {fault.subject}"))
    emit_problem(printable(f"  {fault.detail}"))
    if fault.touched:
        tags = [str(tag) + ("" if tag.pull else " (by what refers to it)") for tag in fault.touched[:_TAGS_SHOWN]]
        more = len(fault.touched) - len(tags)
        emit_problem(printable(f"  touches {', '.join(tags)}" + (f" and {more:,} more" if more else "")))
    elif fault.repositories:
        names = ", ".join(fault.repositories[:_TAGS_SHOWN])
        emit_problem(printable(f"  touches no tag; needed in {names}"))
    else:
        emit_problem("  touches no tag, and nothing needs it")
    emit_problem(f"  repair: {fault.remedy}")


def _print_reading(reading: Reading) -> None:
    rate = size(int(reading.bytes / reading.seconds)) + "/s" if reading.seconds > 0 else "-"
    emit(
        f"read {blobs(reading.blobs, reading.bytes)} in {reading.seconds:.1f} s ({rate}), "
        f"and {counted(reading.manifests, 'manifest')}"
    )
    if reading.known:
        emit(f"{counted(reading.known, 'blob')} had been read within --max-age")
    kept = reading.checksums_agree + reading.checksums_differ + reading.checksums_absent
    if kept:
        emit(
            f"the server's own checksums: {reading.checksums_agree:,} agree, {reading.checksums_differ:,} differ, "
            f"{reading.checksums_absent:,} blobs have none; {reading.trusted:,} were trusted and not read"
        )
    if reading.left:
        emit(f"the time was over: {counted(reading.left, 'chosen blob')} ({size(reading.left_bytes)}) not read")
    if reading.never_proved:
        emit(f"never read so far: {blobs(reading.never_proved, reading.never_proved_bytes)}")
    elif reading.oldest is not None:
        emit(f"every blob was read and right since {moment(reading.oldest)}")
    for one in reading.unstable:
        emit_error(f"read differently twice, so the way here is not to be trusted: {one}")


def print_repairs(repairs: Repairs) -> None:
    emit()
    if repairs.nothing:
        emit("nothing was repaired")
    for number, words, what in (
        (len(repairs.rewritten), "written anew", "link"),
        (len(repairs.blobs), f"({size(repairs.blob_bytes)}) fetched", "blob"),
        (len(repairs.restored), "put back", "link"),
        (len(repairs.dropped), "dropped", "tag"),
    ):
        if number:
            emit(f"{counted(number, what)} {words}")
    for tag in repairs.dropped[:_FAULTS_SHOWN]:
        emit(printable(f"  dropped {tag}"))
    for tag in repairs.spared[:_FAULTS_SHOWN]:
        emit(printable(f"  not dropped: {tag}"))
    for failure in repairs.failures:
        emit_error(printable(failure))
    if not repairs.nothing:
        emit(f"run {repairs.run} has it in its journal")


def _print_absences(report: VerifyReport) -> None:
    absent = report.findings.absent
    lines = [
        (absent.cached, "absent from the pull-through cache", "blob"),
        (absent.foreign, "not stored, as usual for foreign layers", "layer"),
        (absent.sparse, "of an index not stored in its repository (sparse index)", "child manifest"),
        (absent.leftovers, "left over of a blob that garbage collection removed", "layer link"),
        (absent.signatures, "of a schema1 signature that is gone", "link"),
        (report.findings.unknown, "of no known kind", "key"),
    ]
    shown = [f"{counted(number, what)} {words}" for number, words, what in lines if number]
    if shown:
        emit("\nno damage:")
        for line in shown:
            emit(f"  {line}")
