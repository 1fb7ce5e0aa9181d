"""Out of one store and into another: every digest the same, and nothing else."""

from __future__ import annotations

import asyncio
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from regstore.backup.as_store import SnapshotStorage
from regstore.errors import InputError, ManifestUnknown, NameUnknown, TagUnknown
from regstore.exchange.exporting import export
from regstore.exchange.gathering import ExportOptions, plan_export
from regstore.exchange.places import open_target
from regstore.reference import Reference
from regstore.storage import open_storage
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage, died
from tests.backup.places import memory, take
from tests.exchange.stores import (
    APP,
    COSIGN,
    COSIGN_TAG,
    OF_CHILD,
    OLD,
    OTHER,
    SBOM,
    SIGNED,
    SPARSE,
    WORKER,
    all_kinds,
    export_from,
    exported,
    fill,
    import_into,
    imported,
    keys,
    names,
    tags,
)
from tests.servers import images

ALL = ("team/app", "team/worker", "solo")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return all_kinds(tmp_path / "store")


def index_of(layout: Path) -> dict[str, Any]:
    if layout.suffix == ".tar":
        with tarfile.open(layout) as archive:
            member = archive.extractfile("index.json")
            assert member is not None
            document: dict[str, Any] = json.loads(member.read())
            return document
    return dict(json.loads((layout / "index.json").read_text()))


@pytest.mark.parametrize("where", ["layout", "layout.tar"])
def test_all_of_several_repositories(store: Path, tmp_path: Path, where: str) -> None:
    layout = tmp_path / where
    result = exported(store, layout, *ALL)
    # A sparse index lists what was never pushed: registries take such an image back only where they are told to.
    sparse, docker = result.notes
    assert "which was never pushed" in sparse and docker.startswith(
        "2 images of Docker's own media types, such as "
    )
    assert names(index_of(layout)) == {
        "team/app:1.0": [APP.digest],
        "team/app:latest": [APP.digest],
        "team/app:old": [OLD.digest],
        f"team/app:{COSIGN_TAG}": [COSIGN.digest],
        "team/worker:1.0": [WORKER.digest],
        "solo:1": [images.with_foreign_layer("f").digest],
        "solo:cache": [images.buildkit_cache("c").digest],
        "solo:sparse": [SPARSE.digest],
        "": [SBOM.digest, OF_CHILD.digest, SIGNED.digest],
    } | {"": names(index_of(layout))[""]}
    assert set(names(index_of(layout))[""]) == {SBOM.digest, SIGNED.digest, OF_CHILD.digest}
    copy = tmp_path / "copy"
    back = imported(layout, copy)
    assert [
        line for line in back.left_out if "solo:sparse" in line and "lacks the manifest" in line
    ] == back.left_out
    wanted = {name: digest for name, digest in tags(store).items() if name != "solo:sparse"}
    assert tags(copy) == wanted
    untagged = OTHER.digest.partition(":")[2]
    for repository in ("team/app", "team/worker"):
        there = {key: body for key, body in keys(store, repository).items() if not _of(OTHER, key)}
        assert keys(copy, repository) == there
    assert not any(untagged in key for key in keys(copy, "team/app"))
    blobs = {key: body for key, body in keys(copy).items() if key.startswith("blobs/")}
    assert all(keys(store)[key] == body for key, body in blobs.items())
    again = imported(layout, copy)
    assert (again.blobs, again.links, again.tags) == (0, 0, 0)
    assert not imported(layout, copy, sparse=True).left_out
    assert tags(copy) == tags(store)


def _of(document: images.Document, key: str) -> bool:
    return any(digest.partition(":")[2] in key for digest in document.closure())


def test_one_repository_is_named_by_tags_alone_as_other_tools_do(store: Path, tmp_path: Path) -> None:
    exported(store, tmp_path / "layout", "team/app:1.0", referrers=False)
    (entry,) = index_of(tmp_path / "layout")["manifests"]
    assert entry["mediaType"] == images.OCI_INDEX and entry["size"] == len(APP.data)
    assert entry["annotations"] == {
        "org.opencontainers.image.ref.name": "1.0",
        "io.containerd.image.name": "team/app:1.0",
    }
    imported(tmp_path / "layout", tmp_path / "copy", "other/name")
    assert tags(tmp_path / "copy") == {"other/name:1.0": APP.digest}


@pytest.mark.parametrize("named", ["team/app:old", f"team/app@{OLD.digest}"])
def test_a_manifest_with_a_layer_link_alone_goes_along(store: Path, tmp_path: Path, named: str) -> None:
    """As v2.1.0 linked them: registries of 2.x serve it."""
    base, path = store / "docker/registry/v2/repositories/team/app", OLD.digest.replace(":", "/")
    (base / f"_layers/{path}").parent.mkdir(parents=True, exist_ok=True)
    (base / f"_manifests/revisions/{path}").rename(base / f"_layers/{path}")
    assert not exported(store, tmp_path / "layout", named).left_out
    imported(tmp_path / "layout", tmp_path / "copy", "team/app")
    assert (tmp_path / f"copy/docker/registry/v2/repositories/team/app/_manifests/revisions/{path}/link").exists()
    # A layer is no manifest.
    with pytest.raises(ManifestUnknown):
        exported(store, tmp_path / "none", f"team/app@{OLD.blobs[0].digest}")


def test_referrers_come_with_what_they_refer_to_and_no_others(store: Path, tmp_path: Path) -> None:
    exported(store, tmp_path / "app", "team/app:latest")
    found = names(index_of(tmp_path / "app"))
    assert found["latest"] == [APP.digest] and found[COSIGN_TAG] == [COSIGN.digest]
    assert set(found[""]) == {SBOM.digest, SIGNED.digest, OF_CHILD.digest} and "old" not in found
    exported(store, tmp_path / "old", "team/app:old")
    assert names(index_of(tmp_path / "old")) == {"old": [OLD.digest]}
    imported(tmp_path / "app", tmp_path / "copy", "team/app:latest")
    assert set(tags(tmp_path / "copy")) == {"team/app:latest"}  # what was not named by a tag went with its subject
    assert any(SIGNED.digest.partition(":")[2] in key for key in keys(tmp_path / "copy", "team/app"))


def test_an_image_by_digest(store: Path, tmp_path: Path) -> None:
    exported(store, tmp_path / "layout", f"team/app@{OTHER.digest}")
    assert names(index_of(tmp_path / "layout")) == {"": [OTHER.digest]}
    imported(tmp_path / "layout", tmp_path / "copy")
    assert tags(tmp_path / "copy") == {} and any(_of(OTHER, key) for key in keys(tmp_path / "copy", "team/app"))
    imported(tmp_path / "layout", tmp_path / "copy", "team/app:now")
    assert tags(tmp_path / "copy") == {"team/app:now": OTHER.digest}


async def test_a_backup_gives_the_same_layout(store: Path, tmp_path: Path) -> None:
    backup = memory()
    async with open_storage(store) as storage:
        taken = await take(storage, backup)
        await export_from(storage, ALL, tmp_path / "one")
    async with SnapshotStorage(backup, taken.snapshot) as snapshot:
        await export_from(snapshot, ALL, tmp_path / "two")

    def files(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_a_layout_grows(store: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    exported(store, layout, "team/worker")
    assert names(index_of(layout)) == {"1.0": [WORKER.digest]}
    result = exported(store, layout, "team/app:old", referrers=False)
    assert result.there == 0
    assert names(index_of(layout)) == {"team/worker:1.0": [WORKER.digest], "team/app:old": [OLD.digest]}
    fill(store, ("team/worker", OLD, "1.0"))
    result = exported(store, layout, "team/worker")
    assert (result.written, result.there) == (0, len(OLD.closure()))
    assert names(index_of(layout)) == {"team/app:old": [OLD.digest], "team/worker:1.0": [OLD.digest]}
    damaged = layout / "blobs/sha256" / OLD.digest.partition(":")[2]
    damaged.write_bytes(bytes(len(OLD.data)))
    assert exported(store, layout, "team/worker").written == 1
    assert damaged.read_bytes() == OLD.data


# -- what is not there, or not whole


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("nope", NameUnknown),
        ("team/app:nope", TagUnknown),
        (f"team/app@{WORKER.digest}", ManifestUnknown),
        (f"team/app:1.0@{OLD.digest}", InputError),
    ],
)
def test_what_is_not_there_is_an_error_and_nothing_is_written(
    store: Path, tmp_path: Path, what: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        exported(store, tmp_path / "layout", what)
    assert not (tmp_path / "layout").exists()


@pytest.mark.parametrize("where", ["layout", "layout.tar"])
def test_what_is_damaged_is_left_out_and_the_rest_goes(store: Path, tmp_path: Path, where: str) -> None:
    layer = WORKER.blobs[2]
    (store / images.blob_key(layer.digest)).write_bytes(bytes(len(layer.data)))
    (store / images.blob_key(OLD.blobs[1].digest)).unlink()
    layout = tmp_path / where
    result = exported(store, layout, "team/app", "team/worker")
    assert [line.partition(":")[0] for line in result.left_out] == ["team/app", "team/worker"]
    assert OLD.blobs[1].digest in result.left_out[0] and layer.digest in result.left_out[1]
    assert not {"team/worker:1.0", "team/app:old"} & set(names(index_of(layout)))
    assert not imported(layout, tmp_path / "copy").partial
    held = (
        layout.read_bytes() if where.endswith(".tar") else b"".join(p.read_bytes() for p in layout.rglob("*/*/*"))
    )
    assert bytes(len(layer.data)) not in held


def test_nothing_whole_makes_no_layout(store: Path, tmp_path: Path) -> None:
    (store / images.blob_key(WORKER.blobs[2].digest)).unlink()
    for where in ("layout", "layout.tar"):
        assert exported(store, tmp_path / where, "team/worker").entries == []
        assert not (tmp_path / where).exists()
    assert list(tmp_path.iterdir()) == [store]


def test_schema1_is_named_and_left_out(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", ("a", images.schema1("a", "1", "s"), "1"), ("a", OTHER, "2"))
    result = exported(store, tmp_path / "layout", "a")
    assert len(result.left_out) == 1 and "schema 1" in result.left_out[0]
    assert names(index_of(tmp_path / "layout")) == {"2": [OTHER.digest]}


@pytest.mark.parametrize("name", ["file.tar", "taken", "a.tar.gz", "file"])
def test_places_that_can_not_be_written(store: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "file.tar").write_bytes(b"mine")
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/notes.txt").write_text("mine")
    with pytest.raises(InputError):
        exported(store, tmp_path / name, "team/worker")
    left = {path.name for path in tmp_path.rglob("*") if path.is_file() and store not in path.parents}
    assert left == {"file.tar", "file", "notes.txt"}


# -- cut short


async def test_an_export_killed_anywhere_does_not_look_whole(store: Path, tmp_path: Path) -> None:
    number = 0
    async with open_storage(store) as storage:
        plan = await plan_export(storage, ExportOptions(what=(Reference.parse("team/worker"),)))
        while True:
            number += 1
            layout = tmp_path / f"layout{number}"
            layout.mkdir()
            async with DiskStorage(layout) as there:
                if not await died(export(storage, plan, FaultyStorage(there, die_at=number, when="before"))):
                    break
            assert not (layout / "index.json").exists()
            await export_from(storage, ("team/worker",), layout)
            assert names(index_of(layout)) == {"1.0": [WORKER.digest]}
    assert number == len(WORKER.closure()) + 3


async def test_an_archive_cut_short_has_no_name(store: Path, tmp_path: Path) -> None:
    async with open_storage(store) as storage:
        plan = await plan_export(storage, ExportOptions(what=(Reference.parse("team/app"),)))
        reads, reached = 0, asyncio.Event()

        async def hold(operation: str, key: str) -> None:
            nonlocal reads
            reads += operation in ("get", "open_read")
            if reads >= 4:
                reached.set()
                await asyncio.Event().wait()

        async def work() -> None:
            async with open_target(tmp_path / "layout.tar") as there:
                await export(FaultyStorage(storage, before=hold), plan, there)

        working = asyncio.create_task(work())
        await asyncio.wait_for(reached.wait(), 10)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    assert list(tmp_path.iterdir()) == [store]


@pytest.mark.long
async def test_an_import_killed_anywhere_links_nothing_that_is_not_there(store: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    async with open_storage(store) as storage:
        await export_from(storage, ("team/app:latest", "team/worker"), layout)
    number, step = 0, 9
    while True:
        number += step
        copy = tmp_path / f"copy{number}"
        async with DiskStorage(copy, create=True) as there:
            killed = await died(import_into(FaultyStorage(there, die_at=number, when="after"), layout))
            stores_hold_what_they_link(copy)
            if not killed:
                break
            for lock in copy.glob("regstore/locks/*"):
                lock.unlink()
            assert not (await import_into(there, layout)).partial
        assert set(tags(copy)) == {"team/app:latest", f"team/app:{COSIGN_TAG}", "team/worker:1.0"}
    assert number > 20


def stores_hold_what_they_link(folder: Path) -> None:
    for key, body in keys(folder).items():
        if key.endswith("/link"):
            assert (folder / images.blob_key(body.decode())).exists(), key
    for name, digest in tags(folder).items():
        repository = name.partition(":")[0]
        assert f"repositories/{repository}/_manifests/revisions/{digest.replace(':', '/')}/link" in keys(folder)


# -- tags that are there


def test_a_tag_that_names_something_else_stays_unless_it_is_said(store: Path, tmp_path: Path) -> None:
    exported(store, tmp_path / "layout", "team/worker")
    copy = fill(tmp_path / "copy", ("team/worker", OLD, "1.0"))
    result = imported(tmp_path / "layout", copy)
    (conflict,) = result.conflicts
    assert (conflict.snapshot, conflict.there) == (WORKER.digest, OLD.digest) and result.partial
    assert tags(copy) == {"team/worker:1.0": OLD.digest}
    assert any(_of(WORKER, key) for key in keys(copy, "team/worker"))  # the image is there, untagged
    result = imported(tmp_path / "layout", copy, overwrite_tags=True)
    assert not result.partial and tags(copy) == {"team/worker:1.0": WORKER.digest}
    (journal,) = copy.glob("regstore/runs/*/run.json")
    assert json.loads(journal.read_text())["command"] == "import"


async def test_a_tag_that_is_pushed_meanwhile_stays(store: Path, tmp_path: Path) -> None:
    layout, copy = tmp_path / "layout", tmp_path / "copy"
    async with open_storage(store) as storage:
        await export_from(storage, ("team/worker",), layout)

    def push(operation: str, key: str) -> None:
        if operation == "put" and "/tags/1.0/" in key and not tags(copy):
            fill(copy, ("team/worker", OTHER, "1.0"))

    async with DiskStorage(copy, create=True) as there:
        result = await import_into(FaultyStorage(there, before=push), layout)
    assert tags(copy) == {"team/worker:1.0": OTHER.digest}
    assert [one.there for one in result.conflicts] == [OTHER.digest]
