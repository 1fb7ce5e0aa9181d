"""Migrations and restores of what a store does not give: named, left out, and the rest goes on."""

from __future__ import annotations

from regstore.errors import AccessDenied, StorageError
from regstore.layout import BlobKey, TagCurrentKey, encode, link_body
from regstore.verify.run import verify
from tests.backup import places
from tests.migrate.stores import contents, dangling, move
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

EIO = StorageError("Input/output error")


def scene(images: int = 4) -> tuple[Builder, list[str]]:
    """Repositories with an image each, and the keys of their layers."""
    b, layers = Builder(NOW - 30 * DAY), []
    for number in range(images):
        layer = b.blob(b"layer %d" % number)
        b.push(f"r{number}", b.image(b.blob(b"config %d" % number), [layer]), "latest")
        layers.append(encode(BlobKey(layer)))
    return b, layers


def memory(store: ModelStore, **more: bool) -> ModelStorage:
    storage = ModelStorage(store, now=NOW, **more)
    storage.url = f"model {id(store)}"
    return storage


async def test_thirty_bad_layers_of_forty_images_leave_thirty_tags_out() -> None:
    """More than twenty in a row, and yet no outage: manifests and configs can be read."""
    b, layers = scene(40)
    source, target = memory(b.store), memory(ModelStore())
    source.unreadable = dict.fromkeys(layers[:30], EIO)
    result = await move(source, target)
    assert result.partial
    assert result.tags == 10
    assert {problem.repository for problem in result.skipped} >= {f"r{number}" for number in range(30)}
    assert dangling(await contents(target)) == []


async def test_archived_layers_are_no_outage_however_many() -> None:
    b, layers = scene(40)
    source, target = memory(b.store), memory(ModelStore())
    source.archived = dict.fromkeys(layers[1:], "DEEP_ARCHIVE")
    result = await move(source, target)
    assert (result.tags, result.partial) == (1, True)
    backup = memory(ModelStore())
    taken = await places.take(source, backup)
    assert len(taken.snapshot.left_out) == 39
    assert list(taken.snapshot.repositories) == ["r0"]


async def test_an_unreadable_link_of_the_source_is_left_out() -> None:
    b, _ = scene()
    source, target = memory(b.store, etags=False), memory(ModelStore())
    source.unreadable[encode(TagCurrentKey("r1", "latest"))] = EIO
    source.unreadable[next(key for key in b.store.objects if "/r2/_layers/" in key)] = EIO
    result = await move(source, target)
    assert result.partial
    named = " ".join(map(str, (*result.damaged, *result.skipped, *result.failed)))
    assert "r1" in named and "r2" in named and "Input/output error" in named
    assert encode(TagCurrentKey("r0", "latest")) in target.store
    assert encode(TagCurrentKey("r1", "latest")) not in target.store


async def test_an_unreadable_tag_of_the_target_is_not_written_over() -> None:
    b, _ = scene()
    tag = encode(TagCurrentKey("r1", "latest"))
    other = Builder(NOW - 30 * DAY)
    theirs = other.image(other.blob(b"their config"))
    other.push("r1", theirs, "latest")
    target = memory(other.store, etags=False)
    target.unreadable[tag] = AccessDenied("no")
    result = await move(memory(b.store), target)
    assert result.partial
    assert any("r1" in str(problem) and "not written over" in str(problem) for problem in result.damaged)
    assert target.store.objects[tag][0] == link_body(theirs)
    assert encode(TagCurrentKey("r0", "latest")) in target.store


async def test_a_restore_goes_on_beside_what_can_not_be_read() -> None:
    """A blob and a pack of the backup, and a link of the store."""
    b, layers = scene(6)
    backup = memory(ModelStore())
    taken = await places.take(memory(b.store), backup)
    blob = next(key for key in backup.store.objects if layers[0].split("/")[-2] in key)
    backup.unreadable[blob] = EIO
    for key in backup.store.objects:
        if taken.snapshot.repositories["r1"].pack in key:
            backup.unreadable[key] = EIO
    store = memory(ModelStore(), etags=False)
    link = next(key for key in b.store.objects if "/r2/_layers/" in key)
    store.store.objects[link] = b.store.objects[link]
    store.unreadable[link] = AccessDenied("no")
    result = await places.give_back(backup, store)
    assert result.partial
    said = " ".join([*result.damaged, *result.left_out])
    assert "r0: tag latest" in said and "r1: all of it" in said and "r2: all of it" in said
    for number in (3, 4, 5):
        assert encode(TagCurrentKey(f"r{number}", "latest")) in store.store
    for number in (0, 1, 2):
        assert encode(TagCurrentKey(f"r{number}", "latest")) not in store.store
    assert (await verify(store)).findings.tags == 3
    # And nothing is forgotten on such evidence.
    await places.take(memory(b.store), backup)
    pruned = await places.collect(backup, last=1)
    assert pruned.snapshots == 0 and "nothing is deleted" in pruned.plan.blocked
