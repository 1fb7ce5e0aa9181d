"""Our own HTTP/1.1: what a server may do with a connection, and what a request makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from regstore.storage.s3 import http
from regstore.storage.s3.http import NotConnected, Response, Server
from tests.storage.test_s3_settings import certificate

Handler = Callable[["Peer"], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
MiB = 1024 * 1024


class Peer:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> str:
        """The head of the next request; the connection's end raises IncompleteReadError."""
        return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def say(self, *pieces: bytes) -> None:
        """Each in a segment of its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def ended(self) -> None:
        """Until the client has closed it."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


class Serving:
    """A server of `handler`, and our client for it."""

    def __init__(self, server: Server) -> None:
        self.client = server
        self.connections = 0
        self.errors: list[dict[str, object]] = []

    async def request(
        self,
        method: str = "GET",
        *,
        body: bytes | AsyncIterator[bytes] = b"",
        length: int | None = None,
        patience: float = 20.0,
        limit: float = 30.0,
    ) -> Response:
        headers = {"host": "h", "content-length": str(len(body) if isinstance(body, bytes) else length)}
        return await self.client.request(method, "/key", headers, body, patience=patience, limit=limit)

    async def get(self, method: str = "GET") -> tuple[int, bytes]:
        response = await self.request(method)
        return response.status, await response.read()


@contextlib.asynccontextmanager
async def serving(
    handler: Handler, *, tls: ssl.SSLContext | None = None, trust: ssl.SSLContext | None = None
) -> AsyncIterator[Serving]:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        found.connections += 1
        try:
            await handler(Peer(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    found = Serving(Server("127.0.0.1", port, trust, connect_timeout=20.0))
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: found.errors.append(context))
    try:
        yield found
    finally:
        await found.client.close()
        listening.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert found.errors == []


def both_sides(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server with a certificate, and of who trusts it."""
    pem = certificate(folder)
    mine = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    mine.load_cert_chain(pem)
    return mine, ssl.create_default_context(cafile=str(pem))


async def stuck(first: bytes = b"") -> AsyncIterator[bytes]:
    """A body that does not come, or not beyond its first bytes."""
    if first:
        yield first
    await asyncio.Event().wait()


async def answer_all(peer: Peer) -> None:
    while True:
        await peer.head()
        await peer.say(OK)


def answering(*pieces: bytes, close: bool = False) -> Handler:
    """The first request gets these pieces, and then the connection's end or silence; later connections OK."""
    asked = 0

    async def handle(peer: Peer) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            await answer_all(peer)
        await peer.head()
        await peer.say(*pieces)
        if close:
            peer.writer.close()
            await peer.writer.wait_closed()
        else:
            await peer.ended()

    return handle


# -- connections


async def test_a_connection_is_kept() -> None:
    async with serving(answer_all) as found:
        for _ in range(3):
            assert await found.get() == (200, b"ok")
        assert found.connections == 1


async def test_many_requests_at_once_and_their_connections_used_again() -> None:
    async with serving(answer_all) as found:
        for _ in range(3):
            assert await asyncio.gather(*(found.get() for _ in range(50))) == [(200, b"ok")] * 50
        assert found.connections == 50


async def test_an_old_connection_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "KEPT", 0.0)
    async with serving(answer_all) as found:
        await found.get()
        await found.get()
        assert found.connections == 2


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nconnection: close\r\n", b"HTTP/1.0 200 OK\r\n"])
async def test_a_server_may_want_the_connection_closed(head: bytes) -> None:
    async with serving(answering(head + b"content-length: 2\r\n\r\nok")) as found:
        assert await found.get() == (200, b"ok")
        assert await found.get() == (200, b"ok")
        assert found.connections == 2


async def test_a_connection_that_was_closed_while_idle() -> None:
    async with serving(answering(OK, close=True)) as found:
        await found.get()
        while found.client._idle:
            await asyncio.sleep(0)
        assert await found.get() == (200, b"ok")
        assert found.connections == 2


async def test_what_nobody_asked_for_ends_the_connection() -> None:
    said = asyncio.Event()

    async def handle(peer: Peer) -> None:
        await peer.head()
        await peer.say(OK)
        await said.wait()
        await peer.say(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        await peer.ended()
        said.clear()

    async with serving(handle) as found:
        await found.get()
        said.set()
        while found.client._idle:
            await asyncio.sleep(0)
        assert await found.get() == (200, b"ok")
        assert found.connections == 2


@pytest.mark.parametrize(
    "more", [b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 3\r\n\r\nbye", b"HTTP/1.1 4", b"x"]
)
async def test_a_second_answer_does_not_touch_the_first(more: bytes) -> None:
    async with serving(answering(OK + more)) as found:
        assert await found.get() == (200, b"ok")
        assert await found.get() == (200, b"ok")
        assert found.connections == 2


async def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = Server("127.0.0.1", bound.getsockname()[1], None, connect_timeout=5.0)
        with pytest.raises(NotConnected, match="Connection refused"):
            await server.request("GET", "/", {}, patience=1.0, limit=1.0)


async def test_a_line_break_in_a_header_is_refused() -> None:
    async with serving(answer_all) as found:
        for bad in ({"a": "b\r\nc: d"}, {"a": "b\nc"}, {"a\r": "b"}):
            with pytest.raises(ValueError, match="line break"):
                await found.client.request("GET", "/", bad, patience=1.0, limit=1.0)
        with pytest.raises(ValueError, match="line break"):
            await found.client.request("GET", "/ HTTP/1.1\r\nx: y", {}, patience=1.0, limit=1.0)
        assert found.connections == 0


# -- answers


async def test_a_body_in_chunks() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = (head, b"3\r\nabc\r\n2;x=y\r\n", b"de\r\n", b"0\r\ntrailer: 1\r\n\r\n")
    for sent in (pieces, (b"".join(pieces),), tuple(bytes([byte]) for byte in b"".join(pieces))):
        async with serving(answering(*sent)) as found:
            response = await found.request()
            assert await response.read() == b"abcde"
            assert "trailer" not in response.headers


async def test_a_body_up_to_the_end_of_the_connection() -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\nso", b"me", close=True)) as found:
        assert await found.get() == (200, b"some")
        assert await found.get() == (200, b"ok")


async def test_a_body_without_an_end_is_not_whole_because_we_have_closed() -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\nsome")) as found:
        response = await found.request()
        chunks = response.chunks()
        assert await anext(chunks) == b"some"
        await found.client.close()
        with pytest.raises(ConnectionError):
            await anext(chunks)


@pytest.mark.parametrize(
    "cut",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfour",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
async def test_an_answer_that_is_cut_short(cut: bytes) -> None:
    async with serving(answering(cut, close=True)) as found:
        with pytest.raises(ConnectionError):
            await found.get()
    async with serving(answering(cut, close=True)) as found:
        with pytest.raises(ConnectionError):
            async for _ in (await found.request()).chunks():
                pass


async def test_a_reset_is_no_end() -> None:
    async def handle(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\nsome")
        await asyncio.sleep(0)
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with serving(handle) as found:
        with pytest.raises(ConnectionError):
            await found.get()


async def test_informational_answers_are_passed_over() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    for pieces in ((*early, OK), (b"".join(early) + OK,)):
        async with serving(answering(*pieces)) as found:
            response = await found.request()
            assert (response.status, dict(response.headers)) == (200, {"content-length": "2"})
            assert await response.read() == b"ok"


async def test_a_head_has_a_length_and_no_body() -> None:
    async def handle(peer: Peer) -> None:
        while True:
            head = await peer.head()
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: 1\r\nx-a: 2\r\n\r\n")
            assert head.startswith("HEAD ")

    async with serving(handle) as found:
        for _ in range(2):
            response = await found.request("HEAD")
            assert dict(response.headers) == {"content-length": "1234", "x-a": "1, 2"}
            assert await response.read() == b""
        assert found.connections == 1


async def test_a_head_that_is_answered_with_a_body() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
    for pieces in ((head + b"body",), (head, b"body")):
        async with serving(answering(*pieces)) as found:
            response = await found.request("HEAD")
            for _ in range(20):  # the body comes before anybody reads
                await asyncio.sleep(0)
            assert await response.read() == b""
            status = 0
            while not status:  # where it was not seen yet, the next request meets it, and fails
                with contextlib.suppress(ConnectionError):
                    status, _ = await found.get()
            assert status == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2\r\nconnection: upgrade\r\n\r\nx",
    ],
)
async def test_what_is_no_http(answer: bytes) -> None:
    async with serving(answering(answer)) as found:
        with pytest.raises(ConnectionError, match="not HTTP"):
            await found.get()
        assert await found.get() == (200, b"ok")


async def test_an_offer_of_another_protocol_is_no_switch() -> None:
    offer = b"HTTP/1.1 200 OK\r\nupgrade: h2,h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nok"
    async with serving(answering(offer)) as found:
        assert await found.get() == (200, b"ok")


# -- bodies of requests


async def test_an_answer_before_the_body_was_sent() -> None:
    refused = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 6\r\n\r\ndenied"
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(256):
            sent += 1
            yield bytes(MiB)

    async def handle(peer: Peer) -> None:
        if found.connections > 1:
            await answer_all(peer)
        await peer.head()
        await peer.say(refused)
        await peer.ended()

    async with serving(handle) as found:
        response = await found.request("PUT", body=pieces(), length=256 * MiB)
        assert (response.status, await response.read()) == (403, b"denied")
        assert sent < 64
        assert await found.get() == (200, b"ok")
        assert found.connections == 2, "half a body is on the first"


@pytest.mark.parametrize("over_tls", [False, True])
@pytest.mark.parametrize("by_chunks", [False, True])
async def test_an_answer_that_held_up_the_server_at_its_end_does_not_hold_up_the_next(
    by_chunks: bool, over_tls: bool, tmp_path: Path
) -> None:
    size = http._HELD + 1  # only its last byte is too much

    async def handle(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size, bytes(size))
        await answer_all(peer)

    tls, trust = both_sides(tmp_path) if over_tls else (None, None)
    async with serving(handle, tls=tls, trust=trust) as found:
        response = await found.request()
        async with asyncio.timeout(20):
            while not response.ended:  # type: ignore[attr-defined]
                await asyncio.sleep(0.001)
        if by_chunks:
            assert sum([len(chunk) async for chunk in response.chunks()]) == size
        else:
            assert len(await response.read()) == size
        again = await found.request(patience=2.0)
        assert (again.status, await again.read()) == (200, b"ok")
        assert found.connections == 1


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, 3 * MiB])
async def test_a_body_arrives(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    got = []

    async def handle(peer: Peer) -> None:
        while True:
            assert f"content-length: {size}\r\n" in await peer.head()
            got.append(await peer.reader.readexactly(size))
            await peer.say(OK)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, size, 100_000):
            yield data[at : at + 100_000]

    async with serving(handle) as found:
        for body in (data, pieces()):
            response = await found.request("PUT", body=body, length=size)
            assert (response.status, await response.read()) == (200, b"ok")
        assert got == [data, data]
        assert found.connections == 1


async def test_a_connection_that_breaks_while_the_body_is_sent() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(256):
            yield bytes(MiB)

    async def handle(peer: Peer) -> None:
        await peer.head()

    async with serving(handle) as found:
        with pytest.raises(ConnectionError):
            await found.request("PUT", body=pieces(), length=256 * MiB)


async def test_what_the_body_raises_is_raised_and_closes_the_connection() -> None:
    ended = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    async def handle(peer: Peer) -> None:
        await peer.ended()
        ended.set()

    async with serving(handle) as found:
        with pytest.raises(KeyError):
            await found.request("PUT", body=pieces(), length=9)
        await ended.wait()


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_body_that_does_not_come_hides_no_answer(at_once: bool) -> None:
    asked = asyncio.Event()

    async def handle(peer: Peer) -> None:
        await peer.head()
        if not at_once:
            assert await peer.reader.readexactly(1) == b"x"
        await peer.say(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 4\r\n\r\nlate")
        await peer.ended()
        asked.set()

    async with serving(handle) as found, asyncio.timeout(20):
        response = await found.request("PUT", body=stuck(b"" if at_once else b"x"), length=9)
        assert (response.status, await response.read()) == (400, b"late")
        await asked.wait()
        assert not found.client._idle and not found.client._busy, "half a body is on it"


async def test_a_body_that_does_not_come_hides_no_broken_connection() -> None:
    async with serving(answering(close=True)) as found, asyncio.timeout(20):
        with pytest.raises(ConnectionError):
            await found.request("PUT", body=stuck(), length=9)


async def test_who_waits_for_a_body_can_be_cancelled() -> None:
    asked = asyncio.Event()

    async def handle(peer: Peer) -> None:
        await peer.head()
        asked.set()
        await peer.ended()

    async with serving(handle) as found, asyncio.timeout(20):
        task = asyncio.create_task(found.request("PUT", body=stuck(), length=9))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not found.client._idle and not found.client._busy


async def test_a_timeout_of_the_bodys_own_is_raised() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        raise TimeoutError("mine")

    async with serving(answering()) as found, asyncio.timeout(20):
        with pytest.raises(TimeoutError, match="mine"):
            await found.request("PUT", body=pieces(), length=9)


# -- time


async def test_a_body_that_does_not_come_has_a_limit() -> None:
    async with serving(answering()) as found, asyncio.timeout(20):
        with pytest.raises(TimeoutError, match="no answer in time"):
            await found.request("PUT", body=stuck(b"x"), length=9, patience=0.04, limit=0.08)
        assert await found.get() == (200, b"ok")


@pytest.mark.parametrize(
    "pieces", [(), (b"HTTP/1.1 200 OK\r\n",), (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome",)]
)
async def test_silence(pieces: tuple[bytes, ...]) -> None:
    async with serving(answering(*pieces)) as found:
        with pytest.raises(TimeoutError):
            await (await found.request(patience=0.02)).read()
        assert await found.get() == (200, b"ok")
    async with serving(answering(*pieces)) as found:
        with pytest.raises(TimeoutError):
            async for _ in (await found.request(patience=0.02)).chunks():
                pass


async def test_silence_after_the_server_was_held_up() -> None:
    """A reader who was away is not timed; once it is back, the server has its patience, and no more."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * http._HELD)
    async with serving(answering(head, bytes(http._HELD + 1))) as found, asyncio.timeout(20):
        response = await found.request(patience=0.04)
        while not response._paused:  # type: ignore[attr-defined]
            await asyncio.sleep(0.001)
        got = 0
        with pytest.raises(TimeoutError, match="no answer in time"):
            async for chunk in response.chunks():
                got += len(chunk)
        assert got == http._HELD + 1
        assert await found.get() == (200, b"ok")


async def test_a_server_that_does_not_take_the_body() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(256):
            yield bytes(MiB)

    async def handle(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with serving(handle) as found:
        with pytest.raises(TimeoutError):
            await found.request("PUT", body=pieces(), length=256 * MiB, patience=0.05)


async def test_an_answer_that_trickles_has_a_limit() -> None:
    async def handle(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while True:
            await peer.say(b"x")
            await asyncio.sleep(0.002)

    async with serving(handle) as found:
        with pytest.raises(TimeoutError):
            await (await found.request(patience=0.04, limit=0.08)).read()


async def test_a_slow_reader_is_not_timed() -> None:
    wanted = asyncio.Event()

    async def handle(peer: Peer) -> None:
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nso")
        await wanted.wait()
        await peer.say(b"me")
        await peer.ended()

    async with serving(handle) as found:
        response = await found.request()
        response.limit = response.patience = 0.0  # type: ignore[attr-defined]
        found.client._look()
        response.patience = 20.0  # type: ignore[attr-defined]
        wanted.set()
        assert b"".join([chunk async for chunk in response.chunks()]) == b"some"


@pytest.mark.parametrize("pieces", [(), (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome",)])
async def test_cancellation_closes_the_connection(pieces: tuple[bytes, ...]) -> None:
    waiting, ended = asyncio.Event(), asyncio.Event()

    async def handle(peer: Peer) -> None:
        await peer.head()
        await peer.say(*pieces)
        waiting.set()
        await peer.ended()
        ended.set()

    async with serving(handle) as found:
        task = asyncio.create_task(found.get())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended.wait()
        assert not found.client._busy and not found.client._idle


async def test_a_body_that_is_given_up_closes_the_connection() -> None:
    async with serving(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome")) as found:
        response = await found.request()
        response.close()
        response.close()
        assert await found.get() == (200, b"ok")
        assert found.connections == 2


async def test_a_large_answer_waits_for_its_reader() -> None:
    total, sent = 64 * MiB, 0

    async def handle(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        for _ in range(64):
            peer.writer.write(bytes(MiB))
            await peer.writer.drain()
            sent += MiB
        await peer.ended()

    async with serving(handle) as found:
        response = await found.request()
        chunks = response.chunks()
        got = len(await anext(chunks))
        for _ in range(500):
            await asyncio.sleep(0)
        assert response._size < 2 * MiB  # type: ignore[attr-defined]
        assert sent < 32 * MiB, "the rest has to wait in the server"
        async for chunk in chunks:
            got += len(chunk)
            assert response._size < 2 * MiB  # type: ignore[attr-defined]
        assert got == total


# -- TLS


async def test_a_certificate_that_is_trusted_or_not(tmp_path: Path) -> None:
    mine, trust = both_sides(tmp_path)
    async with serving(answer_all, tls=mine, trust=trust) as found:
        assert await asyncio.gather(*(found.get() for _ in range(5))) == [(200, b"ok")] * 5
        assert await found.get() == (200, b"ok")
        assert found.connections == 5
    async with serving(answer_all, tls=mine, trust=ssl.create_default_context()) as found:
        with pytest.raises(NotConnected) as caught:
            await found.get()
        assert caught.value.untrusted
        found.errors.clear()  # the server's side of it


async def test_a_port_that_speaks_no_tls() -> None:
    async def handle(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.ended()

    async with serving(handle, trust=ssl.create_default_context()) as found:
        with pytest.raises(NotConnected) as caught:
            await found.get()
        assert caught.value.plain and not caught.value.untrusted, "that is no matter of certificates"
