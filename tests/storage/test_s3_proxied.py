"""Requests to S3 by aiohttp: through an HTTP proxy, as HTTP_PROXY asks for, or where it is chosen."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from regstore.digest import Digest
from regstore.errors import AccessDenied, InputError, NotFound, Unreachable
from regstore.storage.s3 import RetryPolicy, S3Settings, S3Storage
from regstore.storage.s3.proxied import ProxiedServer
from regstore.testing.content import Content
from tests.storage.fake_s3 import FakeS3, answer, cut_off, error, fake_s3, listing

ENDPOINT = "http://s3.example.test:9000"  # a name that only the proxy knows


class ForwardProxy:
    """Sends what it is asked for to one server, whatever host the URL names. `lines`: of the requests."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self.lines: list[str] = []
        self.silent = False
        self.url = ""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, rest = head.split("\r\n", 1)
            self.lines.append(line)
            if self.silent:
                await reader.read()
                return
            method, url, version = line.split(" ")
            parts = urlsplit(url)
            assert parts.scheme == "http", "a proxy is told the whole URL"
            origin = parts.path + (f"?{parts.query}" if parts.query else "")
            answers, upstream = await asyncio.open_connection(self._target.hostname, self._target.port)
            upstream.write(f"{method} {origin} {version}\r\nconnection: close\r\n{rest}".encode("latin-1"))
            there = asyncio.create_task(_pump(reader, upstream))
            await _pump(answers, writer)
            there.cancel()
            await asyncio.gather(there, return_exceptions=True)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for each in (writer, upstream):
                if each is not None:
                    each.close()
                    with contextlib.suppress(ConnectionError):
                        await each.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@pytest.fixture
async def fake() -> AsyncIterator[FakeS3]:
    async with fake_s3() as server:
        yield server


@pytest.fixture
async def proxy(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ForwardProxy]:
    proxy = ForwardProxy(fake.url)
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await proxy.connected(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    monkeypatch.setenv("http_proxy", proxy.url)
    yield proxy
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def opened(**more: object) -> S3Storage:
    retries = RetryPolicy(tries=3, first_contact=2, first_patience=0.02, base=0)
    settings = {"bucket": "bucket", "endpoint_url": ENDPOINT, "access_key": "key", "secret_key": "secret"}
    return S3Storage(S3Settings(**{**settings, "retries": retries, **more}))  # type: ignore[arg-type]


@pytest.fixture
async def storage(proxy: ForwardProxy) -> AsyncIterator[S3Storage]:
    async with opened(retries=RetryPolicy(tries=3, base=0)) as storage:
        yield storage
        assert isinstance(storage._client._server, ProxiedServer)


async def test_put_get_list_delete(fake: FakeS3, proxy: ForwardProxy, storage: S3Storage) -> None:
    fake.answers = [
        answer(),
        answer(body=b"content"),
        answer(body=listing("a", "b", truncated=True, token="t")),
        answer(body=listing("c")),
        answer(body="<DeleteResult><Deleted><Key>a</Key></Deleted></DeleteResult>"),
        error(404, "NoSuchKey"),
        error(403, "AccessDenied"),
    ]
    await storage.put("a b+ü", b"data")
    assert await storage.get("a") == b"content"
    assert [key async for page in storage.list("") for key in page.keys] == ["a", "b", "c"]
    assert await storage.delete_many(["a"]) == {"a": None}
    with pytest.raises(NotFound):
        await storage.get("a")
    with pytest.raises(AccessDenied):
        await storage.put("a", b"")
    assert storage.counters.retries == 0
    assert len(proxy.lines) == len(fake.asked) == 7
    assert all(line.split(" ")[1].startswith(f"{ENDPOINT}/bucket") for line in proxy.lines)
    assert {asked.headers["host"] for asked in fake.asked} == {"s3.example.test:9000"}
    assert fake.asked[0].path == "/bucket/a%20b%2B%C3%BC"
    assert fake.asked[0].body == b"data"


async def test_streams(fake: FakeS3, proxy: ForwardProxy, storage: S3Storage) -> None:
    data = bytes(range(256)) * 6000
    fake.answers = [answer(), answer(body=data, ETag='"x"', Last_Modified="Mon, 23 Nov 2026 10:00:00 GMT")]
    assert await storage.put_stream("key", Content(data), size=len(data), digest=Digest.of(data)) == len(data)
    assert fake.asked[0].body == data
    assert fake.asked[0].headers["content-length"] == str(len(data))
    assert "transfer-encoding" not in fake.asked[0].headers
    async with storage.open_read("key") as handle:
        assert b"".join([chunk async for chunk in handle]) == data
    assert storage.counters.retries == 0


async def test_many_at_once(fake: FakeS3, proxy: ForwardProxy, storage: S3Storage) -> None:
    fake.otherwise = answer(body=b"x")
    assert await asyncio.gather(*(storage.get(f"k{number}") for number in range(30))) == [b"x"] * 30


async def test_an_answer_that_is_cut_is_asked_for_again(
    fake: FakeS3, proxy: ForwardProxy, storage: S3Storage
) -> None:
    fake.answers = [cut_off(b"con", 7), answer(502, "<html>the proxy's own</html>"), answer(body=b"content")]
    assert await storage.get("key") == b"content"
    assert storage.counters.retries == 2


async def test_a_proxy_that_says_nothing(proxy: ForwardProxy) -> None:
    proxy.silent = True
    async with opened() as storage:
        with pytest.raises(Unreachable, match=r"s3\.example\.test:9000 gave no answer to GetObject of key in time"):
            await storage.get("key")
    assert len(proxy.lines) == 2


async def test_a_proxy_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{bound.getsockname()[1]}")
        async with opened() as storage:
            with pytest.raises(Unreachable, match="through the proxy"):
                await storage.get("key")
            assert storage.counters.requests == {"GetObject": 2}


async def test_a_proxy_whose_url_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://[bad")
    async with opened() as storage:
        with pytest.raises(Unreachable, match="proxy"):
            await storage.get("key")


@pytest.mark.parametrize(
    "url", ["http://me:hush@[bad", "http://me:hush@127.0.0.1:1", "http://me:hush@127.0.0.1:port"]
)
async def test_a_proxys_password_is_not_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("http_proxy", url)
    async with opened() as storage:
        with pytest.raises(Unreachable, match="proxy") as caught:
            await storage.get("key")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("said", ["setting", "environment"])
async def test_the_same_transport_can_be_chosen_without_a_proxy(
    fake: FakeS3, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    fake.otherwise = answer(body=b"content")
    if said == "environment":
        monkeypatch.setenv("REGSTORE_S3_TRANSPORT", "aiohttp")
    async with opened(endpoint_url=fake.url, transport="aiohttp" if said == "setting" else None) as storage:
        assert await storage.get("key") == b"content"
        assert isinstance(storage._client._server, ProxiedServer)
    monkeypatch.setenv("REGSTORE_S3_TRANSPORT", "aiohttp")
    async with opened(endpoint_url=fake.url, transport="own") as storage:
        assert await storage.get("key") == b"content"
        assert not isinstance(storage._client._server, ProxiedServer)


async def test_no_server_there_is_not_said_to_be_a_proxys_fault() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with opened(endpoint_url=url, transport="aiohttp") as storage:
            with pytest.raises(Unreachable) as caught:
                await storage.get("key")
    assert "proxy" not in str(caught.value)


async def test_a_transport_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="'curl' is no transport; expected own or aiohttp"):
        opened(transport="curl")
    monkeypatch.setenv("REGSTORE_S3_TRANSPORT", "curl")
    with pytest.raises(InputError, match="REGSTORE_S3_TRANSPORT is 'curl'"):
        async with opened() as storage:
            await storage.get("key")
