"""Blobs that go in one request, as they are read."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from regstore.digest import Digest
from regstore.errors import AccessDenied, IntegrityError, StorageError
from regstore.storage.s3 import S3Storage
from regstore.testing.content import Content
from tests.storage.fake_s3 import Answering, FakeS3, answer, error, fake_s3, reset

pytestmark = pytest.mark.usefixtures("transport")

MiB = 1 << 20
DATA = b"".join(number.to_bytes(4) for number in range(3 * MiB // 4))
DIGEST = Digest.of(DATA)
#: More than goes in one PUT that is gathered first.
LARGE = DATA * 6
PART = answer(200, ETag='"e"')


@pytest.fixture
async def fake() -> AsyncIterator[FakeS3]:
    async with fake_s3() as server:
        yield server


@pytest.fixture
async def storage(fake: FakeS3) -> AsyncIterator[S3Storage]:
    async with fake.storage(tries=6) as storage:
        yield storage


def uploads(data: bytes) -> list[Answering]:
    """What an upload in parts is answered."""

    async def stored(request: web.Request) -> web.StreamResponse:
        return web.Response(headers={"ETag": f'"{hashlib.md5(await request.read()).hexdigest()}"'})

    started = answer(body="<InitiateMultipartUploadResult><UploadId>up</UploadId></InitiateMultipartUploadResult>")
    done = answer(body="<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")
    return [started, *[stored] * -(-len(data) // (8 * MiB)), done]


async def put(storage: S3Storage, content: Content, data: bytes = DATA) -> int:
    return await storage.put_stream("key", content, size=len(data), digest=Digest.of(data))


async def test_one_request_and_one_hash(fake: FakeS3, storage: S3Storage) -> None:
    content = Content(DATA)
    fake.answers = [answer()]
    assert await put(storage, content) == len(DATA)
    (asked,) = fake.asked
    assert asked.body == DATA
    assert asked.headers["content-length"] == str(len(DATA))
    assert asked.headers["x-amz-content-sha256"] == DIGEST.encoded, "what the signature covers is the digest"
    assert (content.opened, content.closed) == (1, 1)
    assert storage.counters.bytes_written == len(DATA)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DATA[:-1] + b"x", "sha256"),
        (DATA[:-1], "not the 3,145,728 promised"),
        (b"", "has 0 bytes"),
        (DATA + b"x", "more than the 3,145,728 bytes"),
        (DATA * 100, "more than the 3,145,728 bytes"),
    ],
    ids=["flipped", "short", "empty", "long", "far too long"],
)
async def test_wrong_content_is_never_sent_whole(
    fake: FakeS3, storage: S3Storage, data: bytes, message: str
) -> None:
    fake.otherwise = answer()
    content = Content(data)
    with pytest.raises(IntegrityError, match=message):
        await put(storage, content)
    assert not fake.asked, "no request came to its end"
    assert content.opened == content.closed == 1, "and it was not tried again"


async def test_what_reading_raises_is_raised(fake: FakeS3, storage: S3Storage) -> None:
    content = Content(DATA, fails_at=2 * MiB)
    with pytest.raises(ConnectionResetError, match="the other end"):
        await put(storage, content)
    assert (content.opened, content.closed) == (1, 1)
    assert storage.counters.retries == 0


async def test_cancelled(fake: FakeS3, storage: S3Storage) -> None:
    content = Content(DATA, hangs_at=2 * MiB)
    task = asyncio.create_task(put(storage, content))
    await content.hanging.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert content.closed == 1
    assert not fake.asked


@pytest.mark.parametrize("failure", [reset(), error(503, "SlowDown"), error(500, "InternalError")])
async def test_a_try_that_failed_is_read_anew(fake: FakeS3, storage: S3Storage, failure: Answering) -> None:
    content = Content(DATA)
    fake.answers = [failure, answer()]
    await put(storage, content)
    assert [asked.body == DATA for asked in fake.asked] == [True, True]
    assert (content.opened, content.closed) == (2, 2)


async def test_a_slow_server_is_waited_for_in_one_request(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [error(503, "SlowDown")] * 4 + [answer()]
    await put(storage, Content(DATA))
    assert storage.counters.requests == {"PutObject": 5}


async def test_connections_that_break_twice_send_it_in_parts(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [reset(), reset(), *uploads(LARGE)]
    assert await put(storage, Content(LARGE), LARGE) == len(LARGE)
    assert storage.counters.requests == {
        "PutObject": 2,
        "CreateMultipartUpload": 1,
        "UploadPart": 3,
        "CompleteMultipartUpload": 1,
    }
    parts = {asked.query["partNumber"]: asked.body for asked in fake.asked if "partNumber" in asked.query}
    assert b"".join(parts[number] for number in sorted(parts)) == LARGE


@pytest.mark.parametrize(
    "refusal", [error(413, ""), answer(413, "<html>too large</html>"), error(400, "EntityTooLarge")]
)
async def test_what_a_proxy_does_not_let_through_goes_in_parts(
    fake: FakeS3, storage: S3Storage, refusal: Answering
) -> None:
    fake.answers = [refusal, *uploads(LARGE), *uploads(LARGE), answer()]
    await put(storage, Content(LARGE), LARGE)
    await put(storage, Content(LARGE), LARGE)
    assert storage.counters.requests["PutObject"] == 1, "it is known by then"
    await put(storage, Content(DATA))
    assert storage.counters.requests["PutObject"] == 2, "less may still pass"


async def test_another_refusal_is_an_error(fake: FakeS3, storage: S3Storage) -> None:
    fake.otherwise = error(403, "AccessDenied")
    with pytest.raises(AccessDenied):
        await put(storage, Content(DATA))
    assert storage.counters.requests == {"PutObject": 1}


async def test_few_at_a_time_fall_back_to_parts(fake: FakeS3, storage: S3Storage) -> None:
    """Each may hold 60 MB, and who calls counted on less."""
    most = under_way = 0
    go_on = asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        nonlocal most, under_way
        if "uploads" in request.query:
            under_way += 1
            most = max(most, under_way)
            await asyncio.wait_for(go_on.wait(), 30)
            under_way -= 1
            return await uploads(LARGE)[0](request)
        if request.method == "PUT" and "partNumber" not in request.query:
            return await error(413, "")(request)
        if request.method == "PUT":
            return await uploads(LARGE)[1](request)
        return await uploads(LARGE)[-1](request)

    fake.otherwise = respond
    tasks = [
        asyncio.create_task(
            storage.put_stream(f"k{number}", Content(LARGE), size=len(LARGE), digest=Digest.of(LARGE))
        )
        for number in range(6)
    ]
    while under_way < 3:
        await asyncio.sleep(0.01)
    go_on.set()
    await asyncio.gather(*tasks)
    assert most == 3


async def test_an_algorithm_that_signatures_do_not_have(fake: FakeS3, storage: S3Storage) -> None:
    content = Content(DATA)
    fake.answers = [answer()]
    await storage.put_stream("key", content, size=len(DATA), digest=Digest.of(DATA, "sha512"))
    assert fake.asked[0].body == DATA
    with pytest.raises(StorageError):
        await storage.put_stream("key", content, size=len(DATA), digest=Digest.of(b"x", "sha512"))


async def test_a_reader_slower_than_the_server_holds_up_nothing_that_comes_next(
    fake: FakeS3, storage: S3Storage
) -> None:
    """The end of an answer finds its reader away, and more than is held; the connection is used again."""
    sent = asyncio.Event()

    async def large(request: web.Request) -> web.StreamResponse:
        written = "Mon, 23 Nov 2026 10:00:00 GMT"
        headers = {"ETag": '"e"', "Last-Modified": written, "Content-Length": str(MiB // 2 + 1)}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(DATA[: MiB // 2 + 1])
        await response.write_eof()
        sent.set()
        return response

    fake.answers = [large, answer(body=b"next")]
    async with asyncio.timeout(20):
        async with storage.open_read("key") as handle:
            await sent.wait()
            for _ in range(200):
                await asyncio.sleep(0)  # what was sent comes in
            assert b"".join([chunk async for chunk in handle]) == DATA[: MiB // 2 + 1]
        assert await storage.get("key") == b"next"
