"""What repair leaves alone, and goes on after."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from regstore.errors import StorageError
from regstore.storage.base import PutOptions, ReadHandle
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW
from tests.servers import images
from tests.verify.stores import ALIAS, APP, DOCKER, SINGLE, link, mend, pristine, storage_of

CURRENT = f"{APP}/_manifests/tags/single/current/link"


@pytest.mark.parametrize("lost", ["blob", "revision", "nothing"])
async def test_a_tag_comes_back_only_when_it_is_whole(lost: str) -> None:
    """A tag that is restored names only what is there."""
    store, copy = pristine(), pristine()
    del store.objects[CURRENT]
    for one in (store, copy):
        if lost == "blob":
            del one.objects[images.blob_key(SINGLE.blobs[1].digest)]
        elif lost == "revision":
            del one.objects[link("team/app", "_manifests/revisions", SINGLE.digest)]
            one.objects.pop(f"{APP}/_manifests/tags/next/current/link")
    await mend(storage_of(store), storage_of(copy), restore_links=True)
    assert (CURRENT in store) == (lost == "nothing")


async def test_a_copy_that_can_not_be_read_does_not_hold_up_the_rest() -> None:
    store = pristine()
    one, other = images.blob_key(SINGLE.blobs[1].digest), images.blob_key(DOCKER.blobs[1].digest)
    for key in (one, other):
        store.objects[key] = (b"rotten", NOW)

    class Broken(ModelStorage):
        def open_read(
            self, key: str, *, start: int = 0, length: int | None = None
        ) -> AbstractAsyncContextManager[ReadHandle]:
            if key == one:
                raise StorageError(f"{key}: input/output error")
            return super().open_read(key, start=start, length=length)

    _, repairs, left = await mend(storage_of(store), Broken(pristine(), now=NOW))
    assert repairs.blobs == (DOCKER.blobs[1].digest,)
    assert "input/output error" in "".join(repairs.failures)
    assert left.findings.damage == 1


async def test_what_is_written_is_stored_as_asked() -> None:
    """A blob, a link that is written anew, and one that is put back."""
    put = PutOptions(storage_class="STANDARD_IA", sse="aws:kms", sse_kms_key_id="key", acl="private")
    store = pristine()
    blob, lost = images.blob_key(SINGLE.blobs[1].digest), link("b", "_layers", str(ALIAS))
    damaged = link("team/app", "_layers", SINGLE.blobs[0].digest)
    del store.objects[blob], store.objects[lost]
    store.objects[damaged] = (b"", NOW)
    stored: dict[str, PutOptions | None] = {}

    class Recording(ModelStorage):
        async def put(self, key: str, data: bytes, **more: Any) -> None:
            stored[key] = more.pop("options", None)
            await super().put(key, data, **more)

        async def put_stream(self, key: str, chunks: Any, **more: Any) -> int:
            options = more.pop("options", None)
            size = await super().put_stream(key, chunks, **more)
            stored[key] = options
            return size

    await mend(Recording(store, now=NOW), storage_of(pristine()), restore_links=True, put=put)
    assert {key: stored.get(key) for key in (blob, lost, damaged)} == dict.fromkeys((blob, lost, damaged), put)
