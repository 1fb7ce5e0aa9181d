"""gc in a loop while writers push, tag and delete on the real registry; every promise holds afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from regstore.layout import tags_prefix
from tests.gc.fire import Fire, FireOptions, fire_on
from tests.gc.promises import Promises
from tests.servers import images
from tests.servers.api import Api, push_api
from tests.servers.distribution import Registry
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


def test_deletes_cut_short(tmp_path: Path) -> None:
    """Without gc: the registry's files on a disk are empty for a moment, and a DELETE that reads a tag then leaves
    tags that name what it has just taken. `Promises.perhaps_gone` rests on this."""
    with Registry(tmp_path / "registry") as registry:
        digest = push_api(registry.host, "team/r", images.image("deleted", 1), tags=["one", "two"])
        tags = tmp_path / "registry" / tags_prefix("team/r")
        written = (tags / "two/current/link").read_text()
        (tags / "two/current/link").write_text("")
        assert registry.delete("team/r", digest) == 500
        (tags / "two/current/link").write_text(written)
        with Api(registry.host) as api:
            assert [api.head_manifest("team/r", tag) for tag in ("one", "two")] == [None, None]
        assert sorted(registry.tags("team/r")) == ["one", "two"]
    promises = Promises()
    document = images.image("deleted", 1)
    for place in (("team/r", "one"), ("team/other", "one")):
        promises.stands(*place, document)
    promises.perhaps_gone("team/r", document.digest)
    assert promises.uncertain == {("team/r", "one")}
    promises.stands("team/r", "one", document)
    assert not promises.uncertain


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["none", "inmemory"])
@pytest.mark.parametrize("grace", [0.0, 20.0])
async def test_for_minutes(ceph: S3Server, ceph_bucket: str, grace: float, cache: str) -> None:
    options = FireOptions(seconds=180, grace=grace, seed=4, passing=grace > 0)
    fire = await fire_on(S3Root(ceph, ceph_bucket, "/reg"), options, cache=cache, pulls=1000)
    _held(fire)
    assert not (grace and fire.fresh_failed), str(fire)
