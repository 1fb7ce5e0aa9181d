"""The registry's descriptor cache: Redis forgets what gc removed, and what a cache in memory let through comes back."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regstore.errors import InputError, Refused, Unreachable
from regstore.gc.caches import NoCache, RegistryCache, open_redis
from regstore.gc.heal import HealOptions, heal_store
from regstore.gc.plan import GcOptions
from regstore.gc.report import GcReport
from regstore.gc.run import GcRunOptions, open_run
from regstore.gc.trash import EmptyOptions, empty_trash
from regstore.inventory.scan import ScanOptions
from regstore.state.lock import hold_lock
from regstore.state.trashed import find_trash
from regstore.storage.disk import DiskStorage
from regstore.storage.registry_config import RedisSettings
from tests.gc.clock import end_long_ago
from tests.servers import images
from tests.servers.api import Incomplete, pull_complete, push_api
from tests.servers.distribution import Registry
from tests.servers.process import free_port
from tests.servers.redis_server import RedisServer

SCAN = ScanOptions(cache_dir=None, concurrency=4)
OPTIONS = GcRunOptions(
    plan=GcOptions(delete_untagged=True, grace=0),
    scan=SCAN,
    settle=0,
    max_delete=1.0,
    trash_older_than=0,
    untagged_repositories=True,
)


async def collect(storage: DiskStorage, cache: RegistryCache) -> GcReport:
    async with hold_lock(storage, command="gc") as lock, open_run(storage, OPTIONS, lock, cache=cache) as run:
        return await run.apply()


def client_of(redis: RedisServer) -> Any:
    import redis as redis_client

    return redis_client.Redis.from_url(redis.url, decode_responses=True)


def push_twice(host: str) -> tuple[images.Document, images.Document]:
    """`1` is pushed, looked at through the cache, and replaced."""
    old, new = images.image("old", 3), images.image("new", 2)
    push_api(host, "team/app", old, "1")
    pull_complete(host, "team/app", "1")
    push_api(host, "team/app", old, "1")  # every HEAD is answered, and cached
    push_api(host, "team/app", new, "1")
    return old, new


# -- Redis


async def test_redis_forgets_what_gc_removed(
    tmp_path: Path, start_registry: Callable[..., Registry], redis: RedisServer
) -> None:
    registry = start_registry(tmp_path, cache="redis", redis_address=redis.address)
    old, new = push_twice(registry.host)
    with client_of(redis) as client:
        known = {key for key in client.scan_iter() for digest in old.closure() if digest in key}
        assert known >= {f"blobs::{digest}" for digest in old.closure()}
        assert old.blobs[1].digest in client.smembers("repository::team/app::blobs")
        storage = DiskStorage(tmp_path)
        cache = await open_redis(redis.url)
        try:
            report = await collect(storage, cache)
        finally:
            await cache.close()
        gone = old.closure().keys() - new.closure().keys()
        assert report.blobs == len(gone)
        assert not [key for key in client.scan_iter() for digest in gone if digest in key]
        assert not gone & client.smembers("repository::team/app::blobs")
        left = {f"blobs::{blob.digest}" for blob in new.blobs}
        assert left <= set(client.scan_iter("blobs::*"))

    push_api(registry.host, "team/app", old, "again")
    assert pull_complete(registry.host, "team/app", "again").keys() == old.closure().keys()
    pull_complete(registry.host, "team/app", "1")


async def test_without_it_a_push_refers_to_what_is_gone(
    tmp_path: Path, start_registry: Callable[..., Registry], redis: RedisServer
) -> None:
    """The hazard itself; the next run, told of Redis, gives back what is missing and makes it forget."""
    registry = start_registry(tmp_path, cache="redis", redis_address=redis.address)
    old, _ = push_twice(registry.host)
    storage = DiskStorage(tmp_path)
    await collect(storage, NoCache("unknown"))
    push_api(registry.host, "team/app", old, "again")
    with pytest.raises(Incomplete):
        pull_complete(registry.host, "team/app", "again")
    end_long_ago(tmp_path)
    cache = await open_redis(RedisSettings(addrs=(redis.address,)))
    try:
        report = await collect(storage, cache)
    finally:
        await cache.close()
    assert set(report.healed.blobs) == old.closure().keys()
    assert len(report.emptied.runs) == 1
    pull_complete(registry.host, "team/app", "again")


async def test_emptying_makes_redis_forget_before_it_looks(
    tmp_path: Path, start_registry: Callable[..., Registry], redis: RedisServer
) -> None:
    registry = start_registry(tmp_path, cache="redis", redis_address=redis.address)
    old, _ = push_twice(registry.host)
    storage = DiskStorage(tmp_path)
    await collect(storage, NoCache("unknown"))
    end_long_ago(tmp_path)
    cache = await open_redis(redis.url)
    try:
        async with hold_lock(storage, command="trash empty") as lock:
            emptied = await empty_trash(storage, EmptyOptions(scan=SCAN, settle=0), lock, cache=cache)
    finally:
        await cache.close()
    assert len(emptied.runs) == 1
    push_api(registry.host, "team/app", old, "again")
    pull_complete(registry.host, "team/app", "again")


async def test_sha512_descriptors_go_with_their_link(redis: RedisServer) -> None:
    digest = "sha512:" + "ab" * 64
    with client_of(redis) as client:
        client.hset(f"blobs::{digest}", "digest", "sha256:" + "cd" * 32)
        client.sadd("repository::a/b::blobs", digest, "sha256:other")
        client.hset(f"repository::a/b::blobs::{digest}", "mediatype", "x")
        client.set("somebody else's", "1")
        cache = await open_redis(redis.url)
        try:
            assert await cache.forget_links([("a/b", digest)]) == 3
            assert await cache.forget_links([("a/b", digest)]) == 0
            assert await cache.forget_blobs(f"sha256:{number:064x}" for number in range(2500)) == 0
        finally:
            await cache.close()
        assert set(client.scan_iter()) == {"repository::a/b::blobs", "somebody else's"}
        assert client.smembers("repository::a/b::blobs") == {"sha256:other"}


async def test_a_redis_that_is_not_there() -> None:
    for settings in (f"redis://127.0.0.1:{free_port()}/0", RedisSettings(addrs=(f"127.0.0.1:{free_port()}",))):
        with pytest.raises(Unreachable, match=r"Redis at 127\.0\.0\.1:\d+ can't be used"):
            await open_redis(settings)


async def test_words_that_are_no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="redis://"):
        await open_redis("http://cache")
    with pytest.raises(InputError, match="no address"):
        await open_redis(RedisSettings(addrs=("cache:port",)))
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(InputError, match=r"regstore\[redis\]"):
        await open_redis("redis://cache")


# -- in the registry's memory


async def test_what_a_cache_in_memory_let_through_comes_back(
    tmp_path: Path, start_registry: Callable[..., Registry]
) -> None:
    registry = start_registry(tmp_path, cache="inmemory")
    old, _ = push_twice(registry.host)
    storage = DiskStorage(tmp_path)
    cache = NoCache("inmemory")
    report = await collect(storage, cache)
    push_api(registry.host, "team/app", old, "again")  # accepted: the cache says that all is there
    with pytest.raises(Incomplete):
        pull_complete(registry.host, "team/app", "again")

    async with hold_lock(storage, command="heal") as lock:
        healed = await heal_store(storage, HealOptions(scan=SCAN), lock, cache=cache)
    assert set(healed.blobs) == old.closure().keys()
    assert len(healed.links) == len(old.blobs)
    pull_complete(registry.host, "team/app", "again")
    registry.restart()
    pull_complete(registry.host, "team/app", "again")

    # gc keeps the trash, however old; emptying wants the restart, and then nothing is missing.
    end_long_ago(tmp_path)
    assert (await collect(storage, cache)).overdue == (report.run,)
    (run, *_) = await find_trash(storage)
    async with hold_lock(storage, command="trash empty") as lock:
        with pytest.raises(Refused):
            await empty_trash(storage, EmptyOptions(scan=SCAN), lock, cache=cache)
        now = await storage.now()
        assert run.ended < now <= time.time() * 1_000_000
        emptied = await empty_trash(storage, EmptyOptions(scan=SCAN, restarted_after=now), lock, cache=cache)
    assert report.run in emptied.runs
    pull_complete(registry.host, "team/app", "again")
    pull_complete(registry.host, "team/app", "1")
