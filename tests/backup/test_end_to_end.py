"""The real registry, under pushes and deletes, is backed up again and again; each snapshot is served and pulled."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from regstore.backup import CreateResult, RestoreResult, list_snapshots
from regstore.gc.plan import GcOptions
from regstore.gc.run import GcRunOptions, open_run
from regstore.inventory.scan import ScanOptions
from regstore.layout import TagCurrentKey, decode
from regstore.state.lock import hold_lock
from regstore.storage.base import Storage
from tests.backup import reader
from tests.backup.oracle import incomplete_tags
from tests.backup.places import collect, contents, give_back, keys_below, memory, open_place, read_all, take
from tests.examples import points
from tests.model.random_registry import NOW
from tests.model.store import ModelStore
from tests.servers import images
from tests.servers.api import Api, ApiError, pull_complete, push_api
from tests.servers.distribution import Registry
from tests.servers.s3 import S3Root, S3Server

pytestmark = pytest.mark.servers

StartRegistry = Callable[..., Registry]


@dataclass
class Held:
    """A tag named this digest (None: it was not there), by the monotonic clock: certainly from `since` to `until`, and
    at most from `begun` to `ended`."""

    digest: str | None
    begun: float
    since: float
    until: float = math.inf
    ended: float = math.inf

    def stood(self, begin: float, end: float) -> bool:
        """All the time."""
        return self.since <= begin and end <= self.until

    def may_have_stood(self, begin: float, end: float) -> bool:
        """At some moment."""
        return self.begun <= end and begin <= self.ended


Histories = dict[str, list[Held]]


class Writer(threading.Thread):
    """Pushes and deletes until it is told to stop. `held`: what each tag of its repositories named, and when, as the
    registry's answers tell. Nobody else writes there."""

    def __init__(self, host: str, number: int) -> None:
        super().__init__(daemon=True)
        self._host = host
        self._random = random.Random(number)
        self._number = number
        self.ended = threading.Event()
        self.held: Histories = {
            f"w{number}/{name}:t{tag}": [Held(None, -math.inf, -math.inf)] for name in "ab" for tag in range(4)
        }
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
        begun = time.monotonic()
        if chance.random() < 0.7:
            seed = f"{self._number} {chance.randrange(12)}"
            document = images.multiarch(seed) if chance.random() < 0.3 else images.image(seed, 3)
            try:
                push_api(self._host, repository, document, tag)
            except ApiError:
                self._unknown([f"{repository}:{tag}"], document.digest, begun)
                raise
            self._changed([f"{repository}:{tag}"], document.digest, begun)
            self.pushed += 1
            return
        with Api(self._host) as api:
            digest = api.head_manifest(repository, tag)
            if digest is None:
                return
            # The registry removes every tag that names it.
            tags = [
                name
                for name, held in self.held.items()
                if name.startswith(f"{repository}:") and held[-1].digest == digest
            ]
            try:
                api.delete_manifest(repository, digest)
            except ApiError as error:
                self._unknown(tags, None, begun)
                if error.status != 404:
                    raise
            else:
                self._changed(tags, None, begun)
                self.deleted += 1

    def _changed(self, tags: list[str], digest: str | None, begun: float) -> None:
        now = time.monotonic()
        for tag in tags:
            self.held[tag][-1].until = min(self.held[tag][-1].until, begun)
            self.held[tag][-1].ended = now
            self.held[tag].append(Held(digest, begun, now))

    def _unknown(self, tags: list[str], digest: str | None, begun: float) -> None:
        """It may name this now, or what it did; the next answer tells."""
        for tag in tags:
            last = self.held[tag][-1]
            last.until = min(last.until, begun)
            self.held[tag] += [Held(digest, begun, math.inf), Held(last.digest, last.begun, math.inf)]


@dataclass(frozen=True)
class Taken:
    """A snapshot, and when its run began and ended, by the monotonic clock."""

    result: CreateResult
    begun: float
    ended: float

    def hold_against(self, held: Histories, tags: Mapping[str, str], *, gc: bool) -> int:
        """The snapshot's tags against what the registry told: how many stood all the time and are there."""
        begun, ended = self.begun, self.ended
        assert tags.keys() <= held.keys()
        left_out = {f"{one.repository}:{one.tag}" for one in self.result.snapshot.left_out if one.tag}
        standing = 0
        for tag, history in held.items():
            there = tags.get(tag)
            stood = any(one.stood(begun, ended) for one in history)
            if there is None and tag in left_out:
                assert gc or not stood, (tag, begun, ended, history)
                continue
            possible = {one.digest for one in history if one.may_have_stood(begun, ended)}
            assert there in possible, (tag, there, begun, ended, history)
            standing += stood and there is not None
        return standing


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


async def run_for(seconds: float, writers: list[Writer], source: Storage, backup: Storage) -> list[Taken]:
    """Backups one after the other while the writers write, for so long, and until they have written enough."""
    for writer in writers:
        writer.start()
    scanning = ScanOptions(cache_dir=None, concurrency=8)
    end = time.monotonic() + seconds
    taken: list[Taken] = []
    try:
        while time.monotonic() < end or len(taken) < 3 or sum(writer.pushed for writer in writers) <= 5:
            if any(writer.failure is not None for writer in writers):
                break
            begun = time.monotonic()
            result = await take(source, backup, concurrency=8, scanning=scanning)
            taken.append(Taken(result, begun, time.monotonic()))
    finally:
        for writer in writers:
            writer.ended.set()
        for writer in writers:
            await asyncio.to_thread(writer.join, 60)
    for writer in writers:
        if writer.failure is not None:
            raise writer.failure
    return taken


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
    held: Histories = {"w0/a:first": [Held(images.image("first", 2).digest, -math.inf, -math.inf)]}
    for writer in writers:
        held |= writer.held
    async with open_place(place) as source, open_place(backup_place) as backup:
        ended = asyncio.Event()
        collecting = asyncio.create_task(collect_garbage(place, ended)) if gc else None
        taken = await run_for(seconds, writers, source, backup)
        ended.set()
        if collecting is not None:
            assert await collecting > 0
        assert sum(writer.pushed for writer in writers) > 5
        objects = {key: await backup.get(key) async for page in backup.list("") for key in page.keys}
        assert not reader.problems(objects)
        keys = [one.result.key for one in taken]
        assert reader.snapshots(objects) == sorted(keys)
        tags = {key: reader.tags(objects, key) for key in keys}
        standing = [one.hold_against(held, tags[one.result.key], gc=gc) for one in taken]
        assert min(standing) >= (0 if gc else 1), "the first image stands from before to after"
        served_too = {keys[0], keys[-1], random.Random(1).choice(keys[1:-1])}
        restored_too = {keys[number - 1] for number in points(len(keys), 6)} - served_too
        copy = ModelStore({key: (body, NOW) for key, body in objects.items()})
        for number, one in enumerate(taken):
            key, snapshot = one.result.key, one.result.snapshot
            if key in restored_too:
                store = ModelStore()
                restored = await give_back(memory(copy), memory(store), snapshot=snapshot.run)
                await check_restored(memory(store), restored, tags[key])
            if key not in served_too:
                continue
            target_place = fresh(number)
            async with open_place(target_place) as target:
                restored = await give_back(backup, target, snapshot=snapshot.run)
                await check_restored(target, restored, tags[key])
            served = start_registry(target_place)
            with Api(served.host) as api:
                for reference, digest in tags[key].items():
                    name, _, tag = reference.rpartition(":")
                    assert pull_complete(served.host, name, tag)
                    assert api.head_manifest(name, tag) == digest
            served.stop()
        # The registry's own garbage-collect finds nothing in a backup.
        before = set(await keys_below(backup, ""))
        Registry(backup_place).garbage_collect("-m", check=False)
        assert set(await keys_below(backup, "")) == before


async def check_restored(store: Storage, restored: RestoreResult, tags: Mapping[str, str]) -> None:
    """The tags of the snapshot are there, whole, and no other."""
    assert not (restored.conflicts or restored.damaged or restored.left_out)
    assert restored.tags == len(tags)
    objects = await contents(store)
    assert not incomplete_tags(objects)
    assert {
        f"{key.name}:{key.tag}": body.decode()
        for text, body in objects.items()
        if isinstance(key := decode(text), TagCurrentKey)
    } == tags


async def test_on_ceph(ceph: S3Server, ceph_bucket: str, tmp_path: Path, start_registry: StartRegistry) -> None:
    place = S3Root(ceph, ceph_bucket, "/reg")
    await under_fire(
        4, place, S3Root(ceph, ceph_bucket, "/backup"), lambda number: tmp_path / f"fresh{number}", start_registry
    )


async def test_on_disk(tmp_path: Path, start_registry: StartRegistry) -> None:
    await under_fire(
        3, tmp_path / "reg", tmp_path / "backup", lambda number: tmp_path / f"fresh{number}", start_registry
    )


async def test_beside_gc(tmp_path: Path, start_registry: StartRegistry) -> None:
    await under_fire(
        4,
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
