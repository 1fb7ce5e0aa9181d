"""Writing: what appears, in which order, and what is left when it is cut short."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.errors import (
    BlobUnknown,
    IntegrityError,
    InvalidManifest,
    InvalidReference,
    ManifestUnknown,
    StorageError,
)
from regstore.registry import Registry
from tests.examples import examples
from tests.registry.storages import RecordingStorage
from tests.registry.stores import dangling, objects, push
from tests.servers import images

BASE = "docker/registry/v2/repositories/team/app"


async def chunks(data: bytes, size: int = 3) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def test_a_push_leaves_exactly_what_a_registry_leaves_in_its_order(
    registry: Registry, storage: RecordingStorage
) -> None:
    document = images.multiarch("x")
    await push(registry.repository("team/app"), document, "1.0")
    expected = images.registry_keys("team/app", document, "1.0")
    assert objects(storage.root) == expected
    # Blob before its link, child before parent, revision before tag, index before current; the shared base layer
    # is linked twice, written once.
    assert list(dict.fromkeys(storage.written())) == list(expected)
    assert len([key for key in storage.written() if "/blobs/" in key]) == len(document.closure())


async def test_a_push_again_writes_no_blob(registry: Registry, storage: RecordingStorage) -> None:
    document = images.image("x")
    await push(registry.repository("team/app"), document, "1.0")
    storage.log.clear()
    await push(registry.repository("team/app"), document, "1.0")
    assert [key for key in storage.written() if "/blobs/" in key] == []
    assert storage.written()[-1].endswith("/tags/1.0/current/link")


@pytest.mark.parametrize("known", ["digest and size", "digest", "nothing", "sha512"])
async def test_a_stream(registry: Registry, storage: RecordingStorage, known: str) -> None:
    data = b"some layer"
    digest, sha512 = Digest.of(data), Digest.of(data, "sha512")
    blobs = registry.repository("team/app").blobs
    if known == "digest and size":
        info = await blobs.put(chunks(data), digest, size=len(data))
    elif known == "digest":
        info = await blobs.put(chunks(data), str(digest))
    elif known == "nothing":
        info = await blobs.put(chunks(data))
    else:
        info = await blobs.put(chunks(data), sha512)
    assert (info.size, info.stored_as) == (len(data), digest)
    blob = images.blob_key(str(digest))
    link = f"{BASE}/_layers/sha256/{digest.encoded}/link"
    expected = {blob: data, link: str(digest).encode()}
    if known == "sha512":
        assert info.digest == sha512
        expected[f"{BASE}/_layers/sha512/{sha512.encoded}/link"] = str(digest).encode()
        assert await blobs.read(sha512) == data
    assert objects(storage.root) == expected
    order = storage.written()
    assert order.index(blob) < order.index(link)
    if known in ("nothing", "sha512"):
        assert [key.rpartition("/")[2] for key in order[:3]] == ["startedat", "data", "data"]
    assert not list((storage.root / BASE / "_uploads").glob("*"))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_wrong_content_never_shows(
    registry: Registry, storage: RecordingStorage, algorithm: str, streamed: bool
) -> None:
    promised = Digest.of(b"promised", algorithm)
    content = chunks(b"delivered") if streamed else b"delivered"
    with pytest.raises(IntegrityError):
        await registry.repository("team/app").blobs.put(content, promised)
    assert objects(storage.root) == {}


async def test_a_failing_source_never_shows(registry: Registry, storage: RecordingStorage) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"begin"
        raise ConnectionResetError("gone")

    for digest in (None, Digest.of(b"begin and end")):
        with pytest.raises(ConnectionResetError):
            await registry.repository("team/app").blobs.put(source(), digest)
    assert objects(storage.root) == {}


@pytest.mark.parametrize("how", ["bytes", "sized", "digest", "nothing"])
async def test_a_truncated_blob_is_replaced(registry: Registry, storage: RecordingStorage, how: str) -> None:
    data = b"a whole layer"
    digest = Digest.of(data)
    path = storage.root / images.blob_key(str(digest))
    path.parent.mkdir(parents=True)
    path.write_bytes(data[:4])
    blobs = registry.repository("team/app").blobs
    match how:
        case "bytes":
            await blobs.put(data)
        case "sized":
            await blobs.put(chunks(data), digest, size=len(data))
        case "digest":
            await blobs.put(chunks(data), digest)
        case _:
            await blobs.put(chunks(data))
    assert path.read_bytes() == data


async def test_a_whole_blob_keeps_its_mtime(registry: Registry, storage: RecordingStorage) -> None:
    data = b"a whole layer"
    blobs = registry.repository("team/app").blobs
    await blobs.put(data)
    before = (storage.root / images.blob_key(str(Digest.of(data)))).stat()
    await blobs.put(chunks(data))
    await blobs.put(chunks(data), Digest.of(data))
    await blobs.put(data)
    after = (storage.root / images.blob_key(str(Digest.of(data)))).stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    with pytest.raises(IntegrityError):
        await blobs.put(chunks(data + b"!"), Digest.of(data), size=len(data))


class Collected(RecordingStorage):
    """A collection takes blobs away while links to them are being written."""

    async def put(self, key: str, data: bytes, **more: Any) -> None:
        await super().put(key, data, **more)
        if key.endswith("/link") and ("/_layers/" in key or "/revisions/" in key):
            (self.root / images.blob_key(data.decode())).unlink(missing_ok=True)


async def test_a_blob_that_goes_while_it_is_linked_is_noticed(tmp_path: Path) -> None:
    image = images.image("x")
    images.write_keys(tmp_path, images.registry_keys("other", image))
    async with Collected(tmp_path) as storage:
        with pytest.raises(BlobUnknown, match="put it again"):
            await Registry(storage).repository("a").blobs.put(image.blobs[0].data)
        with pytest.raises(BlobUnknown, match="put it again"):
            await Registry(storage).repository("a").blobs.mount(image.blobs[1].digest, "other")
    images.write_keys(tmp_path, images.registry_keys("a", image))
    async with Collected(tmp_path) as storage:
        await Registry(storage).repository("a").manifests.put(image.data, tag="1")
    assert dangling(tmp_path) == []


async def test_mount(registry: Registry, storage: RecordingStorage) -> None:
    data, sha512 = b"shared", Digest.of(b"shared", "sha512")
    source, target = registry.repository("team/app"), registry.repository("other")
    with pytest.raises(BlobUnknown):
        await source.blobs.put(b"x")
        await target.blobs.mount(sha512, "team/app")
    await source.blobs.put(data, sha512)
    storage.log.clear()
    assert (await target.blobs.mount(sha512, "team/app")).size == len(data)
    assert all("/_layers/" in key for key in storage.written())
    assert await target.blobs.read(sha512) == await target.blobs.read(Digest.of(data)) == data


async def test_references_must_exist(registry: Registry, storage: RecordingStorage) -> None:
    document = images.image("x")
    repository, other = registry.repository("team/app"), registry.repository("other")
    await push(other, document)
    before = objects(storage.root)
    with pytest.raises(BlobUnknown) as caught:
        await repository.manifests.put(document.data, tag="1")
    assert all(blob.digest in str(caught.value) for blob in document.blobs)
    index = images.index([document])
    with pytest.raises(ManifestUnknown, match=document.digest):
        await repository.manifests.put(index.data)
    assert objects(storage.root) == before
    await repository.manifests.put(index.data, tag="sparse", sparse=True)
    assert await repository.tags.get("sparse") == Digest.parse(index.digest)


async def test_what_a_registry_takes(registry: Registry) -> None:
    repository = registry.repository("team/app")
    image = images.image("x")
    for document in (
        images.with_foreign_layer("f"),
        images.image("d", docker=True),
        images.multiarch("m", docker=True),
        images.buildkit_cache("b"),
        images.referrer(image),  # its subject is not here
    ):
        await push(repository, document)
        stored = await repository.manifests.get(document.digest)
        assert (stored.data, stored.media_type) == (document.data, document.media_type)


async def test_what_a_registry_refuses(registry: Registry, storage: RecordingStorage) -> None:
    repository = registry.repository("team/app")
    image = images.image("x")
    schema1, artifact = images.schema1("team/app", "1", "s"), images.artifact("a")
    for blob in (*image.blobs, *schema1.blobs, *artifact.blobs):
        await repository.blobs.put(blob.data)
    wrong_size = image.data.replace(f'"size":{len(image.blobs[1].data)}'.encode(), b'"size":1')
    refused = {
        b"{": None,
        b"[]": None,
        schema1.data: None,
        artifact.data: None,
        image.data: images.DOCKER_MANIFEST,
        wrong_size: None,
        image.data.replace(b'"schemaVersion":2', b'"schemaVersion":3'): None,
        image.data + b" " * (4 << 20): None,
    }
    before = objects(storage.root)
    for data, media_type in refused.items():
        with pytest.raises(InvalidManifest):
            await repository.manifests.put(data, media_type, tag="1")
    assert objects(storage.root) == before


async def test_names_and_tags_are_checked_before_anything_is_written(
    registry: Registry, storage: RecordingStorage
) -> None:
    for name in ("Team/App", "", "a//b", "../x", "a/_layers", "a" * 256, "/a"):
        with pytest.raises(InvalidReference):
            await registry.repository(name).blobs.put(b"x")
    repository = registry.repository("team/app")
    image = images.image("x")
    await push(repository, image)
    before = objects(storage.root)
    for tag in ("", "a/b", "..", "-x", "x" * 129, "current/link"):
        with pytest.raises(InvalidReference):
            await repository.tags.set(tag, image.digest)
        with pytest.raises(InvalidReference):
            await repository.manifests.put(image.data, tag=tag)
        with pytest.raises(InvalidReference):
            await repository.tags.delete(tag)
    with pytest.raises(ManifestUnknown):
        await repository.tags.set("x", Digest.of(b"nothing"))
    assert objects(storage.root) == before


async def test_a_manifest_goes_with_its_tags_first(registry: Registry, storage: RecordingStorage) -> None:
    repository = registry.repository("team/app")
    old, new = images.image("old"), images.image("new")
    await push(repository, old, "latest")
    await push(repository, old, "1.0")
    await push(repository, old, "1.0-alpine")
    await push(repository, new, "latest")
    storage.log.clear()
    assert await repository.manifests.delete("1.0") == ["1.0-alpine", "1.0"]
    path = old.digest.replace(":", "/")
    tags = f"{BASE}/_manifests/tags"
    assert storage.log == [
        ("delete", f"{tags}/{key}")
        for key in (
            "1.0-alpine/current/link",
            "1.0/current/link",
            f"1.0-alpine/index/{path}/link",
            f"1.0/index/{path}/link",
            f"latest/index/{path}/link",
        )
    ] + [("delete", f"{BASE}/_manifests/revisions/{path}/link")]
    assert [tag.name async for tag in repository.tags] == ["latest"]
    assert sorted(path.name for path in (storage.root / tags).iterdir()) == ["latest"], "empty folders list as tags"
    assert dangling(storage.root) == []
    with pytest.raises(ManifestUnknown):
        await repository.manifests.delete(old.digest)


async def test_a_damaged_tag_stops_a_delete(registry: Registry, storage: RecordingStorage) -> None:
    repository = registry.repository("team/app")
    image = images.image("x")
    await push(repository, image, "1")
    await push(repository, image, "2")
    (storage.root / BASE / "_manifests/tags/2/current/link").write_bytes(b"")
    before = objects(storage.root)
    with pytest.raises(IntegrityError, match="tags/2/current/link"):
        await repository.manifests.delete(image.digest)
    assert objects(storage.root) == before


@pytest.mark.parametrize("scenario", ["push", "stream", "retag", "delete"])
async def test_cut_short_anywhere_no_link_leads_to_nothing(tmp_path: Path, scenario: str) -> None:
    old, new = images.multiarch("old"), images.multiarch("new")
    for fail_at in range(40):
        root = tmp_path / str(fail_at)
        async with RecordingStorage(root) as storage:
            repository = Registry(storage).repository("team/app")
            await push(repository, old, "1")
            storage.log.clear()
            storage.fail_at = fail_at
            try:
                match scenario:
                    case "push" | "retag":
                        await push(repository, new, "1" if scenario == "retag" else "2")
                    case "stream":
                        await repository.blobs.put(chunks(b"data"), Digest.of(b"data", "sha512"))
                    case _:
                        await repository.manifests.delete("1")
            except StorageError:
                finished = False
            else:
                finished = True
        assert dangling(root) == []
        if finished:
            break
    assert finished
    assert fail_at >= 3


documents = st.recursive(
    st.builds(
        lambda seed, parts, docker: images.image(seed, parts, docker=docker, size=50),
        st.integers(0, 5),
        st.integers(1, 3),
        st.booleans(),
    ),
    lambda children: st.lists(children, min_size=1, max_size=3).map(images.index),
    max_leaves=5,
)
names = st.sampled_from(["a", "a/b", "a/b/c", "a-b", "ab", "a/0", "z9/x__y"])
tags = st.sampled_from(["1", "1-alpine", "1.0", "_x", "current", "index", "link", "Z"])


@settings(deadline=None, max_examples=examples(20))
@given(st.lists(st.tuples(names, documents, tags), min_size=1, max_size=5))
async def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, pushes: list[tuple[str, images.Document, str]]
) -> None:
    expected: dict[str, bytes] = {}
    current: dict[tuple[str, str], str] = {}
    revisions: dict[str, set[str]] = {}
    async with RecordingStorage(tmp_path_factory.mktemp("store"), page=7) as storage:
        registry = Registry(storage)
        for name, document, tag in pushes:
            await push(registry.repository(name), document, tag)
            expected |= images.registry_keys(name, document, tag)
            current[name, tag] = document.digest
            revisions.setdefault(name, set()).update(part.digest for part in document.documents())
        assert objects(storage.root) == expected
        found = [repository async for repository in registry.repositories()]
        assert sorted(repository.name for repository in found) == sorted(revisions)
        assert {
            (repository.name, tag.name): str(tag.digest) for repository in found async for tag in repository.tags
        } == current
        for repository in found:
            assert {str(digest) async for digest in repository.manifests} == revisions[repository.name]
        for name, document, _ in pushes:
            repository = registry.repository(name)
            for part in document.documents():
                assert (await repository.manifests.get(part.digest)).data == part.data
                for blob in part.blobs:
                    assert await repository.blobs.read(blob.digest) == blob.data
        assert {str(blob.digest): blob.size async for blob in registry.blobs} == {
            "sha256:" + hashlib.sha256(body).hexdigest(): len(body)
            for key, body in expected.items()
            if "/v2/blobs/" in key
        }
        assert dangling(storage.root) == []


async def test_a_blob_that_is_cut_short_while_it_is_linked_is_not_promised(
    registry: Registry, storage: RecordingStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody puts other bytes there between the write and the link: whoever wrote it is told."""
    data = b"a layer"
    key = images.blob_key(str(Digest.of(data)))
    put = storage.put

    async def put_and_cut(name: str, body: bytes, **more: Any) -> None:
        await put(name, body, **more)
        if name.endswith("/link"):
            (storage.root / key).write_bytes(data[:-1])

    monkeypatch.setattr(storage, "put", put_and_cut)
    with pytest.raises(IntegrityError, match=r"6 bytes in .*, not 7"):
        await registry.repository("team/app").blobs.put(data)
