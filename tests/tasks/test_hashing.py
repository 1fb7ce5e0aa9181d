"""Blobs that tasks read and hash are judged as those that are read here."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from regstore.errors import AccessDenied, AuthenticationFailed, NotFound, Outage, StorageError
from regstore.events import Event, Progress
from regstore.inventory.scan import ScanOptions
from regstore.proving.read_data import ReadData
from regstore.proving.result import Reading
from regstore.storage.base import Storage
from regstore.storage.outage import IN_A_ROW
from regstore.tasks import Context, Runner
from regstore.tasks.hashing import PHASE, HashBlobs, hash_blobs
from regstore.tasks.packing import PackedError, unpack
from regstore.testing.faulty import FaultyStorage
from regstore.verify.fault import FaultKind
from regstore.verify.options import VerifyOptions
from regstore.verify.run import VerifyReport, verify
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW
from tests.model.store import ModelStore
from tests.servers import images
from tests.tasks.runners import PackedHere
from tests.verify.stores import DOCKER, SINGLE, look, pristine, storage_of

DAMAGED, LOST, REFUSED = (images.blob_key(blob.digest) for blob in (*SINGLE.blobs[1:3], DOCKER.blobs[1]))


async def read(storage: Storage, runner: Runner | None = None) -> VerifyReport:
    options = ScanOptions(cache_dir=None, concurrency=4)
    return await look(storage, "all", scan=replace(options, runner=runner) if runner else options)


def numbers(report: VerifyReport) -> Reading:
    assert report.reading is not None
    return replace(report.reading, seconds=0.0)


def damage(storage: ModelStorage) -> None:
    body, mtime = storage.store.objects[DAMAGED]
    storage.store.objects[DAMAGED] = (body[:-1] + b"!", mtime)


def lose(storage: ModelStorage) -> None:
    del storage.store.objects[LOST]


def refuse(storage: ModelStorage) -> None:
    storage.unreadable[REFUSED] = AccessDenied("no")


def archive(storage: ModelStorage) -> None:
    storage.archived[REFUSED] = "GLACIER"


@pytest.mark.parametrize("spoil", [(), (damage,), (damage, lose, refuse), (archive,)])
async def test_what_is_found_is_the_same(spoil: tuple[Callable[[ModelStorage], None], ...]) -> None:
    runner = PackedHere()
    reports: list[tuple[VerifyReport, dict[str, int]]] = []
    for storage in (storage_of(pristine()), storage_of(pristine())):
        for change in spoil:
            change(storage)
        reports.append((await read(storage, runner if reports else None), storage.counters.requests))
    (here, asked_here), (elsewhere, asked_elsewhere) = reports
    assert runner.ran["hash_blobs"]
    assert elsewhere.findings == here.findings
    assert numbers(elsewhere) == numbers(here)
    assert asked_elsewhere == asked_here


def many(number: int) -> tuple[ModelStorage, list[tuple[str, str, int]]]:
    bodies = [b"%d" % each for each in range(number)]
    keys = [images.blob_key(f"sha256:{hashlib.sha256(body).hexdigest()}") for body in bodies]
    store = ModelStore({key: (body, NOW) for key, body in zip(keys, bodies, strict=True)})
    blobs = [(key, "sha256", len(body)) for key, body in zip(keys, bodies, strict=True)]
    return ModelStorage(store, now=NOW), blobs


async def test_a_task_hands_back_the_rest_where_nothing_is_given() -> None:
    storage, blobs = many(60)
    keys = [key for key, _, _ in blobs]
    storage.unreadable = {key: AccessDenied("no") for key in keys[5:]}
    storage.unreadable[keys[7]] = NotFound(keys[7], "model")  # it was given an answer
    done = await hash_blobs(Context(stores=(storage,), concurrency=1), HashBlobs(blobs=blobs))
    assert list(done.outcomes) == keys[: 8 + IN_A_ROW] and done.left == keys[8 + IN_A_ROW :]
    assert done.outcomes[keys[1]] == (1, hashlib.sha256(b"1").hexdigest())
    refused = done.outcomes[keys[-len(done.left) - 1]]
    assert isinstance(refused, PackedError) and isinstance(unpack(refused), AccessDenied)
    assert done.bytes == 5


async def test_what_every_request_would_meet_ends_it() -> None:
    storage, blobs = many(3)
    storage.unreadable = {blobs[1][0]: AuthenticationFailed("the key is no longer known")}
    with pytest.raises(AuthenticationFailed):
        await hash_blobs(Context(stores=(storage,), concurrency=1), HashBlobs(blobs=blobs))


async def test_no_time_is_left() -> None:
    storage, blobs = many(3)
    done = await hash_blobs(Context(stores=(storage,), concurrency=1), HashBlobs(blobs=blobs, seconds=-1.0))
    assert (done.outcomes, done.left, done.bytes) == ({}, [], 0)


async def test_the_time_is_over_in_the_midst_of_a_blob() -> None:
    """What came of it is counted, and the rest not asked for."""
    storage, blobs = many(3)
    body = bytes(4 << 20)
    storage.store.objects["large"] = (body, NOW)

    def before(operation: str, key: str) -> None:
        if operation == "open_read":
            time.sleep(0.3)  # as long as the task has

    done = await hash_blobs(
        Context(stores=(FaultyStorage(storage, before=before),), concurrency=1),
        HashBlobs(blobs=[("large", "sha256", len(body)), *blobs], seconds=0.3),
    )
    assert not done.outcomes and not done.left
    assert 0 < done.bytes <= len(body)


async def test_blobs_that_are_not_given_are_damage_where_others_are_given() -> None:
    storage, blobs = many(3 * IN_A_ROW)
    storage.store.objects |= pristine().objects
    storage.unreadable = {key: StorageError("it does not answer") for key, _, _ in blobs}
    report = await read(storage, PackedHere())
    assert report.findings.counts == {FaultKind.BLOB_UNREADABLE: len(blobs)}


async def test_an_outage_is_found_by_whoever_asked() -> None:
    storage, blobs = many(20 * IN_A_ROW)
    storage.store.objects |= pristine().objects
    asked = 0

    def before(operation: str, key: str) -> None:
        nonlocal asked
        if operation == "open_read" and "/blobs/" in key:
            asked += 1
            raise StorageError("it does not answer")

    with pytest.raises(Outage):
        await read(FaultyStorage(storage, before=before), PackedHere())
    assert asked < len(blobs) / 2


async def test_progress_adds_up() -> None:
    storage, blobs = many(200)
    storage.store.objects |= pristine().objects
    runner = PackedHere()
    seen: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == PHASE:
            seen.append(event.done)

    options = VerifyOptions(scan=ScanOptions(cache_dir=None, runner=runner), read=ReadData(share=1.0))
    report = await verify(storage, options, on_event=watch)
    assert report.reading is not None
    assert seen == sorted(seen) and seen[-1] == report.reading.bytes > sum(size for *_, size in blobs)
    assert runner.ran["hash_blobs"] > 3
