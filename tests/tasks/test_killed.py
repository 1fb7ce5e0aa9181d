"""Workers killed -9 in the midst of each kind of batch: what is found and what is done is the same; after the third
death the command ends with one sentence, nothing is lost, and the next run ends in the same state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from regstore.gc.run_options import GcRunOptions
from regstore.inventory.scan import ScanOptions
from regstore.storage.base import Storage
from regstore.storage.s3 import S3Storage
from regstore.tasks import HERE, Pool, Runner, WorkerDied
from regstore.tasks.hashing import hash_blobs
from regstore.tasks.listing import list_range
from regstore.tasks.manifests import read_manifests
from regstore.tasks.trashing import copy_keys
from tests.gc.scenes import Watch, collect, look, options, small_registry, wanted, write_long_ago
from tests.gc.test_killed import check_after_death, check_end
from tests.model.store import ModelStore
from tests.servers.s3 import S3Server
from tests.tasks.jobs import Dying
from tests.verify.stores import look as verify

pytestmark = pytest.mark.long

LISTING = ("regstore.inventory.listing.list_range", list_range)
MANIFESTS = ("regstore.inventory.manifests.read_manifests", read_manifests)
HASHING = ("regstore.proving.reader.hash_blobs", hash_blobs)
COPYING = ("regstore.gc.apply.taking.copy_keys", copy_keys)


@pytest_asyncio.fixture
async def store(moto: S3Server, moto_bucket: str) -> AsyncIterator[S3Storage]:
    settings = moto.settings(moto_bucket, page_size=20)
    async with S3Storage(settings) as storage:
        await write_long_ago(small_registry(), storage)
        yield storage


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[Pool]:
    async with Pool(2, concurrency=8, eager=True) as pool:
        yield pool


def run_by(runner: Runner) -> GcRunOptions:
    return replace(options(offline=True, grace=0), scan=ScanOptions(cache_dir=None, concurrency=4, runner=runner))


async def found(storage: Storage, runner: Runner) -> list[Any]:
    """By a dry run of gc, and by verify, which reads all."""
    report = await verify(storage, "all", scan=run_by(runner).scan)
    assert report.reading is not None
    reading = replace(report.reading, seconds=0.0, oldest=None)
    return [(await look(storage, run_by(runner))).summary, report.findings, reading]


async def test_what_is_found_is_the_same(store: S3Storage, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    here = await found(store, HERE)
    for place, task in (LISTING, MANIFESTS, HASHING):
        monkeypatch.setattr(place, Dying(task, 1))
    assert await found(store, pool) == here


async def test_the_third_death_ends_it(store: S3Storage, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await ModelStore.from_storage(store)
    for place, task in (LISTING, MANIFESTS, HASHING):
        with monkeypatch.context() as patch:
            patch.setattr(place, Dying(task, 3))
            with pytest.raises(WorkerDied, match=task.__name__.replace("_", " ")):
                await found(store, pool)
    assert (await ModelStore.from_storage(store)).objects == before.objects


@pytest.mark.parametrize("deaths", [1, 3])
async def test_copies_to_the_trash(
    deaths: int, store: S3Storage, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small_registry()
    dead = frozenset(key for key in wanted(before, run_by(pool)).dead if "/_uploads/" not in key)
    with monkeypatch.context() as patch:
        patch.setattr(COPYING[0], Dying(COPYING[1], deaths))
        if deaths < 3:
            await collect(store, run_by(pool))
        else:
            with pytest.raises(WorkerDied, match="copy keys"):
                await collect(store, run_by(pool))
            after = await ModelStore.from_storage(store)
            await check_after_death(store, after, before, Watch(before))
            assert all(key in after for key in before if "/blobs/" in key), "no blob has gone"
    if deaths == 3:
        await collect(store, run_by(pool))
    await check_end(store, await ModelStore.from_storage(store), before, dead)
