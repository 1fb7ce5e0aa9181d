"""The registry API against the text of the OCI distribution specification 1.1: pull and discovery."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import yarl

from regstore import layout
from regstore.backup import Snapshot
from regstore.backup.as_store import SnapshotStorage
from regstore.digest import Digest
from regstore.registry import Registry
from regstore.serve.mounts import StoreMount, open_mounts
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from tests.backup.places import memory, open_place, take
from tests.model.store import ModelStore
from tests.registry.stores import push
from tests.serve.served import Served, served
from tests.servers import images
from tests.servers.s3 import S3Root, S3Server

NAME = "team/app"
IMAGE = images.image("served", parts=2)
MULTI = images.multiarch("served")
DOCKER = images.multiarch("docker", docker=True)
SBOM = images.referrer(IMAGE, "sbom")
BASE = f"/v2/{NAME}"


async def fill(storage: Storage) -> None:
    repository = Registry(storage).repository(NAME)
    for document, tag in ((IMAGE, "1.0"), (MULTI, "multi"), (DOCKER, "docker"), (SBOM, None)):
        await push(repository, document, tag)
    for tag in ("1.0-rc1", "1", "1.0.1", "Z"):
        await repository.tags.set(tag, IMAGE.digest)
    await push(Registry(storage).repository("team/app-two"), IMAGE, "x")
    await push(Registry(storage).repository("team/app/nested"), IMAGE, "x")


@dataclass(frozen=True)
class Places:
    """One registry in every kind of place; nothing below changes it."""

    folder: Path
    objects: ModelStore
    backup_folder: Path
    backup: ModelStore
    snapshot: Snapshot

    def open(self, kind: str) -> Storage:
        if kind == "disk":
            return DiskStorage(self.folder, read_only=True)
        if kind == "streamed":
            return memory(self.objects)
        backup = DiskStorage(self.backup_folder) if kind == "snapshot of a folder" else memory(self.backup)
        return SnapshotStorage(backup, self.snapshot)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("places")
    objects, backup = ModelStore(), ModelStore()

    async def make() -> Places:
        source, target = memory(objects), memory(backup)
        await fill(source)
        snapshot = (await take(source, target)).snapshot
        objects.write_folder(folder / "store")
        backup.write_folder(folder / "backup")
        return Places(folder / "store", objects, folder / "backup", backup, snapshot)

    return asyncio.run(make())


@pytest.fixture(params=["disk", "streamed", "snapshot of a folder", "snapshot"])
async def store(request: pytest.FixtureRequest, places: Places) -> AsyncIterator[Storage]:
    async with places.open(request.param) as storage:
        yield storage


@pytest.fixture
async def client(store: Storage) -> AsyncIterator[Served]:
    async with served(StoreMount(Registry(store))) as client:
        yield client


async def test_it_says_that_it_is_a_registry(client: Served) -> None:
    answer = await client.ask("/v2/")
    assert (answer.status, answer.headers["Docker-Distribution-Api-Version"]) == (200, "registry/2.0")
    assert (await client.ask("/v2")).headers["Location"] == "/v2/"


@pytest.mark.parametrize("document", [IMAGE, MULTI, DOCKER, SBOM], ids=["image", "index", "list", "artifact"])
async def test_a_manifest_comes_as_it_was_pushed(client: Served, document: images.Document) -> None:
    answer = await client.ask(f"{BASE}/manifests/{document.digest}")
    assert (answer.status, answer.body) == (200, document.data)
    assert answer.headers["Content-Type"] == document.media_type
    assert answer.headers["Docker-Content-Digest"] == document.digest
    head = await client.ask(f"{BASE}/manifests/{document.digest}", "HEAD")
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Length", "Content-Type", "Docker-Content-Digest", "ETag"):
        assert head.headers[name] == answer.headers[name]


async def test_a_tag_leads_to_its_manifest(client: Served) -> None:
    answer = await client.ask(f"{BASE}/manifests/1.0")
    assert (answer.body, answer.headers["Docker-Content-Digest"]) == (IMAGE.data, IMAGE.digest)
    assert "immutable" not in answer.headers.get("Cache-Control", "")


@pytest.mark.parametrize("written", ['"{}"', "{}", 'W/"{}"', '"other", "{}"'])
async def test_who_has_it_gets_304(client: Served, written: str) -> None:
    blob = IMAGE.blobs[0].digest
    for path, digest in ((f"{BASE}/manifests/1.0", IMAGE.digest), (f"{BASE}/blobs/{blob}", blob)):
        answer = await client.ask(path, If_None_Match=written.format(digest))
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", f'"{digest}"')
        assert (await client.ask(path, If_None_Match='"sha256:other"')).status == 200


async def test_a_client_gets_no_form_that_it_does_not_take(client: Served) -> None:
    image, index = images.OCI_MANIFEST, images.OCI_INDEX
    assert (await client.ask(f"{BASE}/manifests/multi", Accept=f"{image}, {index}")).body == MULTI.data
    assert (await client.ask(f"{BASE}/manifests/multi", Accept="*/*")).body == MULTI.data
    assert (await client.ask(f"{BASE}/manifests/multi", Accept="application/*;q=0.1")).body == MULTI.data
    refused = await client.ask(f"{BASE}/manifests/multi", Accept=image)
    assert (refused.status, refused.code) == (404, "MANIFEST_UNKNOWN")
    # As Distribution does for clients that know images only.
    one = await client.ask(f"{BASE}/manifests/docker", Accept=images.DOCKER_MANIFEST)
    assert one.headers["Content-Type"] == images.DOCKER_MANIFEST
    assert one.headers["Docker-Content-Digest"] == DOCKER.json["manifests"][0]["digest"]


@pytest.mark.parametrize("blob", IMAGE.blobs, ids=lambda blob: blob.media_type.rpartition(".")[2])
async def test_a_blob_comes_whole(client: Served, blob: images.Blob) -> None:
    answer = await client.ask(f"{BASE}/blobs/{blob.digest}")
    assert (answer.status, answer.body) == (200, blob.data)
    assert answer.headers["Docker-Content-Digest"] == blob.digest
    head = await client.ask(f"{BASE}/blobs/{blob.digest}", "HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(blob.data)))


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("0-0", 0, 1),
        ("5-9", 5, 10),
        ("100-", 100, None),
        ("-7", -7, None),
        ("1-99999999", 1, None),
        ("-99999999", 0, None),
    ],
)
async def test_a_part_of_a_blob(client: Served, asked: str, first: int, last: int | None) -> None:
    blob = max(IMAGE.blobs, key=lambda each: len(each.data))
    answer = await client.ask(f"{BASE}/blobs/{blob.digest}", Range=f"bytes={asked}")
    assert (answer.status, answer.body) == (206, blob.data[first:last])
    start = first if first >= 0 else len(blob.data) + first
    assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(answer.body) - 1}/{len(blob.data)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,3-4", "lines=0-1", "bytes=9-3", "bytes=-", "bytes=x-y", "bytes 0-1"])
async def test_a_range_that_is_none_gives_the_whole(client: Served, asked: str) -> None:
    blob = IMAGE.blobs[0]
    answer = await client.ask(f"{BASE}/blobs/{blob.digest}", Range=asked)
    assert (answer.status, answer.body) == (200, blob.data)


async def test_a_range_behind_the_end(client: Served) -> None:
    blob = IMAGE.blobs[0]
    for asked in (f"bytes={len(blob.data)}-", "bytes=-0"):
        answer = await client.ask(f"{BASE}/blobs/{blob.digest}", Range=asked)
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(blob.data)}")


async def test_a_range_only_while_it_is_the_same(client: Served) -> None:
    blob = IMAGE.blobs[0]
    path = f"{BASE}/blobs/{blob.digest}"
    assert (await client.ask(path, Range="bytes=0-1", If_Range=f'"{blob.digest}"')).status == 206
    assert (await client.ask(path, Range="bytes=0-1", If_Range='"other"')).status == 200


ABSENT = [
    ("/v2/none/at/all/tags/list", 404, "NAME_UNKNOWN"),
    ("/v2/team/tags/list", 404, "NAME_UNKNOWN"),
    ("/v2/none/manifests/1.0", 404, "NAME_UNKNOWN"),
    (f"{BASE}/manifests/none", 404, "MANIFEST_UNKNOWN"),
    (f"{BASE}/manifests/{Digest.of(b'none')}", 404, "MANIFEST_UNKNOWN"),
    (f"{BASE}/manifests/-no-tag", 404, "MANIFEST_UNKNOWN"),
    (f"{BASE}/manifests/sha256:abc", 400, "DIGEST_INVALID"),
    (f"{BASE}/blobs/{Digest.of(b'none')}", 404, "BLOB_UNKNOWN"),
    (f"{BASE}/blobs/sha256:abc", 400, "DIGEST_INVALID"),
    (f"{BASE}/blobs/latest", 400, "DIGEST_INVALID"),
    (f"{BASE}/referrers/latest", 400, "DIGEST_INVALID"),
    (f"{BASE}/tags/list?n=many", 400, "PAGINATION_NUMBER_INVALID"),
    (f"{BASE}/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
    ("/v2/Team/tags/list", 400, "NAME_INVALID"),
    ("/v2/a/..%2f..%2fetc/tags/list", 400, "NAME_INVALID"),
    ("/v2/a%00b/tags/list", 400, "NAME_INVALID"),
    ("/v2/a%0d%0aX:%20y/manifests/1", 404, "UNSUPPORTED"),
    ("/v2/" + "a" * 300 + "/tags/list", 400, "NAME_INVALID"),
    (f"{BASE}/elsewhere", 404, "UNSUPPORTED"),
]


async def test_what_is_not_there(client: Served) -> None:
    for path, status, code in ABSENT:
        answer = await client.ask(path)
        assert (path, answer.status, answer.code) == (path, status, code)
        assert answer.headers["Content-Type"].startswith("application/json")
        assert all(isinstance(error["message"], str) for error in answer.json["errors"])
        head = await client.ask(path, "HEAD")
        assert (path, head.status, head.body) == (path, status, b"")


async def test_a_blob_of_another_repository_is_none_of_this_one(client: Served) -> None:
    layer = next(each for each in MULTI.closure() if each not in IMAGE.closure() and each != MULTI.digest)
    assert (await client.ask(f"{BASE}/blobs/{layer}")).status in (200, 404)
    answer = await client.ask(f"/v2/team/app-two/blobs/{layer}")
    assert (answer.status, answer.code) == (404, "BLOB_UNKNOWN")
    answer = await client.ask(f"/v2/team/app-two/manifests/{MULTI.digest}")
    assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")


WRITES = [
    ("POST", f"{BASE}/blobs/uploads/"),
    ("PATCH", f"{BASE}/blobs/uploads/1"),
    ("PUT", f"{BASE}/blobs/uploads/1?digest={IMAGE.digest}"),
    ("PUT", f"{BASE}/manifests/1.0"),
    ("DELETE", f"{BASE}/manifests/1.0"),
    ("DELETE", f"{BASE}/blobs/{IMAGE.blobs[0].digest}"),
    ("DELETE", "/v2/"),
]


async def test_nothing_is_written(client: Served) -> None:
    for method, path in WRITES:
        answer = await client.ask(path, method)
        assert (path, answer.status, answer.code) == (path, 405, "UNSUPPORTED")
    assert (await client.ask(f"{BASE}/manifests/1.0")).body == IMAGE.data


async def walk(client: Served, path: str, field: str) -> list[str]:
    found: list[str] = []
    while path:
        answer = await client.ask(path)
        found += answer.json[field]
        link = re.fullmatch(r'<([^>]+)>; rel="next"', answer.headers.get("Link", '<>; rel="next"'))
        path = link[1] if link else ""
    return found


async def test_tags_page_by_page_in_lexical_order(client: Served) -> None:
    tags = ["1", "1.0", "1.0-rc1", "1.0.1", "Z", "docker", "multi"]
    assert (await client.ask(f"{BASE}/tags/list")).json == {"name": NAME, "tags": tags}
    for n in (1, 2, 3, 5, 6, 7):
        assert await walk(client, f"{BASE}/tags/list?n={n}", "tags") == tags
        for last in (*tags, "0", "1.0.0", "zz"):
            rest = [tag for tag in tags if tag > last]
            answer = await client.ask(f"{BASE}/tags/list?n={n}&last={quote(last)}")
            assert answer.json["tags"] == rest[:n]
            assert ("Link" in answer.headers) == (len(rest) > n)
    none = await client.ask(f"{BASE}/tags/list?n=0")
    assert (none.json["tags"], none.headers.get("Link")) == ([], None)


async def test_repositories_page_by_page_in_lexical_order(client: Served) -> None:
    names = ["team/app", "team/app-two", "team/app/nested"]
    assert (await client.ask("/v2/_catalog")).json == {"repositories": names}
    for n in (1, 2, 3, 4):
        assert await walk(client, f"/v2/_catalog?n={n}", "repositories") == names
        for last in (*names, "team", "team/app-", "zz"):
            rest = [name for name in names if name > last]
            answer = await client.ask(f"/v2/_catalog?n={n}&last={quote(last, safe='')}")
            assert answer.json["repositories"] == rest[:n]
            assert ("Link" in answer.headers) == (len(rest) > n)
    for wrong in ("%00", "x" * 600):
        assert (await client.ask(f"/v2/_catalog?last={wrong}")).code == "NAME_INVALID"


async def test_referrers(client: Served) -> None:
    answer = await client.ask(f"{BASE}/referrers/{IMAGE.digest}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, images.OCI_INDEX)
    (found,) = answer.json["manifests"]
    assert (answer.json["schemaVersion"], answer.json["mediaType"]) == (2, images.OCI_INDEX)
    assert (found["digest"], found["size"]) == (SBOM.digest, len(SBOM.data))
    assert found["mediaType"] == SBOM.media_type
    assert found["artifactType"] == SBOM.json["artifactType"]
    assert found.get("annotations") == SBOM.json.get("annotations")
    chosen = await client.ask(f"{BASE}/referrers/{IMAGE.digest}?artifactType={quote(found['artifactType'])}")
    assert (chosen.json["manifests"], chosen.headers["OCI-Filters-Applied"]) == ([found], "artifactType")
    other = await client.ask(f"{BASE}/referrers/{IMAGE.digest}?artifactType=application/none")
    assert (other.json["manifests"], other.headers["OCI-Filters-Applied"]) == ([], "artifactType")


async def test_no_referrers_are_an_empty_list_and_never_404(client: Served) -> None:
    for path in (f"{BASE}/referrers/{Digest.of(b'none')}", f"/v2/none/referrers/{IMAGE.digest}"):
        answer = await client.ask(path)
        assert (answer.status, answer.json["manifests"]) == (200, [])


async def test_a_referrer_is_read_once() -> None:
    storage = memory()
    await fill(storage)
    async with served(StoreMount(Registry(storage))) as client:
        await client.ask(f"{BASE}/referrers/{IMAGE.digest}")
        before = dict(storage.counters.requests)
        assert len((await client.ask(f"{BASE}/referrers/{IMAGE.digest}")).json["manifests"]) == 1
        assert {k: v - before.get(k, 0) for k, v in storage.counters.requests.items() if v != before.get(k, 0)} == {
            "list": 2
        }


async def test_what_is_pushed_is_pulled_at_once() -> None:
    storage = memory()
    await fill(storage)
    async with served(StoreMount(Registry(storage))) as client:
        assert (await client.ask(f"{BASE}/manifests/new")).status == 404
        await Registry(storage).repository(NAME).tags.set("new", MULTI.digest)
        assert (await client.ask(f"{BASE}/manifests/new")).body == MULTI.data


async def test_a_damaged_object_is_an_error_of_that_answer_only() -> None:
    storage = memory()
    await fill(storage)
    blob = IMAGE.blobs[0].digest
    await storage.put(layout.encode(layout.BlobKey(Digest.parse(MULTI.digest))), b"{}")
    await storage.put(layout.encode(layout.LayerLinkKey(NAME, Digest.parse(blob))), b"nonsense")
    told: list[str] = []
    async with served(StoreMount(Registry(storage)), on_event=lambda event: told.append(str(event))) as client:
        for path in (f"{BASE}/manifests/multi", f"{BASE}/blobs/{blob}"):
            answer = await client.ask(path)
            assert (answer.status, answer.code) == (500, "UNKNOWN")
            assert "docker/registry" not in answer.body.decode(), "what the store holds is not the client's"
        assert (await client.ask(f"{BASE}/manifests/1.0")).status == 200
    assert len(told) == 2
    assert "multi" in told[0]


async def test_a_whole_backup_has_every_snapshot_under_its_id() -> None:
    source, backup = memory(), memory()
    await fill(source)
    first = (await take(source, backup)).snapshot.run.lower()
    async with served(await open_mounts(backup)) as client:
        await Registry(source).repository(NAME).tags.set("1.0", MULTI.digest)
        second = (await take(source, backup)).snapshot.run.lower()
        names = await walk(client, "/v2/_catalog?n=2", "repositories")
        assert {name.partition("/")[0] for name in names} == {first, second, "latest"}
        for prefix, wanted in ((first, IMAGE), (second, MULTI), ("latest", MULTI)):
            answer = await client.ask(f"/v2/{prefix}/{NAME}/manifests/1.0")
            assert answer.body == wanted.data
        for path in ("/v2/nope/team/app/tags/list", f"/v2/{first}/tags/list"):
            answer = await client.ask(path)
            assert (answer.status, answer.code) == (404, "NAME_UNKNOWN")


async def test_two_hundred_pulls_at_a_time(client: Served) -> None:
    blob = max(IMAGE.blobs, key=lambda each: len(each.data))

    async def pull() -> bool:
        manifest = await client.ask(f"{BASE}/manifests/1.0")
        return manifest.body == IMAGE.data and (await client.ask(f"{BASE}/blobs/{blob.digest}")).body == blob.data

    assert all(await asyncio.gather(*(pull() for _ in range(200))))


async def test_a_client_that_goes_away_harms_nobody(client: Served) -> None:
    for _ in range(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(f"GET {BASE}/blobs/{IMAGE.blobs[0].digest} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        await reader.read(10)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    assert (await client.ask("/v2/")).status == 200


async def test_clients_are_sent_to_the_store_for_blobs(moto: S3Server) -> None:
    bucket = moto.create_bucket()
    async with (
        open_place(S3Root(moto, bucket, "/root")) as source,
        open_place(S3Root(moto, bucket, "/b")) as backup,
    ):
        await fill(source)
        snapshot = SnapshotStorage(backup, (await take(source, backup)).snapshot)
        blob = IMAGE.blobs[0]
        for storage in (source, snapshot):
            async with served(StoreMount(Registry(storage)), redirect=True) as client:
                answer = await client.ask(f"{BASE}/blobs/{blob.digest}")
                assert (answer.status, answer.headers["Cache-Control"]) == (307, "no-store")
                async with client.session.get(yarl.URL(answer.headers["Location"], encoded=True)) as response:
                    assert (response.status, await response.read()) == (200, blob.data)
                assert (await client.ask(f"{BASE}/blobs/{blob.digest}", "HEAD")).status == 200
                gone = await client.ask(f"{BASE}/blobs/{Digest.of(b'none')}")
                assert (gone.status, gone.code) == (404, "BLOB_UNKNOWN")
                assert (await client.ask(f"{BASE}/manifests/1.0")).body == IMAGE.data


async def test_a_folder_has_no_addresses_and_its_blobs_come_from_here(places: Places) -> None:
    blob = IMAGE.blobs[0]
    for kind in ("disk", "snapshot of a folder", "streamed"):
        async with places.open(kind) as storage, served(StoreMount(Registry(storage)), redirect=True) as client:
            assert (await client.ask(f"{BASE}/blobs/{blob.digest}")).body == blob.data
