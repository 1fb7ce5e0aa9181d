"""verify's first look by a report in place of the listing of blobs: what it finds, and what it can't."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from regstore.digest import Digest
from regstore.inventory.scan import ScanOptions
from regstore.layout import BLOBS, BlobKey, encode
from regstore.proving.read_data import ReadData
from regstore.verify.options import VerifyOptions
from regstore.verify.run import VerifyReport, verify
from tests.inventory.reports import InBucket, make_report, rows_of
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore
from tests.servers import images
from tests.verify.stores import MULTI, SINGLE, pristine

CREATED = NOW - DAY // 2
LAYER = SINGLE.blobs[-1].digest


def blob(digest: str) -> str:
    return encode(BlobKey(Digest.parse(digest)))


async def look(store: ModelStore, then: ModelStore | None, **more: Any) -> VerifyReport:
    """then: as the report has it; None: without one."""
    scan = ScanOptions(cache_dir=None, concurrency=4)
    if then is not None:
        scan = replace(scan, blobs_from=make_report(rows_of(then), created=CREATED).blobs_from())
    return await verify(InBucket(store, now=NOW), VerifyOptions(scan=scan, **more))


async def test_what_came_after_the_report_is_not_missing() -> None:
    store = pristine()
    fresh = await look(store, None)
    assert not fresh.findings.damage
    late = (
        images.registry_keys("team/app", SINGLE, "single").keys() | images.registry_keys("team/app", MULTI).keys()
    )
    for then in (store, store.without(late), store.without([key for key in store if key.startswith(BLOBS)][1:])):
        report = await look(store, then)
        assert report.findings == fresh.findings
        assert report.reported is not None and report.reported.age_seconds == DAY // 2 // 1_000_000
    assert fresh.reported is None


async def test_what_is_missing_now_and_then_is_named() -> None:
    store = pristine()
    layer = LAYER
    damaged = store.without([blob(layer)])
    fresh, report = await look(damaged, None), await look(damaged, damaged)
    assert report.findings == fresh.findings and report.findings.damage


async def test_a_manifest_that_was_lost_since_is_missed_and_a_layer_only_where_it_is_read() -> None:
    store = pristine()
    for digest, read, seen in (
        (SINGLE.digest, None, True),
        (LAYER, None, False),
        (LAYER, ReadData.parse("all"), True),
    ):
        damaged = store.without([blob(digest)])
        report = await look(damaged, store, read=read)
        assert bool(report.findings.damage) == seen
        if seen:
            assert report.findings.faults == (await look(damaged, None)).findings.faults


async def test_a_size_is_that_of_now() -> None:
    store = pristine()
    key = blob(LAYER)
    then = ModelStore({**store.objects, key: (b"cut short", NOW - 2 * DAY)})
    assert not (await look(store, then)).findings.damage
    assert (await look(then, then)).findings == (await look(then, None)).findings
