"""The plan that SQL makes is the one that the naive model makes, for every registry."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.errors import NotARegistry, Refused
from regstore.gc.plan import GcOptions, GcSummary, Step, plan_gc
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions, scan
from regstore.layout import BlobKey, UploadKey, encode
from regstore.storage.base import MultipartUpload, Storage
from regstore.storage.disk import DiskStorage
from tests.examples import examples
from tests.gc.scenes import collect, model_storage, options, registry
from tests.model.builder import Builder
from tests.model.gc_oracle import Expected, expected, links_are_whole
from tests.model.memory import ModelStorage
from tests.model.random_registry import (
    DAY,
    GRACES,
    NOW,
    UPLOADS_OLDER_THAN,
    example_registry,
    metadata_marks,
    registries,
)
from tests.model.store import ModelStore
from tests.model.test_oracle import CASES, OLD

generated = settings(
    max_examples=examples(10),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)


def keys_of_step(inventory: Inventory, step: Step) -> set[str]:
    return {key for (key,) in inventory.all("select key from gc_unlink where step = ?", [step])}


def compare(store: ModelStore, inventory: Inventory, found: GcSummary, wanted: Expected) -> None:
    protected = {repository.name for repository in found.protected}
    assert protected == wanted.protected.keys(), "protected repositories"
    assert bool(found.sweep_blocked) == wanted.sweep_blocked, "sweep blocked"
    for step, dead in {
        Step.TAG: wanted.tag_currents,
        Step.TAG_INDEX: wanted.tag_indexes,
        Step.REVISION: wanted.revision_links,
        Step.SIGNATURE: wanted.signature_links,
        Step.LAYER: wanted.layer_links,
        Step.UPLOAD: wanted.uploads,
    }.items():
        assert keys_of_step(inventory, step) == dead, step.name
    assert {key for (key,) in inventory.all("select key from gc_dead_litter")} == wanted.litter, "litter"
    blobs = {
        encode(BlobKey(Digest.from_raw(bytes(digest)))): (size, mtime)
        for digest, size, mtime in inventory.all("select digest, size, mtime from gc_dead_blob")
    }
    assert blobs.keys() == wanted.blobs, "blobs"
    assert set(found.emptied) == wanted.emptied, "emptied"
    assert set(found.untagged) == wanted.untagged, "untagged repositories"
    # What the journal holds is what the store holds.
    for key, size, mtime, body in inventory.all("select key, size, mtime, body from gc_unlink"):
        content, written = store.objects[key]
        assert (size, mtime) == (len(content), written)
        assert body is None or bytes(body) == content
    for key, (size, mtime) in blobs.items():
        assert (size, mtime) == (len(store.objects[key][0]), store.objects[key][1])
    dead_blobs = [store.objects[key][0] for key in wanted.blobs]
    assert found.blobs.dead == len(dead_blobs)
    assert found.blobs.total == len(dead_blobs) + len(wanted.live_blobs)
    assert found.dead_blob_bytes == sum(map(len, dead_blobs))
    assert found.nothing_to_do == (not wanted.dead)


async def plan_and_compare(storage: Storage, store: ModelStore, delete_untagged: bool, grace: int) -> None:
    options = GcOptions(delete_untagged=delete_untagged, grace=grace, uploads_older_than=UPLOADS_OLDER_THAN)
    async with scan(storage, ScanOptions(cache_dir=None, concurrency=4)) as inventory:
        found = plan_gc(inventory, options, now=NOW)
        wanted = expected(
            store, now=NOW, delete_untagged=delete_untagged, grace=grace, uploads_older_than=UPLOADS_OLDER_THAN
        )
        compare(store, inventory, found, wanted)


@generated
@given(
    registries(disk=False),
    st.booleans(),
    st.sampled_from(GRACES),
    st.booleans(),
    st.sampled_from([1000, 7]),
    st.booleans(),
)
def test_on_a_store_like_s3(
    store: ModelStore, delete_untagged: bool, grace: int, etags: bool, page: int, repeats: bool
) -> None:
    storage = ModelStorage(store, now=NOW, etags=etags, page=page, repeats=repeats)
    asyncio.run(plan_and_compare(storage, store, delete_untagged, grace))


@generated
@given(registries(), st.booleans(), st.sampled_from(GRACES))
def test_on_disk(
    tmp_path_factory: pytest.TempPathFactory, store: ModelStore, delete_untagged: bool, grace: int
) -> None:
    root = tmp_path_factory.mktemp("store")
    store.write_folder(root)
    asyncio.run(plan_and_compare(DiskStorage(root), store, delete_untagged, grace))


@generated
@given(registries(disk=False), metadata_marks)
def test_links_are_the_whole_truth_or_nothing_goes(store: ModelStore, marks: set[str]) -> None:
    """With every right to remove whatever is dead."""
    for mark in marks:
        store.objects[mark] = b"{}", NOW
    storage = model_storage(store, page=1 + len(marks) // 2)
    before = registry(storage.store).objects
    try:
        asyncio.run(collect(storage, options(offline=True)))
    except Refused:
        assert not links_are_whole(store)
        assert registry(storage.store).objects == before
    except NotARegistry:
        assert not store.objects.keys() - marks
    else:
        assert links_are_whole(store)


@pytest.mark.parametrize("name", CASES)
async def test_by_hand(name: str) -> None:
    """The table of the oracle, with delete_untagged: what goes without is mostly a part of that."""
    b = Builder(OLD)
    dead = CASES[name](b)[True]
    options = GcOptions(delete_untagged=True, grace=DAY, uploads_older_than=UPLOADS_OLDER_THAN)
    async with scan(ModelStorage(b.store, now=NOW), ScanOptions(cache_dir=None)) as inventory:
        plan_gc(inventory, options, now=NOW)
        blobs = {Digest.from_raw(bytes(digest)) for (digest,) in inventory.all("select digest from gc_dead_blob")}
        links = {key for (key,) in inventory.all("select key from gc_unlink")}
    assert links | {encode(BlobKey(digest)) for digest in blobs} == dead


@pytest.mark.parametrize("multipart_known", [True, False])
async def test_uploads_count_with_their_multipart_uploads(multipart_known: bool) -> None:
    b = Builder(OLD)
    ages = {"old": 8 * DAY, "young": DAY}
    uploads, multipart = {}, []
    for number, (parts, upload) in enumerate((p, m) for p in (None, *ages) for m in (None, *ages)):
        uuid = f"{number:08x}-0000-4000-8000-000000000000"
        uploads[uuid] = [ages[age] for age in (parts, upload) if age]
        if parts:
            b.mtime = NOW - ages[parts]
            b.upload("a", uuid, ["startedat"])
        if upload:
            key = encode(UploadKey("b" if not parts else "a", uuid, "data"))
            multipart.append(MultipartUpload(key, "id", NOW - ages[upload], 5))
    storage = ModelStorage(b.store, now=NOW)
    storage.multipart_uploads = multipart
    storage.multipart_uploads_denied = not multipart_known
    async with scan(storage, ScanOptions(cache_dir=None)) as inventory:
        plan_gc(inventory, GcOptions(uploads_older_than=UPLOADS_OLDER_THAN), now=NOW)
        wanted = expected(
            b.store,
            now=NOW,
            delete_untagged=False,
            grace=DAY,
            uploads_older_than=UPLOADS_OLDER_THAN,
            multipart=[(upload.key, upload.newest) for upload in multipart] if multipart_known else None,
        )
        assert keys_of_step(inventory, Step.UPLOAD) == wanted.uploads
        dead = {uuid for (uuid,) in inventory.all("select uuid from gc_dead_upload")}
    assert dead == {uuid for uuid, found in uploads.items() if multipart_known and found and min(found) > 7 * DAY}


@pytest.mark.parametrize("delete_untagged", [False, True])
async def test_the_example(tmp_path: Path, delete_untagged: bool) -> None:
    store = example_registry()
    store.write_folder(tmp_path)
    await plan_and_compare(DiskStorage(tmp_path), store, delete_untagged, DAY)
