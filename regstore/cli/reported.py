"""`--blobs-from`: blobs as a report has them, and what a command says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regstore.cli.output import counted, emit, moment
from regstore.cli.settings import PlacedStore, StoreSettings
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.inventory.inventory import ReportedAt
    from regstore.inventory.reported.report import BlobsFrom


@dataclass(frozen=True, kw_only=True)
class BlobsReported:
    """Where blobs come from, but for a listing."""

    blobs_from: Annotated[
        str | None,
        typer.Option(
            "--blobs-from",
            metavar="s3-inventory:MANIFEST",
            show_default=False,
            help="Do not list blobs: take them from an S3 Inventory report of the bucket, by its manifest.json, as in "
            "s3-inventory:s3://reports/…/manifest.json, or in a folder. What counts is looked at again.",
        ),
    ] = None
    blobs_from_profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", show_default=False, help="Profile for the report's bucket, where it is another's."
        ),
    ] = None

    def of(self, settings: StoreSettings) -> BlobsFrom | None:
        if self.blobs_from is None:
            if self.blobs_from_profile is not None:
                raise InputError("--blobs-from-profile is about --blobs-from; give both")
            return None
        from regstore.inventory.reported.report import BlobsFrom

        if self.blobs_from_profile is not None:
            settings = settings.placed()
            if isinstance(settings, PlacedStore):
                settings = replace(settings, keys={})
            settings = replace(settings, profile=self.blobs_from_profile)
        return BlobsFrom.parse(self.blobs_from, settings.open_bucket)


def reported_json(reported: ReportedAt | None) -> dict[str, Any]:
    return {"blobs_from": reported}


def say_reported(reported: ReportedAt | None, then: str) -> None:
    """As of when the blobs are; then: what follows from that."""
    if reported is not None:
        hours = reported.age_seconds // 3600
        age = counted(hours // 24, "day") if hours >= 72 else counted(hours, "hour")
        emit(f"blobs are those of the S3 Inventory report of {moment(reported.created)} ({age} old): {then}")
