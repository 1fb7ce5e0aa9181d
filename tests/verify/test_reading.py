"""Which blobs are read, when, and what is remembered of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from regstore.errors import InputError, StorageError
from regstore.proving.read_data import ReadData
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage
from regstore.verify import run
from regstore.verify.fault import FaultKind, Findings
from regstore.verify.options import VerifyOptions
from regstore.verify.plan import plan_verify
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW
from tests.servers import images
from tests.verify.stores import MULTI, SINGLE, link, look, pristine, storage_of

HOUR = 3600 * 1_000_000


def reads(storage: ModelStorage) -> int:
    return storage.counters.requests.get("get", 0)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("all", ReadData(share=1.0)),
        ("5%", ReadData(share=0.05)),
        ("0.5 %", ReadData(share=0.005)),
        ("3/7", ReadData(part=(3, 7))),
        ("10G", ReadData(size=10 << 30)),
        ("1.5MiB", ReadData(size=3 << 19)),
        ("500", ReadData(size=500)),
    ],
)
def test_what_to_read(text: str, wanted: ReadData) -> None:
    assert ReadData.parse(text) == wanted


@pytest.mark.parametrize("text", ["", "some", "0%", "101%", "0/3", "4/3", "-5", "5 apples", "1/0"])
def test_what_can_not_be_read(text: str) -> None:
    with pytest.raises(InputError):
        ReadData.parse(text)


async def test_shares_cover_everything_over_time(tmp_path: Path) -> None:
    storage = storage_of(pristine())
    total, seen = 0, []
    for number in range(12):
        storage.clock = NOW + number * HOUR
        report = await look(storage, "20%", proofs=tmp_path)
        assert report.reading is not None
        assert report.reading.blobs > 0
        seen.append(report.reading.never_proved)
        total += report.reading.bytes
        if not report.reading.never_proved:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) <= 6
    assert seen[-1] == 0
    # And then again from the one proved longest ago.
    assert report.reading is not None
    oldest = report.reading.oldest
    for _ in range(6):
        storage.clock += HOUR
        report = await look(storage, "20%", proofs=tmp_path)
    assert report.reading is not None
    assert report.reading.oldest is not None
    assert oldest is not None
    assert report.reading.oldest > oldest


async def test_other_blobs_each_time_without_a_memory() -> None:
    rot = [key for key in pristine() if "/blobs/" in key and key != images.blob_key(MULTI.digest)]
    found = set()
    for _ in range(6):
        store = pristine()
        for key in rot:
            body, mtime = store.objects[key]
            store.objects[key] = (body[:-1] + bytes([body[-1] ^ 1]), mtime)
        report = await look(storage_of(store), "1")
        found |= {str(one.digest) for one in report.findings.faults if one.area == "blob"}
    assert len(found) > 1


async def test_parts_together_are_all(tmp_path: Path) -> None:
    blobs = 0
    for number in (1, 2, 3):
        report = await look(storage_of(pristine()), f"{number}/3", proofs=tmp_path)
        assert report.reading is not None
        blobs += report.reading.blobs
    assert report.reading is not None
    assert report.reading.never_proved == 0
    assert blobs + report.reading.manifests == report.findings.blobs


async def test_what_was_proved_lately_is_not_read_again(tmp_path: Path) -> None:
    storage = storage_of(pristine())
    first = await look(storage, "all", proofs=tmp_path)
    storage.clock += HOUR
    before = reads(storage)
    again = await look(storage, "all", proofs=tmp_path, max_age=2 * HOUR)
    assert first.reading is not None
    assert again.reading is not None
    assert again.reading.blobs == 0
    assert again.reading.known == first.reading.blobs
    assert reads(storage) - before == again.reading.manifests + 1, "manifests, and the link by sha512"
    later = await look(storage, "all", proofs=tmp_path, max_age=HOUR // 2)
    assert later.reading is not None
    assert later.reading.blobs == first.reading.blobs
    # A blob that was written again was never proved.
    key = images.blob_key(SINGLE.blobs[1].digest)
    storage.store.objects[key] = (storage.store.objects[key][0], NOW + 1)
    changed = await look(storage, "all", proofs=tmp_path, max_age=2 * HOUR)
    assert changed.reading is not None
    assert changed.reading.blobs == 1


async def test_what_was_wrong_is_looked_at_first(tmp_path: Path) -> None:
    store = pristine()
    key = images.blob_key(SINGLE.blobs[1].digest)
    body, mtime = store.objects[key]
    store.objects[key] = (body[:-1] + b"!", mtime)
    await look(storage_of(store), "all", proofs=tmp_path)
    for _ in range(3):
        report = await look(storage_of(store), "1", proofs=tmp_path)
        assert report.findings.counts == {FaultKind.BLOB_DAMAGED: 1}


async def test_a_memory_that_is_broken_costs_only_reading(tmp_path: Path) -> None:
    (tmp_path / "proofs-v1.sqlite").write_bytes(b"no database" * 100)
    report = await look(storage_of(pristine()), "all", proofs=tmp_path)
    assert report.findings.counts == {}
    assert report.reading is not None
    assert report.reading.never_proved == 0


async def test_the_memory_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    await look(storage_of(pristine()), "all", proofs=folder)
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "proofs-v1.sqlite").stat().st_mode & 0o077 == 0
    with sqlite3.connect(folder / "proofs-v1.sqlite") as connection:
        stores = connection.execute("select distinct store from proof").fetchall()
    connection.close()
    assert stores == [("model",)]


async def test_no_time_left(tmp_path: Path) -> None:
    report = await look(storage_of(pristine()), "all", time_limit=0.0, proofs=tmp_path)
    assert report.reading is not None
    assert report.reading.blobs == 0
    assert report.reading.left > 0
    assert report.reading.never_proved == report.reading.left
    assert report.findings.counts == {}


async def test_a_bad_line_is_no_damage() -> None:
    """Wrong once and right the second time: not the store's bytes."""
    store = pristine()
    key = images.blob_key(SINGLE.blobs[1].digest)
    body, mtime = store.objects[key]
    readings = 0

    def before(operation: str, text: str) -> None:
        nonlocal readings
        if (operation, text) == ("open_read", key):
            readings += 1
            store.objects[key] = (body if readings > 1 else b"?" * len(body), mtime)

    report = await look(FaultyStorage(storage_of(store), before=before), "all")
    assert report.findings.counts == {}
    assert report.reading is not None
    assert len(report.reading.unstable) == 1


async def test_a_blob_that_can_not_be_read_is_damage_of_it_alone() -> None:
    store = pristine()
    key = images.blob_key(SINGLE.blobs[1].digest)

    def before(operation: str, text: str) -> None:
        if (operation, text) == ("open_read", key):
            raise StorageError("input/output error")

    report = await look(FaultyStorage(storage_of(store), before=before), "all")
    assert report.findings.counts == {FaultKind.BLOB_UNREADABLE: 1}
    assert "input/output error" in report.findings.faults[0].detail


async def test_on_a_disk(tmp_path: Path) -> None:
    store = pristine()
    key = images.blob_key(SINGLE.blobs[1].digest)
    store.objects[key] = (store.objects[key][0][:-1] + b"!", NOW)
    store.write_folder(tmp_path)
    async with DiskStorage(tmp_path) as storage:
        report = await look(storage, "all")
        assert report.findings.counts == {FaultKind.BLOB_DAMAGED: 1}
        assert report.reading is not None
        assert report.reading.blobs + report.reading.manifests == report.findings.blobs


async def test_a_copy_in_the_same_place_was_never_proved(tmp_path: Path) -> None:
    """With the sizes and times that the original had, as `cp -a` and `rsync -a` make it."""
    folder, original = tmp_path / "registry", tmp_path / "original"
    pristine().write_folder(folder)
    known = {"proofs": tmp_path / "cache", "max_age": 10**18}
    async with DiskStorage(folder) as storage:
        first = await look(storage, "all", **known)
        again = await look(storage, "all", **known)
    assert first.reading is not None
    assert again.reading is not None
    assert (again.reading.blobs, again.reading.known) == (0, first.reading.blobs)
    folder.rename(original)
    shutil.copytree(original, folder)  # with all times
    rotten = folder / images.blob_key(SINGLE.blobs[1].digest)
    before = rotten.stat()
    rotten.write_bytes(rotten.read_bytes()[:-1] + b"!")
    os.utime(rotten, ns=(before.st_atime_ns, before.st_mtime_ns))
    async with DiskStorage(folder) as storage:
        report = await look(storage, "all", **known)
    assert report.findings.counts == {FaultKind.BLOB_DAMAGED: 1}
    assert report.reading is not None
    assert report.reading.known == 0


async def test_hashing_on_a_disk_stops(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(4 << 20))
    async with DiskStorage(tmp_path) as storage:
        seen: list[int] = []
        found = await storage.hash_objects(
            [("large", "sha256")], on_bytes=seen.append, stopped=lambda: len(seen) >= 2
        )
        assert found == {}
        assert sum(seen) < 4 << 20
        started = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_bytes(count: int) -> None:
            loop.call_soon_threadsafe(started.set)

        endless = asyncio.create_task(
            storage.hash_objects(
                [("large", "sha256")] * 1_000_000,
                on_bytes=on_bytes,
                stopped=lambda: False,
            )
        )
        await started.wait()
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless


# -- while a registry works


async def test_a_push_during_the_scan_is_no_damage() -> None:
    """Blobs are listed before links: what a push brings in between is looked for by name."""
    store = pristine()
    pushed = images.registry_keys("team/new", images.multiarch("new"), "1")

    def before(operation: str, text: str) -> None:
        if operation == "list" and "/repositories/" in text and "team/new" not in text:
            store.objects |= {key: (body, NOW) for key, body in pushed.items()}

    report = await look(FaultyStorage(storage_of(store), before=before), "all")
    assert report.findings.counts == {}
    assert report.findings.tags == len([key for key in store if key.endswith("/current/link")])


async def test_a_deletion_during_the_scan_is_no_damage() -> None:
    """A tag is listed, and gone with its manifest and blobs before anybody reads them."""
    store = pristine()
    doomed = images.registry_keys("doomed", images.image("doomed"), "1")
    store.objects |= {key: (body, NOW) for key, body in doomed.items()}
    manifest = images.blob_key(images.image("doomed").digest)

    def before(operation: str, text: str) -> None:
        if (operation, text) == ("get", manifest):
            for key in doomed:
                store.objects.pop(key, None)

    report = await look(FaultyStorage(storage_of(store), before=before), "all")
    assert report.findings.counts == {}


async def test_a_failed_listing_is_no_empty_store() -> None:
    storage = FaultyStorage(storage_of(pristine()), fail_list_page=2)
    with pytest.raises(StorageError):
        await look(storage, "all")


async def test_requests() -> None:
    """Of a sound store: a GET a blob, and one for the link by sha512, which no listing proves."""
    storage = storage_of(pristine())
    report = await look(storage, "all")
    assert report.reading is not None
    assert reads(storage) == report.findings.blobs + 1
    assert storage.counters.requests["stat"] == 1  # scheduler-state.json
    assert link("b", "_layers", "sha256:00") not in storage.store


async def test_what_reads_well_is_not_planned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was wrong before, and nothing is: the plan would be the same. Else it is made anew."""
    plans: list[Findings] = []

    def counted(*what: Any, **how: Any) -> Findings:
        plans.append(plan_verify(*what, **how))
        return plans[-1]

    monkeypatch.setattr(run, "plan_verify", counted)
    await look(storage_of(pristine()), "all")
    assert len(plans) == 1
    store = pristine()
    key = images.blob_key(SINGLE.blobs[1].digest)
    store.objects[key] = (store.objects[key][0][:-1] + b"!", store.objects[key][1])
    plans.clear()
    await look(storage_of(store), "all")
    assert [list(each.counts) for each in plans] == [[], *[[FaultKind.BLOB_DAMAGED]] * (len(plans) - 1)]
    assert len(plans) > 1


def test_options_that_contradict() -> None:
    with pytest.raises(InputError):
        VerifyOptions(max_age=1)
    with pytest.raises(InputError):
        VerifyOptions(time_limit=1.0)
