"""A proxy between here and the store, whose clock is wrong, writes the Date of every answer.

Ages are compared with the times that the store gives to objects, so `now` comes from those.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from regstore.errors import LockHeld
from regstore.events import Event, Notice
from regstore.layout import BlobKey, encode
from regstore.state import started_at
from regstore.state.lock import hold_lock
from regstore.storage.s3 import RetryPolicy, S3Settings, S3Storage
from regstore.verify.doctor import examine
from tests.gc.scenes import collect, look, options
from tests.model.builder import Builder
from tests.model.random_registry import DAY
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server

SECOND = 1_000_000
AHEAD = 25 * 3600


@pytest.fixture
def proxy(moto: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(moto.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def settings(moto: S3Server, moto_bucket: str, proxy: FaultProxy) -> S3Settings:
    return moto.at(proxy.endpoint_url).settings(moto_bucket, retries=RetryPolicy(base=0.01))


@pytest.fixture
async def storage(settings: S3Settings) -> AsyncIterator[S3Storage]:
    async with S3Storage(settings) as storage:
        yield storage


async def push_half(storage: S3Storage) -> str:
    """A tagged image of just now, and a layer that its push has not linked yet: the layer's key."""
    b = Builder()
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "latest")
    layer = encode(BlobKey(b.blob(b"pushed seconds ago")))
    for key, (body, _) in b.store.objects.items():
        await storage.put(key, body)
    return layer


@pytest.mark.parametrize("clock", [AHEAD, -AHEAD, None], ids=["ahead", "behind", "no Date"])
async def test_a_layer_pushed_seconds_ago_stays(
    settings: S3Settings, storage: S3Storage, proxy: FaultProxy, clock: int | None
) -> None:
    layer = await push_half(storage)
    proxy.clock = clock
    async with S3Storage(settings) as cleaning:
        report = await collect(cleaning, options(offline=True, grace=DAY))
        assert abs(started_at(report.run) / SECOND - time.time()) < 60 if report.run else True
    assert (await storage.stat(layer)).size > 0


@pytest.mark.parametrize("clock", [AHEAD, -AHEAD, None], ids=["ahead", "behind", "no Date"])
async def test_what_is_old_enough_goes(
    settings: S3Settings, storage: S3Storage, proxy: FaultProxy, clock: int | None
) -> None:
    """By the store's clock, whatever the proxy says; and the run has its name of that."""
    layer = await push_half(storage)
    now = (await storage.stat(layer)).mtime
    while await storage.now() <= now + SECOND:
        pass
    proxy.clock = clock
    async with S3Storage(settings) as cleaning:
        report = await collect(cleaning, options(offline=True, grace=0))
    assert report.blobs == 1
    assert abs(started_at(report.run) / SECOND - time.time()) < 60


async def test_a_second_run_takes_no_lock_that_counts(settings: S3Settings, proxy: FaultProxy) -> None:
    """Eleven minutes are more than a lease."""
    async with S3Storage(settings) as first, hold_lock(first, command="gc") as lock:
        proxy.clock = 660
        async with S3Storage(settings) as second:
            with pytest.raises(LockHeld, match="locked by `gc`"):
                async with hold_lock(second, command="heal"):
                    pass
        await lock.guard()


async def test_a_dry_run_takes_the_earlier_time_and_says_so(
    settings: S3Settings, storage: S3Storage, proxy: FaultProxy
) -> None:
    await push_half(storage)
    proxy.clock = AHEAD
    told: list[Event] = []
    async with S3Storage(replace(settings, read_only=True, on_event=told.append)) as looking:
        found = await look(looking, options(offline=True, grace=DAY))
    assert found.nothing_to_do
    (notice,) = {event.message for event in told if isinstance(event, Notice)}
    assert "s ahead of this computer's" in notice


async def test_the_good_path_asks_no_more_than_it_did(settings: S3Settings, storage: S3Storage) -> None:
    async with hold_lock(storage, command="gc") as lock:
        assert storage.counters.requests == {"HeadBucket": 1, "PutObject": 1, "ListObjectsV2": 1}
        await lock.guard()
        await storage.now()
        assert storage.counters.requests == {"HeadBucket": 1, "PutObject": 1, "ListObjectsV2": 2}


@pytest.mark.parametrize(
    ("clock", "said"),
    [
        (AHEAD, ["s off this computer's", "off the times that the store gives to objects"]),
        (None, ["the answers bear no Date"]),
        (0, ["agree"]),
    ],
    ids=["ahead", "no Date", "right"],
)
async def test_doctor_says_it(
    settings: S3Settings, storage: S3Storage, proxy: FaultProxy, clock: int | None, said: list[str]
) -> None:
    await push_half(storage)
    proxy.clock = clock
    async with S3Storage(settings) as looked_at:
        found = await examine(looked_at, write_probe=True)
    told = [line.detail for line in found.lines if line.name == "clock"]
    assert len(told) == len(said)
    assert all(words in line for words, line in zip(said, told, strict=True))
