"""Manifests that only a layer link makes part of a repository, as v2.1.0 linked them: a registry of 2.x serves them."""

from __future__ import annotations

import pytest

from regstore.digest import Digest
from regstore.layout import (
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    TagCurrentKey,
    encode,
    link_body,
)
from tests.backup.oracle import expected, incomplete_tags
from tests.backup.places import contents, give_back, memory, take
from tests.model.builder import Builder
from tests.model.random_registry import NOW
from tests.model.store import ModelStore

HOLDS = {
    "signed": True,
    "signed and tagged": True,
    "signature damaged": True,
    "signature damaged, tagged": True,
    "tagged": True,
    "neither": False,
}


def linked_as_layer(how: str) -> tuple[ModelStore, Digest]:
    b = Builder(NOW)
    manifest = b.schema1([b.blob(b"layer")])
    b.push("a", manifest, "1" if "tagged" in how else None)
    b.link_layer("a", manifest)
    del b.store.objects[encode(RevisionLinkKey("a", manifest))]
    if "sign" in how:
        signature = b.blob(b"signature")
        b.sign("a", manifest, signature)
        if "damaged" in how:
            b.put(BlobKey(signature), b"")
    b.push("a", b.image(b.blob(b"config")), "other")
    return b.store, manifest


@pytest.mark.parametrize("how", HOLDS)
async def test_what_a_registry_serves_comes_back_as_a_manifest(how: str) -> None:
    """Also where its only signature is damaged, which told it from a layer: it would be garbage once its tag goes."""
    store, manifest = linked_as_layer(how)
    backup, target = memory(), memory()
    taken = await take(memory(store), backup)
    assert not [one for one in taken.snapshot.left_out if one.tag]
    await give_back(backup, target)
    restored = await contents(target)
    assert (encode(RevisionLinkKey("a", manifest)) in restored) is HOLDS[how]
    assert (encode(BlobKey(manifest)) in restored) is HOLDS[how]
    assert (encode(TagCurrentKey("a", "1")) in restored) is ("tagged" in how)
    assert restored.keys() == expected(store.bodies())
    assert not incomplete_tags(restored)
    # A backup of what came back is the same.
    again = await take(target, memory())
    assert again.snapshot.repositories == taken.snapshot.repositories


@pytest.mark.parametrize("body", [b"", link_body(Digest.of(b"layer"))], ids=["empty", "of another digest"])
@pytest.mark.parametrize("how", ["signed and tagged", "tagged"])
async def test_one_whose_layer_link_is_broken_is_left_out_and_named(how: str, body: bytes) -> None:
    """A registry answers 500, or other bytes."""
    store, manifest = linked_as_layer(how)
    store.objects[encode(LayerLinkKey("a", manifest))] = (body, NOW)
    backup, target = memory(), memory()
    taken = await take(memory(store), backup)
    fault = "is empty" if not body else f"names another digest: {Digest.of(b'layer')}"
    assert {(one.what, one.reason) for one in taken.snapshot.left_out} == {
        ("tag 1", f"was left out: the repository has no readable link of {manifest.short}"),
        (f"revision {manifest}", f"was left out: its link {fault}"),
    }
    await give_back(backup, target)
    restored = await contents(target)
    assert not [key for key in restored if key.endswith("/tags/1/current/link") or manifest.encoded in key]
    assert restored.keys() == expected(store.bodies())
