"""Reading: from folders that were written without the library, whole and damaged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from regstore.digest import Digest
from regstore.errors import (
    BlobUnknown,
    IntegrityError,
    InvalidManifest,
    ManifestUnknown,
    NameUnknown,
    NoSuchBucket,
    NotARegistry,
    TagUnknown,
)
from regstore.layout import TagCurrentKey, encode, link_body
from regstore.registry import Registry
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW
from tests.registry.storages import PlainStorage, RecordingStorage
from tests.servers import images

UUID = "0b6bd3b5-6a8e-4d38-9d8a-bd8d0ee4cd2a"


def path_of(digest: str) -> str:
    return digest.replace(":", "/")


async def names(registry: Registry) -> list[str]:
    return [repository.name async for repository in registry.repositories()]


async def test_repositories_are_those_with_any_part(registry: Registry, storage: RecordingStorage) -> None:
    layer, image = images.layer("x"), images.image("x")
    base = "docker/registry/v2/repositories"
    images.write_keys(
        storage.root,
        {
            f"{base}/layers/only/_layers/{path_of(layer.digest)}/link": layer.digest.encode(),
            f"{base}/revisions/_manifests/revisions/{path_of(image.digest)}/link": image.digest.encode(),
            f"{base}/tags/_manifests/tags/1/current/link": b"",
            f"{base}/uploads/_uploads/{UUID}/startedat": b"x",
            f"{base}/UPPER/_manifests/tags/1/current/link": b"",
            f"{base}/_regstore/seed": b"x",
            f"{base}/stray/file": b"x",
            f"{base}/junk/_layers/x": b"x",
        },
    )
    assert await names(registry) == ["UPPER", "layers/only", "revisions", "tags", "uploads"]
    for name, there in {"tags": True, "stray": False, "junk": False, "layers": False, "layers/only": True}.items():
        assert await registry.repository(name).exists() is there


@pytest.mark.parametrize("page", [1, 2, 3, 5, 1000])
async def test_listing_repositories_skips_what_it_need_not_see(tmp_path: Path, page: int) -> None:
    expected = ["a", "a-b", "a/0", "a/b", "a/b/c", "ab", "b"]
    keys = {}
    for name in expected:
        base = f"docker/registry/v2/repositories/{name}"
        for number in range(60):
            digest = Digest.of(f"{number}".encode())
            keys[f"{base}/_layers/sha256/{digest.encoded}/link"] = str(digest).encode()
            keys[f"{base}/_manifests/tags/{number}/current/link"] = str(digest).encode()
    images.write_keys(tmp_path, keys)
    async with RecordingStorage(tmp_path, page=page) as storage:
        found = await names(Registry(storage))
        assert sorted(found) == expected
        assert len(found) == len(expected)
        assert storage.pages <= -(-len(keys) // page)
        if page < 60:
            assert storage.pages <= 2 * len(expected) + 1


async def test_tags_need_no_read(tmp_path: Path) -> None:
    documents = {str(number): images.image(number, 1, size=20) for number in range(30)}
    keys: dict[str, bytes] = {}
    for tag, document in documents.items():
        keys |= images.registry_keys("a", document, tag)
        other = images.image("other", 1)
        keys[f"docker/registry/v2/repositories/a/_manifests/tags/{tag}/index/{path_of(other.digest)}/link"] = b"x"
    images.write_keys(tmp_path, keys)
    expected = {tag: document.digest for tag, document in documents.items()}
    for kind, reads in ((RecordingStorage, 0), (PlainStorage, 30)):
        async with kind(tmp_path, page=7) as storage:
            repository = Registry(storage).repository("a")
            assert {tag.name: str(tag.digest) async for tag in repository.tags} == expected
            assert storage.counters.requests.get("get", 0) == reads


async def test_unknown_things(registry: Registry, storage: RecordingStorage) -> None:
    image = images.image("x")
    images.write_keys(storage.root, images.registry_keys("a/b", image, "1"))
    nothing = Digest.of(b"nothing")
    missing = registry.repository("a")
    for call in (
        missing.tags.get("1"),
        missing.tags.delete("1"),
        missing.manifests.get(nothing),
        missing.manifests.get("1"),
        missing.manifests.delete(nothing),
        missing.blobs.stat(nothing),
        missing.blobs.read(nothing),
        missing.describe("1"),
    ):
        with pytest.raises(NameUnknown, match="a in"):
            await call
    for part in (missing.tags, missing.manifests, missing.blobs, missing.uploads):
        with pytest.raises(NameUnknown):
            _ = [item async for item in part]
    there = registry.repository("a/b")
    with pytest.raises(TagUnknown):
        await there.tags.get("2")
    with pytest.raises(TagUnknown):
        await there.tags.delete("2")
    with pytest.raises(ManifestUnknown):
        await there.manifests.get(nothing)
    with pytest.raises(BlobUnknown):
        await there.blobs.stat(nothing)
    with pytest.raises(BlobUnknown):
        await registry.blobs.read(nothing)
    assert [upload async for upload in there.uploads] == []


async def test_where_no_registry_is(tmp_path: Path) -> None:
    async with DiskStorage(tmp_path / "missing") as storage:
        for call in (names(Registry(storage)), Registry(storage).is_registry(), Registry(storage).require()):
            with pytest.raises(NoSuchBucket):
                await call
    (tmp_path / "empty").mkdir()
    async with DiskStorage(tmp_path / "empty") as storage:
        assert not await Registry(storage).is_registry()
        with pytest.raises(NotARegistry, match="is empty"):
            await names(Registry(storage))
    images.write_keys(tmp_path / "photos", {"holiday.jpg": b"x", "docker/other": b"x"})
    async with DiskStorage(tmp_path / "photos") as storage:
        with pytest.raises(NotARegistry, match="holds no registry"):
            await names(Registry(storage))
    images.write_keys(tmp_path / "seeded", {"docker/registry/v2/repositories/_regstore/seed": b"x"})
    async with DiskStorage(tmp_path / "seeded") as storage:
        assert await names(Registry(storage)) == []
        assert await Registry(storage).is_registry()


@pytest.mark.parametrize("body", [b"", b"sha256:abc", b"newline"])
async def test_damaged_links_are_named(registry: Registry, storage: RecordingStorage, body: bytes) -> None:
    image = images.image("x")
    keys = images.registry_keys("a", image, "1")
    images.write_keys(storage.root, keys)
    repository = registry.repository("a")
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "/tags/1/current/link": lambda: repository.tags.get("1"),
        f"/revisions/{path_of(image.digest)}/link": lambda: repository.manifests.get(image.digest),
        f"/_layers/{path_of(image.blobs[0].digest)}/link": lambda: repository.blobs.read(image.blobs[0].digest),
    }
    for ending, call in calls.items():
        key = next(key for key in keys if key.endswith(ending))
        (storage.root / key).write_bytes(keys[key] + b"\n" if body == b"newline" else body)
        with pytest.raises(IntegrityError, match=ending):
            await call()
        (storage.root / key).write_bytes(keys[key])
        await call()


async def test_a_damaged_tag_does_not_hide_the_others(registry: Registry, storage: RecordingStorage) -> None:
    image = images.image("x")
    keys = images.registry_keys("a", image, "1") | images.registry_keys("a", image, "3")
    keys["docker/registry/v2/repositories/a/_manifests/tags/2/current/link"] = b""
    keys["docker/registry/v2/repositories/a/_manifests/tags/no-current/index/x/link"] = b""
    keys["docker/registry/v2/repositories/a/_manifests/tags/stray"] = b""
    images.write_keys(storage.root, keys)
    found = [(tag.name, str(tag.digest)) async for tag in registry.repository("a").tags]
    assert found == [("1", image.digest), ("2", "None"), ("3", image.digest)]
    described = [(tag, bool(of)) async for tag, of in registry.repository("a").describe_tags()]
    assert described == [("1", True), ("2", False), ("3", True)]


async def test_damaged_bytes(registry: Registry, storage: RecordingStorage) -> None:
    image = images.image("x")
    keys = images.registry_keys("a", image, "1")
    images.write_keys(storage.root, keys)
    repository = registry.repository("a")
    layer = image.blobs[1]
    (storage.root / images.blob_key(layer.digest)).write_bytes(layer.data[:-1] + b"?")
    with pytest.raises(IntegrityError, match=layer.digest):
        await repository.blobs.read(layer.digest)
    with pytest.raises(IntegrityError, match=layer.digest):
        async with registry.blobs.open_read(layer.digest) as reader:
            _ = [chunk async for chunk in reader]
    async with repository.blobs.open_read(layer.digest, start=3, length=4) as reader:
        assert (await reader.read(), reader.size) == (layer.data[3:7], len(layer.data))
    manifest = storage.root / images.blob_key(image.digest)
    manifest.write_bytes(image.data + b" ")
    with pytest.raises(IntegrityError, match=image.digest):
        await repository.manifests.get("1")
    manifest.unlink()
    with pytest.raises(ManifestUnknown, match=images.blob_key(image.digest)):
        await repository.manifests.get("1")
    (storage.root / images.blob_key(layer.digest)).unlink()
    with pytest.raises(BlobUnknown, match=images.blob_key(layer.digest)):
        await repository.blobs.stat(layer.digest)
    assert layer.digest in {str(digest) async for digest in repository.blobs}


async def test_a_revision_that_is_no_manifest(registry: Registry, storage: RecordingStorage) -> None:
    for data in (b"not json", b'{"manifests":[],"layers":[]}'):
        digest = images.sha256(data)
        base = "docker/registry/v2/repositories/a/_manifests/revisions"
        keys = {f"{base}/{path_of(digest)}/link": digest.encode(), images.blob_key(digest): data}
        images.write_keys(storage.root, keys)
        with pytest.raises(InvalidManifest, match=digest):
            await registry.repository("a").manifests.get(digest)


async def test_uploads(registry: Registry, storage: RecordingStorage) -> None:
    base = "docker/registry/v2/repositories/a/_uploads"
    other = UUID.replace("0", "1")
    images.write_keys(
        storage.root,
        {
            f"{base}/{UUID}/startedat": b"2024-01-02T03:04:05Z",
            f"{base}/{UUID}/data": b"12345",
            f"{base}/{UUID}/hashstates/sha256/5": b"state",
            f"{base}/{other}/data": b"1",
        },
    )
    first, second = [upload async for upload in registry.repository("a").uploads]
    assert (first.uuid, first.size, first.parts) == (UUID, 5, ("data", "hashstates/sha256/5", "startedat"))
    assert first.started_at == 1_704_164_645_000_000
    assert (second.uuid, second.size, second.started_at) == (other, 1, None)
    assert abs(second.newest - (storage.root / base / other / "data").stat().st_mtime_ns // 1000) <= 1


async def test_referrers(registry: Registry, storage: RecordingStorage) -> None:
    image = images.image("x")
    sbom, chained = images.referrer(image), images.referrer(images.referrer(image), "of sbom")
    unlinked = images.referrer(image, "by tag only")
    fallback_tag, fallback = images.referrers_index(image, [sbom, unlinked])
    signature_tag, signature = images.cosign(image)
    keys = (
        images.registry_keys("a", image, "1") | images.registry_keys("a", sbom) | images.registry_keys("a", chained)
    )
    keys |= images.registry_keys("a", fallback, fallback_tag) | images.registry_keys("a", signature, signature_tag)
    images.write_keys(storage.root, keys)
    repository = registry.repository("a")
    found = await repository.referrers(image.digest)
    assert {(str(of.digest), of.tag) for of in found} == {
        (sbom.digest, None),
        (unlinked.digest, None),
        (signature.digest, signature_tag),
    }
    assert {of.artifact_type for of in found if of.tag is None} == {"application/spdx+json"}
    assert [str(of.digest) for of in await repository.referrers(sbom.digest)] == [chained.digest]
    assert found.unreadable == ()
    (storage.root / images.blob_key(chained.digest)).write_bytes(b"")
    assert [str(digest) for digest in (await repository.referrers("1")).unreadable] == [chained.digest]


async def test_a_digest_tag_that_is_cut_refers_to_what_begins_so(
    registry: Registry, storage: RecordingStorage
) -> None:
    """A sha512 is too long for a tag: the distribution specification cuts it to 64 characters."""
    b = Builder(NOW)
    image = b.by_sha512(b.image(b.blob(b"config"), [b.blob(b"layer")]))
    b.push("a", image, "v1")
    cosign, listed = b.image(b.blob(b"cosign"), []), b.image(b.blob(b"listed"), [])
    b.push("a", cosign, f"sha512-{image.encoded[:64]}.sig")
    b.push("a", listed)
    b.push("a", b.index([listed]), f"sha512-{image.encoded[:64]}")
    b.push("a", b.image(b.blob(b"other"), []), f"sha512-{Digest.of(b'other', 'sha512').encoded[:64]}.sig")
    b.store.write_folder(storage.root)
    found = await registry.repository("a").referrers(image)
    assert {of.digest for of in found} == {cosign, listed}


async def test_a_link_that_is_just_being_written_is_read_again() -> None:
    """On a disk a registry empties a tag's file, then writes it."""
    b = Builder(NOW)
    image = b.image(b.blob(b"config"))
    b.push("a", image, "latest")
    key = encode(TagCurrentKey("a", "latest"))
    b.put(TagCurrentKey("a", "latest"), b"")
    storage = ModelStorage(b.store, now=NOW)
    with pytest.raises(IntegrityError, match="holds b''"):
        await Registry(storage).repository("a").manifests.get("latest")

    async def goes_on(operation: str, read: str) -> None:
        if (operation, read) == ("get", key):
            await storage.put(key, link_body(image))

    faulty = FaultyStorage(storage, after=goes_on)
    assert (await Registry(faulty).repository("a").manifests.get("latest")).digest == image
