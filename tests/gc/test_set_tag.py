"""One tag set by name: a new one, one that is moved, and back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from regstore.errors import BlobUnknown, IntegrityError, InvalidReference, ManifestUnknown, Refused, TagUnknown
from regstore.gc.restore import RestoreOptions, apply_restore, plan_restore
from regstore.gc.set_tag import apply_tag, plan_tag
from regstore.layout import (
    DATABASE_IN_USE,
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    TagCurrentKey,
    TagIndexKey,
    encode,
    link_body,
)
from regstore.reference import Reference
from regstore.state.journal import find_runs
from regstore.state.lock import break_locks, hold_lock
from regstore.storage.base import Storage
from regstore.tagging import UNDER_WAY
from regstore.testing.faulty import FaultyStorage, died
from tests.gc.scenes import collect, copy_of, model_storage, options, registry
from tests.gc.test_removal import Scene, remove, scene
from tests.model.memory import ModelStorage

__all__ = ["scene"]


async def set_tag(storage: Storage, image: str, new: str, *, force: bool = False) -> str:
    async with hold_lock(storage, command="tag") as lock:
        return await apply_tag(storage, await plan_tag(storage, Reference.parse(image), new, force=force), lock)


def names(storage: ModelStorage, tag: str) -> bytes | None:
    return storage.store.body(encode(TagCurrentKey("a", tag)))


async def test_a_new_tag(scene: Scene) -> None:
    storage = model_storage(scene.store)
    await set_tag(storage, "a:multi", "new")
    added = {
        encode(TagCurrentKey("a", "new")): link_body(scene.index),
        encode(TagIndexKey("a", "new", scene.index)): link_body(scene.index),
    }
    assert registry(storage.store).bodies() == scene.store.bodies() | added
    await set_tag(storage, f"a@{scene.amd}", "amd")
    assert names(storage, "amd") == link_body(scene.amd)


async def test_one_that_names_it_already(scene: Scene) -> None:
    plan = await plan_tag(model_storage(scene.store), Reference.parse("a:1.0"), "latest")
    assert plan.nothing_to_do and plan.was == str(scene.image)


async def test_one_that_stands_is_moved_by_force_and_back(scene: Scene) -> None:
    storage = model_storage(scene.store)
    with pytest.raises(Refused, match=f"a:latest names {scene.image} already.*--force"):
        await set_tag(storage, "a:multi", "latest")
    assert registry(storage.store).objects == scene.store.objects
    run = await set_tag(storage, "a:multi", "latest", force=True)
    assert names(storage, "latest") == link_body(scene.index)
    await undo(storage, run)
    assert names(storage, "latest") == link_body(scene.image)
    left = registry(storage.store).bodies()
    assert left.pop(encode(TagIndexKey("a", "latest", scene.index)))  # its history says what happened
    assert left == scene.store.bodies()


async def undo(storage: Storage, run: str | None = None) -> None:
    async with hold_lock(storage, command="trash restore") as lock:
        restored = await apply_restore(storage, await plan_restore(storage, RestoreOptions(run=run)), lock)
    assert not restored.conflicts and restored.links


async def restore(storage: Storage, run: str) -> None:
    """Whether or not anything is to come back."""
    async with hold_lock(storage, command="trash restore") as lock:
        restored = await apply_restore(storage, await plan_restore(storage, RestoreOptions(run=run)), lock)
    assert not restored.conflicts


async def test_no_undo_where_it_was_set_since(scene: Scene) -> None:
    storage = model_storage(scene.store)
    run = await set_tag(storage, "a:multi", "latest", force=True)
    storage.clock += 10_000_000
    await set_tag(storage, f"a@{scene.older}", "latest", force=True)
    plan = await plan_restore(storage, RestoreOptions(run=run))
    assert plan.nothing_to_do and plan.conflicts
    storage.clock += 10_000_000
    await set_tag(storage, "a:multi", "latest", force=True)  # the very image, but set again
    plan = await plan_restore(storage, RestoreOptions(run=run))
    assert plan.nothing_to_do and "pushed since" in plan.conflicts[0].reason


async def test_what_can_not_be_tagged(scene: Scene) -> None:
    storage = model_storage(scene.store)
    with pytest.raises(TagUnknown):
        await set_tag(storage, "a:nothing", "new")
    with pytest.raises(ManifestUnknown):
        await set_tag(storage, f"a/b@{scene.index}", "new")
    with pytest.raises(InvalidReference):
        await set_tag(storage, "a:1.0", "no tag")
    scene.b.put(BlobKey(scene.image), b"damaged")
    with pytest.raises(IntegrityError):
        await set_tag(model_storage(scene.store), "a:1.0", "new")
    scene.b.put(DATABASE_IN_USE, b"")
    with pytest.raises(Refused, match="in a database"):
        await set_tag(model_storage(scene.store), "a:multi", "new")


async def test_what_can_not_be_pulled_is_not_tagged(scene: Scene) -> None:
    """As a registry refuses to take such an image."""
    storage = model_storage(scene.store)
    await storage.delete_many([encode(RevisionLinkKey("a", scene.amd))])
    with pytest.raises(ManifestUnknown, match=f"lacks what the manifest refers to.*{scene.amd}"):
        await set_tag(storage, "a:multi", "new")
    await set_tag(storage, "a:multi", "new", force=True)  # an index may be sparse
    for key in (encode(LayerLinkKey("a", scene.layer)), encode(BlobKey(scene.layer))):
        broken = model_storage(scene.store)
        await broken.delete_many([key])
        with pytest.raises(BlobUnknown, match=f"lacks what the manifest refers to.*{scene.layer}"):
            await set_tag(broken, "a:1.0", "latest", force=True)
        assert names(broken, "latest") == link_body(scene.image)


async def test_an_image_that_is_removed_as_it_is_tagged(scene: Scene) -> None:
    storage = model_storage(scene.store)

    async def remove_it(operation: str, key: str) -> None:
        if (operation, key) == ("put", encode(TagIndexKey("a", "new", scene.amd))):
            await storage.delete_many([encode(RevisionLinkKey("a", scene.amd))])

    with pytest.raises(Refused, match=f"a@{scene.amd} was removed while a:new was set to it; remove that tag, too"):
        await set_tag(FaultyStorage(storage, before=remove_it), f"a@{scene.amd}", "new")


async def test_no_undo_where_it_was_removed_since(scene: Scene) -> None:
    storage = model_storage(scene.store)
    run = await set_tag(storage, "a:multi", "latest", force=True)
    await remove(storage, "a:latest")
    plan = await plan_restore(storage, RestoreOptions(run=run))
    assert plan.nothing_to_do and plan.conflicts[0].reason == "it was removed since"


async def test_killed_after_any_change(scene: Scene) -> None:
    faulty = FaultyStorage(model_storage(scene.store))
    words = ("a:multi", "latest")
    await set_tag(faulty, *words, force=True)
    moved = 0
    for number in range(1, len(faulty.mutations) + 1):
        storage = model_storage(scene.store)
        assert await died(
            set_tag(FaultyStorage(storage, before=tick(storage), die_at=number, when="after"), *words, force=True)
        )
        assert names(storage, "latest") in (link_body(scene.image), link_body(scene.index))
        await break_locks(storage)
        undone = ModelStorage(copy_of(storage.store), now=storage.clock)
        for record in await find_runs(undone):
            if record.parts:
                moved += names(undone, "latest") == link_body(scene.index)
                await restore(undone, record.run)
        assert names(undone, "latest") == link_body(scene.image), number
        report = await collect(storage, options(offline=False, delete_untagged=False))
        assert report.healed.nothing
        assert names(storage, "latest") in (link_body(scene.image), link_body(scene.index))
    assert moved == 3, "with its journal closed, or not, or its lock given back"


def tick(storage: ModelStorage) -> Callable[[str, str], None]:
    """A second goes by with each request."""

    def before(operation: str, key: str) -> None:
        storage.clock += 1_000_000

    return before


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("whom", ["the same image", "another"])
async def test_no_undo_where_somebody_pushed_since(scene: Scene, killed: bool, whom: str) -> None:
    """A push of the very image that the run had set writes the same links, but the revision's, too."""
    storage = model_storage(scene.store)
    faulty = FaultyStorage(storage, before=tick(storage), die_at=5 if killed else 0, when="after")
    assert killed == await died(set_tag(faulty, "a:multi", "latest", force=True))
    assert names(storage, "latest") == link_body(scene.index)
    await break_locks(storage)
    storage.clock += 1_000_000
    image = scene.index if whom == "the same image" else scene.amd
    for key in (RevisionLinkKey("a", image), TagIndexKey("a", "latest", image), TagCurrentKey("a", "latest")):
        await storage.put(encode(key), link_body(image))
    plan = await plan_restore(storage, RestoreOptions())
    assert plan.nothing_to_do and len(plan.conflicts) == 1
    assert names(storage, "latest") == link_body(image)


async def test_a_push_meanwhile_is_not_written_over(scene: Scene) -> None:
    storage = model_storage(scene.store)
    async with hold_lock(storage, command="tag") as lock:
        plan = await plan_tag(storage, Reference.parse("a:multi"), "latest", force=True)
        storage.clock += 10_000_000
        await storage.put(encode(TagIndexKey("a", "latest", scene.older)), link_body(scene.older))
        await storage.put(encode(TagCurrentKey("a", "latest")), link_body(scene.older))
        with pytest.raises(Refused, match=f"was set meanwhile, and names {scene.older}"):
            await apply_tag(storage, plan, lock)
    assert names(storage, "latest") == link_body(scene.older)


@pytest.mark.parametrize("tag", ["new", "latest"])
async def test_half_a_push_is_not_written_over(scene: Scene, tag: str) -> None:
    """Its index link stands, its current/link is to come, or is emptied and not yet written."""
    storage = model_storage(scene.store)
    await storage.put(encode(TagIndexKey("a", tag, scene.older)), link_body(scene.older))
    begun = dict(storage.store.objects)
    with pytest.raises(Refused, match=f"a:{tag} is being pushed just now"):
        await set_tag(storage, "a:multi", tag, force=True)
    await storage.put(encode(TagCurrentKey("a", tag)), b"")
    with pytest.raises(Refused, match=f"a:{tag} is being pushed just now"):
        await set_tag(storage, "a:multi", tag, force=True)
    storage.store.objects = dict(begun)
    await set_tag(storage, f"a@{scene.older}", tag, force=True)  # the same image: no harm
    assert names(storage, tag) == link_body(scene.older)
    storage.store.objects = dict(begun)
    storage.clock += UNDER_WAY + 1_000_000  # it was cut short
    await set_tag(storage, "a:multi", tag, force=True)
    assert names(storage, tag) == link_body(scene.index)


async def test_a_tag_whose_link_is_damaged(scene: Scene) -> None:
    scene.b.put(TagCurrentKey("a", "bad"), b"no digest")
    storage = model_storage(scene.store)
    with pytest.raises(Refused, match="names nothing that can be read already"):
        await set_tag(storage, "a:multi", "bad")
    await set_tag(storage, "a:multi", "bad", force=True)
    assert names(storage, "bad") == link_body(scene.index)


async def test_and_removed_again(scene: Scene) -> None:
    storage = model_storage(scene.store)
    await set_tag(storage, "a:multi", "new")
    await remove(storage, "a:new")
    assert registry(storage.store).bodies() == scene.store.bodies()
