"""A scan in worker processes is that of one process, request by request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from regstore.errors import RegstoreError
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions, scan
from regstore.layout import BLOBS
from regstore.storage.base import Page, Storage
from regstore.storage.s3 import S3Storage
from regstore.tasks import HERE, Pool, Runner
from regstore.tasks.listing import ListRange, list_range
from regstore.tasks.manifests import ReadManifests, ReadResult, read_manifests
from regstore.tasks.runner import Context
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW, example_registry
from tests.servers.s3 import S3Server

pytestmark = pytest.mark.long

TABLES = ("blob", "manifest", "edge", "layer_link", "revision_link", "tag", "tag_index", "upload_part", "unknown")


def rows(inventory: Inventory) -> dict[str, Any]:
    names = dict(inventory.all("select id, name from repository"))
    found: dict[str, Any] = {}
    for table in TABLES:
        columns = [row[0] for row in inventory.all(f"describe {table}")]
        found[table] = sorted(
            repr(
                [
                    names[value] if column == "repository" else value
                    for column, value in zip(columns, row, strict=True)
                ]
            )
            for row in inventory.all(f"select * from {table}")
        )
    return found


async def scanned(storage: Storage, runner: Runner) -> dict[str, Any]:
    async with scan(storage, ScanOptions(concurrency=4, cache_dir=None, runner=runner)) as inventory:
        return rows(inventory)


async def test_the_inventory_is_the_same(moto: S3Server, moto_bucket: str) -> None:
    settings = moto.settings(moto_bucket, page_size=7)
    async with S3Storage(settings) as storage, Pool(2, concurrency=8, eager=True) as pool:
        await example_registry().write_storage(storage)
        storage.counters.requests.clear()
        here = await scanned(storage, HERE)
        before = dict(storage.counters.requests)
        assert await scanned(storage, pool) == here
        assert pool.processes, "nothing was handed out"
        gets = storage.counters.requests["GetObject"]
        assert gets == 2 * before["GetObject"], "each manifest and link is read once"


class SlowToShow(ModelStorage):
    """Answers with pages that show no key first, as servers do that pass over what was deleted."""

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        for _ in range(5):
            yield Page([], [], [], [], False)
        async for page in super().list(prefix, start_after=start_after):
            yield page


async def test_pages_that_show_no_key_do_not_stop_a_listing_for_ever() -> None:
    storage = SlowToShow(example_registry(), now=NOW)
    context = Context(stores=(storage,), concurrency=1)
    page = await list_range(context, ListRange(prefix=BLOBS, pages=2))
    assert page.keys or page.complete


async def test_a_task_that_says_nothing_of_a_manifest_ends_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its layers would be garbage."""

    async def short(context: Context, work: ReadManifests) -> ReadResult:
        result = await read_manifests(context, work)
        result.sound.remembered.pop()
        return result

    monkeypatch.setattr("regstore.inventory.manifests.read_manifests", short)
    with pytest.raises(RegstoreError, match="said nothing of 1"):
        await scanned(ModelStorage(example_registry(), now=NOW), HERE)
