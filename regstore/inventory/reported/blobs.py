"""A report's blobs, as a scan uses them: loaded in place of a listing, and looked at again where that counts."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from regstore.concurrency import in_thread
from regstore.errors import InputError, IntegrityError
from regstore.events import OnEvent, Progress
from regstore.inventory.inventory import Inventory, ReportedAt
from regstore.inventory.reported import rows
from regstore.inventory.reported.again import (
    UNLISTED,
    UNLISTED_CHILDREN,
    Looked,
    forget_absent,
    forget_missing,
    look_again,
)
from regstore.inventory.reported.place import open_place, read_report
from regstore.inventory.reported.report import BlobsFrom, Report
from regstore.inventory.whose import database_in_use
from regstore.layout import BLOBS
from regstore.storage.base import Storage
from regstore.storage.optional import bucket_of


class Reported:
    """The report that a store's blobs come from; of one scan, or one later look at the same store."""

    def __init__(
        self, blobs_from: BlobsFrom, storage: Storage, inventory: Inventory, concurrency: int, on_event: OnEvent
    ) -> None:
        self._blobs_from = blobs_from
        self._storage = storage
        self._inventory = inventory
        self._concurrency = concurrency
        self._on_event = on_event

    async def load(self) -> None:
        """Fill `blob`, and look for the mark of a metadata database. The inventory knows when its scan began.

        InputError where the report is not one of this store; IntegrityError where any of it is missing, or is not what
        its manifest says, or shows no blobs: a part of a report is never taken for all.
        """
        inventory = self._inventory
        async with open_place(self._blobs_from) as place:
            report = await read_report(place)
            root = root_of(self._storage, report, now=inventory.scanned_at)
            inventory.database = inventory.database or await database_in_use(self._storage)
            rows.begin(inventory)
            blobs = 0
            for number, file in enumerate(report.files):
                self._tell(report, number, blobs)
                async with place.file(file, inventory.folder) as path:
                    blobs += await in_thread(partial(rows.read, inventory, report, file, path, root=root))
            self._tell(report, len(report.files), blobs)
        await in_thread(rows.end, inventory)
        inventory.reported = reported_at(report, root, now=inventory.scanned_at, blobs=inventory.count("blob"))

    async def complete_manifests(self) -> bool:
        """Manifests were read: what that said of blobs counts, and children that the report lacks are looked for;
        whether any is there, so that it must be read, too."""
        forget_missing(self._inventory)
        return bool((await self._look(UNLISTED_CHILDREN)).found)

    async def complete(self) -> bool:
        """Look for every blob that anything names and the report lacks; whether there was any."""
        return bool((await self._look(UNLISTED)).found)

    def look_anew(self) -> None:
        """All links are listed anew: what was not there may have come since."""
        forget_absent(self._inventory)

    async def _look(self, wanted: str) -> Looked:
        return await look_again(
            self._storage, self._inventory, wanted, concurrency=self._concurrency, on_event=self._on_event
        )

    def _tell(self, report: Report, files: int, blobs: int) -> None:
        self._on_event(
            Progress(
                phase="reading the report",
                done=files,
                total=len(report.files),
                unit="files",
                detail=f"{blobs:,} blobs",
            )
        )


def reported_at(report: Report, root: str, *, now: int, blobs: int) -> ReportedAt:
    """What is told of a report that shows so many blobs below the root. IntegrityError where that is none."""
    if not blobs:
        raise IntegrityError(
            f"{report.where} shows no blob below s3://{report.bucket}/{root}{BLOBS}: it is of another part of the "
            "bucket, or was made before anything was pushed; nothing is done by it"
        )
    return ReportedAt(
        where=report.where, created=report.created, age_seconds=(now - report.created) // 1_000_000, blobs=blobs
    )


def root_of(storage: Storage, report: Report, *, now: int) -> str:
    """What the store's keys begin with in the bucket, "" or with a slash at its end. InputError where the report is not
    one of this store, or is of a time after now."""
    _refuse_future(report, now)
    place = bucket_of(storage)
    if place is None:
        raise InputError(
            f"{report.where} is a report of the bucket {report.bucket}, and {storage.url} is no bucket"
        )
    bucket, root = place
    if bucket != report.bucket:
        raise InputError(
            f"{report.where} is a report of the bucket {report.bucket}, and {storage.url} lies in {bucket}: take the "
            "report of that one"
        )
    return root


def _refuse_future(report: Report, now: int) -> None:
    if report.created > now:
        moment = datetime.fromtimestamp(report.created // 1_000_000, UTC)
        raise InputError(
            f"{report.where} was made at {moment:%Y-%m-%d %H:%M:%S} UTC, which is later than now by the store's clock: "
            "one of the two is wrong, so nothing says that the report is older than the links"
        )
