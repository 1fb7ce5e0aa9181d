"""S3 directory markers and files of NAS and desktop systems hold nothing, and go with the folder that gc empties."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from regstore.cli.gc_notes import notes_json, plan_notes
from regstore.cli.output import encoded
from regstore.digest import Digest
from regstore.errors import StorageError
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.layout import BLOBS, PREFIX, REPOSITORIES, BlobKey, encode
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage
from tests.gc.scenes import both, collect, look, options, registry
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

UUID = "00000000-0000-4000-8000-000000000009"


class Littered:
    """`kept` has two tags, of which a policy takes `old`; `team/gone` has nothing that anything needs."""

    def __init__(self) -> None:
        self.b = b = Builder(NOW - 30 * DAY)
        self.layer = b.blob(b"layer")
        self.new = b.image(b.blob(b"new config"), [self.layer])
        self.old = b.image(b.blob(b"old config"), [b.blob(b"old layer")])
        b.push("kept", self.new, "new")
        b.push("kept", self.old, "old")
        self.dead = b.blob(b"mounted, and never used")
        b.link_layer("team/gone", self.dead)
        b.push("team/gone", b.image(b.blob(b"gone config"), []), "old")

    def folders(self, name: str) -> list[str]:
        """Every folder below one of the registry's, as a tool that plays file system would make them on S3."""
        prefix = REPOSITORIES + name
        keys = [key for key in self.b.store if key.startswith(prefix)]
        found = {key[: at + 1] for key in keys for at, character in enumerate(key) if character == "/"}
        return sorted(folder for folder in found if folder.startswith(f"{prefix}/"))


RUN = replace(
    options(offline=True, max_delete=1.0),
    plan=GcOptions(grace=DAY, policy=Policy.parse('delete_untagged = true\n[[rule]]\ndrop = ["old"]')),
)


@both
async def test_directory_markers_go_with_what_they_stand_beside(offline: bool) -> None:
    scene = Littered()
    clean = ModelStorage(ModelStore(dict(scene.b.store.objects)), now=NOW)
    markers = [
        *scene.folders("kept"),
        *scene.folders("team/gone"),
        f"{REPOSITORIES}team/",
        REPOSITORIES,
        BLOBS,
        PREFIX,
    ]
    blob = encode(BlobKey(scene.dead)).removesuffix("data")
    for marker in [*markers, blob, f"{blob}data/", f"{encode(BlobKey(scene.layer))}/"]:
        scene.b.put(marker, b"")
    for link in [key for key in scene.b.store if key.endswith("/link")]:
        scene.b.put(f"{link}/", b"")
    markers = [key for key in scene.b.store if key.endswith("/")]
    storage = ModelStorage(scene.b.store, now=NOW)
    run = replace(RUN, offline=offline)
    report = await collect(storage, run)
    await collect(clean, run)
    left = registry(storage.store)
    assert {key for key in left if not key.endswith("/")} == set(registry(clean.store)), "they hold nothing"
    standing = {key[: at + 1] for key in registry(clean.store) for at, c in enumerate(key) if c == "/"}
    for marker in (key for key in left if key.endswith("/")):
        # Folders that hold several links, and are not a repository's own, stay while the repository stays.
        kept_area = marker.startswith(f"{REPOSITORIES}kept/") and "/sha256/" not in marker.removesuffix("/sha256/")
        assert marker in standing or marker.removesuffix("/") in left or kept_area, marker
    assert not [key for key in left if "team" in key], "the emptied repository is gone, with the folder above it"
    assert not [key for key in left if "/tags/old" in key]
    assert report.litter == len(markers) - sum(key.endswith("/") for key in left)
    assert not report.kept_back
    before = dict(storage.store.objects)
    assert (await look(storage, run)).summary.nothing_to_do
    assert storage.store.objects == before


@pytest.mark.parametrize("disk", [True, False], ids=["disk", "like S3"])
async def test_litter_beside_links_and_blobs(tmp_path: Path, disk: bool) -> None:
    """As a Synology NAS that shares the folder, and a Mac that looked into it, leave it."""
    scene = Littered()
    clean = set(registry(scene.b.store))
    for key in sorted(clean):
        folder, _, name = key.rpartition("/")
        scene.b.put(f"{folder}/@eaDir/{name}@SynoEAStream", b"x")
        scene.b.put(f"{folder}/._{name}", b"x")
    for folder in (
        "",
        "team/",
        "team/gone/",
        "team/gone/_layers/",
        "kept/_manifests/tags/",
        "kept/_manifests/tags/old/",
    ):
        scene.b.put(f"{REPOSITORIES}{folder}.DS_Store", b"x")
        scene.b.put(f"{REPOSITORIES}{folder}@eaDir/x@SynoResource", b"x")
    if disk:
        scene.b.store.write_folder(tmp_path)
    storage = DiskStorage(tmp_path) if disk else ModelStorage(scene.b.store, now=NOW)
    report = await collect(storage, RUN)
    left = registry(await ModelStore.from_storage(storage))
    assert not report.failures
    assert not [key for key in left if "team" in key or "/tags/old" in key or scene.old.encoded in key]
    assert [key for key in left if key.endswith("._link")], "what stands beside live links stays"
    assert f"{REPOSITORIES}kept/_manifests/tags/.DS_Store" in left
    assert f"{BLOBS}sha256/{scene.layer.encoded[:2]}/{scene.layer.encoded}/@eaDir/data@SynoEAStream" in left
    if disk:
        assert not (tmp_path / REPOSITORIES / "team").exists()
        assert not (tmp_path / REPOSITORIES / "kept/_manifests/tags/old").exists()


async def test_litter_that_an_earlier_run_left_behind() -> None:
    """That run unlinked, and freed nothing; of a repository and a tag only markers are left."""
    b = Builder(NOW - 30 * DAY)
    b.push("kept", b.image(b.blob(b"config"), []), "new")
    dead = b.blob(b"dead")
    for key in (
        f"{REPOSITORIES}gone/_layers/sha256/{dead.encoded}/",
        f"{REPOSITORIES}gone/_layers/sha256/{dead.encoded}/@eaDir/link@SynoEAStream",
        f"{REPOSITORIES}gone/_layers/",
        f"{REPOSITORIES}kept/_manifests/tags/old/",
        f"{BLOBS}sha256/00/{'00' * 32}/",
    ):
        b.put(key, b"")
    storage = ModelStorage(b.store, now=NOW)
    run = await look(storage, RUN)
    assert (run.summary.litter.dead, run.summary.blobs.dead, run.summary.emptied) == (5, 1, ("gone",))
    report = await collect(storage, RUN)
    assert (report.litter, report.blobs) == (5, 1)
    assert not [key for key in registry(storage.store) if "gone" in key or "old" in key or key.endswith("/")]


async def test_young_litter_and_what_is_not_ours_stays() -> None:
    b = Builder(NOW - 30 * DAY)
    link = b.link_layer("gone", b.blob(b"dead")).removesuffix("link")
    b.put(f"{link}.nfs00000000000a1b2c00000001", b"still open somewhere")
    b.put(f"{link}#recycle/x", b"somebody may want it back")
    b.put(f"{link}.snapshot/hourly.0/link", b"read-only")
    b.mtime = NOW - 1
    b.put(f"{link}._link", b"x")
    storage = ModelStorage(b.store, now=NOW)
    assert (await collect(storage, RUN)).blobs == 1
    assert sum(key.startswith(REPOSITORIES) for key in storage.store) == 4
    storage.clock += 2 * DAY
    assert (await collect(storage, replace(RUN, allow_empty=True))).litter == 1
    assert (await look(storage, replace(RUN, allow_empty=True))).summary.nothing_to_do


async def test_nothing_goes_from_a_protected_repository() -> None:
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.manifest(b"not JSON"))
    b.put(f"{REPOSITORIES}a/_manifests/tags/old/", b"")
    b.put(f"{REPOSITORIES}a/_layers/._x", b"")
    storage = ModelStorage(b.store, now=NOW)
    run = await look(storage, RUN)
    assert run.summary.protected and not run.summary.litter.dead


async def test_where_the_links_would_not_go_the_litter_stays() -> None:
    b = Builder(NOW - 30 * DAY)
    link = b.link_layer("gone", b.blob(b"dead"))
    b.put(f"{REPOSITORIES}gone/_layers/", b"")
    storage = ModelStorage(b.store, now=NOW)
    report = await collect(FaultyStorage(storage, delete_denied=link), RUN)
    assert report.failures and not report.litter
    assert f"{REPOSITORIES}gone/_layers/" in storage.store


async def test_a_marker_with_content_is_unknown_and_what_it_holds_is_told() -> None:
    b = Builder(NOW - 30 * DAY)
    b.push("kept", b.image(b.blob(b"config"), []), "new")
    held, dead = b.blob(b"held by nothing but that"), b.blob(b"dead")
    marker = b.put(f"{REPOSITORIES}kept/_layers/sha256/{held.encoded}/", b"what is this?")
    other = b.put(
        f"{REPOSITORIES}kept/_layers/sha256/{Digest.of(b'config').encoded}/odd", b"names what lives anyway"
    )
    storage = ModelStorage(b.store, now=NOW)
    summary = (await look(storage, RUN)).summary
    assert (summary.unknown, summary.blobs.dead) == (2, 1)
    assert (summary.held.blobs, summary.held.blob_bytes, summary.held.keys) == (1, 24, (marker,))
    told = next(iter(plan_notes(summary)))
    assert told.startswith("2 unknown keys, not touched. Nothing but these holds 1 dead blob (24 B)")
    assert marker in told and other not in told
    assert json.loads(encoded(notes_json(summary)))["held_by_unknown_keys"]["keys"] == [marker]
    await collect(storage, RUN)
    assert encode(BlobKey(held)) in storage.store and encode(BlobKey(dead)) not in storage.store


async def test_what_an_unknown_key_names_is_held_beside_an_empty_link_too() -> None:
    """Of an empty link nobody knows what it names; that must not make everything known."""
    held, other = Digest.of(b"held by an unknown key"), Digest.of(b"named by an empty link")
    b = Builder(mtime=NOW - 30 * DAY)
    for digest, body in ((held, b"held by an unknown key"), (other, b"named by an empty link")):
        b.put(encode(BlobKey(digest)), body)
    b.put(f"{REPOSITORIES}a/_manifests/revisions/sha256/{other.encoded}/link", b"")
    b.put(f"{REPOSITORIES}a/_manifests/revisions/sha256/{held.encoded}/link.tmp", b"")
    run = await look(ModelStorage(b.store, now=NOW), options(offline=True))
    assert run.summary.blobs.dead == 0


async def test_litter_stays_beside_a_blob_that_could_not_go(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Littered()
    blob = encode(BlobKey(scene.dead))
    litter = scene.b.put(blob.removesuffix("data") + "._data", b"x")
    storage = ModelStorage(scene.b.store, now=NOW)
    copy = storage.copy

    async def fails(source: str, target: str, *, size: int | None = None) -> None:
        if source == blob:
            raise StorageError("no room")
        await copy(source, target, size=size)

    monkeypatch.setattr(storage, "copy", fails)
    report = await collect(storage, RUN)
    assert report.blobs and blob in storage.store and litter in storage.store
