"""What the store does not give, and what it has archived, is named, and nothing is changed on such evidence."""

from __future__ import annotations

import pytest

from regstore.digest import Digest
from regstore.errors import AccessDenied, StorageError, Unreachable
from regstore.layout import BlobKey, LayerLinkKey, RevisionLinkKey, TagCurrentKey, TagIndexKey, encode
from regstore.verify.fault import FaultKind
from tests.examples import crossed
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW
from tests.servers import images
from tests.verify.stores import SINGLE, look, mend, pristine, registry_of, storage_of

MANIFEST = Digest.parse(SINGLE.digest)
LAYER = Digest.parse(SINGLE.blobs[1].digest)
LINKS = {
    "layer": encode(LayerLinkKey("team/app", LAYER)),
    "revision": encode(RevisionLinkKey("team/app", MANIFEST)),
    "tag": encode(TagCurrentKey("team/app", "single")),
    "history": encode(TagIndexKey("team/app", "single", MANIFEST)),
}
TROUBLE = {
    "403": AccessDenied("no"),
    "500": Unreachable("InternalError"),
    "EIO": StorageError("Input/output error"),
}


@crossed("area, error", list(LINKS), TROUBLE, meeting=1)
async def test_an_unreadable_link_is_named_and_not_written_over(area: str, error: StorageError) -> None:
    storage = ModelStorage(pristine(), now=NOW, etags=False)
    storage.unreadable[LINKS[area]] = error
    before = registry_of(storage.store)
    found, repairs, _ = await mend(
        storage, storage_of(pristine()), drop_broken_tags=True, restore_links=True, grace=0
    )
    assert found.findings.counts == {FaultKind.LINK_UNREADABLE: 1}
    (fault,) = found.findings.faults
    assert fault.area == area and str(error) in fault.detail
    assert found.findings.damage == 1
    assert repairs.nothing
    assert registry_of(storage.store) == before


@pytest.mark.parametrize("area", ["layer", "revision", "tag"])
async def test_an_archived_link_keeps_its_tag_from_being_pulled(area: str) -> None:
    """LIST proves what it says, and yet no registry can read it."""
    storage = storage_of(pristine())
    storage.archived[LINKS[area]] = "GLACIER"
    report = await look(storage)
    assert report.findings.counts == {FaultKind.ARCHIVED: 1}
    (fault,) = report.findings.faults
    assert fault.area == area and "GLACIER" in fault.detail
    assert "team/app:single" in {str(tag) for tag in fault.touched if tag.pull}


async def test_an_unreadable_manifest_is_neither_repaired_nor_dropped() -> None:
    storage = storage_of(pristine())
    storage.unreadable[encode(BlobKey(MANIFEST))] = TROUBLE["EIO"]
    before = registry_of(storage.store)
    found, repairs, left = await mend(storage, storage_of(pristine()), drop_broken_tags=True, grace=0)
    for report in (found, left):
        assert report.findings.counts == {FaultKind.BLOB_UNREADABLE: 1}
        assert {str(tag) for tag in report.findings.faults[0].touched if tag.pull} >= {"team/app:single", "other:1"}
    assert repairs.nothing
    assert registry_of(storage.store) == before


async def test_one_bad_sector_does_not_end_the_reading_of_blobs() -> None:
    storage = storage_of(pristine())
    storage.unreadable[encode(BlobKey(LAYER))] = AccessDenied("no")
    report = await look(storage, "all")
    assert report.findings.counts == {FaultKind.BLOB_UNREADABLE: 1}
    assert report.reading is not None
    assert report.reading.blobs + report.reading.manifests == report.findings.blobs


async def test_what_is_archived_is_not_read_with_the_others() -> None:
    storage = storage_of(pristine())
    storage.archived[images.blob_key(SINGLE.blobs[1].digest)] = "DEEP_ARCHIVE"
    report = await look(storage, "all")
    assert report.findings.counts == {FaultKind.ARCHIVED: 1}
    assert report.findings.tags_broken == 3
