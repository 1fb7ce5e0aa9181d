"""HTTP/1.1 to one server over connections that are kept: what requests to S3 need, and no more.

Small requests by the ten thousand are what regstore does most, and there a general client costs several times what the
work does (figures in `regstore.storage.s3`). Answers are parsed by llhttp (`httptools`); one timer watches over all
connections; nothing is ever repeated here, so a request that fails was sent once at most.

What goes wrong is an OSError: `NotConnected` before anything was sent, TimeoutError, ConnectionError after.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol, cast

from regstore.storage.limit import check_limit

_MiB: Final = 1024 * 1024
#: Seconds that an idle connection is kept: less than any server's patience known.
KEPT: Final = 8.0
#: Bytes of an answer that wait for their reader before the server is held up.
_HELD: Final = _MiB // 2
#: A header's name. A server sends few, again and again.
_lower: Final = lru_cache(100)(lambda name: str(name, "latin-1").lower())
#: A body up to this many bytes goes in one write with its headers.
_JOINED: Final = 64 * 1024


#: OpenSSL's words for an answer that is no TLS: by 1.1 and most of 3, and by 3.2 and later where the answer is longer.
NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL")


class NotConnected(OSError):
    """No connection could be made; nothing was sent. no_address: the host's name says nothing. untrusted: its
    certificate does not hold. plain: what answers speaks no TLS."""

    def __init__(
        self, message: str, *, no_address: bool = False, untrusted: bool = False, plain: bool = False
    ) -> None:
        super().__init__(message)
        self.no_address = no_address
        self.untrusted = untrusted
        self.plain = plain


class Response(Protocol):
    """An answer whose headers are here. Names in `headers` are case-insensitive, or in lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read(self) -> bytes:
        """The rest of the body, within the request's limit; the connection is free then."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        ...

    def close(self) -> None:
        """Gives up what was not read; nothing where all was."""
        ...


class Server:
    """Connections to one server. They are made as needed, and as many as there are requests at a time."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, *, connect_timeout: float) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._watch: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        for connection in (*self._idle, *self._busy):
            connection.abort()
        self._idle.clear()
        self._busy.clear()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        await asyncio.sleep(0)  # transports close in the loop's next round

    async def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes | memoryview] = b"",
        *,
        patience: float,
        limit: float,
    ) -> Response:
        """Send, and wait for the headers of the answer. headers: complete, with host and content-length.

        patience: seconds that the server may keep silent once it has the request. limit: seconds until the answer is
        here, its body included where that is `read` at once. Where the server answers before it has the whole body,
        the rest is not sent.
        """
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        head = "\r\n".join(lines)
        if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1:
            raise ValueError("a header must not hold a line break")
        connection = self._take()
        if connection is None:
            connection = await self._connect(limit)
            try:
                check_limit()  # that may have taken long
            except BaseException:
                connection.abort()
                raise
        self._busy.add(connection)
        answer = _Answer(connection, is_head=method == "HEAD", patience=patience, limit=time.monotonic() + limit)
        self._keep_watch(patience)
        try:
            await connection.exchange(answer, head.encode(), body)
        except BaseException:
            connection.abort()
            self._busy.discard(connection)
            raise
        return answer

    def _take(self) -> _Connection | None:
        """The one used last, so that what is not needed ages."""
        old = time.monotonic() - KEPT
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and connection.since > old:
                return connection
            connection.abort()
        return None

    def give_back(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        if connection.is_usable:
            connection.since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.abort()

    def forget(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def _connect(self, limit: float) -> _Connection:
        import aiohappyeyeballs

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(min(limit, self._connect_timeout)):
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                # The next address is tried while one does not answer.
                plain = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=0.25, interleave=1)
                name = self._host if self._tls is not None else None
                _, connection = await loop.create_connection(
                    lambda: _Connection(self), sock=plain, ssl=self._tls, server_hostname=name
                )
        except TimeoutError:
            raise NotConnected(f"no connection within {self._connect_timeout:g} s") from None
        except socket.gaierror as error:
            raise NotConnected(error.strerror or str(error), no_address=True) from error
        except ssl.SSLCertVerificationError as error:
            raise NotConnected(str(error), untrusted=True) from error
        except ssl.SSLError as error:
            raise NotConnected(_words(error), plain=error.reason in NOT_TLS) from error
        except OSError as error:
            raise NotConnected(_words(error)) from error
        return connection

    # One timer for all requests: one each would cost as much as sending them.

    def _keep_watch(self, patience: float) -> None:
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(min(1.0, patience / 4), self._look)

    def _look(self) -> None:
        self._watch = None
        now = time.monotonic()
        shortest = 1.0
        for connection in list(self._busy):
            answer = connection.answer
            if answer is not None:
                shortest = min(shortest, answer.patience / 4)
                if answer.is_overdue(now):
                    connection.fail(TimeoutError("no answer in time"))
        if self._busy:
            self._watch = asyncio.get_running_loop().call_later(shortest, self._look)


def _words(error: Exception) -> str:
    """asyncio's own say what was called, not what came of it; and of several addresses that were tried it joins the
    errors of all into one without errno."""
    if isinstance(error, OSError):
        if error.errno and not isinstance(error, ssl.SSLError):
            return os.strerror(error.errno)
        if error.strerror:
            return error.strerror
    return str(error) or type(error).__name__


class _Answer:
    """What comes back on one connection to one request. Its reader waits in `wait`, one at a time."""

    def __init__(self, connection: _Connection, *, is_head: bool, patience: float, limit: float) -> None:
        self._connection = connection
        self.is_head = is_head
        self.patience = patience
        self.limit = limit
        self.status = 0
        self.headers: dict[str, str] = {}
        self.begun = False
        self.ended = False
        self.error: BaseException | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        #: Where the request's body is being waited for: ended once `is_decided`.
        self.interrupts: asyncio.Timeout | None = None
        self._waiting_since = 0.0
        self._closed = False

    @property
    def is_decided(self) -> bool:
        """No more of the request's body is wanted."""
        return self.begun or self.error is not None

    # from the connection

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > _HELD and not self._paused and self._waiter is None:
            self._paused = True
            self._connection.pause()
        self.wake()

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        elif waiter is None and self.interrupts is not None and self.is_decided:
            self.interrupts.reschedule(0.0)
            self.interrupts = None

    def is_overdue(self, now: float) -> bool:
        if self._waiter is None:
            return not self.begun and now > self.limit
        return now > self.limit or now - self._waiting_since > self.patience

    # from the reader

    async def wait(self) -> None:
        """Until anything has happened."""
        self._waiting_since = time.monotonic()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def read(self) -> bytes:
        try:
            while not self.ended:
                if self.error is not None:
                    raise self.error
                if self._paused:
                    self._resume()
                await self.wait()
        except BaseException:
            self.close()
            raise
        pieces, self._pieces, self._size = self._pieces, [], 0
        self._done()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def chunks(self) -> AsyncIterator[bytes]:
        self.limit = float("inf")
        while True:
            while self._pieces:
                pieces, self._pieces, self._size = self._pieces, [], 0
                for piece in pieces:
                    yield piece
            if self.ended:
                self._done()
                return
            if self.error is not None:
                raise self.error
            if self._paused:
                self._resume()
            await self.wait()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._connection.abort()
            self._connection.server.forget(self._connection)

    def _resume(self) -> None:
        self._paused = False
        self._connection.resume()

    def _done(self) -> None:
        if not self._closed:
            self._closed = True
            if self._paused:
                self._resume()  # its end came with more than is held; the next answer must be read
            self._connection.answer = None
            self._connection.server.give_back(self._connection)


class _Connection(asyncio.Protocol):
    """One connection, one request at a time. The parser calls its `on_…` methods."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.answer: _Answer | None = None
        self.since = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._sent = False
        self._blocked = False
        self._kept = True
        self._server_ended = False

    @property
    def is_usable(self) -> bool:
        return self._kept and self._sent and self._transport is not None and not self._transport.is_closing()

    async def exchange(self, answer: _Answer, head: bytes, body: bytes | AsyncIterator[bytes | memoryview]) -> None:
        """Send the request; the answer's headers are here on return."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the server closed the connection")
        if self._parser is None:
            import httptools

            self._parser = httptools.HttpResponseParser(self)
        self.answer = answer
        self._sent = False
        if isinstance(body, bytes):
            if len(body) <= _JOINED:
                transport.write(head + body if body else head)
            else:
                transport.write(head)
                transport.write(body)
            self._sent = True
        else:
            transport.write(head)
            await self._send(transport, answer, body)
        while not answer.begun:
            if answer.error is not None:
                raise answer.error
            await answer.wait()

    async def _send(
        self, transport: asyncio.Transport, answer: _Answer, body: AsyncIterator[bytes | memoryview]
    ) -> None:
        """All of the body, or what of it is sent until the answer begins, or fails: a body that does not come must not
        keep us from that."""
        try:
            async with asyncio.timeout(None) as sending:
                answer.interrupts = sending
                async for piece in body:
                    while self._blocked and not answer.is_decided:
                        await answer.wait()
                    if answer.is_decided:
                        return
                    transport.write(piece)
                self._sent = True
        except TimeoutError:
            if not answer.is_decided:
                raise  # the body's own
        finally:
            answer.interrupts = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def fail(self, error: BaseException) -> None:
        """End it, for whoever waits."""
        self._kept = False
        if self.answer is not None and not self.answer.ended and self.answer.error is None:
            self.answer.error = error
            self.answer.wake()
        self.abort()

    def pause(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # of asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no instances of it
        plain = transport.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        if self.answer is None or self._parser is None:  # nobody has asked for anything; more than a HEAD's answer
            self._kept = False
            self.abort()
            return
        import httptools

        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(ConnectionError(f"the answer is not HTTP: {error}"))

    def eof_received(self) -> bool:
        self._server_ended = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._kept = False
        answer = self.answer
        if answer is not None and not answer.ended:
            # Without a length, the end of the connection is that of the body: where the server ended it, not we.
            if answer.begun and exc is None and self._server_ended and self._until_closed(answer):
                answer.ended = True
            elif answer.error is None:
                words = "the server closed the connection" if exc is None else _words(exc)
                answer.error = ConnectionResetError(words)
            answer.wake()
        self._blocked = False
        self.server.forget(self)

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        if self.answer is not None:
            self.answer.wake()

    @staticmethod
    def _until_closed(answer: _Answer) -> bool:
        return "content-length" not in answer.headers and "transfer-encoding" not in answer.headers

    # of the parser

    def on_message_begin(self) -> None:
        if self.answer is None or self.answer.ended:  # a second answer, which nobody has asked for
            self._kept = False

    def on_header(self, name: bytes, value: bytes) -> None:
        answer = self.answer
        if answer is None or answer.begun:
            return  # trailers
        key, text = _lower(name), value.decode("utf-8", "surrogateescape")
        known = answer.headers.get(key)
        answer.headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        answer = self.answer
        if answer is None or answer.begun:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            answer.headers.clear()
            return
        answer.status = status
        self._kept = self._parser.should_keep_alive()
        answer.begun = True
        if answer.is_head:
            answer.ended = True
            self._parser = None  # it would wait for the body that a HEAD has not
        answer.wake()

    def on_body(self, piece: bytes) -> None:
        if self.answer is not None and not self.answer.ended:
            self.answer.add(piece)
        else:  # of a HEAD
            self._kept = False

    def on_message_complete(self) -> None:
        answer = self.answer
        if answer is not None and answer.begun:
            answer.ended = True
            answer.wake()
