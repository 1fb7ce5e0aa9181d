"""What runs left in the trash, and when that may go."""

from __future__ import annotations

from dataclasses import dataclass

from regstore.state import TRASH, is_run, started_at
from regstore.state.holder import LEASE
from regstore.state.journal import LATE, STALLED, RunRecord, find_runs
from regstore.storage.base import Storage


@dataclass(frozen=True, kw_only=True)
class TrashedRun:
    """A run and what it left behind. Times in microseconds by the store's clock, sizes in bytes.

    ended: it removed nothing after this, but for deletes under way where it is not settled. complete: it came to its
    end. record: its journal, where that is kept.
    """

    run: str
    started: int
    ended: int
    complete: bool
    command: str
    blobs: int
    blob_bytes: int
    record: RunRecord | None

    @property
    def settled(self) -> bool:
        return self.record is not None and self.record.settled

    def may_go_at(self, *, quiet: bool = False) -> int:
        """When it may be emptied at the earliest; 0: at once. quiet: nothing that began before the run's end goes on,
        for the registry is stopped, read-only, or was restarted since."""
        if not self.settled:
            return self.ended + LATE  # no rest of the registry ends what this run itself may have sent
        return 0 if quiet else self.ended + STALLED


async def find_trash(storage: Storage) -> list[TrashedRun]:
    """Every run that left a journal or anything in the trash, oldest first. One LIST of each, two GETs a run."""
    records = {record.run: record for record in await find_runs(storage)}
    found: dict[str, tuple[int, int, int]] = {}
    async for page in storage.list(TRASH):
        for key, size, mtime in zip(page.keys, page.sizes, page.mtimes, strict=True):
            run = key[len(TRASH) :].partition("/")[0]
            if is_run(run):
                blobs, total, newest = found.get(run, (0, 0, 0))
                found[run] = (blobs + 1, total + size, max(newest, mtime))
    return [_trashed(run, records.get(run), found.get(run, (0, 0, 0))) for run in sorted(records.keys() | found)]


async def strangers_in_trash(storage: Storage) -> tuple[int, int, str]:
    """What no run has left there, so that nothing empties it: objects, bytes, and one of the keys. One LIST."""
    number = total = 0
    example = ""
    async for page in storage.list(TRASH):
        for key, size in zip(page.keys, page.sizes, strict=True):
            if not is_run(key[len(TRASH) :].partition("/")[0]):
                number, total, example = number + 1, total + size, example or key
    return number, total, example


def _trashed(run: str, record: RunRecord | None, found: tuple[int, int, int]) -> TrashedRun:
    blobs, blob_bytes, newest = found
    complete = record is not None and record.done is not None
    written = record.written if record is not None else 0
    # One that was cut short may have gone on for a lease after it last wrote.
    ended = written if complete else max(written, newest, started_at(run)) + int(LEASE * 1_000_000)
    return TrashedRun(
        run=run,
        started=started_at(run),
        ended=ended,
        complete=complete,
        command=str(record.begun.get("command", "?")) if record is not None else "?",
        blobs=blobs,
        blob_bytes=blob_bytes,
        record=record,
    )
