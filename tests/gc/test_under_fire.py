"""gc in a loop while writers push, tag and delete on the real registry; every promise holds afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gc.fire import Fire, FireOptions, fire_on
from tests.servers.s3 import S3Root, S3Server

pytestmark = [pytest.mark.servers, pytest.mark.filterwarnings("default")]


def _held(fire: Fire) -> None:
    print(fire)
    assert not fire.broken, str(fire)
    assert not fire.failed, str(fire)
    assert not fire.failures, str(fire)
    # It was a fire: something was taken away, and something was promised.
    assert fire.runs >= 2
    assert fire.tags_checked >= 5
    assert fire.unlinked
    assert fire.blobs_checked


@pytest.mark.parametrize("cache", ["none", "inmemory"])
async def test_no_grace(ceph: S3Server, ceph_bucket: str, cache: str) -> None:
    fire = await fire_on(S3Root(ceph, ceph_bucket, "/reg"), FireOptions(seconds=3, runs=2), cache=cache)
    _held(fire)
    assert fire.moved


async def test_grace_longer_than_a_push(ceph: S3Server, ceph_bucket: str) -> None:
    options = FireOptions(seconds=9, runs=2, grace=4.0, seed=2, passing=True)
    fire = await fire_on(S3Root(ceph, ceph_bucket, "/reg"), options)
    _held(fire)
    assert fire.tags_dropped
    assert not fire.fresh_failed, str(fire)


async def test_on_disk(tmp_path: Path) -> None:
    fire = await fire_on(tmp_path / "registry", FireOptions(seconds=3, runs=2, seed=3))
    _held(fire)
    assert fire.moved


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["none", "inmemory"])
@pytest.mark.parametrize("grace", [0.0, 20.0])
async def test_for_minutes(ceph: S3Server, ceph_bucket: str, grace: float, cache: str) -> None:
    options = FireOptions(seconds=180, grace=grace, seed=4, passing=grace > 0)
    fire = await fire_on(S3Root(ceph, ceph_bucket, "/reg"), options, cache=cache, pulls=1000)
    _held(fire)
    assert not (grace and fire.fresh_failed), str(fire)
