"""migrate, backup create and restore in worker processes: as one process does it, also where workers are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from regstore import layout
from regstore.backup import CreateOptions, ReadData, RestoreOptions, create, restore
from regstore.backup.check import check
from regstore.backup.opening import list_snapshots
from regstore.digest import Digest
from regstore.errors import LockLost, StorageError
from regstore.events import Event, OnEvent, Progress, ignore
from regstore.migrate import MigrateOptions, MigrateResult, Verify, migrate
from regstore.migrate.on_server import ServerResult
from regstore.state import LOCKS
from regstore.state.lock import hold_lock
from regstore.storage.base import TEMPORARY, Storage
from regstore.storage.disk import DiskStorage
from regstore.tasks import HERE, Pool, Runner, WorkerDied
from regstore.tasks.copying import CopyBlobs, CopyResult, copy_blobs
from regstore.tasks.hashing import hash_blobs
from regstore.tasks.runner import Context
from tests.backup import reader
from tests.migrate.stores import SCANNING, bucket_storage, contents, dangling
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW
from tests.model.store import ModelStore
from tests.servers import images
from tests.servers.memory_s3 import memory_s3
from tests.servers.s3 import S3Server
from tests.tasks.jobs import Dying
from tests.tasks.runners import PackedHere

pytestmark = pytest.mark.long

CONCURRENCY = 16
COPYING, LAYERS, HISTORY = "copying blobs", "linking layers", "linking tag history"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    for number in range(80):
        layers = [images.layer(f"layer {number} {each}") for each in range(3)]
        image = images.image(f"image {number}", layers)
        images.write_keys(folder, images.registry_keys(f"team/{number % 7}", image, f"t{number}"))
    return folder


@pytest.fixture(scope="module")
def expected(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with memory_s3() as server:
        yield server


@pytest.fixture
def bucket(server: S3Server) -> str:
    return server.create_bucket()


def pool() -> Pool:
    return Pool(2, concurrency=CONCURRENCY, eager=True)


async def move(
    source: Storage, target: Storage, runner: Runner = HERE, on_event: OnEvent = ignore, **options: Any
) -> MigrateResult:
    chosen = MigrateOptions(concurrency=CONCURRENCY, all=True, **options)
    return await migrate(source, target, chosen, scanning=replace(SCANNING, runner=runner), on_event=on_event)


def counted(result: MigrateResult) -> MigrateResult:
    """Without what differs from run to run: listings are cut where there is time, and each process asks what time it
    is."""
    often = ("list", "ListObjectsV2", "HeadBucket")
    requests = {name: count for name, count in result.requests.items() if name not in often}
    return replace(result, seconds=0.0, requests=requests, target="", failed=sorted(result.failed))


class Killer:
    """Kills a worker each time that a phase is told of for the first time, and so in the midst of it."""

    def __init__(self, pool: Pool, *phases: str) -> None:
        self._pool = pool
        self._phases = set(phases)
        self.killed: set[str] = set()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and event.phase in self._phases - self.killed and self._pool.processes:
            self.killed.add(event.phase)
            os.kill(self._pool.processes[0], signal.SIGKILL)


async def kill_all(pool: Pool) -> None:
    """Each that is there, as long as it takes."""
    while True:
        for process in pool.processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        await asyncio.sleep(0.02)


async def with_all_killed(pool: Pool, work: Awaitable[object]) -> None:
    killing = asyncio.create_task(kill_all(pool))
    try:
        with pytest.raises(WorkerDied, match=r"ended 3 times .* --workers 1"):
            await work
    finally:
        killing.cancel()


def place(server: S3Server, tree: Path | str, **more: Any) -> Storage:
    return DiskStorage(tree, create=True) if isinstance(tree, Path) else bucket_storage(server, tree, **more)


@pytest.mark.parametrize("way", ["upload", "server", "download"])
async def test_migrate_does_what_one_process_does(
    way: str, tree: Path, expected: dict[str, bytes], server: S3Server, tmp_path: Path
) -> None:
    full = Verify.DEFAULT if way == "upload" else Verify.FULL
    found = []
    source: Path | str = tree
    if way != "upload":
        source = server.create_bucket()
        async with place(server, tree) as disk, place(server, source) as filled:
            await move(disk, filled)
    async with pool() as workers:
        runners: tuple[Runner, ...] = (HERE, workers)
        for number, runner in enumerate(runners):
            where = tmp_path / str(number) if way == "download" else server.create_bucket()
            async with place(server, source) as one, place(server, where) as other:
                found.append(counted(await move(one, other, runner, verify=full)))
                assert await contents(other) == expected
        assert workers.processes
    here, there = (replace(result, source="") for result in found)
    assert there == here
    assert here.blobs == 400 and here.verified == (0 if way == "upload" else 400)


async def test_what_cannot_be_copied_is_told_as_by_one_process(
    tree: Path, server: S3Server, tmp_path: Path
) -> None:
    """A blob with other bytes, one that is gone when it is read, and one that is not given."""
    source = tmp_path / "source"
    for path in tree.rglob("data"):  # what is not touched is shared
        (source / path.relative_to(tree)).parent.mkdir(parents=True, exist_ok=True)
        os.link(path, source / path.relative_to(tree))
    for path in tree.rglob("link"):
        (source / path.relative_to(tree)).parent.mkdir(parents=True, exist_ok=True)
        os.link(path, source / path.relative_to(tree))
    layers = sorted(path for path in source.rglob("data") if not path.read_bytes().startswith(b"{"))[:30]
    for path in layers:
        body = path.read_bytes()
        path.unlink()
        path.write_bytes(bytes(len(body)))
    found = []
    async with pool() as workers, place(server, source) as one:
        runners: tuple[Runner, ...] = (HERE, workers)
        for runner in runners:
            async with place(server, server.create_bucket()) as other:
                found.append(counted(await move(one, other, runner)))
                assert not dangling(await contents(other))
    here, there = found
    assert sorted(there.skipped) == sorted(here.skipped) and there.failed == here.failed
    assert replace(there, skipped=[]) == replace(here, skipped=[])
    assert len(here.failed) == len(layers) and f"was not copied from {source}: " in here.failed[0].reason


async def test_an_outage_ends_it(tree: Path, server: S3Server, bucket: str, tmp_path: Path) -> None:
    """Nothing can be written any more: what was not begun is not tried, blob by blob."""
    target = tmp_path / "target"
    folder = target / "docker/registry/v2/blobs"
    folder.mkdir(parents=True)
    (folder / "sha256").write_bytes(b"no folder")
    async with pool() as workers, place(server, tree) as one, place(server, target) as other:
        before = one.counters.requests.get("get", 0)
        with pytest.raises(Exception, match="sha256"):
            await move(one, other, workers)
        assert one.counters.requests["get"] - before < 300


async def test_migrate_with_killed_workers(
    tree: Path, expected: dict[str, bytes], server: S3Server, bucket: str
) -> None:
    async with pool() as workers, place(server, tree) as one, place(server, bucket) as other:
        killer = Killer(workers, COPYING, LAYERS, HISTORY)
        result = await move(one, other, workers, killer)
        assert killer.killed == {COPYING, LAYERS, HISTORY}
        assert not result.partial and await contents(other) == expected


async def test_migrate_whose_workers_all_die(
    tree: Path, expected: dict[str, bytes], server: S3Server, bucket: str
) -> None:
    async with place(server, tree) as one, place(server, bucket) as other:
        async with pool() as workers:
            await with_all_killed(workers, move(one, other, workers))
        found = await contents(other)
        assert not dangling(found) and len(found) < len(expected)
        async with pool() as workers:
            await move(one, other, workers)
        assert await contents(other) == expected


async def test_backup_with_killed_workers(
    tree: Path,
    expected: dict[str, bytes],
    server: S3Server,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Into a bucket, and from there to a disk."""
    async with place(server, tree) as one, place(server, bucket) as backup:
        async with pool() as workers:
            scanning = replace(SCANNING, runner=workers)
            options = CreateOptions(concurrency=CONCURRENCY)
            await with_all_killed(workers, create(one, backup, options, scanning=scanning))
            assert not (await list_snapshots(backup)).snapshots
        async with pool() as workers:
            scanning = replace(SCANNING, runner=workers)
            killer = Killer(workers, COPYING)
            created = await create(one, backup, options, scanning=scanning, on_event=killer)
            assert killer.killed and not created.partial
            assert not reader.problems(await everything(backup))
        async with pool() as workers:
            reading = partial(check, backup, read_data=ReadData.parse("all"), concurrency=CONCURRENCY)
            for deaths in (3, 1):
                with monkeypatch.context() as patch:
                    patch.setattr("regstore.proving.reader.hash_blobs", Dying(hash_blobs, deaths))
                    if deaths == 3:
                        with pytest.raises(WorkerDied, match="hash blobs"):
                            await reading(runner=workers)
                    else:
                        checked = await reading(runner=workers)
            assert checked == replace(await reading(), seconds=checked.seconds)
        async with place(server, tmp_path / "restored") as store:
            again = RestoreOptions(concurrency=CONCURRENCY)
            async with pool() as workers, hold_lock(store, command="restore") as lock:
                await with_all_killed(workers, restore(backup, store, again, lock=lock, runner=workers))
                assert not dangling(await contents(store))
            async with pool() as workers, hold_lock(store, command="restore") as lock:
                killer = Killer(workers, "restoring blobs")
                restored = await restore(backup, store, again, lock=lock, runner=workers, on_event=killer)
            assert killer.killed and not restored.partial
            found = await contents(store)
            half = {key for key in found if TEMPORARY in key}  # what a killed one was writing, until it is old
            assert found.keys() - half == expected.keys() and not dangling(found)


async def everything(storage: Storage) -> dict[str, bytes]:
    return {key: await storage.get(key) async for page in storage.list("") for key in page.keys}


async def test_a_restore_whose_lock_is_broken_stops_in_its_workers(
    tree: Path, server: S3Server, bucket: str
) -> None:
    async with place(server, tree) as one, place(server, bucket) as backup, pool() as workers:
        await create(one, backup, CreateOptions(concurrency=CONCURRENCY), scanning=SCANNING)
        async with place(server, server.create_bucket()) as store, hold_lock(store, command="restore") as lock:

            def break_it(event: Event) -> None:
                if isinstance(event, Progress) and event.phase == "restoring blobs":
                    server.client().delete_object(Bucket=store.url.partition("//")[2], Key=LOCKS + lock.run)

            options = RestoreOptions(concurrency=CONCURRENCY)
            with pytest.raises(LockLost, match="its lock is gone"):
                await restore(backup, store, options, lock=lock, runner=workers, on_event=break_it)


async def test_a_large_upload_in_workers_that_end(server: S3Server, bucket: str, tmp_path: Path) -> None:
    """Cancelled, its record says that it may be taken up; killed, its parts are used by the next worker."""
    content = os.urandom(1 << 20) * 130
    layer = images.Blob(content, images.OCI_LAYER, images.sha256(content))
    images.write_keys(tmp_path, images.registry_keys("a", images.image("large", [layer]), "1"))
    async with place(server, tmp_path) as one, place(server, bucket) as other:
        begun = asyncio.Event()

        def watch(event: Event) -> None:
            if isinstance(event, Progress) and event.phase == COPYING and event.done > 30 << 20:
                begun.set()

        async with pool() as workers:
            running = asyncio.create_task(move(one, other, workers, watch))
            await asyncio.wait_for(begun.wait(), 30)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        [record] = [key async for page in other.list(layout.UPLOAD_RECORDS) for key in page.keys]
        assert b'"free": true' in await other.get(record)
        await other.delete_many([record])  # else this process takes it up itself
        [left] = [upload async for upload in other.list_multipart_uploads("")]
        await other.abort_multipart_upload(left)
        begun.clear()
        async with pool() as workers:
            running = asyncio.create_task(move(one, other, workers, watch))
            await asyncio.wait_for(begun.wait(), 30)
            for process in workers.processes:
                os.kill(process, signal.SIGKILL)
            await running
        # The one that was cancelled; what a killed worker has counted is lost, and the next began none.
        assert other.counters.requests["CreateMultipartUpload"] == 1
        assert not [upload async for upload in other.list_multipart_uploads("")]
        assert not [key async for page in other.list(layout.UPLOAD_RECORDS) for key in page.keys]
        assert await other.get(layout.blob_key(Digest.parse(layer.digest))) == content


class TellsOfHalf(PackedHere):
    """What it was told of some blobs is lost."""

    async def run(self, task: Any, work: Any, *stores: Storage, on_event: OnEvent = ignore) -> Any:
        answer = await super().run(task, work, *stores, on_event=on_event)
        return replace(answer, done=answer.done[::2]) if isinstance(answer, CopyResult | ServerResult) else answer


@pytest.mark.parametrize("way", ["upload", "server", "restore"])
async def test_what_no_answer_names_is_copied_again(
    way: str, tree: Path, expected: dict[str, bytes], server: S3Server, bucket: str, tmp_path: Path
) -> None:
    runner = TellsOfHalf()
    async with place(server, tree) as disk, place(server, bucket) as target:
        if way == "restore":
            async with place(server, tmp_path / "backup") as backup:
                await create(disk, backup, CreateOptions(concurrency=CONCURRENCY), scanning=SCANNING)
                options = RestoreOptions(concurrency=CONCURRENCY)
                async with hold_lock(target, command="restore") as lock:
                    assert not (await restore(backup, target, options, lock=lock, runner=runner)).partial
        else:
            await move(disk, target, HERE if way == "server" else runner)
        if way == "server":
            async with place(server, server.create_bucket()) as other:
                assert (await move(target, other, runner)).blobs == 400
                assert await contents(other) == expected
        else:
            found = await contents(target)
            assert found.keys() == expected.keys() and not dangling(found)
    assert runner.ran["copy_on_server" if way == "server" else "copy_blobs"]


class ReadsManyBadly(ModelStorage):
    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | StorageError]:
        raise StorageError("it does not answer")


async def test_what_was_to_be_read_ahead_and_was_not_is_not_taken_for_copied() -> None:
    store = ModelStore()
    bodies = [b"%d" % number for number in range(6)]
    digests = [Digest.of(body) for body in bodies]
    source, target = ReadsManyBadly(store, now=NOW), ModelStorage(ModelStore(), now=NOW)
    work = CopyBlobs(
        blobs=[(digest.raw, len(body), False) for digest, body in zip(digests, bodies, strict=True)],
        source_key=layout.blob_key,
        target_key=layout.blob_key,
        put=None,
        share=1,
        in_a_row=100,
    )
    result = await copy_blobs(Context(stores=(source, target), concurrency=4), work)
    assert len(result.failed) == 6 and not result.copied(digests)
