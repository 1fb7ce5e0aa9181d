"""kill -9 of worker processes in the midst of gc's tasks, on a disk and on S3."""

from __future__ import annotations

from pathlib import Path

import pytest

from regstore.gc.apply.fate import Fate
from regstore.state.journal import find_runs
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.storage.s3 import RetryPolicy, S3Storage
from regstore.tasks import Pool
from tests.gc.by_tasks import collect_by_tasks
from tests.gc.dying import DyingPool
from tests.gc.scenes import Watch, collect_again, options, registry, small_registry, wanted, write_long_ago
from tests.gc.test_killed import check_after_death, check_end
from tests.model.store import ModelStore
from tests.servers.s3 import S3Server

pytestmark = pytest.mark.long


@pytest.mark.parametrize(("kind", "after"), [("unlink", 2), ("sweep", 1)])
async def test_on_disk(tmp_path: Path, kind: str, after: int) -> None:
    before = small_registry().on_disk()
    before.write_folder(tmp_path)
    run = options(offline=False, concurrency=1)
    async with DiskStorage(tmp_path) as storage, Pool(2) as pool:
        dead = wanted(before, run).dead
        done = await collect_by_tasks(storage, run, DyingPool(pool, kind, after))
        after_all = ModelStore.from_folder(tmp_path)
        Watch(before).check(after_all)
        assert registry(after_all).bodies() == before.without(dead).bodies()
        assert set(done.fates.values()) == {Fate.TAKEN}
        await check_unsettled(storage)
        await collect_again(storage, run)
        await check_end(storage, ModelStore.from_folder(tmp_path), before, dead)


async def test_on_s3(moto: S3Server) -> None:
    before = small_registry()
    run = options(offline=False, grace=0, concurrency=1)
    dead = frozenset(key for key in wanted(before, run).dead if "/_uploads/" not in key)
    settings = moto.settings(moto.create_bucket(), retries=RetryPolicy(base=0.01))
    async with S3Storage(settings) as storage, Pool(2) as pool:
        await write_long_ago(before, storage)
        await collect_by_tasks(storage, run, DyingPool(pool, "sweep", 4))
        after = await ModelStore.from_storage(storage)
        await check_after_death(storage, after, before, Watch(before))
        await check_end(storage, after, before, dead)
        await check_unsettled(storage)
        await collect_again(storage, run)
        await check_end(storage, await ModelStore.from_storage(storage), before, dead)


async def check_unsettled(storage: Storage) -> None:
    (record,) = await find_runs(storage)
    assert record.done is not None and record.done["repeated_deletes"] and not record.settled
    assert any("-1-0" in part for part in record.parts), "another attempt has journaled"
