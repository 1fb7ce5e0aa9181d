"""With a real registry and real clients: it serves what we write, and we read what they push."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import regstore
from regstore.digest import Digest
from regstore.registry import Registry as Store
from tests.registry.stores import push
from tests.servers import images, skopeo
from tests.servers.api import Api, pull_complete
from tests.servers.distribution import Registry
from tests.servers.s3 import S3Root

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("with_skopeo")]

StartRegistry = Callable[..., Registry]


def open_place(place: Path | S3Root, monkeypatch: pytest.MonkeyPatch) -> Any:
    if isinstance(place, Path):
        return regstore.open(place, create=True)
    for name, value in place.server.environment().items():
        monkeypatch.setenv(name, value)
    return regstore.open(f"s3://{place.bucket}{place.rootdirectory}")


async def sha512_layer(store: Store, name: str) -> str:
    """A layer that only its sha512 names, in an image; its bytes come as a stream."""
    repository = store.repository(name)
    layer, image = images.layer("by sha512"), images.image("by sha512", [images.layer("by sha512")])
    digest = Digest.of(layer.data, "sha512")

    async def chunks() -> Any:
        for start in range(0, len(layer.data), 100):
            yield layer.data[start : start + 100]

    await repository.blobs.put(chunks(), digest)
    await repository.blobs.put(image.blobs[0].data)
    document = image.data.replace(layer.digest.encode(), str(digest).encode())
    await repository.manifests.put(document, tag="sha512")
    return str(digest)


async def test_what_we_write_a_registry_serves(
    registry_storage: Path | S3Root, start_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    multiarch, docker = images.multiarch("m"), images.image("d", docker=True)
    sbom = images.referrer(multiarch)
    async with open_place(registry_storage, monkeypatch) as store:
        repository = store.repository("team/app")
        await push(repository, multiarch, "multi")
        await push(repository, docker, "docker")
        await push(repository, sbom, images.referrers_tag(multiarch))
        await push(store.repository("team/app/nested"), multiarch, "1")
        sha512 = await sha512_layer(store, "team/app")
        registry = start_registry(registry_storage)
        with Api(registry.host) as api:
            assert b"team/app" in api.expect(200, "GET", "/v2/_catalog")[1]
            assert api.get_blob("team/app", sha512) == images.layer("by sha512").data
        assert skopeo.list_tags(registry.host, "team/app") == sorted(
            ["multi", "docker", "sha512", images.referrers_tag(multiarch)]
        )
        for name, tag, document in (
            ("team/app", "multi", multiarch),
            ("team/app", "docker", docker),
            ("team/app/nested", "1", multiarch),
        ):
            skopeo.pull(registry.host, name, tag)
            assert set(pull_complete(registry.host, name, tag)) == set(document.closure())
        # The registry reads anew: the store changes under it.
        await repository.tags.set("docker", multiarch.digest)
        assert await repository.manifests.delete(docker.digest) == []
        await repository.tags.delete("multi")
        with Api(registry.host) as api:
            assert api.head_manifest("team/app", "docker") == multiarch.digest
            assert api.head_manifest("team/app", docker.digest) is None
        assert "multi" not in skopeo.list_tags(registry.host, "team/app")
        # And it goes on: a client pushes on top of what we wrote.
        registry.garbage_collect()
        skopeo.pull(registry.host, "team/app", "docker")


async def test_what_clients_push_we_read(
    registry_storage: Path | S3Root,
    start_registry: StartRegistry,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    documents = {"single": images.image("s", 3), "multi": images.multiarch("m")}
    layout = images.write_oci_layout(tmp_path / "layout", documents)
    registry = start_registry(registry_storage)
    for tag in documents:
        skopeo.push(layout, tag, registry.host, "team/app")
    skopeo.push(layout, "single", registry.host, "team/app", "schema2", format="v2s2")
    with Api(registry.host) as api:
        api.patch_upload(api.start_upload("team/app"), b"begun")
        layer = images.layer("by sha512")
        sha512 = Digest.of(layer.data, "sha512")
        api.put_blob("team/app", layer.data, digest=str(sha512))
    async with open_place(registry_storage, monkeypatch) as store:
        assert [repository.name async for repository in store.repositories()] == ["team/app"]
        repository = store.repository("team/app")
        reads = store.storage.counters.requests.get("get", 0)
        tags = {tag.name: tag.digest async for tag in repository.tags}
        assert store.storage.counters.requests.get("get", 0) == reads, "the listing tells what tags name"
        assert sorted(tags) == ["multi", "schema2", "single"]
        for tag, document in documents.items():
            assert str(tags[tag]) == document.digest
            for part in document.documents():
                assert (await repository.manifests.get(part.digest)).data == part.data
                for blob in part.blobs:
                    assert await repository.blobs.read(blob.digest) == blob.data
        schema2 = await repository.describe("schema2")
        assert (schema2.media_type, schema2.layers) == (images.DOCKER_MANIFEST, 3)
        assert list(map(str, (await repository.describe("multi")).platforms)) == ["linux/amd64", "linux/arm64"]
        stored = await repository.blobs.stat(sha512)
        assert (stored.size, str(stored.stored_as)) == (len(layer.data), layer.digest)
        assert await repository.blobs.read(sha512) == layer.data
        (upload,) = [upload async for upload in repository.uploads]
        assert upload.started_at is not None
        assert "startedat" in upload.parts
        assert {str(blob.digest) async for blob in store.blobs} >= set(documents["multi"].closure())
