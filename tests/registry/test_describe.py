from __future__ import annotations

import json

from regstore.digest import Digest
from regstore.manifest import Platform
from regstore.registry import Registry
from tests.registry.storages import RecordingStorage
from tests.servers import images

CREATED = 1_704_164_645_000_000  # what the images say: 2024-01-02T03:04:05Z


async def test_an_image(registry: Registry, storage: RecordingStorage) -> None:
    for docker in (False, True):
        image = images.image(f"x{docker}", 3, docker=docker, annotations={"a": "b"})
        images.write_keys(storage.root, images.registry_keys("a", image, "1"))
        found = await registry.repository("a").describe("1")
        assert str(found.digest) == image.digest
        assert (found.media_type, found.size) == (image.media_type, len(image.data))
        assert found.total_size == sum(map(len, image.closure().values()))
        assert found.platforms == (Platform("linux", "amd64"),)
        assert (found.created, found.layers, found.subject) == (CREATED, 3, None)
        assert (found.annotations, found.missing, found.referrers) == ({"a": "b"}, (), ())


async def test_an_index(registry: Registry, storage: RecordingStorage) -> None:
    index = images.multiarch("x", ["amd64", "arm64", "s390x"])
    sbom = images.referrer(index)
    images.write_keys(storage.root, images.registry_keys("a", index, "1") | images.registry_keys("a", sbom, "s"))
    repository = registry.repository("a")
    found = await repository.describe(index.digest)
    assert found.total_size == sum(map(len, index.closure().values())), "the shared layer counts once"
    assert list(map(str, found.platforms)) == ["linux/amd64", "linux/arm64", "linux/s390x"]
    assert (found.created, found.layers) == (CREATED, 4)
    assert [str(referrer.digest) for referrer in found.referrers] == [sbom.digest]
    about = await repository.describe("s", referrers=False)
    assert (about.subject, about.artifact_type) == (Digest.parse(index.digest), "application/spdx+json")
    assert (about.platforms, about.created) == ((), None)
    everything = {tag: description async for tag, description in repository.describe_tags()}
    assert everything == {"1": found, "s": await repository.describe("s")}


async def test_odd_ones(registry: Registry, storage: RecordingStorage) -> None:
    one, two = images.image("one"), images.image("two", architecture="arm64")
    sparse = images.index([one, two], sparse=True)
    cache, schema1 = images.buildkit_cache("c", 3), images.schema1("a", "old", "s")
    foreign = images.with_foreign_layer("f")
    for tag, document in {"sparse": sparse, "cache": cache, "old": schema1, "foreign": foreign}.items():
        images.write_keys(storage.root, images.registry_keys("a", document, tag))
    repository = registry.repository("a")
    found = await repository.describe("sparse")
    assert [str(digest) for digest in found.missing] == [two.digest]
    assert len(found.platforms) == 2, "the index says so"
    (storage.root / images.blob_key(one.digest)).write_bytes(b"damaged")
    found = await repository.describe("sparse")
    assert {str(digest) for digest in found.missing} == {one.digest, two.digest}
    assert (await repository.describe("cache")).total_size == sum(map(len, cache.closure().values()))
    assert (await repository.describe("old")).total_size == sum(map(len, schema1.closure().values()))
    assert (await repository.describe("foreign")).total_size == sum(map(len, foreign.closure().values()))


async def test_indexes_nested_to_any_depth(registry: Registry, storage: RecordingStorage) -> None:
    document = image = images.image("x", 1)
    size = sum(map(len, image.closure().values()))
    images.write_keys(storage.root, images.registry_keys("a", image))
    for _ in range(600):
        document = images.index([document], sparse=True)
        size += len(document.data)
        images.write_keys(storage.root, images.registry_keys("a", document))
    images.write_keys(storage.root, images.registry_keys("a", document, "deep"))
    found = {tag: description async for tag, description in registry.repository("a").describe_tags()}["deep"]
    assert found is not None
    assert (found.total_size, found.layers, found.created, found.missing) == (size, 1, CREATED, ())
    assert found.platforms == (Platform("linux", "amd64"),)


async def test_an_outer_index_decides_the_platforms(registry: Registry, storage: RecordingStorage) -> None:
    inner = images.index([images.image("x", architecture="arm64"), images.image("y", architecture="s390x")])
    platform = {"os": "linux", "architecture": "arm", "variant": "v7"}
    data = json.dumps({"schemaVersion": 2, "manifests": [inner.descriptor(platform=platform)]}).encode()
    outer = images.Document(data, images.OCI_INDEX, (), (inner,))
    images.write_keys(storage.root, images.registry_keys("a", outer, "1"))
    found = await registry.repository("a").describe("1")
    assert found.platforms == (Platform("linux", "arm", "v7"),)
    assert found.layers == 4


async def test_descriptions_of_all_tags_read_each_manifest_and_config_once(
    registry: Registry, storage: RecordingStorage
) -> None:
    index = images.multiarch("x")
    for number in range(20):
        images.write_keys(storage.root, images.registry_keys("a", index, str(number)))
    count = len([of async for of in registry.repository("a").describe_tags()])
    assert count == 20
    reads = storage.counters.requests["get"]
    # Three manifests; link and blob of the two configs, which sixteen workers may ask for at the same time.
    assert reads <= 3 + 4 * 16
