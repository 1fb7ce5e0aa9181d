"""A copy in the trash that is not what its digest says must never stand for the blob: no later push would mend it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from regstore.digest import Digest
from regstore.gc import heal as heal_module
from regstore.gc import restore as restore_module
from regstore.gc.copying_back import copy_back
from regstore.gc.heal import HealOptions, heal_store, plan_heal
from regstore.layout import BlobKey, LayerLinkKey, RevisionLinkKey, encode
from regstore.state import TRASH
from regstore.state.lock import hold_lock
from regstore.state.trashed import find_trash
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.storage.s3 import S3Storage
from regstore.storage.transfer import Lane, Road
from regstore.testing.faulty import FaultyStorage
from tests.gc.scenes import write_long_ago
from tests.gc.test_trash import SCAN, Small, collect, empty, restore
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore
from tests.servers.s3 import S3Server


@asynccontextmanager
async def opened(kind: str, small: Small, tmp_path: Path, server: S3Server) -> AsyncIterator[Storage]:
    if kind == "disk":
        small.builder.store.on_disk().write_folder(tmp_path)
        async with DiskStorage(tmp_path) as disk:
            yield disk
        return
    settings = server.settings(server.create_bucket())
    async with S3Storage(settings) as bucket:
        await write_long_ago(small.builder.store, bucket)
        yield bucket


async def link_again(storage: Storage, small: Small) -> None:
    """What a registry writes whose cache answers for blobs that are gone."""
    for digest in (small.child, small.other, small.index):
        await storage.put(encode(RevisionLinkKey("team/app", digest)), str(digest).encode())


async def heal(storage: Storage) -> tuple[tuple[str, ...], tuple[str, ...]]:
    async with hold_lock(storage, command="heal") as lock:
        healed = await heal_store(storage, HealOptions(scan=SCAN), lock)
        return healed.blobs, healed.damaged


@pytest.mark.parametrize("kind", ["disk", "s3"])
async def test_a_rotted_copy_is_refused_and_reported(kind: str, tmp_path: Path, moto: S3Server) -> None:
    """Of the same size, as rot is. By heal, by an undo; then the blob is pushed again, and all is well."""
    small = Small()
    layer = encode(BlobKey(small.layer))
    async with opened(kind, small, tmp_path, moto) as storage:
        report = await collect(storage, grace=0)
        copy = f"{TRASH}{report.run}/{layer}"
        good = await storage.get(copy)
        await storage.put(copy, b"rotted layer"[: len(good)].ljust(len(good)))
        await link_again(storage, small)
        planned = await plan_heal(storage, HealOptions(scan=SCAN))
        assert planned.damaged == (copy,)
        blobs, damaged = await heal(storage)
        assert damaged == (copy,) and len(blobs) == 6
        restored = await restore(storage, run=report.run)
        assert [conflict.reason for conflict in restored.conflicts if conflict.key == layer] == [
            f"its copy {copy} has other bytes than its digest says: push it again"
        ]
        store = await ModelStore.from_storage(storage)
        assert layer not in store
        emptied = await empty(storage, offline=True)
        assert [kept.run for kept in emptied.kept] == [report.run] and not emptied.runs
        await storage.put(layer, good)
        assert await heal(storage) == ((), ())


async def test_an_undo_leaves_out_what_needs_a_rotted_copy() -> None:
    small = Small()
    storage = small.storage()
    report = await collect(storage)
    layer = encode(BlobKey(small.layer))
    storage.store.objects[f"{TRASH}{report.run}/{layer}"] = (b"OLD LAYER", NOW)
    restored = await restore(storage)
    refused = {conflict.key for conflict in restored.conflicts}
    lost = {encode(RevisionLinkKey("team/app", each)) for each in (small.child, small.index)}
    lost.add(encode(LayerLinkKey("team/app", small.layer)))
    assert lost | {layer} <= refused
    assert not (lost | {layer}) & storage.store.objects.keys()
    assert encode(RevisionLinkKey("team/app", small.other)) in storage.store


async def test_an_older_copy_is_taken_where_the_newest_has_rotted() -> None:
    small = Small()
    storage = small.storage()
    first = await collect(storage)
    storage.store.objects[encode(BlobKey(small.layer))] = (b"old layer", NOW)
    storage.clock += 2 * DAY
    second = await collect(storage)
    layer = encode(BlobKey(small.layer))
    assert second.blobs == 1
    storage.store.objects[f"{TRASH}{second.run}/{layer}"] = (b"OLD LAYER", NOW)
    await link_again(storage, small)
    blobs, damaged = await heal(storage)
    assert str(small.layer) in blobs
    assert damaged == (f"{TRASH}{second.run}/{layer}",)
    assert storage.store.body(layer) == b"old layer"
    assert first.run < second.run
    assert len(await find_trash(storage)) == 2


async def test_one_wrong_read_is_no_rot() -> None:
    """A copy counts as rotted when it was read wrongly twice."""
    small = Small()
    storage = small.storage()
    report = await collect(storage)
    copy = f"{TRASH}{report.run}/{encode(BlobKey(small.layer))}"
    good = storage.store.objects[copy]
    reads = 0

    def misread(operation: str, key: str) -> None:
        nonlocal reads
        if key == copy and operation in ("get", "open_read"):
            reads += 1
            storage.store.objects[copy] = (b"OLD LAYER", NOW) if reads == 1 else good

    await link_again(storage, small)
    async with hold_lock(storage, command="heal") as lock:
        healed = await heal_store(FaultyStorage(storage, before=misread), HealOptions(scan=SCAN), lock)
    assert reads == 2
    assert healed.damaged == () and str(small.layer) in healed.blobs


async def test_gc_keeps_the_trash_of_a_run_with_a_wanted_rotted_copy() -> None:
    small = Small()
    storage: ModelStorage = small.storage()
    first = await collect(storage)
    storage.clock += 9 * DAY
    copy = f"{TRASH}{first.run}/{encode(BlobKey(small.layer))}"
    storage.store.objects[copy] = (b"OLD LAYER", NOW)
    await link_again(storage, small)
    report = await collect(storage, trash_older_than=7 * DAY)
    assert report.healed.damaged == (copy,)
    assert report.emptied.runs == () and [kept.run for kept in report.emptied.kept] == [first.run]
    assert copy in storage.store


@pytest.mark.parametrize(("way", "blobs"), [("heal", 7), ("undo", 8)])
async def test_copies_are_read_as_many_at_a_time_as_their_sizes_allow(
    way: str, blobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a lane of its size: a large one on S3 holds 24 MiB."""
    running = most = given = 0

    async def counted(storage: Storage, source: str, digest: Digest, *, size: int) -> bool:
        nonlocal running, most, given
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        done = await copy_back(storage, source, digest, size=size)
        running -= 1
        given += done
        return done

    for module in (heal_module, restore_module):
        monkeypatch.setattr(module, "copy_back", counted)
        monkeypatch.setattr(module, "READ", Road(lanes=(Lane(at_once=2),)))
    small = Small()
    storage = small.storage()
    report = await collect(storage)
    if way == "heal":
        await link_again(storage, small)
        await heal(storage)
    else:
        await restore(storage, run=report.run)
    assert (most, given) == (2, blobs)
