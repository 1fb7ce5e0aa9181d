"""Requests over S3: what is retried, what is counted, and what each answer means."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import socket
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from types import SimpleNamespace
from typing import TypedDict

import botocore.exceptions
import pytest
from aiohttp import web

from regstore.digest import Digest
from regstore.errors import (
    AccessDenied,
    AlreadyExists,
    Archived,
    AuthenticationFailed,
    IntegrityError,
    NoSuchBucket,
    NotFound,
    RegstoreError,
    StorageError,
    Unreachable,
    Unsupported,
)
from regstore.events import Event, Retry
from regstore.storage.base import PutOptions, Storage
from regstore.storage.s3 import RetryPolicy, S3Settings, S3Storage
from regstore.storage.s3.client import READ_TIMEOUT
from tests.storage.fake_s3 import Answering, Asked, FakeS3, answer, cut_off, error, fake_s3, listing, reset

pytestmark = pytest.mark.usefixtures("transport")

LAST_MODIFIED = "Mon, 23 Nov 2026 10:00:00 GMT"


class Facts(TypedDict):
    ETag: str
    Last_Modified: str


FACTS: Facts = {"ETag": '"abc"', "Last_Modified": LAST_MODIFIED}


@pytest.fixture
async def fake() -> AsyncIterator[FakeS3]:
    async with fake_s3() as server:
        yield server


@pytest.fixture
async def storage(fake: FakeS3) -> AsyncIterator[S3Storage]:
    async with fake.storage() as storage:
        yield storage


async def keys_of(storage: Storage, prefix: str = "", **options: str) -> list[str]:
    return [key async for page in storage.list(prefix, **options) for key in page.keys]


# Listing


async def test_a_short_or_empty_page_is_not_the_end(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [
        answer(body=listing("a", truncated=True, token="one")),
        answer(body=listing(truncated=True, token="two")),
        answer(body=listing("b")),
    ]
    pages = [page async for page in storage.list("")]
    assert [(page.keys, page.complete) for page in pages] == [(["a"], False), ([], False), (["b"], True)]
    assert [asked.query.get("continuation-token") for asked in fake.asked] == [None, "one", "two"]
    assert storage.counters.requests == {"ListObjectsV2": 3}


async def test_truncated_without_token_goes_on_after_the_last_key(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [answer(body=listing("a", "b", truncated=True)), answer(body=listing("c"))]
    assert await keys_of(storage) == ["a", "b", "c"]
    assert fake.asked[1].query["start-after"] == "b"


async def test_truncated_without_any_way_on_raises(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [answer(body=listing(truncated=True))]
    with pytest.raises(StorageError, match="cut off"):
        await keys_of(storage)


async def test_a_cut_listing_is_asked_for_again_and_never_an_end(fake: FakeS3, storage: S3Storage) -> None:
    whole = listing("a", "b").encode()
    fake.answers = [
        cut_off(whole[:200], len(whole)),
        answer(body=whole[:-30]),
        answer(body=b""),
        answer(body=whole),
    ]
    assert await keys_of(storage) == ["a", "b"]
    assert (storage.counters.requests, storage.counters.retries) == ({"ListObjectsV2": 4}, 3)
    fake.answers = [answer(body=whole[:-30])] * 4
    with pytest.raises(Unreachable, match="broken body"):
        await keys_of(storage)


@pytest.mark.parametrize(
    "pages",
    [
        [listing("b", "a", truncated=True, token="t")],
        [listing("b", truncated=True, token="t"), listing("a")],
    ],
)
async def test_keys_out_of_order_are_not_trusted(fake: FakeS3, storage: S3Storage, pages: list[str]) -> None:
    fake.answers = [answer(body=body) for body in pages]
    with pytest.raises(StorageError, match="cannot be trusted"):
        await keys_of(storage)


async def test_a_server_that_ignores_the_prefix_is_not_trusted(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [answer(body=listing("a", "b"))]
    with pytest.raises(StorageError, match="outside the prefix"):
        await keys_of(storage, "b")


async def test_a_server_of_the_old_listing_is_asked_in_the_old_way(fake: FakeS3, storage: S3Storage) -> None:
    old = "<Marker></Marker>"
    fake.answers = [
        answer(body=listing("a", "b", extra=old)),  # it knows no start-after
        answer(body=listing("b", extra=old, truncated=True)),
        answer(body=listing("c", extra=old)),
    ]
    assert await keys_of(storage, start_after="a") == ["b", "c"]
    assert [asked.query.get("marker") for asked in fake.asked] == [None, "a", "b"]
    assert storage.counters.requests == {"ListObjectsV2": 1, "ListObjects": 2}


async def test_a_server_that_refuses_the_new_listing(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [error(501, "NotImplemented"), answer(body=listing("b", extra="<Marker>a</Marker>"))]
    assert await keys_of(storage, start_after="a") == ["b"]
    assert fake.asked[1].query["marker"] == "a"


async def test_keys_are_relative_to_the_root(fake: FakeS3) -> None:
    async with fake.storage(root="r/s") as storage:
        fake.answers = [answer(body=listing("r/s/a/b", "r/s/a/c"))]
        assert await keys_of(storage, "a/", start_after="a/a") == ["a/b", "a/c"]
        assert fake.asked[0].query["prefix"] == "r/s/a/"
        assert fake.asked[0].query["start-after"] == "r/s/a/a"


async def test_the_next_page_is_asked_for_when_it_is_wanted(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [answer(body=listing("a", truncated=True, token="t"))]
    pages = storage.list("")
    await anext(pages)
    assert len(fake.asked) == 1
    await pages.aclose()  # type: ignore[attr-defined]


# Retries, counts, errors


@pytest.mark.parametrize("failed", [error(503, "SlowDown"), error(500, "InternalError"), answer(502), reset()])
async def test_what_passes_is_tried_again_and_counted(fake: FakeS3, storage: S3Storage, failed: object) -> None:
    fake.answers = [failed, failed, answer(body=b"content")]  # type: ignore[list-item]
    assert await storage.get("key") == b"content"
    assert (storage.counters.requests, storage.counters.retries) == ({"GetObject": 3}, 2)


async def test_every_try_is_signed_anew(fake: FakeS3, storage: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    moments = itertools.count(1795428000, 1000)
    clock = SimpleNamespace(time=lambda: next(moments), gmtime=time.gmtime, strftime=time.strftime)
    monkeypatch.setattr("regstore.storage.s3.sigv4.time", clock)
    fake.answers = [error(503, "SlowDown"), answer(body=b"")]
    await storage.get("key")
    assert fake.asked[0].headers["x-amz-date"] != fake.asked[1].headers["x-amz-date"]
    assert fake.asked[0].headers["authorization"] != fake.asked[1].headers["authorization"]


async def test_tries_end(fake: FakeS3, storage: S3Storage) -> None:
    fake.otherwise = error(503, "SlowDown")
    with pytest.raises(Unreachable, match="GetObject of key"):
        await storage.get("key")
    assert storage.counters.requests == {"GetObject": 4}


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchKey", NotFound),
        (404, "NoSuchBucket", NoSuchBucket),
        (403, "AccessDenied", AccessDenied),
        (403, "InvalidAccessKeyId", AuthenticationFailed),
        (403, "SignatureDoesNotMatch", AuthenticationFailed),
        (400, "ExpiredToken", AuthenticationFailed),
        (403, "RequestTimeTooSkewed", AuthenticationFailed),
        (501, "NotImplemented", Unsupported),
        (400, "SomethingElse", StorageError),
    ],
)
async def test_refusals(
    fake: FakeS3, storage: S3Storage, status: int, code: str, expected: type[RegstoreError]
) -> None:
    fake.answers = [error(status, code)]
    with pytest.raises(expected) as caught:
        await storage.get("key")
    assert type(caught.value) is expected
    assert storage.counters.retries == 0
    assert caught.value.__cause__ is not None


async def test_a_404_that_does_not_speak_s3_is_not_absence(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [answer(404, "<html>nginx</html>")]
    with pytest.raises(StorageError) as caught:
        await storage.get("key")
    assert not isinstance(caught.value, NotFound)


PAGES = (b"<!DOCTYPE html><html><body>Console</body></html>", b"\n<html lang='en'/>", b"<HTML><BR></HTML>")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("status", [200, 403, 404])
async def test_a_web_page_is_no_s3(fake: FakeS3, storage: S3Storage, page: bytes, status: int) -> None:
    fake.otherwise = answer(status, page)
    with pytest.raises(Unreachable, match="is this the S3 port") as caught:
        [page async for page in storage.list("")]
    assert fake.url in str(caught.value)
    assert storage.counters.requests == {"ListObjectsV2": 1}, "no use in asking again"


async def test_a_web_page_between_answers_of_s3_is_a_proxys_trouble(fake: FakeS3, storage: S3Storage) -> None:
    good = answer(body=listing("a"))
    fake.answers = [good, answer(200, PAGES[0]), answer(502, PAGES[0]), good]
    for _ in range(2):
        assert [page.keys async for page in storage.list("")] == [["a"]]
    assert storage.counters.retries == 2


@pytest.mark.parametrize(
    "said",
    [
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>",
    ],
)
async def test_plain_http_on_a_port_of_https(fake: FakeS3, storage: S3Storage, said: bytes) -> None:
    fake.otherwise = answer(400, said)
    with pytest.raises(Unreachable, match="is it an https:// port"):
        await storage.get("key")


async def test_https_on_a_port_of_plain_http(fake: FakeS3) -> None:
    settings = S3Settings(
        bucket="bucket",
        endpoint_url=fake.url.replace("http:", "https:"),
        access_key="key",
        secret_key="secret",
        retries=RetryPolicy(base=0, tries=1),
    )
    async with S3Storage(settings) as storage:
        with pytest.raises(Unreachable, match="is it an http:// port"):
            await storage.get("key")
        assert storage.counters.requests == {"GetObject": 1}
        with pytest.raises(botocore.exceptions.SSLError) as caught:
            async with storage.aioboto3_client() as client:
                await client.head_bucket(Bucket="bucket")
        assert "is it an http:// port" in str(storage.translate(caught.value, "HeadBucket"))


async def test_another_region_is_told_in_words(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1")]
    with pytest.raises(StorageError, match=r"region eu-west-1, not us-east-1; give its region with --region"):
        await storage.get("key")


async def test_nobody_there() -> None:
    settings = S3Settings(
        bucket="b",
        endpoint_url="http://127.0.0.1:1",
        access_key="a",
        secret_key="s",
        retries=RetryPolicy(base=0),
    )
    async with S3Storage(settings) as storage:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
            await storage.get("key")
        assert storage.counters.requests == {"GetObject": 3}


async def test_a_server_that_never_answers_is_told_soon(fake: FakeS3) -> None:
    events: list[Event] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = S3Settings(
            bucket="b",
            root="r",
            endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}",
            access_key="a",
            secret_key="s",
            retries=RetryPolicy(tries=4, first_contact=2, first_patience=0.02, base=0),
            on_event=events.append,
        )
        async with S3Storage(settings) as storage:
            with pytest.raises(Unreachable, match=r"127\.0\.0\.1:\d+ gave no answer to GetObject of key in time"):
                await storage.get("key")
            with pytest.raises(Unreachable):
                async with storage.open_read("key"):
                    pass
        assert storage.counters.requests == {"GetObject": 4}
    told = Retry(operation="GetObject", key="key", attempt=1, reason="no answer in time")
    assert events == [told, told]


async def test_a_server_that_has_answered_has_more_patience_and_tries(fake: FakeS3) -> None:
    stopped = asyncio.Event()

    async def silence(request: web.Request) -> web.StreamResponse:
        await stopped.wait()
        return web.Response()

    settings = S3Settings(
        bucket="bucket",
        endpoint_url=fake.url,
        access_key="key",
        secret_key="secret",
        retries=RetryPolicy(tries=3, first_contact=1, first_patience=5.0, base=0),
    )
    async with S3Storage(settings) as storage:
        client = storage._client
        assert client._patience(READ_TIMEOUT, 1) == 5.0
        fake.answers = [answer(body=b"x")]
        await storage.get("key")
        assert client._patience(READ_TIMEOUT, 1) == READ_TIMEOUT
        fake.answers = [silence, silence, answer(body=b"x")]
        await client.call("GetObject", "GET", "key", parse=lambda answer: answer, patience=0.2)
    stopped.set()


async def test_no_credentials() -> None:
    async with S3Storage(S3Settings(bucket="b", endpoint_url="http://127.0.0.1:1")) as storage:
        with pytest.raises(AuthenticationFailed, match="no AWS credentials"):
            await storage.get("key")


async def test_a_missing_bucket_is_no_missing_key(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [answer(404), answer(404)]
    with pytest.raises(NoSuchBucket):
        await storage.stat("key")
    fake.answers = [answer(404), answer(200)]
    with pytest.raises(NotFound):
        await storage.stat("key")
    fake.answers = [answer(404)]  # now the bucket is known to be there
    with pytest.raises(NotFound):
        await storage.stat("key")
    assert storage.counters.requests == {"HeadObject": 3, "HeadBucket": 2}


async def test_why_a_head_failed_is_asked_with_a_get(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [answer(403), error(403, "InvalidAccessKeyId")]
    with pytest.raises(AuthenticationFailed):
        await storage.stat("key")


async def test_now_is_when_the_server_says_that_something_was_put(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [answer(), answer(body=b"x", Last_Modified=LAST_MODIFIED, Date=formatdate(usegmt=True))]
    await storage.put("key", b"")
    assert 0 <= await storage.now() - 1795428000000000 < 60_000_000
    assert [asked.method for asked in fake.asked] == ["PUT", "HEAD"]


async def test_now_is_the_date_that_this_computer_confirms(fake: FakeS3, storage: S3Storage) -> None:
    now = time.time()
    fake.answers = [answer(Date=formatdate(now - 5, usegmt=True))]
    assert await storage.now() == int(now - 5) * 1_000_000


# Writing


async def test_put_options_and_content_type(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [answer()]
    options = PutOptions(storage_class="STANDARD_IA", sse="aws:kms", sse_kms_key_id="k", acl="private")
    await storage.put("key", b"data", options=options)
    headers = fake.asked[0].headers
    assert headers["x-amz-storage-class"] == "STANDARD_IA"
    assert headers["x-amz-server-side-encryption"] == "aws:kms"
    assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "k"
    assert headers["x-amz-acl"] == "private"
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-amz-content-sha256"] == hashlib.sha256(b"data").hexdigest()
    assert fake.asked[0].body == b"data"


def conditional(fake: FakeS3, *after: object) -> None:
    """The answers to the probe, and then these."""
    fake.answers = [
        answer(),
        error(412, "PreconditionFailed"),
        answer(204),
        answer(body="<VersioningConfiguration/>"),
        *after,  # type: ignore[list-item]
    ]


async def test_conditional_put_is_probed_once(fake: FakeS3, storage: S3Storage) -> None:
    conditional(fake, answer(), error(412, "PreconditionFailed"))
    await storage.put("key", b"1", if_absent=True)
    with pytest.raises(AlreadyExists):
        await storage.put("key", b"1", if_absent=True)
    probes = [asked for asked in fake.asked if asked.path.startswith("/bucket/regstore/probe-")]
    assert [asked.method for asked in probes] == ["PUT", "PUT", "DELETE"]
    assert len({asked.path for asked in probes}) == 1
    assert (await storage.capabilities()).versioned is False


async def test_ignored_conditions_are_found_out(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [answer(), answer(), answer(204), answer(body="<VersioningConfiguration/>")]
    with pytest.raises(Unsupported):
        await storage.put("key", b"1", if_absent=True)
    assert not any(asked.path == "/bucket/key" for asked in fake.asked)


async def test_a_reader_is_answered_with_caution(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [error(403, "AccessDenied"), error(403, "AccessDenied")]
    found = await storage.capabilities()
    assert (found.conditional_put, found.versioned) == (False, None)


async def test_read_only_sends_nothing_that_changes_anything(fake: FakeS3) -> None:
    settings = S3Settings(bucket="b", endpoint_url=fake.url, access_key="a", secret_key="s", read_only=True)
    async with S3Storage(settings) as storage:
        fake.answers = [answer(body="<VersioningConfiguration/>"), answer(body=b"x")]
        assert (await storage.capabilities()).conditional_put is False
        assert await storage.get("key") == b"x"
        for change in (
            storage.put("key", b""),
            storage.copy("key", "other"),
            storage.put_stream("key", chunks_of(b"x")),
        ):
            fake.answers = [HEAD, ENFORCED]
            with pytest.raises(AccessDenied, match="to be looked at only"):
                await change
        found = await storage.delete_many(["key"])
        assert isinstance(found["key"], AccessDenied)
    assert {asked.method for asked in fake.asked} <= {"GET", "HEAD"}


async def test_a_create_whose_answer_was_lost(fake: FakeS3, storage: S3Storage) -> None:
    conditional(fake, reset(), error(412, "PreconditionFailed"), answer(body=b"mine"))
    await storage.put("key", b"mine", if_absent=True)
    fake.answers = [reset(), error(412, "PreconditionFailed"), answer(body=b"theirs")]
    with pytest.raises(AlreadyExists):
        await storage.put("key", b"mine", if_absent=True)


# Deleting


async def test_each_keys_outcome(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [
        answer(
            body="<DeleteResult><Deleted><Key>gone</Key></Deleted>"
            "<Error><Key>kept</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
            "<Error><Key>never</Key><Code>NoSuchKey</Code></Error>"
            "<Error><Key>slow</Key><Code>SlowDown</Code></Error></DeleteResult>"
        ),
        answer(body="<DeleteResult><Deleted><Key>slow</Key></Deleted></DeleteResult>"),
    ]
    found = await storage.delete_many(["gone", "kept", "never", "slow", "unsaid"])
    assert list(found) == ["gone", "kept", "never", "slow", "unsaid"]
    assert found["gone"] is None and found["never"] is None and found["slow"] is None
    assert isinstance(found["kept"], AccessDenied)
    assert "no outcome" in str(found["unsaid"])
    assert b"<Key>slow</Key>" in fake.asked[1].body and b"gone" not in fake.asked[1].body
    for asked in fake.asked:
        assert asked.headers["content-md5"] == base64.b64encode(hashlib.md5(asked.body).digest()).decode()


async def test_batches_of_a_thousand(fake: FakeS3, storage: S3Storage) -> None:
    keys = [f"k{number}" for number in range(2001)]

    async def delete_all(request: object) -> object:
        body = fake.asked[-1].body.decode()
        names = [part.partition("</Key>")[0] for part in body.split("<Key>")[1:]]
        return await answer(
            body="<DeleteResult>" + "".join(f"<Deleted><Key>{n}</Key></Deleted>" for n in names) + "</DeleteResult>"
        )(request)  # type: ignore[arg-type]

    fake.otherwise = delete_all  # type: ignore[assignment]
    found = await storage.delete_many(keys)
    assert found == dict.fromkeys(keys)
    assert storage.counters.requests == {"DeleteObjects": 3}
    assert await storage.delete_many([]) == {}


@pytest.mark.parametrize(
    ("failed", "repeated"),
    [
        (error(503, "SlowDown"), 0),
        (error(400, "RequestTimeout"), 0),
        (error(500, "InternalError"), 1),
        (answer(502), 1),
        (reset(), 1),
        (cut_off(b"<Delete", 1000), 1),
        (answer(body="<DeleteResult><Error><Key>a</Key><Code>InternalError</Code></Error></DeleteResult>"), 1),
        (answer(body="<DeleteResult><Error><Key>a</Key><Code>SlowDown</Code></Error></DeleteResult>"), 0),
    ],
    ids=["slow down", "not read", "internal", "proxy", "reset", "cut off", "a key", "a key's slow down"],
)
async def test_deletes_that_may_be_done_twice_are_counted(
    fake: FakeS3, storage: S3Storage, failed: Answering, repeated: int
) -> None:
    whole = "<DeleteResult><Deleted><Key>a</Key></Deleted><Deleted><Key>b</Key></Deleted></DeleteResult>"
    fake.answers = [failed, answer(body=whole)]
    outcomes = await storage.delete_many(["a", "b"])
    assert outcomes["a"] is None
    assert storage.counters.repeated_deletes == repeated


async def test_a_single_delete_that_may_be_done_twice_is_counted(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [reset(), answer(204)]
    assert await storage.delete_many(["a"]) == {"a": None}
    assert storage.counters.repeated_deletes == 1


async def test_a_batch_that_never_gets_through(fake: FakeS3, storage: S3Storage) -> None:
    fake.otherwise = error(503, "SlowDown")
    found = await storage.delete_many(["a", "b"])
    assert all(isinstance(outcome, Unreachable) for outcome in found.values()) and len(found) == 2


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "NoSuchBucket"])
async def test_what_hits_all_alike_raises(fake: FakeS3, storage: S3Storage, code: str) -> None:
    fake.otherwise = error(403 if code != "NoSuchBucket" else 404, code)
    with pytest.raises((AuthenticationFailed, NoSuchBucket)):
        await storage.delete_many(["a", "b"])


@pytest.mark.parametrize(
    "refusal",
    [
        error(501, "NotImplemented"),
        error(405, "MethodNotAllowed"),
        answer(405),
        error(400, "InvalidArgument"),  # Google Cloud Storage before 2022
    ],
)
async def test_a_server_without_multi_delete(fake: FakeS3, storage: S3Storage, refusal: object) -> None:
    fake.answers = [refusal, answer(204), error(404, "NoSuchKey")]  # type: ignore[list-item]
    assert await storage.delete_many(["a", "b"]) == {"a": None, "b": None}
    fake.answers = [answer(204), error(403, "AccessDenied")]
    found = await storage.delete_many(["c", "d"])
    assert sorted(type(outcome).__name__ for outcome in found.values()) == ["AccessDenied", "NoneType"]
    assert storage.counters.requests == {"DeleteObjects": 1, "DeleteObject": 4}


async def test_keys_that_xml_cannot_say_are_deleted_alone(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [
        answer(
            body="<DeleteResult><Deleted><Key>a&amp;b</Key></Deleted><Deleted><Key>c</Key></Deleted></DeleteResult>"
        ),
        answer(204),
    ]
    assert await storage.delete_many(["a&b", "x\x01y", "c"]) == {"a&b": None, "x\x01y": None, "c": None}
    assert fake.asked[1].path == "/bucket/x%01y"


# Copying


HEAD = answer(
    body=b"x" * 71,
    x_amz_storage_class="STANDARD_IA",
    x_amz_server_side_encryption="aws:kms",
    x_amz_server_side_encryption_aws_kms_key_id="key-1",
    **FACTS,
)
ENFORCED = answer(
    body="<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>"
)
COPIED = answer(body="<CopyObjectResult><ETag>&quot;abc&quot;</ETag></CopyObjectResult>")


async def test_a_copy_keeps_class_and_encryption(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [HEAD, ENFORCED, COPIED]
    await storage.copy("a/b+c", "d")
    asked = fake.asked[-1]
    assert asked.path == "/bucket/d"
    assert asked.headers["x-amz-copy-source"] == "/bucket/a/b%2Bc"
    assert asked.headers["x-amz-storage-class"] == "STANDARD_IA"
    assert asked.headers["x-amz-server-side-encryption"] == "aws:kms"
    assert asked.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"


async def test_copies_that_begin_together_ask_once_who_owns_objects(fake: FakeS3, storage: S3Storage) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        asked = ENFORCED if "ownershipControls" in request.query else HEAD if request.method == "HEAD" else COPIED
        return await asked(request)

    fake.otherwise = respond
    await asyncio.gather(*(storage.copy(f"a{number}", f"b{number}") for number in range(16)))
    assert storage.counters.requests == {"HeadObject": 16, "GetBucketOwnershipControls": 1, "CopyObject": 16}


async def test_a_copy_keeps_grants_to_others(fake: FakeS3, storage: S3Storage) -> None:
    acl = (
        "<AccessControlPolicy><Owner><ID>me</ID></Owner><AccessControlList>"
        "<Grant><Grantee><ID>me</ID></Grantee><Permission>FULL_CONTROL</Permission></Grant>"
        "<Grant><Grantee><ID>other</ID></Grantee><Permission>FULL_CONTROL</Permission></Grant>"
        "<Grant><Grantee><URI>urn:all</URI></Grantee><Permission>READ_ACP</Permission></Grant>"
        "</AccessControlList></AccessControlPolicy>"
    )
    fake.answers = [HEAD, error(404, "OwnershipControlsNotFoundError"), answer(body=acl), COPIED]
    await storage.copy("a", "b")
    assert fake.asked[-1].headers["x-amz-grant-full-control"] == 'id="me", id="other"'
    assert fake.asked[-1].headers["x-amz-grant-read-acp"] == 'uri="urn:all"'


async def test_a_copy_answered_200_with_an_error_failed(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [HEAD, ENFORCED, error(200, "InternalError"), COPIED]
    await storage.copy("a", "b")
    assert storage.counters.retries == 1
    fake.answers = [HEAD, error(200, "AccessDenied")]
    with pytest.raises(AccessDenied):
        await storage.copy("a", "b")


@pytest.mark.parametrize("shown", [listing(), listing("b2"), listing("b").replace("71", "70")])
async def test_move_deletes_only_what_a_listing_shows(fake: FakeS3, storage: S3Storage, shown: str) -> None:
    fake.answers = [HEAD, ENFORCED, COPIED, answer(body=shown)]
    with pytest.raises(IntegrityError, match="was kept"):
        await storage.move("a", "b", size=71)
    assert not storage.counters.requests.keys() & {"DeleteObject", "DeleteObjects"}


async def test_move_of_a_source_that_changed(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [HEAD]
    with pytest.raises(IntegrityError):
        await storage.move("a", "b", size=72)
    assert storage.counters.requests == {"HeadObject": 1}


async def test_move(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [HEAD, ENFORCED, COPIED, answer(body=listing("b", "b2")), answer(204)]
    await storage.move("a", "b", size=71)
    assert (fake.asked[-1].method, fake.asked[-1].path) == ("DELETE", "/bucket/a")


# Reading


async def test_a_broken_read_goes_on_where_it_was(fake: FakeS3, storage: S3Storage) -> None:
    data = bytes(range(256)) * 4
    fake.answers = [
        cut_off(data[:300], 1024, **FACTS),
        error(503, "SlowDown"),
        cut_off(data[300:700], 724, 206, Content_Range="bytes 300-1023/1024", **FACTS),
        answer(206, data[700:], Content_Range="bytes 700-1023/1024", **FACTS),
    ]
    async with storage.open_read("key") as opened:
        assert opened.info.size == 1024 and opened.info.etag == "abc"
        assert b"".join([chunk async for chunk in opened]) == data
    assert [asked.headers.get("range") for asked in fake.asked] == [
        None,
        "bytes=300-1023",
        "bytes=300-1023",
        "bytes=700-1023",
    ]
    assert storage.counters.retries == 3


async def test_a_read_that_always_ends_early_raises(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [cut_off(b"abc", 10, **FACTS)]
    fake.otherwise = cut_off(b"", 7, 206, Content_Range="bytes 3-9/10", **FACTS)
    got = b""
    with pytest.raises(Unreachable):
        async with storage.open_read("key") as opened:
            async for chunk in opened:
                got += chunk
    assert got == b"abc"


async def test_an_object_that_changes_while_it_is_read(fake: FakeS3, storage: S3Storage) -> None:
    changed: Facts = {**FACTS, "ETag": '"new"'}
    fake.answers = [cut_off(b"abc", 10, **FACTS), answer(206, b"defghij", Content_Range="bytes 3-9/10", **changed)]
    with pytest.raises(IntegrityError, match="changed while it was read"):
        async with storage.open_read("key") as opened:
            _ = [chunk async for chunk in opened]


async def test_a_server_that_ignores_ranges_is_found_out(fake: FakeS3, storage: S3Storage) -> None:
    fake.otherwise = answer(200, b"0123456789", **FACTS)
    with pytest.raises(StorageError):
        async with storage.open_read("key", start=4) as opened:
            _ = [chunk async for chunk in opened]


# Streams


async def chunks_of(data: bytes, length: int = 1_000_003) -> AsyncIterator[bytes]:
    for at in range(0, len(data), length):
        yield data[at : at + length]


BIG = bytes(17 * 1024 * 1024)
STARTED = answer(body="<InitiateMultipartUploadResult><UploadId>up</UploadId></InitiateMultipartUploadResult>")


async def test_a_small_stream_is_one_put(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [answer()]
    assert await storage.put_stream("key", chunks_of(b"data"), size=4, digest=Digest.of(b"data")) == 4
    assert storage.counters.requests == {"PutObject": 1}


async def test_a_buffer_that_its_owner_fills_again_is_sent_as_it_was(fake: FakeS3, storage: S3Storage) -> None:
    async def reusing() -> AsyncIterator[bytes]:
        buffer = bytearray(4)
        for data in (b"data", b"more"):
            buffer[:] = data
            yield buffer  # type: ignore[misc]

    fake.answers = [answer()]
    await storage.put_stream("key", reusing(), size=8, digest=Digest.of(b"datamore"))
    assert fake.asked[0].body == b"datamore"


@pytest.mark.parametrize(("size", "digest"), [(5, None), (3, None), (None, Digest.of(b"other"))])
async def test_a_wrong_stream_is_not_sent(
    fake: FakeS3, storage: S3Storage, size: int | None, digest: Digest | None
) -> None:
    with pytest.raises(IntegrityError):
        await storage.put_stream("key", chunks_of(b"data"), size=size, digest=digest)
    assert fake.asked == []


async def test_a_wrong_large_stream_is_aborted_before_it_is_visible(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [STARTED]
    fake.otherwise = answer(200, ETag='"e"')
    with pytest.raises(IntegrityError):
        await storage.put_stream("key", chunks_of(BIG), digest=Digest.of(b"other"))
    assert storage.counters.requests["AbortMultipartUpload"] == 1
    assert "CompleteMultipartUpload" not in storage.counters.requests


async def test_a_part_that_cannot_be_stored_ends_the_upload(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [STARTED]
    fake.otherwise = error(403, "AccessDenied")
    with pytest.raises(AccessDenied):
        await storage.put_stream("key", chunks_of(BIG))
    assert fake.asked[-1].method == "DELETE" and fake.asked[-1].query == {"uploadId": "up"}


async def test_a_cancelled_stream_is_aborted(fake: FakeS3, storage: S3Storage) -> None:
    reached = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield BIG
        reached.set()
        await asyncio.Event().wait()

    fake.answers = [STARTED]
    fake.otherwise = answer(200, ETag='"e"')
    task = asyncio.create_task(storage.put_stream("key", stalling()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert storage.counters.requests["AbortMultipartUpload"] == 1


async def test_a_stream_cancelled_while_its_upload_is_made_is_aborted(fake: FakeS3, storage: S3Storage) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        reached.set()
        await go_on.wait()
        return await STARTED(request)

    fake.answers = [late, answer(204)]
    task = asyncio.create_task(storage.put_stream("key", chunks_of(BIG)))
    await reached.wait()
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert storage.counters.requests == {"CreateMultipartUpload": 1, "AbortMultipartUpload": 1}


async def test_complete_answered_200_with_an_error_is_tried_again(fake: FakeS3, storage: S3Storage) -> None:
    part = answer(200, ETag='"900150983cd24fb0d6963f7d28e17f72"')
    fake.answers = [STARTED, part, part, part, error(200, "InternalError"), error(404, "NoSuchUpload")]
    joined = bytes.fromhex("900150983cd24fb0d6963f7d28e17f72") * 3
    etag = f'"{hashlib.md5(joined).hexdigest()}-3"'
    fake.answers.append(answer(200, BIG, ETag=etag, Last_Modified=LAST_MODIFIED))
    assert await storage.put_stream("key", chunks_of(BIG), digest=Digest.of(BIG)) == len(BIG)
    assert storage.counters.requests["CompleteMultipartUpload"] == 2
    assert "AbortMultipartUpload" not in storage.counters.requests


async def test_an_upload_that_somebody_ended(fake: FakeS3, storage: S3Storage) -> None:
    part = answer(200, ETag='"e"')
    fake.answers = [STARTED, part, part, part, error(404, "NoSuchUpload"), answer(204)]
    with pytest.raises(StorageError, match="ended by somebody else"):
        await storage.put_stream("key", chunks_of(BIG))


async def test_what_is_put_without_options_is_stored_as_the_storage_says(fake: FakeS3, storage: S3Storage) -> None:
    storage.store_with(PutOptions(sse="aws:kms", sse_kms_key_id="key"))
    storage.store_with(PutOptions(acl="private"))
    part = answer(200, ETag='"e"')
    source = answer(200, b"1", ETag='"e"', Last_Modified=LAST_MODIFIED)
    copied = answer(200, "<CopyObjectResult/>")
    unowned = error(404, "OwnershipControlsNotFoundError")
    grants = answer(200, "<AccessControlPolicy><Owner><ID>1</ID></Owner></AccessControlPolicy>")
    fake.answers = [
        answer(),
        answer(),
        STARTED,
        part,
        part,
        part,
        answer(body="<CompleteMultipartUploadResult/>"),
        source,
        unowned,
        grants,
        copied,
    ]
    await storage.put("link", b"1")
    await storage.put("link", b"1", options=PutOptions(sse="AES256"))
    await storage.put_stream("key", chunks_of(BIG))
    await storage.copy("key", "copy")

    def said(asked: Asked) -> list[str | None]:
        sse = "x-amz-server-side-encryption"
        return [asked.headers.get(name) for name in (sse, f"{sse}-aws-kms-key-id", "x-amz-acl")]

    assert said(fake.asked[0]) == ["aws:kms", "key", "private"]
    assert said(fake.asked[1]) == ["AES256", None, "private"]
    assert said(fake.asked[2]) == ["aws:kms", "key", "private"], "CreateMultipartUpload"
    assert said(fake.asked[-1]) == ["aws:kms", "key", None], "the source's access control list is known"


async def test_uploads_with_their_newest_part(fake: FakeS3) -> None:
    async with fake.storage(root="r") as storage:
        listed = (
            "<ListMultipartUploadsResult><EncodingType>url</EncodingType><IsTruncated>{}</IsTruncated>{}"
            "<Upload><Key>{}</Key><UploadId>{}</UploadId><Initiated>2026-11-23T09:00:00Z</Initiated></Upload>"
            "</ListMultipartUploadsResult>"
        )
        following = "<NextKeyMarker>r/a%2B</NextKeyMarker><NextUploadIdMarker>1</NextUploadIdMarker>"
        parts = (
            "<ListPartsResult><IsTruncated>false</IsTruncated>"
            "<Part><PartNumber>1</PartNumber><LastModified>2026-11-23T10:00:00Z</LastModified><Size>5</Size></Part>"
            "<Part><PartNumber>2</PartNumber><LastModified>2026-11-23T09:30:00Z</LastModified><Size>6</Size></Part>"
            "</ListPartsResult>"
        )
        fake.answers = [
            answer(body=listed.format("true", following, "r/a%2B", "1")),
            answer(body=listed.format("false", "", "r/b", "2")),
            answer(body=parts),
            error(404, "NoSuchUpload"),
        ]
        found = [upload async for upload in storage.list_multipart_uploads("")]
        assert [(upload.key, upload.upload_id, upload.newest, upload.size) for upload in found] in (
            [("a+", "1", 1795428000000000, 11)],
            [("b", "2", 1795428000000000, 11)],
        )
        assert fake.asked[1].query["key-marker"] == "r/a+"


async def test_abort_is_idempotent(fake: FakeS3, storage: S3Storage) -> None:
    from regstore.storage.base import MultipartUpload

    fake.answers = [answer(204), error(404, "NoSuchUpload"), error(404, "NoSuchBucket")]
    upload = MultipartUpload("key", "up", 0, 0)
    await storage.abort_multipart_upload(upload)
    await storage.abort_multipart_upload(upload)
    with pytest.raises(NoSuchBucket):
        await storage.abort_multipart_upload(upload)


# Objects that can't be read


def entries(**classes: str) -> str:
    parts = listing(*classes).split("<StorageClass>STANDARD<")
    return parts[0] + "".join(
        f"<StorageClass>{name}<{part}" for name, part in zip(classes.values(), parts[1:], strict=True)
    )


async def test_a_listing_tells_what_is_archived(fake: FakeS3) -> None:
    fake.answers = [answer(body=entries(a="STANDARD", b="GLACIER", c="GLACIER_IR", d="DEEP_ARCHIVE"))]
    async with fake.storage(root="") as storage:
        (page,) = [page async for page in storage.list("")]
    assert page.archived == {"b": "GLACIER", "d": "DEEP_ARCHIVE"}
    fake.answers = [answer(body=entries(**{"reg/a": "GLACIER"}))]
    async with fake.storage(root="reg") as storage:
        (page,) = [page async for page in storage.list("")]
    assert (page.keys, page.archived) == (["a"], {"a": "GLACIER"})


async def test_an_archived_object_is_told_at_once(fake: FakeS3, storage: S3Storage) -> None:
    fake.otherwise = error(403, "InvalidObjectState")
    with pytest.raises(Archived, match="restore it"):
        await storage.get("a")
    assert len(fake.asked) == 1


async def test_one_object_that_gives_500_may_not_ask_for_minutes(fake: FakeS3, storage: S3Storage) -> None:
    """Retry-After is the word of a server that is busy, not of an object that can't be had."""
    fake.otherwise = error(500, "InternalError", Retry_After="20")
    async with asyncio.timeout(5):
        with pytest.raises(Unreachable, match="kept failing"):
            await storage.get("a")
    assert len(fake.asked) == 4


def test_one_object_that_never_answers_is_given_up_before_others_would_be() -> None:
    assert RetryPolicy().unanswered * READ_TIMEOUT <= 180
