"""Removal of what somebody names: what goes, what stays, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from regstore import Reference, sync
from regstore.digest import Digest
from regstore.errors import InputError, LockLost, ManifestUnknown, NameUnknown, Refused, RegstoreError, TagUnknown
from regstore.gc.removal.named import Named
from regstore.gc.removal.run import Removal, RemovalOptions, RemovalReport, open_removal
from regstore.gc.restore import RestoreOptions, apply_restore, plan_restore
from regstore.inventory.scan import ScanOptions
from regstore.layout import DATABASE_IN_USE, BlobKey, LayerLinkKey, TagCurrentKey, encode
from regstore.state.lock import break_locks, hold_lock
from regstore.state.trashed import find_trash
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage
from tests.gc.scenes import collect, look, model_storage, options, registry
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

OPTIONS = RemovalOptions(scan=ScanOptions(cache_dir=None, concurrency=1), settle=0)


async def planned(storage: Storage, *words: str, recursive: bool = False) -> Removal:
    async with open_removal(storage, Named.parse(words, recursive=recursive), OPTIONS) as removal:
        return removal


async def remove(storage: Storage, *words: str, recursive: bool = False) -> RemovalReport:
    return await remove_named(storage, Named.parse(words, recursive=recursive))


async def remove_named(storage: Storage, named: Named) -> RemovalReport:
    async with hold_lock(storage, command="rm") as lock, open_removal(storage, named, OPTIONS, lock) as removal:
        return await removal.apply()


async def undo(storage: Storage, run: str) -> None:
    async with hold_lock(storage, command="trash restore") as lock:
        restored = await apply_restore(storage, await plan_restore(storage, RestoreOptions(run=run)), lock)
    assert not restored.conflicts


class Scene:
    """A repository `a` with an index of two images, a signature of it by tag and by subject, an image with three tags,
    an older one that was named `latest` before; `a/b` nested in it, and `c`, which has the same image."""

    def __init__(self) -> None:
        b = self.b = Builder(NOW - 30 * DAY)
        config, layer = b.blob(b"config"), b.blob(b"layer")
        self.layer = layer
        self.image, self.older = b.image(config, [layer]), b.image(config, [b.blob(b"old layer")])
        self.amd, self.arm = b.image(config, [b.blob(b"amd")]), b.image(config, [b.blob(b"arm")])
        self.index = b.index([self.amd, self.arm])
        b.push("a", self.older, "latest")
        for tag in ("latest", "1.0", "1"):
            b.push("a", self.image, tag)
        b.push("a", self.index, "multi")
        self.signature = b.image(b.blob(b"signature"), [], subject=self.index)
        b.push("a", self.signature)
        self.sig_tag = f"sha256-{self.index.encoded}.sig"
        b.push("a", b.image(b.blob(b"cosign"), []), self.sig_tag)
        b.push("a/b", self.image, "nested")
        b.push("c", self.image, "1.0")

    @property
    def store(self) -> ModelStore:
        return self.b.store

    def keys(self, *parts: str) -> set[str]:
        """Those in which all of these stand."""
        return {key for key in self.store if all(part in key for part in parts)}


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def went(scene: Scene, storage: ModelStorage, report: RemovalReport) -> set[str]:
    """The keys that went; and all comes back."""
    after = registry(storage.store)
    gone = {key for key in scene.store if key not in after}
    assert after.bodies() == scene.store.without(gone).bodies()
    await undo(storage, report.run)
    assert registry(storage.store).bodies() == scene.store.bodies()
    return gone


async def test_one_tag_and_only_it(scene: Scene) -> None:
    storage = model_storage(scene.store)
    report = await remove(storage, "a:1.0")
    assert (report.tags, report.revisions, report.failures) == (1, 0, ())
    assert await went(scene, storage, report) == scene.keys("/a/_manifests/tags/1.0/")


async def test_a_tag_goes_with_all_its_history(scene: Scene) -> None:
    storage = model_storage(scene.store)
    report = await remove(storage, "a:latest")
    gone = await went(scene, storage, report)
    assert gone == scene.keys("/a/_manifests/tags/latest/") and len(gone) == 3


async def test_a_revision_goes_with_the_tags_that_name_it(scene: Scene) -> None:
    storage = model_storage(scene.store)
    report = await remove(storage, f"a@{scene.image}")
    assert (report.tags, report.revisions) == (3, 1)
    wanted = scene.keys("/a/_manifests/revisions/", scene.image.encoded)
    for tag in ("latest", "1.0", "1"):
        wanted |= scene.keys(f"/a/_manifests/tags/{tag}/")
    assert await went(scene, storage, report) == wanted


async def test_what_an_index_lists_stays(scene: Scene) -> None:
    storage = model_storage(scene.store)
    for words in ([f"a@{scene.amd}"], [f"a@{scene.arm}", "a:multi"], [f"a@{scene.amd}", f"a@{scene.image}"]):
        with pytest.raises(Refused, match=f"is listed by a@{scene.index}.*remove that first, or name both"):
            await remove(storage, *words)
        assert storage.store.objects == scene.store.objects


async def test_an_index_and_what_it_lists_go_together(scene: Scene) -> None:
    storage = model_storage(scene.store)
    report = await remove(storage, f"a@{scene.amd}", f"a@{scene.index}")
    assert (report.tags, report.revisions) == (1, 2)
    wanted = scene.keys("/a/_manifests/tags/multi/")
    for digest in (scene.amd, scene.index):
        wanted |= scene.keys("/a/_manifests/revisions/", digest.encoded, "/link")
    assert await went(scene, storage, report) == wanted


async def test_what_is_about_it_stays_and_is_told(scene: Scene) -> None:
    storage = model_storage(scene.store)
    (one,) = (await planned(storage, f"a@{scene.index}")).repositories
    assert (one.attached_tags, one.referrers) == ((scene.sig_tag,), (str(scene.signature),))
    (one,) = (await planned(storage, f"a@{scene.index}", f"a@{scene.signature}", f"a:{scene.sig_tag}")).repositories
    assert (one.attached_tags, one.referrers) == ((), ())
    await remove(storage, f"a@{scene.signature}")  # of an image that stays


async def test_a_whole_repository_and_no_other(scene: Scene) -> None:
    storage = model_storage(scene.store)
    (one,) = (await planned(storage, "a", recursive=True)).repositories
    assert (one.whole, one.nested, len(one.tags), len(one.revisions)) == (True, ("a/b",), 5, 7)
    report = await remove(storage, "a", recursive=True)
    assert (report.tags, report.revisions) == (5, 7)
    assert await went(scene, storage, report) == scene.keys("/repositories/a/_manifests/")


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["a:nothing", "a:1.0"], TagUnknown, "no tag a:nothing"),
        (["c:latest"], TagUnknown, "no tag c:latest"),
        ([f"c@{Digest.of(b'other')}", "a:1.0"], ManifestUnknown, "no image c@"),
        (["d:1.0"], TagUnknown, "no tag d:1.0"),
        (["a", "d"], NameUnknown, r"no repository d \(or no tag and no image of it is left"),
        (["team"], NameUnknown, "no repository team; within that name are team/app, each to be named by itself"),
        (["A:1.0"], InputError, "not a repository name"),
        ([f"a:{Digest.of(b'x')}"], InputError, f"behind an @, a@{Digest.of(b'x')}"),
        (["a:1.0@" + str(Digest.of(b"x"))], InputError, "a tag and a digest"),
        ([], InputError, "nothing is named"),
    ],
)
async def test_what_is_not_there(scene: Scene, words: Sequence[str], error: type[RegstoreError], said: str) -> None:
    scene.b.push("team/app", scene.image)
    storage = model_storage(scene.store)
    with pytest.raises(error, match=said):
        await remove(storage, *words, recursive=True)
    assert registry(storage.store).objects == scene.store.objects
    assert not await find_trash(storage)


def test_a_whole_repository_needs_a_word() -> None:
    with pytest.raises(InputError, match="--recursive"):
        Named.parse(["a"])


async def test_a_lock_that_is_broken_ends_it(scene: Scene) -> None:
    storage = model_storage(scene.store)
    broken = 0

    async def break_it(operation: str, key: str) -> None:
        nonlocal broken
        if operation == "put" and key.endswith("000001.jsonl.gz"):  # all is journaled, nothing has gone
            broken += len(await break_locks(storage))

    with pytest.raises(LockLost):
        await remove_named(FaultyStorage(storage, after=break_it), Named.parse(["a"], recursive=True))
    assert broken and registry(storage.store).objects == scene.store.objects


async def test_a_database(scene: Scene) -> None:
    scene.b.put(DATABASE_IN_USE, b"")
    with pytest.raises(Refused, match="in a database"):
        await remove(model_storage(scene.store), "a:1.0")


async def test_an_unreadable_index_might_list_it(scene: Scene) -> None:
    scene.b.put(BlobKey(scene.index), b"damaged")
    storage = model_storage(scene.store)
    with pytest.raises(Refused, match=f"manifest {scene.index} can't be read"):
        await remove(storage, f"a@{scene.image}")
    await remove(storage, "a:1.0")  # a tag needs to know of no manifest
    await remove(storage, f"a@{scene.index}", f"a@{scene.amd}")  # it goes itself


async def test_a_tag_that_cant_be_read_may_name_it(scene: Scene) -> None:
    scene.b.put(TagCurrentKey("a", "bad"), b"no digest")
    storage = model_storage(scene.store)
    with pytest.raises(Refused, match="the link of tag bad is damaged"):
        await remove(storage, f"a@{scene.image}")
    report = await remove(storage, "a:bad")
    assert await went(scene, storage, report) == {encode(TagCurrentKey("a", "bad"))}


async def test_what_only_an_unlinked_index_lists_stays(scene: Scene) -> None:
    """An index of indexes whose inner one the repository does not link."""
    inner = scene.b.index([scene.image])
    outer = scene.b.index([inner])
    scene.b.push("c", outer, "outer")
    for key in scene.keys("/c/_manifests/revisions/", inner.encoded):
        del scene.store.objects[key]
    with pytest.raises(Refused, match=f"is listed by c@{inner}"):
        await remove(model_storage(scene.store), f"c@{scene.image}")


async def test_what_is_no_link_has_no_way_back(scene: Scene) -> None:
    scene.b.put(TagCurrentKey("a", "1.0"), b"x" * 5000)
    storage = model_storage(scene.store)
    with pytest.raises(Refused, match="no journal could bring it back"):
        await remove(storage, "a:1.0")
    assert registry(storage.store).objects == scene.store.objects


async def test_gc_after_it(scene: Scene) -> None:
    """gc neither stops for what a removal took nor gives it back, and takes what nothing needs any more."""
    storage = model_storage(scene.store)
    run = options(offline=False, delete_untagged=False, max_delete=1.0, max_lost=0.1)
    await collect(storage, run)
    await remove(storage, "a", recursive=True)
    await remove(storage, "c:1.0")
    report = await collect(storage, run)
    assert report.healed.nothing
    left = registry(storage.store)
    assert not [key for key in left if "/repositories/a/_" in key]
    assert encode(LayerLinkKey("a/b", scene.layer)) in left and encode(BlobKey(scene.layer)) in left
    assert encode(BlobKey(scene.amd)) not in left


async def test_gc_of_untagged_after_the_last_tag_went(scene: Scene) -> None:
    """That somebody has removed a repository's last tag is no sign of tags kept elsewhere."""
    storage = model_storage(scene.store)
    await remove(storage, "c:1.0")
    run = options(offline=True, untagged_repositories=False)
    assert not (await look(storage, run)).stops
    scene.b.push("d", scene.image)
    other = model_storage(scene.store)
    await remove(other, "c:1.0")
    (stop,) = (await look(other, run)).stops
    assert "(d)" in stop


async def test_for_tags_no_manifest_is_read(scene: Scene) -> None:
    storage = model_storage(scene.store)
    for key in [key for key in storage.store if "/blobs/" in key]:
        del storage.store.objects[key]
    report = await remove(storage, "a:1.0", "a:1")
    assert (report.tags, report.failures) == (2, ())


async def test_on_disk(scene: Scene, tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = scene.store.on_disk()
    store.write_folder(root)
    async with DiskStorage(root) as storage:
        report = await remove(storage, "a:1.0", f"a@{scene.index}")
        tags = root / "docker/registry/v2/repositories/a/_manifests/tags"
        assert {path.name for path in tags.iterdir()} == {"latest", "1", scene.sig_tag}
        await undo(storage, report.run)
        assert registry(ModelStore.from_folder(root)).bodies() == store.bodies()


def test_without_await(scene: Scene, tmp_path: Path) -> None:
    scene.store.on_disk().write_folder(tmp_path)
    storage, named = DiskStorage(tmp_path), Named.parse(["a:1.0", "a:new"])
    with sync.gc.hold_lock(storage, command="tag") as lock:
        plan = sync.gc.plan_tag(storage, Reference.parse(f"a@{scene.index}"), "new")
        assert sync.gc.apply_tag(storage, plan, lock) == lock.run
    with (
        sync.gc.hold_lock(storage, command="rm") as lock,
        sync.gc.open_removal(storage, named, OPTIONS, lock) as it,
    ):
        (one,) = it.repositories
        assert one.tags == (("1.0", str(scene.image)), ("new", str(scene.index)))
        assert it.apply().tags == 2


async def test_the_run_is_in_the_trash(scene: Scene) -> None:
    storage = model_storage(scene.store)
    report = await remove(storage, "a:1.0")
    (run,) = await find_trash(storage)
    assert (run.run, run.command, run.complete, run.settled) == (report.run, "rm", True, True)


def test_what_is_tagged_twice_in_words() -> None:
    digest = Digest.of(b"x")
    named = Named.parse(["a:1", "a:1", f"a@{digest}", "b"], recursive=True)
    assert named == Named(
        tags=frozenset({("a", "1")}), revisions=frozenset({("a", digest)}), repositories=frozenset({"b"})
    )
    assert named.names == ["a", "b"]


async def test_the_undo_of_a_manifest_takes_the_tags_that_name_it_cut() -> None:
    """A sha512 is too long for a tag: the distribution specification cuts it to 64 characters."""
    b = Builder(NOW - 30 * DAY)
    image = b.by_sha512(b.image(b.blob(b"config"), [b.blob(b"layer")]))
    b.push("a", image, "v1")
    cut, other = f"sha512-{image.encoded[:64]}.sig", f"sha512-{Digest.of(b'other', 'sha512').encoded[:64]}.sig"
    b.push("a", b.image(b.blob(b"cosign"), []), cut)
    b.push("a", b.image(b.blob(b"another cosign"), []), other)
    storage = model_storage(b.store)
    report = await remove(storage, f"a@{image}", f"a:{cut}", f"a:{other}")
    assert report.tags == 3
    async with hold_lock(storage, command="trash restore") as lock:
        plan = await plan_restore(storage, RestoreOptions(run=report.run, digest=image))
        await apply_restore(storage, plan, lock)
    assert encode(TagCurrentKey("a", "v1")) in storage.store
    assert encode(TagCurrentKey("a", cut)) in storage.store
    assert encode(TagCurrentKey("a", other)) not in storage.store
