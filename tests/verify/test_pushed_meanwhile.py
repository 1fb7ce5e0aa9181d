"""Clients push tags while verify --repair writes or drops them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regstore.storage.base import Capabilities
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage
from regstore.verify.fault import FaultKind
from tests.gc.clock import until_all_is_older
from tests.migrate.stores import bucket_storage
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW
from tests.model.store import ModelStore
from tests.servers import images
from tests.servers.s3 import S3Server
from tests.verify.stores import APP, DOCKER, SINGLE, look, mend, pristine, registry_of, storage_of

TAG = f"{APP}/_manifests/tags/single"
CURRENT = f"{TAG}/current/link"
LAYER = images.blob_key(SINGLE.blobs[1].digest)
SECOND = 1_000_000


class Unconditional(ModelStorage):
    """As servers that ignore If-None-Match."""

    async def capabilities(self) -> Capabilities:
        return Capabilities()


def index(digest: str) -> str:
    return f"{TAG}/index/{digest.replace(':', '/')}/link"


def push(store: ModelStore, digest: str, at: int = NOW + SECOND) -> None:
    for key in (index(digest), CURRENT):
        store.objects[key] = (digest.encode(), at)


@pytest.mark.parametrize("digest", [SINGLE.digest, DOCKER.digest], ids=["the same image", "another image"])
async def test_a_tag_pushed_in_the_request_that_drops_it_stays(digest: str) -> None:
    store = pristine()
    del store.objects[LAYER]

    def before(operation: str, key: str) -> None:
        if (operation, key) == ("delete", CURRENT):
            push(store, digest)

    _, repairs, _ = await mend(FaultyStorage(storage_of(store), before=before), drop_broken_tags=True)
    assert store.body(CURRENT) == digest.encode() and index(digest) in store
    assert "team/app:single" not in repairs.dropped
    assert {"other:1", "team/app:next"} <= set(repairs.dropped)


async def test_a_folder_that_a_push_has_just_made_stays(tmp_path: Path) -> None:
    store = pristine()
    del store.objects[LAYER]
    store.write_folder(tmp_path)
    folder = tmp_path / index(DOCKER.digest)

    def after(operation: str, key: str) -> None:
        if (operation, key) == ("delete", CURRENT):
            folder.parent.mkdir(parents=True)

    async with DiskStorage(tmp_path) as disk:
        _, repairs, _ = await mend(FaultyStorage(disk, after=after), drop_broken_tags=True)
    assert "team/app:single" in repairs.dropped
    assert not (tmp_path / CURRENT).exists() and folder.parent.exists()
    assert not (tmp_path / APP / "_manifests/tags/next").exists()


# -- an empty link


def emptied() -> ModelStore:
    store = pristine()
    store.objects[CURRENT] = (b"", NOW)
    return store


async def test_an_empty_tag_with_one_manifest_in_its_history_is_repaired() -> None:
    store = emptied()
    report = await look(storage_of(store))
    (fault,) = report.findings.faults
    assert (fault.kind, fault.subject, fault.repairable) == (
        FaultKind.LINK_DAMAGED,
        "the link of tag team/app:single",
        True,
    )
    assert fault.remedy == "--repair writes it anew"
    _, repairs, left = await mend(storage_of(store))
    assert repairs.rewritten == (CURRENT,)
    assert left.findings.counts == {}
    assert registry_of(store) == pristine().bodies()


@pytest.mark.parametrize("why", ["two in its history", "not linked", "layer lost", "history damaged", "not empty"])
async def test_an_empty_tag_whose_image_is_not_certain_or_not_whole_is_left(why: str) -> None:
    store = emptied()
    match why:
        case "two in its history":
            store.objects[index(DOCKER.digest)] = (DOCKER.digest.encode(), NOW)
        case "not linked":
            del store.objects[f"{APP}/_manifests/revisions/{SINGLE.digest.replace(':', '/')}/link"]
        case "layer lost":
            del store.objects[LAYER]
        case "history damaged":
            store.objects[index(SINGLE.digest)] = (b"", NOW)
        case _:
            store.objects[CURRENT] = (b"x", NOW)
    before = registry_of(store)
    found, repairs, _ = await mend(storage_of(store))
    assert not [fault for fault in found.findings.faults if fault.area == "tag" and fault.repairable]
    assert repairs.nothing and registry_of(store) == before


@pytest.mark.parametrize("storage", [ModelStorage, Unconditional])
async def test_an_empty_tag_pushed_while_it_is_repaired_names_what_was_pushed(storage: type[ModelStorage]) -> None:
    store = emptied()

    def before(operation: str, key: str) -> None:
        if (operation, key) == ("put", CURRENT) and store.body(CURRENT) == b"":
            push(store, DOCKER.digest)

    _, repairs, _ = await mend(FaultyStorage(storage(store, now=NOW), before=before))
    assert store.body(CURRENT) == DOCKER.digest.encode()
    assert not repairs.rewritten


async def test_a_lost_tag_pushed_while_it_is_restored_names_what_was_pushed() -> None:
    """Where nothing can be written on the condition that nothing is there."""
    store = pristine()
    del store.objects[CURRENT]

    def before(operation: str, key: str) -> None:
        if (operation, key) == ("put", CURRENT) and CURRENT not in store:
            push(store, DOCKER.digest)

    storage = FaultyStorage(Unconditional(store, now=NOW), before=before)
    await mend(storage, storage_of(pristine()), restore_links=True)
    assert store.body(CURRENT) == DOCKER.digest.encode()


async def test_an_empty_tag_on_disk_and_in_a_bucket(tmp_path: Path, moto: S3Server, moto_bucket: str) -> None:
    store = emptied()
    store.write_folder(tmp_path)
    os.utime(tmp_path / CURRENT, (0, 0))
    async with DiskStorage(tmp_path) as disk, bucket_storage(moto, moto_bucket) as bucket:
        await store.write_storage(bucket)
        await until_all_is_older(bucket)
        for storage in (disk, bucket):
            _, repairs, left = await mend(storage)
            assert (repairs.rewritten, left.findings.counts) == ((CURRENT,), {})
            assert await storage.get(CURRENT) == SINGLE.digest.encode()
