"""What a dry run says of requests is what the run then sends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions
from regstore.migrate import MigrateOptions, MigrateSummary, Verify, migrate, plan_only
from regstore.migrate.estimate import Sides, estimate
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from tests.migrate.stores import bucket_storage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore
from tests.servers import images
from tests.servers.s3 import S3Server

MiB = 1024 * 1024
READS = ("GetObject", "HeadObject")
WRITES = ("PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
LISTS = ("ListObjectsV2", "ListMultipartUploads")


def registry() -> ModelStore:
    """Two small images, and one with a layer that is read in three ranges."""
    keys: dict[str, bytes] = {}
    for number, size in enumerate((2048, 2 * MiB, 20 * MiB)):
        layers = [images.layer(f"large {number}", size), images.layer(f"small {number}")]
        keys |= images.registry_keys("a", images.image(f"image {number}", layers), f"t{number}")
    return ModelStore.from_dict(keys, mtime=NOW - 30 * DAY)


async def compare(source: Storage, target: Storage, cache: Path, options: MigrateOptions) -> MigrateSummary:
    """The estimate; the run sends so much, and a few requests more: is anything at work there, what can the server."""
    scanning = ScanOptions(cache_dir=cache, concurrency=8)
    await target.capabilities()
    summary = await plan_only(source, target, options, scanning=scanning)
    sent = (await migrate(source, target, options, scanning=scanning)).requests
    said = summary.estimate
    for names, number in ((WRITES, said.writes), (READS, said.reads), (LISTS, said.lists)):
        assert abs(_sum(sent, names) - number) <= 2, (names, number, sent)
    return summary


def _sum(sent: Mapping[str, int], names: tuple[str, ...]) -> int:
    return sum(sent.get(name, 0) for name in names)


@pytest.mark.parametrize("verify", [Verify.DEFAULT, Verify.FULL])
async def test_to_a_bucket_across_it_and_back(
    tmp_path: Path, moto: S3Server, moto_bucket: str, verify: Verify
) -> None:
    registry().write_folder(tmp_path / "here")
    options = MigrateOptions(concurrency=8, verify=verify)
    cache = tmp_path / "cache"
    async with (
        DiskStorage(tmp_path / "here") as here,
        bucket_storage(moto, moto_bucket, "one") as one,
        bucket_storage(moto, moto_bucket, "other") as other,
        DiskStorage(tmp_path / "back", create=True) as back,
    ):
        there = (await compare(here, one, cache, options)).estimate
        across = (await compare(one, other, cache, options)).estimate
        returned = (await compare(other, back, cache, options)).estimate
    verified = 0 if verify is Verify.DEFAULT else 14
    assert (there.writes, there.reads) == (32, verified)
    assert (across.writes, across.reads) == (32, 12 + verified)
    assert (returned.writes, returned.reads) == (0, 14)
    assert there.dollars > returned.dollars > 0


async def test_from_folder_to_folder_costs_nothing(tmp_path: Path) -> None:
    registry().write_folder(tmp_path / "here")
    async with DiskStorage(tmp_path / "here") as here, DiskStorage(tmp_path / "there", create=True) as there:
        said = (await plan_only(here, there, MigrateOptions())).estimate
    assert (said.writes, said.reads, said.lists, said.dollars) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("size", "puts", "copies", "gets"),
    [
        (0, 1, 1, 1),
        (8 * MiB, 1, 1, 1),
        (128 * MiB, 1, 1, 16),
        (129 * MiB, 17 + 3, 1, 17),
        (6144 * MiB, 771, 51, 768),
    ],
)
def test_by_size(size: int, puts: int, copies: int, gets: int) -> None:
    with Inventory() as inventory:
        inventory.execute("attach ':memory:' as dst")
        for table in ("blob", "layer_link", "revision_link", "signature_link", "tag", "tag_index", "upload_part"):
            inventory.execute(f"create table dst.{table} as from {table}")
        for table in ("unknown", "litter"):
            inventory.execute(f"create table dst.{table} as from {table}")
        for table in ("layer_link", "revision", "signature", "tag_index"):
            inventory.execute(f"create table migrate_{table} (repository integer)")
        inventory.execute("create table migrate_tag (present boolean)")
        inventory.execute(
            f"create table migrate_blob as select 'x'::blob as digest, {size} as size, false as suspect"
        )
        whole = 256 * MiB
        for copied, writes, reads in ((None, puts, gets), (whole, copies, 1 if size <= whole else 2)):
            sides = Sides(source_s3=True, target_s3=True, copied_whole=copied)
            said = estimate(inventory, sides, MigrateOptions())
            assert (said.writes, said.reads) == (writes, reads)
