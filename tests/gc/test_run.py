"""A whole run: what it leaves is what the oracle says, on a model and on a disk, offline and serving."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from regstore.errors import InputError, NotARegistry, Refused, StorageError
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.layout import UploadKey, encode
from regstore.storage.base import MultipartUpload
from regstore.storage.disk import DiskStorage
from tests.examples import crossed
from tests.gc.scenes import (
    UPLOAD,
    Watch,
    both,
    collect,
    copy_of,
    journaled,
    look,
    model_storage,
    options,
    registry,
    removed_blobs,
    small_registry,
    trash,
    wanted,
)
from tests.model.builder import Builder
from tests.model.gc_oracle import expected
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, HOUR, NOW, example_registry
from tests.model.store import ModelStore

STORES = {"small": small_registry, "example": example_registry}


@crossed(
    "name, offline, delete_untagged",
    list(STORES),
    {"offline": True, "serving": False},
    {"every revision": False, "tags only": True},
)
async def test_on_a_store_like_s3(name: str, offline: bool, delete_untagged: bool) -> None:
    before = STORES[name]()
    run = options(offline=offline, delete_untagged=delete_untagged)
    dead = wanted(before, run).dead
    assert dead
    storage = model_storage(before)
    report = await collect(storage, run)
    await check_end(storage, storage.store, before, dead)
    assert report.failures == () and report.healed.nothing and report.kept_back == 0
    assert report.blobs == len(removed_blobs(before, dead))
    assert report.blob_bytes == sum(map(len, removed_blobs(before, dead).values()))

    again = await collect(storage, run)
    assert (again.blobs, again.layer_links, again.revisions, again.tags) == (0, 0, 0, 0)
    assert again.healed.nothing
    assert registry(storage.store) == before.without(dead)


async def check_end(
    storage: ModelStorage | DiskStorage, after: ModelStore, before: ModelStore, dead: frozenset[str]
) -> None:
    assert registry(after).objects.keys() == before.without(dead).objects.keys()
    assert registry(after) == before.without(dead), "what stays keeps its bytes and its time"
    assert trash(after) == removed_blobs(before, dead)
    held = await journaled(storage)
    assert dead <= held.keys()
    links = [key for key in dead if key.endswith("/link")]
    assert {key: held[key] for key in links} == {key: before.objects[key][0] for key in links}
    Watch(before).check(after)
    assert not [key for key in after if key.startswith("regstore/locks/")]


@crossed("name, offline", list(STORES), {"offline": True, "serving": False}, meeting=1)
async def test_on_disk(tmp_path: Path, name: str, offline: bool) -> None:
    before = STORES[name]().on_disk()
    before.write_folder(tmp_path)
    run = options(offline=offline)
    dead = wanted_on_disk(before)
    async with DiskStorage(tmp_path) as storage:
        report = await collect(storage, run)
        await check_end(storage, ModelStore.from_folder(tmp_path), before, dead)
        assert report.failures == () and report.healed.nothing
        again = await collect(storage, run)
        assert again.healed.nothing and again.blobs == again.layer_links == 0
    after = ModelStore.from_folder(tmp_path)
    assert registry(after) == before.without(dead)
    # A tag's folder without a link would still list as a tag.
    tags = [path for path in tmp_path.rglob("_manifests/tags/*") if path.is_dir()]
    assert all(any(path.rglob("link")) for path in tags)


async def test_a_folder_that_a_push_has_just_made_stays(tmp_path: Path) -> None:
    """The registry makes it, then the link in it."""
    b = Builder(NOW - 30 * DAY)
    old, new = (b.image(b.blob(text), [b.blob(text * 2)]) for text in (b"old", b"new"))
    b.push("a", old, "old")
    b.push("a", old, "gone")
    b.push("a", new, "kept")
    b.store.write_folder(tmp_path)
    tags = tmp_path / "docker/registry/v2/repositories/a/_manifests/tags"
    made = tags / f"old/index/sha256/{new.encoded}"

    class Pushing(DiskStorage):
        async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
            if any("/index/" in key for key in keys):
                made.mkdir(parents=True)
            return await super().delete_many(keys)

    policy = Policy.parse('delete_untagged = true\n[[rule]]\ndrop = ["old", "gone"]')
    run = replace(options(offline=False), plan=GcOptions(policy=policy, grace=HOUR))
    async with Pushing(tmp_path) as storage:
        assert (await collect(storage, run)).tags == 2
    assert made.is_dir() and (tags / "old/current").is_dir()
    assert sorted(path.name for path in tags.iterdir()) == ["kept", "old"]
    assert [path.name for path in (tags / "old/index/sha256").iterdir()] == [new.encoded]


def wanted_on_disk(before: ModelStore) -> frozenset[str]:
    """By the disk's clock everything of NOW is older than any grace."""
    now = NOW + 1000 * DAY
    return expected(before, now=now, delete_untagged=True, grace=DAY, uploads_older_than=7 * DAY).dead


@both
async def test_a_dry_run_writes_nothing(offline: bool) -> None:
    before = small_registry()
    storage = model_storage(before)
    run = await look(storage, options(offline=offline))
    assert run.summary.blobs.dead
    assert storage.store == before
    assert storage.counters.requests.keys() <= {"list", "get", "list_multipart_uploads"}


async def test_no_trash_only_offline() -> None:
    with pytest.raises(InputError, match="--offline"):
        options(offline=False, trash=False)
    before = small_registry()
    run = options(offline=True, trash=False)
    storage = model_storage(before)
    report = await collect(storage, run)
    dead = wanted(before, run).dead
    assert registry(storage.store) == before.without(dead)
    assert trash(storage.store) == {} and not report.trashed
    assert dead <= (await journaled(storage)).keys()


@both
async def test_more_than_max_delete_is_refused(offline: bool) -> None:
    before = small_registry()
    storage = model_storage(before)
    dead = len(removed_blobs(before, wanted(before, options(offline=offline)).dead))
    total = len([key for key in before if key.endswith("/data") and "/blobs/" in key])
    with pytest.raises(Refused, match="--max-delete"):
        await collect(storage, options(offline=offline, max_delete=(dead - 0.5) / total))
    assert registry(storage.store) == before
    assert trash(storage.store) == {}
    await collect(storage, options(offline=offline, max_delete=dead / total))
    assert len(trash(storage.store)) == dead


@both
async def test_an_empty_store_is_refused_where_the_last_run_saw_a_full_one(offline: bool) -> None:
    storage = model_storage(small_registry())
    await collect(storage, options(offline=offline))
    for key in registry(storage.store):
        del storage.store.objects[key]
    before = storage.store.bodies()
    with pytest.raises(Refused, match="--allow-empty"):
        await collect(storage, options(offline=offline))
    assert storage.store.bodies() == before
    report = await collect(storage, options(offline=offline, allow_empty=True))
    assert report.blobs == 0


async def test_blobs_missing_where_the_last_run_saw_many_is_refused() -> None:
    """The links are there and the blobs are not: a root that is half mounted, or a listing that lies."""
    storage = model_storage(small_registry())
    await collect(storage, options(offline=True))
    for key in [key for key in storage.store if key.startswith("docker/registry/v2/blobs/")]:
        del storage.store.objects[key]
    before = registry(storage.store)
    with pytest.raises(Refused, match="--allow-empty"):
        await collect(storage, options(offline=True))
    assert registry(storage.store) == before


async def test_links_missing_where_blobs_are_is_refused() -> None:
    """Blobs without any repository: every one of them would go, whatever may go."""
    storage = model_storage(small_registry())
    await collect(storage, options(offline=True))
    for key in [key for key in storage.store if "/v2/repositories/" in key]:
        del storage.store.objects[key]
    before = registry(storage.store)
    with pytest.raises(Refused, match="--allow-empty"):
        await collect(storage, options(offline=True))
    with pytest.raises(Refused, match="--max-delete"):
        await collect(storage, options(offline=True, max_delete=0.5, allow_empty=True))
    assert registry(storage.store) == before


@both
async def test_what_is_no_registry_is_refused(offline: bool) -> None:
    storage = model_storage(ModelStore.from_dict({"photos/cat.jpg": b"x"}))
    with pytest.raises(NotARegistry):
        await collect(storage, options(offline=offline))
    assert storage.store.bodies() == {"photos/cat.jpg": b"x"}


@both
async def test_symbolic_links_are_refused(tmp_path: Path, offline: bool) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    small_registry().write_folder(root)
    folder = root / "docker/registry/v2/repositories/a"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    before = ModelStore.from_folder(tmp_path)
    async with DiskStorage(root) as storage:
        with pytest.raises(Refused, match="symbolic links"):
            await collect(storage, options(offline=offline, grace=0))
    assert ModelStore.from_folder(tmp_path).bodies() == before.bodies()


@both
async def test_protected_repositories_keep_their_links(offline: bool) -> None:
    before = small_registry()
    revision = next(key for key in before if "/a/_manifests/revisions/" in key and key.count("sha256") == 1)
    before.objects[revision] = (b"", NOW - 30 * DAY)
    run = options(offline=offline)
    storage = model_storage(before)
    await collect(storage, run)
    after = registry(storage.store)
    assert [key for key in after if "/repositories/a/" in key] == [
        key for key in before if "/repositories/a/" in key
    ]
    assert after == before.without(wanted(before, run).dead)
    assert "/repositories/gone/" not in "".join(after)


@both
async def test_uploads_and_multipart_uploads_are_aborted(offline: bool) -> None:
    before = small_registry()
    storage = model_storage(before)
    old = MultipartUpload(encode(UploadKey("gone", UPLOAD, "data")), "old", NOW - 8 * DAY, 5)
    lone = MultipartUpload(encode(UploadKey("new", UPLOAD[:-1] + "1", "data")), "lone", NOW - 8 * DAY, 5)
    young = MultipartUpload(encode(UploadKey("new", UPLOAD[:-1] + "2", "data")), "young", NOW - 6 * DAY, 5)
    other = MultipartUpload("docker/registry/v2/blobs/somebody/data", "other", NOW - 100 * DAY, 5)
    storage.multipart_uploads = [old, lone, young, other]
    report = await collect(storage, options(offline=offline))
    assert storage.multipart_uploads == [young, other]
    assert report.uploads == 2
    assert not [key for key in storage.store if "/_uploads/" in key]


async def test_an_upload_that_goes_on_meanwhile_is_left_alone() -> None:
    """A part came after the scan: neither is its multipart upload aborted, nor do its objects go."""
    before = small_registry()
    key = encode(UploadKey("gone", UPLOAD, "data"))
    old = MultipartUpload(key, "old", NOW - 8 * DAY, 5)
    other = MultipartUpload(encode(UploadKey("gone", UPLOAD[:-1] + "1", "data")), "other", NOW - 8 * DAY, 5)

    class Uploading(ModelStorage):
        scanned = False

        async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
            async for upload in super().list_multipart_uploads(prefix):
                yield upload
            if not self.scanned:
                self.scanned, self.multipart_uploads = True, [replace(old, newest=NOW), other]

    storage = Uploading(copy_of(before), now=NOW)
    storage.multipart_uploads = [old, other]
    report = await collect(storage, options(offline=False))
    assert storage.multipart_uploads == [replace(old, newest=NOW)]
    assert [upload for upload in storage.store if f"/_uploads/{UPLOAD}/" in upload] == [
        upload for upload in before if f"/_uploads/{UPLOAD}/" in upload
    ]
    assert report.uploads == 1 and report.upload_bytes == 5
    held = await journaled(storage)
    assert held[other.key] == b"other" and old.key not in held


@both
async def test_no_upload_goes_when_multipart_uploads_can_not_be_listed(offline: bool) -> None:
    before = small_registry()
    storage = model_storage(before)
    storage.multipart_uploads_denied = True
    run = options(offline=offline)
    await collect(storage, run)
    assert [key for key in storage.store if "/_uploads/" in key]
    assert registry(storage.store) == before.without(wanted(before, run, None).dead)
