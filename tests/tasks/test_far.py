"""What goes to processes of other computers, and what stays, as a runner on a cluster has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from regstore.migrate import MigrateOptions, migrate
from regstore.storage.disk import DiskStorage
from regstore.tasks.sharing import batches_for, share_out
from tests.migrate.stores import SCANNING, contents
from tests.servers import images
from tests.tasks.runners import PackedHere
from tests.tasks.test_hashing import numbers, read
from tests.verify.stores import SINGLE, pristine


async def test_a_disk_is_read_by_them(tmp_path: Path) -> None:
    """Threads of this one are no match for them; what they find is the same."""
    pristine().write_folder(tmp_path)
    blob = tmp_path / images.blob_key(SINGLE.blobs[1].digest)
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    near, far = PackedHere(), PackedHere(is_far=True)
    reports = []
    for runner in (near, far):
        async with DiskStorage(tmp_path) as storage:
            reports.append(await read(storage, runner))
    assert not near.ran["hash_blobs"]
    assert far.ran["hash_blobs"]
    assert reports[0].findings == reports[1].findings
    assert reports[0].findings.damage
    assert numbers(reports[0]) == numbers(reports[1])


async def test_they_copy_blobs_and_write_no_link(tmp_path: Path) -> None:
    """A link that one of them, lost and yet at work, writes later may be a link to nothing by then."""
    pristine().write_folder(tmp_path / "here")
    near, far = PackedHere(), PackedHere(is_far=True)
    found = []
    for number, runner in enumerate((near, far)):
        async with (
            DiskStorage(tmp_path / "here") as source,
            DiskStorage(tmp_path / f"{number}", create=True) as there,
        ):
            scanning = replace(SCANNING, runner=runner)
            result = await migrate(source, there, MigrateOptions(all=True), scanning=scanning)
            assert not result.partial
            found.append(await contents(there))
    assert near.ran["put_many"]
    assert not far.ran["put_many"]
    assert far.ran["copy_blobs"]
    assert found[0] == found[1]


async def test_this_process_takes_no_batch_of_theirs() -> None:
    runner, taken = PackedHere(is_far=True), list[int]()

    async def work(whose: object, batch: Sequence[int]) -> None:
        assert whose is runner
        taken.extend(batch)

    await share_out(runner, batches_for(runner, iter(range(500)), 500), work, concurrency=4)
    assert sorted(taken) == list(range(500))
