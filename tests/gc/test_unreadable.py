"""What the store has and does not give: damage of that key, which protects. Many such are an outage, which stops."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.errors import AccessDenied, AuthenticationFailed, NoConnection, Outage, StorageError, Unreachable
from regstore.gc.caches import NoCache
from regstore.gc.plan import GcOptions, plan_gc
from regstore.gc.policy import BrokenScope
from regstore.gc.run import open_run
from regstore.gc.trash import Emptied, EmptyOptions, empty_trash
from regstore.inventory.scan import ScanOptions, scan
from regstore.layout import (
    REPOSITORIES,
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    TagCurrentKey,
    TagIndexKey,
    decode,
    encode,
    link_body,
)
from regstore.state.lock import hold_lock
from regstore.storage.disk import DiskStorage
from tests.examples import crossed, examples
from tests.gc.scenes import collect, copy_of, look, options, registry, trash
from tests.gc.test_plan_against_oracle import compare
from tests.model.builder import Builder
from tests.model.gc_oracle import expected
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, GRACES, NOW, UPLOADS_OLDER_THAN, registries
from tests.model.store import ModelStore

#: What an object can answer, for ever.
TROUBLE = {
    "403": AccessDenied("Access Denied"),
    "500": Unreachable("kept failing after all retries (InternalError)"),
    "EIO": StorageError("Input/output error"),
}
trouble = pytest.mark.parametrize("error", TROUBLE.values(), ids=TROUBLE.keys())


class Scene:
    """Repositories `bad` and `good`, each with a tagged and an untagged image; and what `bad:latest` is made of."""

    def __init__(self) -> None:
        b = self.builder = Builder(NOW - 30 * DAY)
        self.layer = b.blob(b"layer of bad")
        self.tagged = b.image(b.blob(b"config of bad"), [self.layer])
        self.untagged = b.image(b.blob(b"old config of bad"), [b.blob(b"old layer of bad")])
        self.dead = b.image(b.blob(b"old config of good"), [b.blob(b"old layer of good")])
        b.push("bad", self.tagged, "latest")
        b.push("bad", self.untagged)
        b.push("good", b.image(b.blob(b"config of good"), [b.blob(b"layer of good")]), "latest")
        b.push("good", self.dead)

    def storage(self, *, etags: bool = True) -> ModelStorage:
        return ModelStorage(copy_of(self.builder.store), now=NOW, etags=etags)

    def keys(self) -> dict[str, str]:
        return {
            "manifest": encode(BlobKey(self.tagged)),
            "untagged manifest": encode(BlobKey(self.untagged)),
            "layer link": encode(LayerLinkKey("bad", self.layer)),
            "revision link": encode(RevisionLinkKey("bad", self.tagged)),
            "tag": encode(TagCurrentKey("bad", "latest")),
        }


KINDS = list(Scene().keys())


@crossed("kind, error, offline", KINDS, TROUBLE, {"offline": True, "serving": False})
async def test_one_unreadable_key_protects_its_repository(kind: str, error: StorageError, offline: bool) -> None:
    scene = Scene()
    storage = scene.storage(etags=False)
    key = scene.keys()[kind]
    storage.unreadable[key] = error
    run = await look(storage, options(offline=offline))
    (protected,) = run.summary.protected
    assert protected.name == "bad"
    assert any("can't be read" in reason and str(error) in reason for reason in protected.reasons)
    before = copy_of(storage.store)
    await collect(storage, options(offline=offline))
    gone = before.objects.keys() - storage.store.objects.keys()
    assert encode(BlobKey(scene.dead)) in gone
    # Everything of `bad` is as it was, blobs of its untagged image, too.
    assert not {key for key in gone if "/bad/" in key}
    bad = {scene.tagged, scene.untagged, scene.layer}
    bad |= {Digest.of(text) for text in (b"config of bad", b"old config of bad", b"old layer of bad")}
    assert {encode(BlobKey(digest)) for digest in bad} <= storage.store.objects.keys()


async def test_an_unreadable_tag_keeps_all_that_its_history_names() -> None:
    """The repository does not link what it names; nothing else would keep it."""
    scene = Scene()
    b = scene.builder
    lone = b.image(b.blob(b"lone config"), [b.blob(b"lone layer")])
    b.tag("bad", "lone", lone)
    storage = scene.storage(etags=False)
    storage.unreadable[encode(TagCurrentKey("bad", "lone"))] = TROUBLE["EIO"]
    await collect(storage, options(offline=True))
    for text in (b"lone config", b"lone layer"):
        assert encode(BlobKey(Digest.of(text))) in storage.store


async def test_an_unreadable_sha512_link_blocks_the_sweep() -> None:
    """Only its body knows which blob it means."""
    scene = Scene()
    alias = Digest("sha512", hashlib.sha512(b"by sha512").hexdigest())
    b = scene.builder
    b.link_layer("bad", alias, link_body(b.blob(b"by sha512")))
    storage = scene.storage()
    storage.unreadable[encode(LayerLinkKey("bad", alias))] = TROUBLE["403"]
    run = await look(storage, options(offline=True))
    assert "can't be read" in run.summary.sweep_blocked
    report = await collect(storage, options(offline=True))
    assert report.blobs == 0
    assert report.layer_links  # of `good`
    assert encode(BlobKey(Digest.of(b"by sha512"))) in storage.store


@pytest.mark.parametrize("kind", ["manifest", "untagged manifest", "revision link"])
async def test_what_is_unreadable_is_not_broken(kind: str) -> None:
    scene = Scene()
    storage = scene.storage(etags=False)
    storage.unreadable[scene.keys()[kind]] = TROUBLE["500"]
    run = options(offline=True)
    object.__setattr__(run.plan, "drop_broken", (BrokenScope(),))
    opened = await look(storage, run)
    assert opened.summary.broken == ()
    assert [one.name for one in opened.summary.protected] == ["bad"]


class _Fades(ModelStorage):
    """A key that could be read when the run was planned, and can't be any more."""

    fading: tuple[str, StorageError]
    at: str

    async def list(self, prefix: str, *, start_after: str = "") -> Any:
        if prefix.removesuffix("_") == self.at and self.counters.requests.get("delete"):
            self.unreadable[self.fading[0]] = self.fading[1]
        async for page in super().list(prefix, start_after=start_after):
            yield page


@pytest.mark.parametrize("at", ["docker/registry/v2/repositories/good/", "docker/registry/v2/repositories/"])
async def test_a_link_that_becomes_unreadable_meanwhile_keeps_its_repository(at: str) -> None:
    scene = Scene()
    storage = _Fades(copy_of(scene.builder.store), now=NOW, etags=False)
    link = encode(LayerLinkKey("good", Digest.of(b"layer of good")))
    storage.fading, storage.at = (link, TROUBLE["EIO"]), at
    await collect(storage, options(offline=False))
    # Links may have gone before; what they named stays, for the repository may need it.
    assert link in storage.unreadable
    assert (encode(LayerLinkKey("good", Digest.of(b"old layer of good"))) in storage.store) == at.endswith("good/")
    for text in (b"old config of good", b"old layer of good", b"layer of good"):
        assert encode(BlobKey(Digest.of(text))) in storage.store
    if at.endswith("good/"):
        assert encode(RevisionLinkKey("good", scene.dead)) in storage.store
    # `bad` was collected as planned.
    assert encode(RevisionLinkKey("bad", scene.untagged)) not in storage.store


async def test_a_history_that_can_not_be_journaled_stays_with_what_comes_after_it() -> None:
    scene = Scene()
    history = scene.builder.tag_index("bad", "old", scene.untagged)
    storage = scene.storage(etags=False)
    storage.unreadable[history] = TROUBLE["EIO"]
    report = await collect(storage, options(offline=False))
    assert history in storage.store
    assert any("Input/output error" in line for line in report.failures)
    assert encode(RevisionLinkKey("bad", scene.untagged)) in storage.store
    assert encode(RevisionLinkKey("good", scene.dead)) not in storage.store


async def test_an_archived_manifest_protects_and_dead_layers_stay_without_a_copy() -> None:
    """CopyObject of an archived object is refused: what is dead and archived stays, and is named."""
    scene = Scene()
    storage = scene.storage()
    dead = encode(BlobKey(Digest.of(b"old layer of good")))
    storage.archived = {encode(BlobKey(scene.tagged)): "GLACIER", dead: "DEEP_ARCHIVE"}
    run = await look(storage, options(offline=True))
    assert [one.name for one in run.summary.protected] == ["bad"]
    report = await collect(storage, options(offline=True))
    assert dead in storage.store
    assert any("archived" in line for line in report.failures)
    assert encode(BlobKey(Digest.of(b"old config of good"))) not in storage.store
    await collect(storage, options(offline=True, trash=False))
    assert dead not in storage.store


# Damage or outage?


def many(images: int) -> tuple[ModelStore, list[str]]:
    """A repository an image, and the keys of the manifests."""
    b, keys = Builder(NOW - 30 * DAY), []
    for number in range(images):
        image = b.image(b.blob(b"config %d" % number), [b.blob(b"layer %d" % number)])
        b.push(f"r{number}", image, "latest")
        keys.append(encode(BlobKey(image)))
    return b.store, keys


async def test_twenty_in_a_row_are_damage_where_others_can_be_read() -> None:
    store, manifests = many(60)
    storage = ModelStorage(store, now=NOW)
    storage.unreadable = dict.fromkeys(manifests, TROUBLE["403"])
    run = await look(storage, options(offline=True))
    assert len(run.summary.protected) == 60
    # Ten others are asked after every twentieth, not after each.
    assert storage.counters.requests["get"] < 60 + 10 * 4


@trouble
async def test_where_nothing_can_be_read_it_is_an_outage(error: StorageError) -> None:
    """A bucket whose policy permits LIST and no GET has no million damages."""
    store, _ = many(60)
    storage = ModelStorage(store, now=NOW)
    storage.unreadable = dict.fromkeys(store.objects, error)
    with pytest.raises(Outage, match="others"):
        await look(storage, options(offline=True))
    assert storage.counters.requests["get"] < 60
    small = Scene().storage()
    small.unreadable = dict.fromkeys(small.store.objects, error)
    with pytest.raises(Outage):
        await look(small, options(offline=True))


async def test_where_most_can_not_be_read_it_is_an_outage() -> None:
    """Never twenty in a row, but two of three."""
    store, _ = many(300)
    storage = ModelStorage(store, now=NOW)
    bad = {key for number, key in enumerate(sorted(store.objects)) if number % 3 and key.endswith("/data")}
    storage.unreadable = dict.fromkeys(bad, TROUBLE["500"])
    with pytest.raises(Outage):
        await look(storage, options(offline=True, concurrency=1))


async def test_known_manifests_do_not_make_damage_an_outage(tmp_path: Path) -> None:
    """Of a warm cache only what is unreadable is read, and of that all fails."""
    store, manifests = many(30)
    storage = ModelStorage(store, now=NOW)
    storage.unreadable = dict.fromkeys(manifests[:3], TROUBLE["EIO"])
    for _ in range(2):
        async with scan(storage, ScanOptions(cache_dir=tmp_path)) as inventory:
            assert inventory.one("select count(*) from manifest where state = 'unreadable'") == 3


@pytest.mark.parametrize("kind", [AuthenticationFailed, NoConnection])
async def test_what_every_request_would_meet_ends_the_run_at_once(kind: type[StorageError]) -> None:
    store, manifests = many(3)
    storage = ModelStorage(store, now=NOW)
    storage.unreadable[manifests[0]] = kind("no")
    with pytest.raises(kind):
        await look(storage, options(offline=True))


# Against the oracle, and on a disk


@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
@given(registries(), st.booleans(), st.sampled_from(GRACES), st.data())
async def test_any_registry_with_unreadable_keys(
    store: ModelStore, delete_untagged: bool, grace: int, data: st.DataObject
) -> None:
    keys = sorted(registry(store).objects)
    if not keys:
        return
    unread = data.draw(st.sets(st.sampled_from(keys), min_size=1, max_size=2))
    storage = ModelStorage(store, now=NOW, etags=False)
    storage.unreadable = dict.fromkeys(unread, TROUBLE["EIO"])
    plan = GcOptions(delete_untagged=delete_untagged, grace=grace, uploads_older_than=UPLOADS_OLDER_THAN)
    try:
        async with scan(storage, ScanOptions(cache_dir=None, concurrency=4)) as inventory:
            found = plan_gc(inventory, plan, now=NOW)
            wanted = expected(
                store,
                now=NOW,
                delete_untagged=delete_untagged,
                grace=grace,
                uploads_older_than=UPLOADS_OLDER_THAN,
                unread=unread,
            )
            compare(store, inventory, found, wanted)
    except Outage:
        assert len(store.objects) < 10 * len(unread)  # too few others to tell


@crossed("kind, code", KINDS, {"EACCES": errno.EACCES, "EIO": errno.EIO}, meeting=1)
async def test_on_a_disk(kind: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing reads small files for their MD5: one of them must not end it."""
    scene = Scene()
    scene.builder.store.write_folder(tmp_path)
    path = tmp_path / scene.keys()[kind]
    inode = path.stat().st_ino
    real = os.pread

    def pread(file: int, *more: Any) -> bytes:
        if os.fstat(file).st_ino == inode:
            raise OSError(code, os.strerror(code))
        return real(file, *more)

    monkeypatch.setattr(os, "pread", pread)
    async with DiskStorage(tmp_path) as storage:
        run = await look(storage, options(offline=True))
        assert [one.name for one in run.summary.protected] == ["bad"]
        await collect(storage, options(offline=True))
    assert path.exists()
    assert not (tmp_path / encode(BlobKey(scene.dead))).exists()
    assert (tmp_path / encode(BlobKey(scene.untagged))).exists()


# What lies in the trash, and may be needed by what can't be read


async def pushed_again_unread(error: StorageError) -> tuple[ModelStorage, str, str]:
    """gc took an image of `bad`. It was pushed again to a registry whose cache answered for its layer, which therefore
    did not come again; and its manifest can't be read since. The layer's key, and the manifest's."""
    b = Builder(NOW - 30 * DAY)
    layer = b.blob(b"a layer that only the cache still has")
    image = b.image(b.blob(b"config"), [layer])
    b.push("bad", b.image(b.blob(b"config of bad"), [b.blob(b"layer of bad")]), "latest")
    b.push("bad", image)
    b.push("good", b.image(b.blob(b"config of good"), [b.blob(b"layer of good")]), "latest")
    storage = ModelStorage(b.store, now=NOW, etags=False)
    manifest = b.store.objects[encode(BlobKey(image))]
    await collect(storage, options(offline=True))
    b.push("good", b.image(b.blob(b"old config of good"), [b.blob(b"old layer of good")]))
    storage.clock += DAY // 2
    await collect(storage, options(offline=True))
    later = Builder(storage.clock)
    later.put(BlobKey(image), manifest[0])
    later.link_revision("bad", image)
    later.tag("bad", "again", image)
    storage.store.objects.update(later.store.objects)
    unread = encode(BlobKey(image))
    storage.unreadable[unread] = error
    storage.clock += 9 * DAY
    return storage, encode(BlobKey(layer)), unread


@crossed("command, error", ["gc", "trash empty"], TROUBLE, meeting=1)
async def test_the_trash_keeps_what_an_unreadable_manifest_may_need(command: str, error: StorageError) -> None:
    storage, layer, unread = await pushed_again_unread(error)
    assert trash(storage.store)

    async def empty() -> Emptied:
        if command == "gc":
            run = options(offline=True, delete_untagged=False, trash_older_than=7 * DAY)
            async with hold_lock(storage, command="gc") as lock:
                async with open_run(storage, run, lock, cache=NoCache("none")) as opened:
                    return (await opened.apply()).emptied
        async with hold_lock(storage, command="trash empty") as lock:
            scanning = ScanOptions(cache_dir=None)
            return await empty_trash(storage, EmptyOptions(scan=scanning, settle=0), lock, cache=NoCache("none"))

    emptied = await empty()
    assert len(emptied.runs) == 1, "of what another repository lost"
    assert layer in trash(storage.store)
    assert "bad" in emptied.kept[0].reason and "can't be read" in emptied.kept[0].reason
    del storage.unreadable[unread]
    storage.clock += DAY
    await empty()
    assert layer in storage.store, "it is given back once the manifest is read"


async def test_the_trash_keeps_what_an_unreadable_manifest_that_was_pushed_meanwhile_may_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scan saw nothing of it; the last look does, before older trash is emptied."""
    storage, layer, unread = await pushed_again_unread(TROUBLE["EIO"])
    image = decode(unread)
    assert isinstance(image, BlobKey)
    keys = [
        unread,
        encode(RevisionLinkKey("bad", image.digest)),
        encode(TagCurrentKey("bad", "again")),
        encode(TagIndexKey("bad", "again", image.digest)),
    ]
    pushed = {key: storage.store.objects.pop(key) for key in keys}
    begun, listed = storage.counters.requests["delete"], storage.list

    async def pushing(prefix: str, *, start_after: str = "") -> Any:
        if prefix == REPOSITORIES and storage.counters.requests["delete"] > begun:
            storage.store.objects.update(pushed)
        async for page in listed(prefix, start_after=start_after):
            yield page

    monkeypatch.setattr(storage, "list", pushing)
    run = options(offline=False, delete_untagged=False, trash_older_than=7 * DAY)
    async with hold_lock(storage, command="gc") as lock:
        async with open_run(storage, run, lock, cache=NoCache("none")) as opened:
            assert len(opened.expired) == 2
            emptied = (await opened.apply()).emptied
    assert len(emptied.runs) == 1 and "can't be read" in emptied.kept[0].reason
    assert layer in trash(storage.store)
