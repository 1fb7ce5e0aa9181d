"""The program, on storage that a real registry and skopeo filled: exactly the dead goes, and every tag still pulls."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import regstore
from regstore.layout import PREFIX, REPOSITORIES
from tests.gc.clock import until_all_is_older
from tests.model.gc_oracle import Expected, expected
from tests.model.store import ModelStore
from tests.servers import images, skopeo
from tests.servers.api import Api, pull_complete, push_api
from tests.servers.distribution import Registry
from tests.servers.s3 import S3Root

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("with_skopeo")]

WEEK = 7 * 24 * 3600 * 1_000_000
PULLED = [("team/app", "1"), ("team/app", "multi"), ("docker/schema2", "1"), ("damaged/app", "2")]


def url_of(place: Path | S3Root, monkeypatch: pytest.MonkeyPatch) -> str:
    if isinstance(place, Path):
        return str(place)
    for name, value in place.server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{place.bucket}{place.rootdirectory}"


def fill(registry: Registry, folder: Path) -> None:
    """Single, multi-arch, schema2, a signature by subject; older builds, an image deleted, uploads left."""
    host = registry.host
    multi, old, new = images.multiarch("multi"), images.image("old"), images.image("new")
    tagged = {"old": old, "new": new, "multi": multi, "app": images.image("app"), "gone": images.image("gone")}
    oci = images.write_oci_layout(folder, tagged)
    skopeo.push(oci, "old", host, "team/app", "1")
    skopeo.push(oci, "new", host, "team/app", "1")  # old is untagged now
    skopeo.push(oci, "multi", host, "team/app", "multi")
    skopeo.push(oci, "app", host, "docker/schema2", "1", format="v2s2")
    skopeo.push(oci, "app", host, "damaged/app", "2")
    skopeo.push(oci, "gone", host, "gone/app", "1")
    registry.delete("gone/app", tagged["gone"].digest)
    push_api(host, "team/app", images.referrer(multi))
    with Api(host) as api:
        api.put_blob("team/app", b"a layer whose manifest never came")
        api.patch_upload(api.start_upload("team/app"), b"half an upload")


async def damage(store: regstore.Registry) -> None:
    """LAYOUT section 3: what stops others must not stop us."""
    put = store.storage.put
    broken = "sha256/" + "ab" * 32
    await put(f"{REPOSITORIES}damaged/app/_manifests/revisions/{broken}/link", b"")
    await put(f"{REPOSITORIES}damaged/app/_layers/{broken}/link", b"sha256:" + b"ab" * 32 + b"\n")
    await put(f"{REPOSITORIES}team/app/_manifests/tags/.DS_Store", b"stray")
    await put(f"{PREFIX}blobs/{broken.replace('/', '/ab/')}/data.1234.tmp", b"stray")


def run_gc(url: str, *options: str) -> tuple[int, dict[str, Any]]:
    command = [
        sys.executable,
        "-m",
        "regstore",
        "gc",
        url,
        "--delete-untagged",
        "--grace",
        "0s",
        "--json",
        *options,
    ]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert not result.stderr, result.stderr
    return result.returncode, json.loads(result.stdout)["result"]


@pytest.mark.parametrize(
    ("registry_storage", "mode"),
    [
        ("disk", "--offline"),
        ("ceph", "serving"),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("disk", "serving"), ("ceph", "--offline"))),
        *(pytest.param("moto", mode, marks=pytest.mark.slow) for mode in ("--offline", "serving")),
    ],
    indirect=["registry_storage"],
)
async def test_exactly_the_dead_goes_and_every_tag_pulls(
    registry_storage: Path | S3Root,
    start_registry: Callable[..., Registry],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mode: str,
) -> None:
    url = url_of(registry_storage, monkeypatch)
    registry = start_registry(registry_storage)
    fill(registry, tmp_path / "oci")
    registry.stop()
    async with regstore.open(url) as store:
        await damage(store)
        await until_all_is_older(store.storage)
        before = await ModelStore.from_storage(store.storage, PREFIX)
    now = max(mtime for _, mtime in before.objects.values()) + 10_000_000
    want: Expected = expected(before, now=now, delete_untagged=True, grace=0, uploads_older_than=WEEK)
    assert want.revision_links and want.layer_links and want.blobs

    code, planned = run_gc(url, "--dry-run")
    plan = planned["plan"]
    assert code == 3, "a protected repository is reported"
    assert plan["blobs"]["dead"] == len(want.blobs)
    assert plan["blobs"]["live"] == len(want.live_blobs)
    assert plan["revisions"]["dead"] == len(want.revision_links)
    assert plan["layer_links"]["dead"] == len(want.layer_links)
    assert [one["name"] for one in plan["protected"]] == ["damaged/app"] == sorted(want.protected)

    if mode == "serving":
        registry.start()
    code, done = run_gc(url, "--yes", *(["--offline"] if mode == "--offline" else ["--settle", "0s"]))
    assert code == 3
    assert done["report"]["blobs"] == len(want.blobs)
    assert not done["report"]["failures"]
    async with regstore.open(url) as store:
        after = await ModelStore.from_storage(store.storage, PREFIX)
    assert set(after) == set(before) - want.dead
    assert all(after.body(key) == before.body(key) for key in after)

    if mode == "--offline":
        registry.start()
    for repository, tag in PULLED:
        skopeo.pull(registry.host, repository, tag)
        pull_complete(registry.host, repository, tag)
    code, again = run_gc(url, "--dry-run")
    assert (code, *(again["plan"][what]["dead"] for what in ("blobs", "layer_links", "revisions"))) == (3, 0, 0, 0)


@pytest.mark.parametrize(
    "registry_storage", ["disk", "ceph", pytest.param("moto", marks=pytest.mark.slow)], indirect=True
)
async def test_an_emptied_repository_is_gone_from_the_catalogue_whatever_litter_stood_in_it(
    registry_storage: Path | S3Root,
    start_registry: Callable[..., Registry],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Markers in the place of folders on S3; on disk what a Synology NAS and a Mac leave."""
    url = url_of(registry_storage, monkeypatch)
    registry = start_registry(registry_storage)
    fill(registry, tmp_path / "oci")
    assert "gone/app" in registry.catalog(), "its image is deleted, its layer links are not"
    registry.stop()
    async with regstore.open(url) as store:
        keys = list(await ModelStore.from_storage(store.storage, PREFIX))
        folders = {key[: at + 1] for key in keys for at, character in enumerate(key) if character == "/"}
        for folder in folders:
            if folder.startswith(PREFIX):
                litter = (
                    ("@eaDir/x@SynoEAStream", "._x", ".DS_Store") if isinstance(registry_storage, Path) else ("",)
                )
                for name in litter:
                    await store.storage.put(folder + name, b"")
        await until_all_is_older(store.storage)
    code, done = run_gc(url, "--yes", "--offline")
    assert (code, done["report"]["failures"], done["plan"]["unknown_keys"]) == (0, [], 0)
    assert "gone/app" in done["plan"]["emptied"]
    assert 0 < done["report"]["litter"] == done["plan"]["litter"]["dead"] < done["plan"]["litter"]["total"]
    async with regstore.open(url) as store:
        left = await ModelStore.from_storage(store.storage, PREFIX)
    assert not [key for key in left if "/gone/" in key]
    registry.start()
    assert registry.catalog() == ["damaged/app", "docker/schema2", "team/app"]
    for repository, tag in PULLED:
        pull_complete(registry.host, repository, tag)
