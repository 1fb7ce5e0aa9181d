"""A scan in worker processes is that of one process, request by request."""

from __future__ import annotations

from typing import Any

import pytest

from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions, scan
from regstore.storage.base import Storage
from regstore.storage.s3 import S3Settings, S3Storage
from regstore.tasks import HERE, Pool, Runner
from tests.model.random_registry import example_registry
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
    settings = S3Settings(
        bucket=moto_bucket,
        endpoint_url=moto.endpoint_url,
        access_key=moto.access_key,
        secret_key=moto.secret_key,
        page_size=7,
    )
    async with S3Storage(settings) as storage, Pool(2, concurrency=8, eager=True) as pool:
        await example_registry().write_storage(storage)
        storage.counters.requests.clear()
        here = await scanned(storage, HERE)
        before = dict(storage.counters.requests)
        assert await scanned(storage, pool) == here
        assert pool.processes, "nothing was handed out"
        gets = storage.counters.requests["GetObject"]
        assert gets == 2 * before["GetObject"], "each manifest and link is read once"
