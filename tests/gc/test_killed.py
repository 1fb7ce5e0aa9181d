"""Kill -9 between any two mutations of a run: no tag points at something incomplete, no blob is gone without a copy,
and the next run reaches the end state of an uninterrupted one.

The store after mutation k is the store before mutation k + 1, so one of the two is looked at by default. With --slow
every point is, in every test; without, some that are spread evenly.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from regstore.errors import LockHeld
from regstore.gc.run import GcRunOptions
from regstore.state import holder as holder_module
from regstore.state import process as process_module
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.storage.s3 import RetryPolicy, S3Storage
from regstore.testing.faulty import FaultyStorage, died
from tests.examples import points
from tests.gc.scenes import (
    Watch,
    both,
    collect,
    collect_again,
    copy_of,
    journaled,
    model_storage,
    options,
    registry,
    removed_blobs,
    serving,
    small_registry,
    trash,
    wanted,
    write_long_ago,
)
from tests.model.memory import ModelStorage
from tests.model.store import ModelStore
from tests.servers.s3 import S3Server

ROOT = Path(process_module.__file__).parents[2]


async def count_mutations(storage: Storage, run: GcRunOptions) -> int:
    faulty = FaultyStorage(storage)
    await collect(faulty, run)
    return len(faulty.mutations)


async def check_after_death(storage: Storage, after: ModelStore, before: ModelStore, watch: Watch) -> None:
    watch.check(after)
    gone = {key for key in before if key not in after}
    assert gone <= (await journaled(storage)).keys(), "what is gone is in a journal"


async def check_end(storage: Storage, after: ModelStore, before: ModelStore, dead: frozenset[str]) -> None:
    assert registry(after).bodies() == before.without(dead).bodies()
    kept = trash(after)
    assert {key: kept.get(key) for key in removed_blobs(before, dead)} == removed_blobs(before, dead)
    assert kept.keys() <= dead
    assert dead <= (await journaled(storage)).keys()
    assert not [key for key in after if key.startswith("regstore/locks/")]


@both
async def test_on_a_store_like_s3(offline: bool, request: pytest.FixtureRequest) -> None:
    before = small_registry()
    run = options(offline=offline, concurrency=1)
    dead, watch = wanted(before, run).dead, Watch(before)
    total = await count_mutations(model_storage(before), run)
    assert total > len(removed_blobs(before, dead)) + len(dead)
    every = request.config.getoption("--slow")
    for number in points(total, 3):
        for when in ("before", "after") if every or number == total else ("after",):
            storage = model_storage(before)
            faulty = FaultyStorage(storage, die_at=number, when=when)
            assert await died(collect(faulty, run)), f"{when} {number} of {total}"
            where = f"killed {when} mutation {number}: {faulty.mutations[-1]}"
            try:
                await check_after_death(storage, storage.store, before, watch)
                await collect_again(storage, run)
                await check_end(storage, storage.store, before, dead)
            except AssertionError as error:
                raise AssertionError(where) from error


async def test_its_lock_stands_while_its_process_may_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was cut off from the store only, and what /proc hides (`hidepid=2`) may run; when the kernel says that it is
    gone, nobody needs to break its lock."""
    before = small_registry()
    run = options(offline=False, concurrency=1)
    storage = model_storage(before)
    code = "from regstore.state.process import this_process; print(this_process(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        process = other.stdout.readline().strip()
        with monkeypatch.context() as patch:
            patch.setattr(holder_module, "this_process", lambda: process)
            assert await died(collect(FaultyStorage(storage, die_at=5, when="after"), run))
        after = dict(storage.store.objects)
        number = process.split("/")[3]
        shutil.copytree("/proc/sys/kernel/random", tmp_path / "sys/kernel/random", copy_function=_copy)
        (tmp_path / "self").symlink_to("/proc/self")
        with monkeypatch.context() as patch:
            patch.setattr(process_module, "_PROC", tmp_path)
            assert not (tmp_path / number).exists()
            with pytest.raises(LockHeld):
                await collect(storage, run)
        assert storage.store.objects == after
        other.stdin.close()
    await collect(storage, run)
    await check_end(storage, storage.store, before, wanted(before, run).dead)


def _copy(source: str, target: str) -> None:
    Path(target).write_bytes(Path(source).read_bytes() if source.endswith("boot_id") else b"")


@serving
async def test_killed_again_in_the_next_run(offline: bool) -> None:
    before = small_registry()
    run = options(offline=offline, concurrency=1)
    dead, watch = wanted(before, run).dead, Watch(before)
    total = await count_mutations(model_storage(before), run)
    for first in points(total - 1, 2, 20):
        once = model_storage(before)
        assert await died(collect(FaultyStorage(once, die_at=first, when="after"), run))
        for second in points(total - 1, 2, 20):
            storage = ModelStorage(copy_of(once.store), now=once.clock)
            await died(collect_again(FaultyStorage(storage, die_at=second, when="after"), run))
            await check_after_death(storage, storage.store, before, watch)
            await collect_again(storage, run)
            await check_end(storage, storage.store, before, dead)


@serving
async def test_on_disk(tmp_path: Path, offline: bool) -> None:
    before = small_registry().on_disk()
    run = options(offline=offline, concurrency=1)
    dead, watch = wanted(before, run).dead, Watch(before)

    def fresh(name: str) -> DiskStorage:
        root = tmp_path / name
        before.write_folder(root)
        return DiskStorage(root)

    async with fresh("counted") as storage:
        total = await count_mutations(storage, run)
    for number in points(total, 3):
        async with fresh(f"{number}") as storage:
            root = tmp_path / f"{number}"
            assert await died(collect(FaultyStorage(storage, die_at=number, when="after"), run)), number
            await check_after_death(storage, ModelStore.from_folder(root), before, watch)
            await collect_again(storage, run)
            await check_end(storage, ModelStore.from_folder(root), before, dead)
        shutil.rmtree(root)


@serving
async def test_on_moto(moto: S3Server, offline: bool) -> None:
    before = small_registry()
    run = options(offline=offline, grace=0, concurrency=1)
    # Uploads are as young as the bucket.
    dead = frozenset(key for key in wanted(before, run).dead if "/_uploads/" not in key)
    watch = Watch(before)

    @asynccontextmanager
    async def fresh() -> AsyncIterator[S3Storage]:
        settings = moto.settings(moto.create_bucket(), retries=RetryPolicy(base=0.01))
        async with S3Storage(settings) as storage:
            await write_long_ago(before, storage)
            yield storage

    async with fresh() as storage:
        total = await count_mutations(storage, run)
        await check_end(storage, await ModelStore.from_storage(storage), before, dead)
    for number in points(total, 2):
        async with fresh() as storage:
            assert await died(collect(FaultyStorage(storage, die_at=number, when="after"), run)), number
            await check_after_death(storage, await ModelStore.from_storage(storage), before, watch)
            await collect_again(storage, run)
            await check_end(storage, await ModelStore.from_storage(storage), before, dead)
