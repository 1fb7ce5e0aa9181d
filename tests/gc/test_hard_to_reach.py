"""Corners that took a hostile look to find: each lost something, stopped every later run, or could not end."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from regstore.digest import Digest
from regstore.errors import IntegrityError, LockLost, NotFound, Refused, StorageError
from regstore.gc import plan as plan_module
from regstore.gc.heal import HealOptions, heal_store
from regstore.gc.run import open_run
from regstore.inventory.scan import ScanOptions
from regstore.layout import (
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    SignatureLinkKey,
    TagCurrentKey,
    TagIndexKey,
    UploadKey,
    decode,
    encode,
    link_body,
)
from regstore.state import RUNS, new_run
from regstore.state.journal import TRASHED, UNLINK, Entry, Journal, find_runs, read_parts, read_seen
from regstore.state.lock import break_locks, hold_lock
from regstore.storage.base import MultipartUpload
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage
from tests.gc.scenes import both, collect, journaled, model_storage, options, registry, small_registry, wanted
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW

SCAN = ScanOptions(cache_dir=None)


async def test_a_tag_of_a_copied_store_does_not_come_back_as_what_it_once_was() -> None:
    """Copied by key order, every index link is newer than its current/link: that is no push."""
    b = Builder(NOW - 30 * DAY)
    old, new = (b.image(b.blob(text), [b.blob(text * 2)]) for text in (b"old", b"new"))
    for digest in (old, new):
        b.push("a", digest, "latest")
    current = b.tag("a", "latest", new)
    b.put(TagIndexKey("a", "latest", new), link_body(new), b.mtime + 1)
    b.put(TagIndexKey("a", "latest", old), link_body(old), b.mtime + 2)
    storage = ModelStorage(b.store, now=NOW)
    journal = Journal(storage, new_run(NOW))
    await journal.begin({"command": "gc"})
    await journal.write([Entry(UNLINK, current, 71, b.mtime, link_body(new))])
    del storage.store.objects[current]
    async with hold_lock(storage, command="heal") as lock:
        await heal_store(storage, HealOptions(scan=SCAN), lock)
    assert current not in storage.store


class _Pushes(ModelStorage):
    """A client pushes just before the first delete of a layer link."""

    writes: dict[str, bytes]

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        if self.writes and any("/_layers/" in key for key in keys):
            for key, body in self.writes.items():
                self.store.objects[key] = (body, self.clock)
            self.writes = {}
        return await super().delete_many(keys)


async def test_a_manifest_that_was_missing_is_pushed_while_its_layers_are_unlinked() -> None:
    b = Builder(NOW - 30 * DAY)
    config, layer = b.blob(b"config"), b.blob(b"layer")
    b.push("a", b.image(b.blob(b"kept config"), [b.blob(b"kept")]), "kept")
    gone = b.image(config, [layer])
    for digest in (config, layer):
        b.link_layer("a", digest)
    b.tag("a", "left", gone)  # as 2.8.3 leaves tags of deleted manifests on S3
    body = b.store.objects.pop(encode(BlobKey(gone)))[0]
    storage = _Pushes(b.store, now=NOW)
    storage.writes = {
        encode(BlobKey(gone)): body,
        encode(RevisionLinkKey("a", gone)): link_body(gone),
        encode(TagCurrentKey("a", "left")): link_body(gone),
    }
    await collect(storage, options(offline=False))
    assert not storage.writes
    for digest in (config, layer):
        assert encode(LayerLinkKey("a", digest)) in storage.store
        assert encode(BlobKey(digest)) in storage.store


class _SlowCopies(ModelStorage):
    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        await asyncio.sleep(1.5)
        await super().copy(source, target, size=size)


async def test_a_copy_out_of_the_trash_may_take_longer_than_the_lease() -> None:
    b = Builder(NOW - 30 * DAY)
    image = b.image(b.blob(b"config"), [b.blob(b"large")])
    b.push("a", image, "latest")
    large = encode(BlobKey(Digest.of(b"large")))
    storage = _SlowCopies(b.store, now=NOW)
    journal = Journal(storage, new_run(NOW))
    await journal.begin({"command": "gc"})
    await journal.write([Entry(TRASHED, large, 5, b.mtime)])
    storage.store.objects[journal.trash + large] = storage.store.objects.pop(large)
    async with hold_lock(storage, command="heal", lease=1.4) as lock:
        healed = await heal_store(storage, HealOptions(scan=SCAN), lock)
    assert healed.blobs == (str(Digest.of(b"large")),) and large in storage.store


async def test_the_lock_is_kept_while_a_plan_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a huge registry that takes longer than the lease: whoever blocks the loop loses the lock every time."""
    ticked = threading.Event()
    loop = asyncio.get_running_loop()
    plan = plan_module.plan_gc

    def slow(*arguments: Any, **more: Any) -> Any:
        loop.call_soon_threadsafe(ticked.set)
        assert ticked.wait(20), "the event loop stands still"
        return plan(*arguments, **more)

    monkeypatch.setattr("regstore.gc.planning.plan_gc", slow)
    await collect(model_storage(small_registry()), options(offline=True))


async def test_a_huge_repository_is_unlinked_in_more_than_one_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch has its own time."""
    monkeypatch.setattr("regstore.state.lock._BATCH", 10)
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"kept")]), "kept")
    links = [b.link_layer("a", b.blob(b"dead %d" % number)) for number in range(55)]
    storage = model_storage(b.store)
    together: list[int] = []
    delete = storage.delete_many

    async def counted(keys: Sequence[str]) -> dict[str, StorageError | None]:
        together.append(sum("/_layers/" in key for key in keys if key.startswith("docker/")))
        return await delete(keys)

    monkeypatch.setattr(storage, "delete_many", counted)
    await collect(storage, options(offline=False))
    assert not any(link in storage.store for link in links)
    assert max(together) == 10


@pytest.mark.parametrize("offline", [True, False])
async def test_a_repository_that_loses_more_than_fits_into_memory(
    monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    """Some keys at a time, and each kind of them only when those before have gone."""
    monkeypatch.setattr("regstore.gc.apply.going.SLICE", 2)
    before = small_registry()
    run = options(offline=offline)
    dead = wanted(before, run).dead
    faulty = FaultyStorage(model_storage(before))
    report = await collect(faulty, run)
    assert registry(faulty.inner.store) == before.without(dead)  # type: ignore[attr-defined]
    assert report.healed.nothing and not report.kept_back
    (record,) = await find_runs(faulty)
    links = [key for key in dead if not isinstance(decode(key), BlobKey)]
    assert len(record.parts) == -(-len(links) // 2) + 1  # and the blobs
    kinds = (TagCurrentKey, TagIndexKey, RevisionLinkKey, SignatureLinkKey, LayerLinkKey)
    deleted = [decode(mutation.key) for mutation in faulty.mutations if mutation.operation == "delete"]
    steps = [kinds.index(type(key)) for key in deleted if isinstance(key, kinds) and key.name == "a"]
    assert steps == sorted(steps) and len(set(steps)) == len(kinds)


async def test_an_emptied_repository_takes_no_folders_of_those_nested_in_it(tmp_path: Path) -> None:
    """v2 and v3 know a repository by these folders; its garbage-collect would delete what it links."""
    b = Builder(NOW - 30 * DAY)
    b.link_layer("a", b.blob(b"dead"))
    b.push("a/b", b.image(b.blob(b"config"), [b.blob(b"kept")]))
    for key, (body, _) in b.store.objects.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(body)
        os.utime(tmp_path / key, ns=(0, 0))
    tags = tmp_path / "docker/registry/v2/repositories/a/b/_manifests/tags"
    tags.mkdir()
    storage = DiskStorage(tmp_path)
    report = await collect(storage, options(offline=True, delete_untagged=False))
    assert report.layer_links == 1 and tags.is_dir()
    assert not (tmp_path / "docker/registry/v2/repositories/a/_layers").exists()


@pytest.mark.parametrize(
    "damage", ["cut", "garbage", "other JSON", "nested", "a number for a key", "a time of 80 bits"]
)
async def test_a_damaged_journal_says_where_it_is(damage: str) -> None:
    storage = ModelStorage(Builder(NOW).store, now=NOW)
    journal = Journal(storage, new_run(NOW))
    await journal.begin({"command": "gc"})
    await journal.write([Entry(UNLINK, f"docker/{number}", 71, 0, b"x" * 71) for number in range(100)])
    await journal.end({})
    (record,) = await find_runs(storage)
    (part,) = record.parts
    whole = storage.store.objects[part][0]
    damaged = {
        "cut": whole[:-20],
        "garbage": whole[:20] + bytes(byte ^ 0x5A for byte in whole[20:60]) + whole[60:],
        "other JSON": gzip.compress(b"[1, 2]\n"),
        "nested": gzip.compress(b"[" * 100_000),
        "a number for a key": gzip.compress(b'{"op": "unlink", "key": 1, "size": 1, "mtime": 1}'),
        "a time of 80 bits": gzip.compress(
            b'{"op": "unlink", "key": "docker/1", "size": 1, "mtime": %d}' % (1 << 80)
        ),
    }[damage]
    await storage.put(part, damaged)
    await storage.put(f"{RUNS}{record.run}/seen-{record.run}.jsonl.gz", damaged)
    (record,) = await find_runs(storage)
    with pytest.raises(IntegrityError, match=part):
        _ = [entries async for entries in read_parts(storage, record.parts)]
    if "a number" in damage or "a time" in damage:
        return  # these are lines that `seen` may hold
    with pytest.raises(IntegrityError, match="seen-"):
        await read_seen(storage, record)


@pytest.mark.parametrize("body", [b"[" * 100_000, b"[]", b"\xff", b""])
async def test_a_run_whose_end_can_not_be_read_counts_as_cut_short(body: bytes) -> None:
    storage = ModelStorage(Builder(NOW).store, now=NOW)
    journal = Journal(storage, new_run(NOW))
    await journal.begin({"command": "gc"})
    await journal.end({})
    await storage.put(f"{RUNS}{journal.run}/done.json", body)
    (record,) = await find_runs(storage)
    assert record.done is None and not record.settled


async def test_another_command_after_gc_does_not_hide_that_the_store_was_full() -> None:
    storage = model_storage(small_registry())
    await collect(storage, options(offline=True))
    storage.clock += 1_000_000
    async with hold_lock(storage, command="migrate") as lock:
        journal = Journal(storage, lock.run)
        await journal.begin({"command": "migrate"})
        await journal.end({"tags": 1})
    for key in [key for key in storage.store if "/blobs/" in key]:
        storage.store.objects.pop(key)
    with pytest.raises(Refused, match="that the last run left"):
        await collect(storage, options(offline=True))


async def test_copies_that_come_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they take so long that there is another look at the links, all of them may go that it does not reach."""
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "kept")
    first, second = sorted(encode(BlobKey(b.blob(b"dead %d" % number))) for number in range(2))
    storage = model_storage(b.store)
    copy, passed, second_came = storage.copy, 0.0, asyncio.Event()

    async def slowly(source: str, target: str, *, size: int | None = None) -> None:
        nonlocal passed
        if source == first:
            await second_came.wait()
        await copy(source, target, size=size)
        second_came.set()
        passed += 1000

    monkeypatch.setattr(storage, "copy", slowly)
    monkeypatch.setattr("regstore.gc.apply.looks.clock", lambda: passed)
    report = await collect(storage, options(offline=False))
    assert report.blobs == 2 and first not in storage.store and second not in storage.store


@pytest.mark.parametrize("what", ["a link", "a blob", "a blob for good", "an upload", "litter"])
async def test_without_the_lock_nothing_is_journaled(what: str) -> None:
    """A journal claims what its run took; so who has lost the lock adds nothing to it."""
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "kept")
    match what:
        case "a link":
            b.link_layer("a", b.blob(b"dead"))
        case "a blob" | "a blob for good":
            b.blob(b"dead")
        case "litter":
            b.put("docker/registry/v2/repositories/empty/", b"")
    storage = model_storage(b.store)
    if what == "an upload":
        key = encode(UploadKey("a", "00000000-0000-4000-8000-000000000001", "data"))
        storage.multipart_uploads = [MultipartUpload(key, "old", NOW - 30 * DAY, 5)]
    before = dict(storage.store.objects)
    run = options(offline=True, trash=what != "a blob for good")
    with pytest.raises(LockLost):
        async with hold_lock(storage, command="gc") as lock, open_run(storage, run, lock) as opened:
            assert not opened.nothing_to_do
            await break_locks(storage)
            await opened.apply()
    assert not [key for key in storage.store if key.startswith(RUNS) and key.endswith(".jsonl.gz")]
    assert registry(storage.store).objects == before


async def test_a_blob_stays_whose_copy_is_not_listed_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the store said of the copy: one was cut off, one is not there."""
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "kept")
    cut, lost, whole = sorted(encode(BlobKey(b.blob(b"dead %d" % number))) for number in range(3))
    storage = model_storage(b.store)
    copy = storage.copy

    async def badly(source: str, target: str, *, size: int | None = None) -> None:
        if source != lost:
            await copy(source, target, size=size)
        if source == cut:
            body, mtime = storage.store.objects[target]
            storage.store.objects[target] = body[:-1], mtime

    monkeypatch.setattr(storage, "copy", badly)
    report = await collect(storage, options(offline=True))
    assert cut in storage.store and lost in storage.store and whole not in storage.store
    assert report.blobs == 1 and "2 keys" in report.failures[0] and "not listed" in report.failures[0]


async def test_a_tag_that_comes_back_is_followed_though_nothing_links_its_manifest() -> None:
    """The scan had no reason to read that manifest, and what it names stays all the same."""
    hour = DAY // 24
    b = Builder(NOW - 30 * DAY)
    layer = b.blob(b"layer")
    link = b.link_layer("a", layer)
    image = b.image(b.blob(b"config"), [layer])
    b.put(TagIndexKey("a", "pushed", image), link_body(image), NOW - hour // 2)
    b.push("a", b.image(b.blob(b"other config"), [b.blob(b"other layer")]), "kept")
    storage = model_storage(b.store)
    journal = Journal(storage, new_run(NOW - hour))
    await journal.begin({"command": "gc"})
    current = encode(TagCurrentKey("a", "pushed"))
    await journal.write([Entry(UNLINK, current, 71, NOW - 30 * DAY, link_body(image))])
    await collect(storage, options(offline=True))
    assert {current, link, encode(BlobKey(layer))} <= storage.store.objects.keys()


@both
async def test_a_link_that_was_gone_when_it_was_to_be_journaled_stays(
    monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    """Somebody writes it again right then: no journal holds it, so it does not go."""
    b = Builder(NOW - 30 * DAY)
    image = b.image(b.blob(b"config"), [b.blob(b"layer")])
    b.push("a", image, "kept")
    damaged = b.put(TagIndexKey("a", "old", image), b"")
    storage = model_storage(b.store)
    get = storage.get

    async def gone(key: str) -> bytes:
        if key == damaged:
            raise NotFound(key)
        return await get(key)

    monkeypatch.setattr(storage, "get", gone)
    await collect(storage, options(offline=offline))
    assert damaged in storage.store and damaged not in await journaled(storage)


@pytest.mark.parametrize("changed", ["time", "size", "body"])
async def test_a_link_that_is_not_as_it_was_planned_stays(changed: str) -> None:
    """Though it would go by the plan that is made of the look before, too: somebody has just written it."""
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "kept")
    same = b.link_layer("a", b.blob(b"dead"))
    link = b.link_layer("a", b.blob(b"other"))
    body, mtime = b.store.objects[link]
    changes = {"time": (body, mtime + 1), "size": (b"", mtime), "body": (link_body(Digest.of(b"none")), mtime)}
    now_is = changes[changed]
    storage = model_storage(b.store)
    async with (
        hold_lock(storage, command="gc") as lock,
        open_run(storage, options(offline=False, grace=0), lock) as opened,
    ):
        storage.store.objects[link] = now_is
        report = await opened.apply()
    assert storage.store.objects[link] == now_is and link not in await journaled(storage)
    assert same not in storage.store and report.layer_links == report.kept_back - report.blobs == 1


async def test_uploads_of_a_repository_stay_while_a_tag_is_pushed_there() -> None:
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "tag")
    uuid = "00000000-0000-4000-8000-000000000001"
    uploads = [MultipartUpload(encode(UploadKey(name, uuid, "data")), "old", 0, 5) for name in "ab"]
    storage = model_storage(b.store)
    storage.multipart_uploads = list(uploads)
    async with (
        hold_lock(storage, command="gc") as lock,
        open_run(storage, options(offline=False), lock) as opened,
    ):
        image = b.image(b.blob(b"new config"), [b.blob(b"layer")])
        b.put(TagIndexKey("a", "tag", image), link_body(image), NOW)
        storage.store.objects.update(b.store.objects)
        report = await opened.apply()
    assert storage.multipart_uploads == uploads[:1] and report.uploads == report.kept_back == 1


async def test_an_upload_stays_whole_where_a_part_of_it_changed() -> None:
    """Also where it is as old as before, and by the plan that is made of the look before it would go."""
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "tag")
    uuid = "00000000-0000-4000-8000-000000000001"
    b.upload("a", uuid, ["startedat", "data"])
    upload = MultipartUpload(encode(UploadKey("a", uuid, "data")), "old", NOW - 30 * DAY, 5)
    storage = model_storage(b.store)
    storage.multipart_uploads = [upload]
    async with (
        hold_lock(storage, command="gc") as lock,
        open_run(storage, options(offline=False), lock) as opened,
    ):
        body, mtime = storage.store.objects[upload.key]
        storage.store.objects[upload.key] = body + b"more", mtime
        await opened.apply()
    assert storage.multipart_uploads == [upload] and upload.key in storage.store


async def test_a_multipart_upload_that_goes_on_is_not_aborted() -> None:
    """It has no object yet that would tell: a part came since the scan."""
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "tag")
    key = encode(UploadKey("a", "00000000-0000-4000-8000-000000000001", "data"))
    storage = model_storage(b.store)
    storage.multipart_uploads = [MultipartUpload(key, "old", NOW - 30 * DAY, 5)]
    async with (
        hold_lock(storage, command="gc") as lock,
        open_run(storage, options(offline=False), lock) as opened,
    ):
        storage.multipart_uploads = [MultipartUpload(key, "old", NOW, 10)]
        report = await opened.apply()
    assert not storage.counters.requests.get("abort_multipart_upload") and key not in await journaled(storage)
    assert report.uploads == 0 and report.kept_back == 1
