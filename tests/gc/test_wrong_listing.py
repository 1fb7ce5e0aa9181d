"""gc on stores whose listings show entries twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regstore.errors import StorageError
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.storage.disk import DiskStorage
from regstore.storage.s3 import S3Storage
from tests.gc.scenes import collect, look, options, write_long_ago
from tests.model.builder import Builder
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server
from tests.servers.wrong_listings import RepeatsEntries
from tests.storage.test_s3_conformance import settings_for

KEEP_TWO = replace(
    options(offline=True, grace=0, delete_untagged=False, max_delete=0.5),
    plan=GcOptions(grace=0, policy=Policy.parse("[[rule]]\nkeep_newest = 2")),
)


def three_tags() -> ModelStore:
    b = Builder(NOW - 30 * DAY)
    for number in (1, 2, 3):
        b.push("team/app", b.image(b.blob(b"config %d" % number), [b.blob(b"layer %d" % number)]), f"v{number}")
    return b.store


async def test_the_newest_two_tags_stay_on_a_server_that_lists_entries_twice(
    moto: S3Server, moto_bucket: str
) -> None:
    """Counted twice, the newest tag would be the newest two (rustfs #2439)."""
    with FaultProxy(moto.endpoint_url) as proxy:
        repeats = RepeatsEntries(1)
        proxy.edit(repeats, operation="ListObjectsV2", times=None)
        settings = settings_for(moto.at(proxy.endpoint_url), moto_bucket, page_size=7)
        async with S3Storage(settings) as storage:
            await write_long_ago(three_tags(), storage)
            run = await look(storage, KEEP_TWO)
            report = await collect(storage, KEEP_TWO)
        assert repeats.repeated
    assert (run.summary.tags.total, run.summary.blobs.total, run.summary.repositories) == (3, 9, 1)
    assert report.tags == 1


async def test_nothing_goes_where_the_two_entries_differ(moto: S3Server, moto_bucket: str) -> None:
    async with S3Storage(settings_for(moto, moto_bucket)) as storage:
        await three_tags().write_storage(storage)
    before = moto.keys(moto_bucket)
    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.edit(RepeatsEntries(2, resized=True), operation="ListObjectsV2", times=None)
        async with S3Storage(settings_for(moto.at(proxy.endpoint_url), moto_bucket)) as storage:
            with pytest.raises(StorageError, match="twice, and with different facts"):
                await collect(storage, KEEP_TWO)
    left = moto.keys(moto_bucket)
    assert {key: size for key, size in left.items() if key.startswith("docker/")} == before


async def test_a_folder_that_gives_a_name_twice_while_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As readdir(3) may."""

    class Twice:
        def __init__(self, found: Any) -> None:
            self._found = found

        def __enter__(self) -> Iterator[Any]:
            return iter([entry for entry in self._found for _ in range(2)])

        def __exit__(self, *exc: object) -> None:
            self._found.close()

    storage = DiskStorage(tmp_path)
    await three_tags().write_storage(storage)
    scandir = os.scandir
    monkeypatch.setattr("regstore.storage.disk.walk.os.scandir", lambda folder: Twice(scandir(folder)))
    run = await look(storage, KEEP_TWO)
    assert (run.summary.tags.total, run.summary.blobs.total) == (3, 9)
    assert run.summary.tags.dead == 1


async def test_two_file_names_that_are_one_key(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    await three_tags().write_storage(storage)
    for name in (b"\xff", b"\\xff"):
        (tmp_path / "docker" / os.fsdecode(name)).touch()
    with pytest.raises(StorageError, match=r"are both the key 'docker/\\\\xff'; rename one"):
        async for _ in storage.list("docker/"):
            pass
