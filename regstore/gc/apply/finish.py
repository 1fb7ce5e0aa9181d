"""The end of a run: its report, and what it leaves in the store for those that come after it.

`done.json` is written last: it says that all before it is there. Only a restart of the registry comes later, for it
must begin after the run has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace

from regstore.gc.apply.application import Application
from regstore.gc.apply.sweep import Swept
from regstore.gc.apply.unlink import Unlinked
from regstore.gc.begin import Begun
from regstore.gc.freeing import Freeing
from regstore.gc.heal import Healed
from regstore.gc.plan import Step
from regstore.gc.planning import Before, Planned
from regstore.gc.report import GcReport
from regstore.gc.trash import Emptied
from regstore.state.counts import Counts, read_counts, write_counts
from regstore.state.journal import GIVEN_BACK, write_seen
from regstore.state.registry_state import Restart


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of each step. healed: before the plan was made; settled: by the last look. litter: what went of it last
    of all. seconds: from the first step to the last."""

    healed: Healed
    unlinked: Unlinked
    swept: Swept
    settled: Healed
    litter: int
    emptied: Emptied
    folders: int
    seconds: float

    @property
    def healed_by_looks(self) -> Healed:
        return self.unlinked.healed + self.settled + self.swept.healed


async def finish(
    application: Application,
    outcome: Outcome,
    before: Before,
    count: Callable[[Collection[str], Collection[str]], Counts],
) -> GcReport:
    """count: what the run leaves, given the runs and the chosen."""
    storage, run, freeing = application.storage, application.lock.run, application.freeing
    report = await _report(application, outcome)
    if back := sorted(set(outcome.healed_by_looks.links)):
        await write_seen(storage, run, run, back, GIVEN_BACK)
    chosen = before.now.chosen
    if outcome.emptied.runs and (known := await read_counts(storage)) is not None:
        chosen |= known.chosen  # by journals that went with these
    await write_counts(storage, count({*before.now.runs, run}, chosen))
    kind = application.cache.known.kind
    told = application.cache.in_reach or kind != "redis"  # of one out of reach another run sees to it
    done = await application.journal.end({**asdict(report), "cache": kind if told else "unknown"})
    if application.options.trash:
        freeing.add(run, done, blobs=report.blobs, blob_bytes=report.blob_bytes)
    restart = await freeing.restart(storage, application.lock, application.on_event)
    return _told_what_is_left(report, freeing, restart)


async def rest(planned: Planned, begun: Begun) -> GcReport:
    """Where nothing is to do: no run is written, but what earlier ones left may wait for a restart."""
    report = GcReport(
        run="",
        trashed=planned.options.trash,
        healed=begun.healed,
        overdue=begun.freeing.overdue,
        emptied=Emptied(kept=tuple(begun.freeing.held)),
    )
    restart = await begun.freeing.restart(planned.storage, begun.lock, planned.on_event)
    return _told_what_is_left(report, begun.freeing, restart)


async def _report(application: Application, outcome: Outcome) -> GcReport:
    unlinked, swept = outcome.unlinked, outcome.swept
    return GcReport(
        run=application.lock.run,
        tags=unlinked.steps[Step.TAG],
        revisions=unlinked.steps[Step.REVISION],
        layer_links=unlinked.steps[Step.LAYER],
        uploads=unlinked.uploads,
        litter=unlinked.steps[Step.LITTER] + outcome.litter,
        blobs=swept.blobs,
        blob_bytes=swept.blob_bytes,
        upload_bytes=unlinked.upload_bytes,
        trashed=application.options.trash,
        healed=outcome.healed + outcome.healed_by_looks + Healed(links=unlinked.tags_back),
        vanished=swept.vanished,
        vanished_digests=swept.vanished_digests,
        kept_back=unlinked.kept + swept.kept,
        folders=outcome.folders,
        seconds=outcome.seconds,
        failures=(*application.failures.lines(), *outcome.emptied.failures),
        emptied=outcome.emptied,
        overdue=application.freeing.overdue,
        versioned=(await application.storage.capabilities()).versioned,
    )


def _told_what_is_left(report: GcReport, freeing: Freeing, restart: Restart | None) -> GcReport:
    versions = (report.blobs + report.emptied.blobs, report.blob_bytes + report.emptied.blob_bytes)
    left = freeing.left(report.emptied.runs, versions=versions if report.versioned else None)
    return replace(report, restart=restart, not_freed=left)
