"""`--drop-broken-revisions`: what seems broken is looked at again, and what is only not understood stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from regstore.digest import Digest
from regstore.errors import AccessDenied, NotFound, StorageError
from regstore.gc.policy import BrokenScope
from regstore.gc.report import GcReport
from regstore.layout import BlobKey, RevisionLinkKey, TagCurrentKey, encode
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from tests.examples import crossed
from tests.gc.scenes import collect, model_storage, write_long_ago
from tests.gc.test_retention_run import run_options
from tests.migrate.stores import bucket_storage
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server

ALL = (BrokenScope(),)
CURRENT = encode(TagCurrentKey("team/app", "1"))
MIXED_SHAPES = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"layers":[],"config":'
    b'{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:' + b"0" * 64 + b'","size":2}}'
)


class Bad(ModelStorage):
    """Some readings of one key give something else: its bytes, nothing, or an error."""

    def __init__(self, builder: Builder, key: str, readings: Callable[[int], bytes | StorageError | None]) -> None:
        super().__init__(builder.store, now=NOW)
        self._key = key
        self._readings = readings
        self.number = 0

    async def get(self, key: str) -> bytes:
        if key == self._key:
            self.number += 1
            given = self._readings(self.number)
            if isinstance(given, StorageError):
                raise given
            if given is not None:
                return given
        return await super().get(key)


def registry() -> tuple[Builder, Digest]:
    b = Builder(NOW - 30 * DAY)
    image = b.image(b.blob(b"{}"), [b.blob(b"layer")])
    b.push("team/app", image, "1")
    return b, image


async def drop(storage: Storage, *scopes: BrokenScope, offline: bool = True, grace: int = DAY) -> GcReport:
    return await collect(storage, run_options(None, offline=offline, grace=grace, drop_broken=scopes or ALL))


#: What the reading of that number gives; None: what is there.
READINGS: dict[str, Callable[[int], bytes | StorageError | None]] = {
    "one bad read": lambda number: b"other bytes" if number == 1 else None,
    "two bad reads and a good one": lambda number: b"other bytes" if number < 3 else None,
    "other bytes each time": lambda number: b"%d" % number,
    "then EIO": lambda number: b"other bytes" if number == 1 else StorageError("input/output error"),
    "then 403": lambda number: b"other bytes" if number == 1 else AccessDenied("InvalidObjectState"),
    "then gone": lambda number: b"other bytes" if number == 1 else NotFound("gone", "model"),
    "absent once": lambda number: NotFound("gone", "model") if number == 1 else None,
    "then other bytes": lambda number: NotFound("gone", "model") if number == 1 else b"other bytes",
}
WAYS = {"offline": True, "serving": False}


@crossed("readings, offline", READINGS, WAYS, meeting=1)
async def test_an_intact_manifest_that_reads_badly_stays(
    offline: bool, readings: Callable[[int], bytes | StorageError | None]
) -> None:
    b, image = registry()
    before = b.store.bodies()
    report = await drop(Bad(b, encode(BlobKey(image)), readings), offline=offline)
    assert (report.tags, report.revisions, report.blobs) == (0, 0, 0)
    assert before.items() <= b.store.bodies().items()


@crossed(
    "given, offline",
    {
        "empty": b"",
        "another": b"sha256:" + b"0" * 64,
        "403": AccessDenied("403"),
        "EIO": StorageError("input/output error"),
    },
    WAYS,
    meeting=1,
)
async def test_an_intact_revision_link_that_reads_badly_stays(offline: bool, given: bytes | StorageError) -> None:
    """The server keeps no ETag by which a listing would prove it."""
    b, image = registry()
    before = b.store.bodies()
    key = encode(RevisionLinkKey("team/app", image))
    for readings in (
        lambda number: (given if isinstance(given, bytes) else b"") if number == 1 else None,
        lambda number: b"" if number == 1 else given if isinstance(given, StorageError) else b"%d" % number,
    ):
        storage = Bad(b, key, readings)
        storage.etags = False
        report = await drop(storage, offline=offline)
        assert storage.number > 1
        assert (report.tags, report.revisions, report.blobs) == (0, 0, 0)
        assert before.items() <= b.store.bodies().items()


@crossed("what, offline", ["manifest", "manifest lost", "link"], WAYS, meeting=1)
async def test_what_is_broken_each_time_goes_with_its_tag(offline: bool, what: str) -> None:
    b, image = registry()
    b.push("team/app", b.image(b.blob(b"{}"), [b.blob(b"other")]), "2")
    if what == "manifest lost":
        del b.store.objects[encode(BlobKey(image))]
    else:
        key = encode(BlobKey(image) if what == "manifest" else RevisionLinkKey("team/app", image))
        b.store.objects[key] = (b"rotten", NOW - 30 * DAY)
    report = await drop(ModelStorage(b.store, now=NOW), offline=offline)
    assert (report.tags, report.revisions) == (1, 1)
    assert CURRENT not in b.store


@pytest.mark.parametrize("content", [MIXED_SHAPES, b'{"schemaVersion":2,"mediaType":"text/new"}', b"not JSON"])
async def test_what_is_only_not_understood_goes_by_its_digest_alone(content: bytes) -> None:
    """What can't be understood is never deleted, unless somebody names it."""
    b, _ = registry()
    riddle = b.blob(content)
    b.push("team/app", riddle, "riddle")
    storage = model_storage(b.store)
    before = storage.store.bodies()
    for scope in (BrokenScope(), BrokenScope("team/app"), BrokenScope("team/app", Digest.of(b"another"))):
        report = await drop(storage, scope)
        assert (report.tags, report.revisions, report.blobs) == (0, 0, 0)
        assert before.items() <= storage.store.bodies().items()
    report = await drop(storage, BrokenScope("team/app", riddle))
    assert (report.tags, report.revisions) == (1, 1)
    assert encode(TagCurrentKey("team/app", "riddle")) not in storage.store and CURRENT in storage.store


async def test_one_bad_read_from_a_bucket(moto: S3Server, moto_bucket: str) -> None:
    b, image = registry()
    with FaultProxy(moto.endpoint_url) as proxy:
        async with bucket_storage(moto.at(proxy.endpoint_url), moto_bucket) as storage:
            await write_long_ago(b.store, storage)
            before = {key: await storage.get(key) for key in b.store}
            rule = proxy.edit(
                lambda body: body.replace(b"2", b"3", 1), operation="GetObject", key=encode(BlobKey(image)) + "$"
            )
            report = await drop(storage, grace=0)
            assert rule.used == 1
            assert (report.tags, report.revisions, report.blobs) == (0, 0, 0)
            assert {key: await storage.get(key) for key in before} == before


async def test_a_manifest_on_disk_that_can_not_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing disk: other bytes, and then EIO."""
    b, image = registry()
    b.store.write_folder(tmp_path)
    path = tmp_path / encode(BlobKey(image))
    path.write_bytes(b"rotten")
    os.utime(path, (0, 0))
    reads = 0

    async with DiskStorage(tmp_path) as storage:
        get = storage.get

        async def failing(key: str) -> bytes:
            nonlocal reads
            reads += key == encode(BlobKey(image))
            if reads > 1 and key == encode(BlobKey(image)):
                raise StorageError(f"{key}: input/output error")
            return await get(key)

        monkeypatch.setattr(storage, "get", failing)
        report = await drop(storage)
        assert reads == 2
        assert (report.tags, report.revisions) == (0, 0)
        assert (tmp_path / CURRENT).exists()
