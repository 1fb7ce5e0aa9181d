"""`/metrics`, in Prometheus' text format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from regstore.serve.garbage import PLAIN
from regstore.serve.health import Health
from regstore.serve.index import Index
from regstore.verify.doctor import State

#: Numbers by labels: names and values in turn.
Samples = Mapping[tuple[str, ...], float]
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Requests:
    """What was answered so far: by method and status, and the bytes of bodies."""

    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    under_way: int = 0


@dataclass(frozen=True, kw_only=True)
class Snapshots:
    """Of a backup; newest: when that was begun, in microseconds, 0 where there is none."""

    number: int
    newest: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the pages know beside requests; None where there is nothing of it."""

    index: Index | None = None
    health: Health | None = None
    snapshots: Snapshots | None = None


async def metrics(figures: Figures, requests: Requests) -> str:
    """All of them, as one text."""
    lines = [*_of_requests(requests)]
    if figures.index is not None:
        lines += await _of_index(figures.index)
    if figures.health is not None:
        lines += _of_health(figures.health)
    if figures.snapshots is not None:
        lines += _metric("snapshots", "gauge", "Snapshots that can be read.", figures.snapshots.number)
        newest = figures.snapshots.newest / 1e6
        lines += _metric(
            "newest_snapshot_timestamp_seconds", "gauge", "When the newest snapshot was begun.", newest
        )
    return "".join(f"{line}\n" for line in lines)


async def _of_index(index: Index) -> list[str]:
    up = 0 if index.failure else 1
    lines = [*_metric("index_up", "gauge", "Whether the last listing of the store succeeded.", up)]
    if not index.ready:
        return lines
    async with index.view() as view:
        (totals,) = await view.rows("totals")
        ((damaged,),) = await view.rows("damage")
        tried = view.known(PLAIN)
        planned = tried.summary.dead_blob_bytes if tried is not None else None
        figures: list[tuple[str, str, float | None]] = [
            ("repositories", "Repositories in the store.", totals[0]),
            ("tags", "Tags, without those that name a digest.", totals[1]),
            ("manifests", "Manifests that repositories link.", totals[2]),
            ("blobs", "Blobs in the store.", totals[3]),
            ("blob_bytes", "Bytes of all blobs.", totals[4]),
            ("shared_bytes", "Bytes that several repositories use, each blob once.", totals[5]),
            ("unused_bytes", "Bytes that no repository uses.", totals[6]),
            ("reclaimable_bytes", "Bytes of blobs that gc would take now.", planned),
            ("upload_bytes", "Bytes of open uploads.", view.usage.upload_bytes),
            ("damaged_manifests", "Linked manifests that are missing, or can't be read.", damaged),
            ("index_timestamp_seconds", "When the index was begun, by the store's clock.", view.scanned_at / 1e6),
            ("index_duration_seconds", "What making the index took.", round(view.seconds, 3)),
        ]
    for name, about, number in figures:
        if number is not None:
            lines += _metric(name, "gauge", about, number)
    return lines


def _of_health(health: Health) -> Iterator[str]:
    good = {State.OK: 1.0, State.WARN: 0.5}
    looked_at = [line for line in health.lines if line.state is not State.SKIP]
    states: Samples = {("check", line.name): good.get(line.state, 0.0) for line in looked_at}
    yield from _labelled("health", "gauge", "What doctor sees: 1 good, 0.5 a warning, 0 a failure.", states)
    commands = sorted({run.command for run in health.runs if run.complete})
    ages: Samples = {("command", command): health.last(command) / 1e6 for command in commands}
    yield from _labelled("last_run_timestamp_seconds", "gauge", "When a command's newest complete run began.", ages)
    yield from _metric("trash_bytes", "gauge", "Bytes in the trash.", health.trash_bytes)
    cut = sum(not run.complete for run in health.runs)
    yield from _metric("unfinished_runs", "gauge", "Runs that were cut short.", cut)


def _of_requests(requests: Requests) -> Iterator[str]:
    counted: Samples = {
        ("method", method, "status", str(status)): float(number)
        for (method, status), number in sorted(requests.answered.items())
    }
    yield from _labelled("http_requests_total", "counter", "Answers, by method and status.", counted)
    yield from _metric("http_requests_under_way", "gauge", "Requests that are being answered.", requests.under_way)


def _metric(name: str, kind: str, about: str, number: float) -> Iterator[str]:
    yield from _labelled(name, kind, about, {(): number})


def _labelled(name: str, kind: str, about: str, samples: Samples) -> Iterator[str]:
    if not samples:
        return
    yield f"# HELP regstore_{name} {about}"
    yield f"# TYPE regstore_{name} {kind}"
    for labels, number in samples.items():
        pairs = ",".join(
            f'{label}="{_escaped(value)}"' for label, value in zip(labels[::2], labels[1::2], strict=True)
        )
        shown = int(number) if float(number).is_integer() else number
        yield f"regstore_{name}{{{pairs}}} {shown}" if pairs else f"regstore_{name} {shown}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
