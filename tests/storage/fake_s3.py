"""A server that answers what a test tells it to, in turn, and remembers what it was asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.test_utils import TestServer

from regstore.storage.s3 import RetryPolicy, S3Settings, S3Storage

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer(status: int = 200, body: str | bytes = b"", **headers: str) -> Answering:
    async def respond(request: web.Request) -> web.StreamResponse:
        data = body.encode() if isinstance(body, str) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=data, headers=named)

    return respond


def error(status: int, code: str, **headers: str) -> Answering:
    return answer(status, f"<Error><Code>{code}</Code><Message>said so</Message></Error>", **headers)


def cut_off(body: bytes, length: int, status: int = 200, **headers: str) -> Answering:
    """Promises `length` bytes, sends `body` and closes the connection."""

    async def respond(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = web.StreamResponse(status=status, headers={**named, "Content-Length": str(length)})
        await response.prepare(request)
        await response.write(body)
        assert request.transport is not None
        request.transport.close()
        return response

    return respond


def reset() -> Answering:
    async def respond(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    return respond


class FakeS3:
    """`answers` are used up in order; after the last, `otherwise` answers, if any."""

    def __init__(self) -> None:
        self.answers: list[Answering] = []
        self.otherwise: Answering | None = None
        self.asked: list[Asked] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        path = request.raw_path.partition("?")[0]
        self.asked.append(Asked(request.method, path, dict(request.query), headers, await request.read()))
        respond = self.answers.pop(0) if self.answers else self.otherwise
        assert respond is not None, f"nobody said how to answer {request.method} {request.raw_path}"
        return await respond(request)

    def storage(self, *, root: str = "", tries: int = 4, page_size: int = 1000) -> S3Storage:
        return S3Storage(
            S3Settings(
                bucket="bucket",
                root=root,
                endpoint_url=self.url,
                access_key="key",
                secret_key="secret",
                page_size=page_size,
                retries=RetryPolicy(tries=tries, first_contact=tries, base=0),
            )
        )


@contextlib.asynccontextmanager
async def fake_s3() -> AsyncIterator[FakeS3]:
    fake = FakeS3()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{rest:.*}", fake.handle)
    server = TestServer(app)
    await server.start_server(access_log=None)
    fake.url = str(server.make_url("")).rstrip("/")
    try:
        yield fake
    finally:
        await server.close()


def listing(
    *keys: str,
    truncated: bool = False,
    token: str = "",
    namespace: str = NAMESPACE,
    encoding: bool = True,
    etag: str = "&quot;abc&quot;",
    extra: str = "<KeyCount>0</KeyCount>",
) -> str:
    """keys: as they stand in the XML."""
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-11-23T10:00:00.123Z</LastModified><ETag>{etag}</ETag>"
        f"<Size>71</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for key in keys
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult {namespace}><Name>bucket</Name>'
        + ("<EncodingType>url</EncodingType>" if encoding else "")
        + f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{extra}"
        + (f"<NextContinuationToken>{token}</NextContinuationToken>" if token else "")
        + entries
        + "</ListBucketResult>"
    )
