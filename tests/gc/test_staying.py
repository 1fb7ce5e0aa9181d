"""Why little goes, and what was not as planned, is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from regstore.cli.gc_notes import notes_json, plan_notes, report_notes
from regstore.cli.output import encoded
from regstore.gc.plan import GcOptions
from regstore.layout import BlobKey, encode
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage
from tests.gc.scenes import collect, look, model_storage, options, small_registry
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, HOUR, NOW

RUN = options(offline=True)


async def test_a_store_that_was_copied_yesterday() -> None:
    """cp and sync write fresh times: all is younger than the grace."""
    run = await look(model_storage(small_registry(NOW - 5 * HOUR)), RUN)
    summary = run.summary
    assert summary.nothing_to_do
    assert summary.young.blobs == summary.blobs.total
    assert summary.young.blob_bytes == summary.blob_bytes
    assert summary.young.links == summary.tags.total + summary.revisions.total + summary.layer_links.total
    [note] = plan_notes(summary)
    assert note == (
        "23 blobs (3.6 KiB) and 27 links are younger than the grace and stay for now, the oldest from "
        "2023-11-14T17:13:20Z (--grace says how long)"
    )
    assert json.loads(encoded(notes_json(summary)))["young"]["oldest"] == "2023-11-14T17:13:20Z"


async def test_nothing_is_said_where_age_keeps_little() -> None:
    storage = model_storage(small_registry())
    assert list(plan_notes((await look(storage, RUN)).summary)) == []


async def test_times_in_the_future() -> None:
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), []), "latest")
    b.mtime = NOW + 365 * DAY
    b.blob(b"dead, and from next year")
    b.mtime = NOW + HOUR // 2
    b.blob(b"pushed while the listing went on")
    summary = (await look(ModelStorage(b.store, now=NOW), RUN)).summary
    assert (summary.young.blobs, summary.young.ahead) == (2, 1)
    assert "the times of 1 key lie in the future, the latest 2024-11-13T22:13:20Z" in list(plan_notes(summary))[1]


@pytest.mark.parametrize("disk", [True, False], ids=["disk", "like S3"])
async def test_a_dead_blob_that_is_gone_when_its_turn_comes(tmp_path: Path, disk: bool) -> None:
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "latest")
    first, _ = b.blob(b"dead"), b.blob(b"dead, too")
    storage: Storage = ModelStorage(b.store, now=NOW)
    if disk:
        b.store.write_folder(tmp_path)
        storage = DiskStorage(tmp_path)

    async def take_it_away(operation: str, key: str) -> None:
        if operation in ("move", "copy") and key == encode(BlobKey(first)):
            await storage.delete_many([key])

    faulty = FaultyStorage(storage, before=take_it_away)
    report = await collect(faulty, replace(RUN, plan=GcOptions(grace=DAY), max_delete=1.0))
    assert (report.blobs, report.vanished, report.vanished_digests) == (1, 1, (str(first),))
    assert not report.failures
    [note] = report_notes(report)
    assert note.startswith(f"1 dead blob had gone when their turn came, such as {first}: something else deletes")
