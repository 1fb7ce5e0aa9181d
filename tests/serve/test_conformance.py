"""The pull and discovery checks of the OCI distribution specification's own conformance suite (v1.1, `01_pull_test.go`
and `03_discovery_test.go`), and what the specification says MUST be where the suite does not look.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from regstore.digest import Digest
from regstore.registry import Registry
from regstore.serve.mounts import StoreMount
from tests.backup.places import memory
from tests.model.memory import ModelStorage
from tests.registry.stores import push
from tests.serve.served import Answer, Served, served
from tests.servers import images

NAME = "conformance/test"
BASE = f"/v2/{NAME}"
DUMMY = "sha256:" + "0" * 64
#: "Error Codes" of the specification.
CODES = {
    "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED",
    "UNSUPPORTED", "TOOMANYREQUESTS",
}  # fmt: skip
EMPTY = images.Blob(b"{}", "application/vnd.oci.empty.v1+json")
REF_A, REF_B = "application/vnd.nba.strawberry.jam.croissant", "application/vnd.nhl.peanut.butter.bagel"
TESTED = images.image("conformance", parts=1)
MISSING = images.image("never pushed", parts=1)


def referring(
    subject: images.Document,
    annotation: str,
    *,
    config_type: str = "",
    artifact_type: str = "",
    index: bool = False,
) -> images.Document:
    """A manifest as the suite pushes them: its type is that of its config, or an `artifactType` of its own."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": images.OCI_INDEX if index else images.OCI_MANIFEST,
        "subject": subject.descriptor(),
        "annotations": {"org.opencontainers.conformance.test": annotation},
    }
    blobs: tuple[images.Blob, ...] = ()
    if artifact_type:
        document["artifactType"] = artifact_type
    if index:
        document["manifests"] = []
    else:
        config = images.Blob(EMPTY.data, config_type or EMPTY.media_type)
        document |= {"config": config.descriptor(), "layers": [EMPTY.descriptor()]}
        blobs = (config, EMPTY)
    return images.Document(json.dumps(document).encode(), document["mediaType"], blobs)


REFERRERS = {
    "config A": (referring(TESTED, "config A", config_type=REF_A), REF_A),
    "layer A": (referring(TESTED, "layer A", artifact_type=REF_A), REF_A),
    "index": (referring(TESTED, "index", artifact_type="application/vnd.food.stand", index=True), None),
    "config B": (referring(TESTED, "config B", config_type=REF_B), REF_B),
    "layer B": (referring(TESTED, "layer B", artifact_type=REF_B), REF_B),
}
TO_MISSING = referring(MISSING, "to nothing", artifact_type=REF_A)


async def put(storage: ModelStorage, document: images.Document, tag: str = "") -> None:
    for key, body in images.registry_keys(NAME, document, tag).items():
        await storage.put(key, body)


@pytest.fixture
async def client() -> AsyncIterator[Served]:
    storage = memory()
    await push(Registry(storage).repository(NAME), TESTED, "tagtest0")
    for number in range(4):
        await Registry(storage).repository(NAME).tags.set(f"test{number}", TESTED.digest)
    for document, _ in REFERRERS.values():
        await put(storage, document)
    await put(storage, TO_MISSING)
    await push(Registry(storage).repository("conformance/untagged"), TESTED)
    async with served(StoreMount(Registry(storage))) as client:
        yield client


def says_why(answer: Answer) -> bool:
    """An error in the form of the specification, with a code that it names."""
    errors = answer.json["errors"]
    return (
        answer.headers["Content-Type"].startswith("application/json")
        and all(set(error) <= {"code", "message", "detail"} for error in errors)
        and {error["code"] for error in errors} <= CODES
    )


class TestPull:
    async def test_blobs(self, client: Served) -> None:
        blob = TESTED.blobs[0]
        for path, status, body in (
            (f"{BASE}/blobs/{DUMMY}", 404, None),
            (f"{BASE}/blobs/{blob.digest}", 200, blob.data),
        ):
            head, got = await client.ask(path, "HEAD"), await client.ask(path)
            assert (head.status, got.status, head.body) == (status, status, b"")
            assert head.headers["Content-Length"] == got.headers["Content-Length"] == str(len(got.body))
            assert says_why(got) if body is None else got.body == body
            for answer in (head, got):
                assert answer.headers.get("Docker-Content-Digest") == (blob.digest if body else None)

    async def test_manifests(self, client: Served) -> None:
        accept = images.OCI_MANIFEST
        for reference, status in (
            (".INVALID_MANIFEST_NAME", 404),
            ("nonexistent", 404),
            (DUMMY, 404),
            (TESTED.digest, 200),
            ("tagtest0", 200),
        ):
            path = f"{BASE}/manifests/{reference}"
            head, got = await client.ask(path, "HEAD", Accept=accept), await client.ask(path, Accept=accept)
            assert (reference, head.status, got.status, head.body) == (reference, status, status, b"")
            assert head.headers["Content-Length"] == got.headers["Content-Length"] == str(len(got.body))
            if status == 200:
                assert (got.body, got.headers["Content-Type"]) == (TESTED.data, accept)
                assert head.headers["Docker-Content-Digest"] == TESTED.digest
                assert head.headers["Content-Type"] == accept
            else:
                assert says_why(got)

    async def test_errors_are_in_the_form_of_the_specification(self, client: Served) -> None:
        for path, method, status in (
            (f"{BASE}/manifests/sha256:totallywrong", "GET", 400),
            (f"{BASE}/manifests/sha256:totallywrong", "PUT", 405),
            (f"{BASE}/blobs/sha256:totallywrong", "GET", 400),
            (f"{BASE}/referrers/sha256:totallywrong", "GET", 400),
            ("/v2/UPPER/tags/list", "GET", 400),
            ("/v2/none/manifests/latest", "GET", 404),
            (f"{BASE}/blobs/uploads/", "POST", 405),
        ):
            answer = await client.ask(path, method)
            assert (path, answer.status, says_why(answer)) == (path, status, True)

    async def test_what_a_client_takes(self, client: Served) -> None:
        path = f"{BASE}/manifests/tagtest0"
        image, index = images.OCI_MANIFEST, images.OCI_INDEX
        for accept, status in (
            (f"{index}, {image}", 200),
            (f"{index};q=1.0, {image};q=0.5", 200),
            (f"{image} ; q=0.001", 200),
            ("*/*", 200),
            ("application/*", 200),
            (index, 404),
            (f"{image};q=0", 404),
            (f"{image};q=0.000, */*", 404),  # the closer one counts
            (f"application/*;q=0, {image}", 200),
            (f"{image};q=nonsense", 200),
            ("", 200),
        ):
            assert (accept, (await client.ask(path, Accept=accept)).status) == (accept, status)

    async def test_who_has_it(self, client: Served) -> None:
        blob = TESTED.blobs[0].digest
        for path in (f"{BASE}/manifests/tagtest0", f"{BASE}/blobs/{blob}"):
            for method in ("GET", "HEAD"):
                answer = await client.ask(path, method, If_None_Match="*")
                assert (answer.status, answer.body) == (304, b"")
            gone = await client.ask(path.replace("tagtest0", "none").replace(blob, DUMMY), If_None_Match="*")
            assert gone.status == 404

    async def test_a_head_has_no_range(self, client: Served) -> None:
        blob = TESTED.blobs[0]
        answer = await client.ask(f"{BASE}/blobs/{blob.digest}", "HEAD", Range="bytes=0-1")
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(blob.data)))
        assert answer.headers["Accept-Ranges"] == "bytes"

    async def test_an_empty_blob(self) -> None:
        storage = memory()
        empty = images.Blob(b"", "application/octet-stream")
        await Registry(storage).repository(NAME).blobs.put(b"")
        async with served(StoreMount(Registry(storage))) as client:
            for method in ("GET", "HEAD"):
                answer = await client.ask(f"{BASE}/blobs/{empty.digest}", method)
                assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")
            part = await client.ask(f"{BASE}/blobs/{empty.digest}", Range="bytes=0-")
            assert (part.status, part.headers["Content-Range"]) == (416, "bytes */0")

    async def test_by_sha512(self) -> None:
        """A blob that was pushed by it lies under its sha256, and is asked for by either."""
        import hashlib

        storage = memory()
        data = b"pushed by its sha512"
        digest = Digest("sha512", hashlib.sha512(data).hexdigest())
        await Registry(storage).repository(NAME).blobs.put(data, digest)
        async with served(StoreMount(Registry(storage))) as client:
            for asked in (digest, Digest.of(data)):
                answer = await client.ask(f"{BASE}/blobs/{asked}")
                assert (answer.status, answer.body, answer.headers["Docker-Content-Digest"]) == (
                    200,
                    data,
                    str(asked),
                )


class TestDiscovery:
    async def test_tags(self, client: Served) -> None:
        answer = await client.ask(f"{BASE}/tags/list")
        tags = answer.json["tags"]
        assert (answer.status, answer.json["name"]) == (200, NAME)
        assert tags in (sorted(tags), sorted(tags, key=str.lower)), "the suite takes both orders"
        half = len(tags) // 2
        part = await client.ask(f"{BASE}/tags/list?n={half}")
        assert (part.status, part.json["tags"]) == (200, tags[:half])
        assert part.headers["Link"] == f'<{BASE}/tags/list?last={tags[half - 1]}&n={half}>; rel="next"'
        rest = await client.ask(f"{BASE}/tags/list?n={half}&last={tags[half - 1]}")
        assert rest.status == 200
        assert not set(rest.json["tags"]) & set(tags[:half])
        none = await client.ask(f"{BASE}/tags/list?n=0")
        assert (none.status, none.json["tags"], "Link" in none.headers) == (200, [], False)
        all_of_them = await client.ask(f"{BASE}/tags/list?n={len(tags)}")
        assert (all_of_them.json["tags"], "Link" in all_of_them.headers) == (tags, False)

    async def test_a_repository_without_tags_has_an_empty_list(self, client: Served) -> None:
        answer = await client.ask("/v2/conformance/untagged/tags/list")
        assert (answer.status, answer.json) == (200, {"name": "conformance/untagged", "tags": []})

    async def referrers(self, client: Served, digest: str, artifact_type: str = "") -> list[dict[str, Any]]:
        query = f"?artifactType={artifact_type}" if artifact_type else ""
        answer = await client.ask(f"{BASE}/referrers/{digest}{query}")
        assert (answer.status, answer.headers["Content-Type"]) == (200, images.OCI_INDEX)
        assert answer.json["schemaVersion"] == 2
        assert answer.headers.get("OCI-Filters-Applied") == ("artifactType" if artifact_type else None)
        found: list[dict[str, Any]] = answer.json["manifests"]
        return found

    async def test_referrers(self, client: Served) -> None:
        assert await self.referrers(client, DUMMY) == []
        found = await self.referrers(client, TESTED.digest)
        wanted = {document.digest: words for words, (document, _) in REFERRERS.items()}
        assert {
            each["digest"]: each["annotations"]["org.opencontainers.conformance.test"] for each in found
        } == wanted
        sizes = {document.digest: len(document.data) for document, _ in REFERRERS.values()}
        assert {each["digest"]: each["size"] for each in found} == sizes
        assert all(len(each["annotations"]) == 1 for each in found)
        chosen = await self.referrers(client, TESTED.digest, REF_A)
        assert {each["digest"] for each in chosen} == {
            document.digest for document, kind in REFERRERS.values() if kind == REF_A
        }
        assert {each["artifactType"] for each in chosen} == {REF_A}
        (index,) = [each for each in found if each["mediaType"] == images.OCI_INDEX]
        assert index["artifactType"] == "application/vnd.food.stand"

    async def test_referrers_of_what_is_not_there(self, client: Served) -> None:
        assert [each["digest"] for each in await self.referrers(client, MISSING.digest)] == [TO_MISSING.digest]
