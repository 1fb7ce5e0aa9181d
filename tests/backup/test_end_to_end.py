"""The real registry, under pushes and deletes, is backed up again and again; each snapshot is served and pulled."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from regstore.backup import list_snapshots
from regstore.gc.plan import GcOptions
from regstore.gc.run import GcRunOptions, open_run
from regstore.inventory.scan import ScanOptions
from regstore.runs.lock import hold_lock
from regstore.storage.base import Storage
from tests.backup import reader
from tests.backup.places import collect, contents, give_back, open_place, read_all, take
from tests.servers import images
from tests.servers.api import Api, ApiError, pull_complete, push_api
from tests.servers.distribution import Registry
from tests.servers.s3 import S3Root, S3Server

pytestmark = pytest.mark.servers

StartRegistry = Callable[..., Registry]


class Writer(threading.Thread):
    """Pushes and deletes until it is told to stop. `held`: every digest that each tag ever had."""

    def __init__(self, host: str, number: int) -> None:
        super().__init__(daemon=True)
        self._host = host
        self._random = random.Random(number)
        self._number = number
        self.ended = threading.Event()
        self.held: dict[str, set[str]] = {}
        self.pushed = 0
        self.deleted = self.repeated = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                try:
                    self._step()
                except ApiError as error:
                    # With gc beside: what a push had found was garbage before; clients repeat it.
                    if not error.code.endswith("_UNKNOWN"):
                        raise
                    self.repeated += 1
        except BaseException as error:
            self.failure = error

    def _step(self) -> None:
        chance = self._random
        repository, tag = f"w{self._number}/{chance.choice('ab')}", f"t{chance.randrange(4)}"
        reference = f"{repository}:{tag}"
        if chance.random() < 0.7:
            seed = f"{self._number} {chance.randrange(12)}"
            document = images.multiarch(seed) if chance.random() < 0.3 else images.image(seed, 3)
            # Before the push: a snapshot may have it as soon as it is there.
            self.held.setdefault(reference, set()).add(document.digest)
            push_api(self._host, repository, document, tag)
            self.pushed += 1
            return
        with Api(self._host) as api:
            digest = api.head_manifest(repository, tag)
            if digest is not None:
                try:
                    api.delete_manifest(repository, digest)
                    self.deleted += 1
                except ApiError as error:
                    if error.status != 404:
                        raise


async def collect_garbage(place: Path | S3Root, ended: asyncio.Event) -> int:
    """gc of the registry's store, one run after the other; how many blobs went."""
    options = GcRunOptions(
        plan=GcOptions(grace=0), scan=ScanOptions(cache_dir=None, concurrency=8), settle=0.2, max_delete=1.0
    )
    gone = 0
    async with open_place(place) as store:
        while not ended.is_set():
            async with hold_lock(store, command="gc") as lock, open_run(store, options, lock) as run:
                gone += (await run.apply()).blobs
    return gone


async def run_for(seconds: float, writers: list[Writer], source: Storage, backup: Storage) -> int:
    """Backups one after the other while the writers write; how many."""
    for writer in writers:
        writer.start()
    scanning = ScanOptions(cache_dir=None, concurrency=8)
    end, made = time.monotonic() + seconds, 0
    try:
        while time.monotonic() < end or made < 3:
            await take(source, backup, concurrency=8, scanning=scanning)
            made += 1
    finally:
        for writer in writers:
            writer.ended.set()
        for writer in writers:
            await asyncio.to_thread(writer.join, 60)
    for writer in writers:
        if writer.failure is not None:
            raise writer.failure
    return made


async def under_fire(
    seconds: float,
    place: Path | S3Root,
    backup_place: Path | S3Root,
    fresh: Callable[[int], Path | S3Root],
    start_registry: StartRegistry,
    *,
    gc: bool = False,
) -> None:
    registry = start_registry(place)
    push_api(registry.host, "w0/a", images.image("first", 2), "first")
    writers = [Writer(registry.host, number) for number in range(2)]
    async with open_place(place) as source, open_place(backup_place) as backup:
        ended = asyncio.Event()
        collecting = asyncio.create_task(collect_garbage(place, ended)) if gc else None
        made = await run_for(seconds, writers, source, backup)
        ended.set()
        if collecting is not None:
            assert await collecting > 0
        assert sum(writer.pushed for writer in writers) > 5
        objects = {key: await backup.get(key) async for page in backup.list("") for key in page.keys}
        assert not reader.problems(objects)
        keys = reader.snapshots(objects)
        assert len(keys) == made
        held: dict[str, set[str]] = {"w0/a:first": {images.image("first", 2).digest}}
        for writer in writers:
            for reference, digests in writer.held.items():
                held.setdefault(reference, set()).update(digests)
        chosen = keys if len(keys) <= 4 else [keys[0], *random.Random(1).sample(keys[1:-1], 2), keys[-1]]
        for number, key in enumerate(chosen):
            tags = reader.tags(objects, key)
            assert all(digest in held[reference] for reference, digest in tags.items())
            target_place = fresh(number)
            async with open_place(target_place) as target:
                restored = await give_back(backup, target, snapshot=key.removeprefix("snapshots/")[:23])
            assert not restored.partial
            served = start_registry(target_place)
            for reference, digest in tags.items():
                name, _, tag = reference.rpartition(":")
                assert pull_complete(served.host, name, tag)
                with Api(served.host) as api:
                    assert api.head_manifest(name, tag) == digest
            served.stop()
        # The registry's own garbage-collect finds nothing in a backup.
        before = set(objects)
        Registry(backup_place).garbage_collect("-m", check=False)
        assert {key async for page in backup.list("") for key in page.keys} == before


async def test_on_ceph(ceph: S3Server, ceph_bucket: str, tmp_path: Path, start_registry: StartRegistry) -> None:
    place = S3Root(ceph, ceph_bucket, "/reg")
    await under_fire(
        6, place, S3Root(ceph, ceph_bucket, "/backup"), lambda number: tmp_path / f"fresh{number}", start_registry
    )


async def test_on_disk(tmp_path: Path, start_registry: StartRegistry) -> None:
    await under_fire(
        4, tmp_path / "reg", tmp_path / "backup", lambda number: tmp_path / f"fresh{number}", start_registry
    )


async def test_beside_gc(tmp_path: Path, start_registry: StartRegistry) -> None:
    await under_fire(
        5,
        tmp_path / "reg",
        tmp_path / "backup",
        lambda number: tmp_path / f"fresh{number}",
        start_registry,
        gc=True,
    )


@pytest.mark.slow
async def test_on_ceph_for_minutes(
    ceph: S3Server, ceph_bucket: str, tmp_path: Path, start_registry: StartRegistry
) -> None:
    place = S3Root(ceph, ceph_bucket, "/reg")
    await under_fire(
        120, place, S3Root(ceph, ceph_bucket, "/backup"), lambda number: tmp_path / f"fresh{number}", start_registry
    )


async def test_disaster_drill_on_ceph(
    ceph: S3Server, ceph_bucket: str, tmp_path: Path, start_registry: StartRegistry
) -> None:
    """The bucket is lost; one restore later the registry serves all of it."""
    place, again = S3Root(ceph, ceph_bucket, "/reg"), S3Root(ceph, ceph_bucket, "/again")
    registry = start_registry(place)
    multi = images.multiarch("drill")
    push_api(registry.host, "team/app", multi, "1")
    push_api(registry.host, "team/app", images.referrer(multi))
    push_api(registry.host, "team/app/nested", images.image("drill", 3), "latest")
    registry.stop()
    backup_place = tmp_path / "backup"
    async with open_place(place) as source, open_place(backup_place) as backup:
        await take(source, backup)
        before = await contents(source)
        assert (await read_all(backup)).damage == []
        async with open_place(again) as target:
            restored = await give_back(backup, target)
            assert restored.seeded
            after = await contents(target)
        assert after == {key: body for key, body in before.items() if "/_uploads/" not in key}
        second = await collect(backup, last=1)
        assert (second.blobs, len((await list_snapshots(backup)).snapshots)) == (0, 1)
    served = start_registry(again)
    assert pull_complete(served.host, "team/app", "1")
    assert pull_complete(served.host, "team/app", images.referrer(multi).digest)
    assert pull_complete(served.host, "team/app/nested", "latest")
    push_api(served.host, "team/new", images.image("after the drill"), "1")
    assert pull_complete(served.host, "team/new", "1")
