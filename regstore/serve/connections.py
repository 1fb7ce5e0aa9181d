"""As many connections as the limit of open files allows: who comes then is told to come again; the log says so once.

A connection that pulls holds up to three files: its socket, another descriptor of that, and the blob's file, or the
connection to S3.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import web

from regstore.events import Notice, OnEvent

#: Open files of all else: the store, the index, its spilled tables, libraries.
_RESERVED: Final = 200
_EACH: Final = 3
#: However many files may be open: some 15 KB of memory each.
_MOST: Final = 20_000
#: Files that are wanted where the limit may be raised.
_FILES: Final = _RESERVED + _EACH * _MOST
#: Those that are told to come again, and have not gone yet: how many wait for that, and for how many seconds.
_GOING: Final = 100
_PATIENCE: Final = 1.0
#: Seconds in which a client must have shaken hands over TLS: it is no connection before, but a file.
_HANDSHAKE: Final = 20.0
#: Seconds between two words about the same trouble.
_QUIET: Final = 60.0
_BODY: Final = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"too many connections"}]}'
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


@contextmanager
def more_files() -> Iterator[None]:
    """While inside, this process may have as many files open as it is let: for a program that is a server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def most_connections() -> int:
    """What the process's limit of open files leaves room for."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if soft == resource.RLIM_INFINITY else min(max((soft - _RESERVED) // _EACH, 1), _MOST)


class Gate:
    """Lets connections in while there is room: a factory of protocols, as the server's own."""

    def __init__(self, server: web.Server, most: int, on_event: OnEvent) -> None:
        self._server = server
        self._most = most
        self._on_event = on_event
        self._going: set[_Busy] = set()
        self._told = -_QUIET

    def __call__(self) -> asyncio.BaseProtocol:
        if len(self._server.connections) < self._most:
            return self._server()
        if time.monotonic() - self._told >= _QUIET:
            self._told = time.monotonic()
            self._on_event(
                Notice(
                    message=f"{self._most:,} connections are open, as many as the limit of open files (ulimit -n) "
                    "allows: more are answered with 503 until some end"
                )
            )
        return _Busy(self._going)


class _Busy(asyncio.Protocol):
    """Tells a client to come again. It is left a moment to read that: what is closed with a request unread is reset."""

    def __init__(self, going: set[_Busy]) -> None:
        self._going = going
        self._transport: asyncio.BaseTransport | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if len(self._going) >= _GOING:
            transport.abort()
            return
        self._transport = transport
        self._going.add(self)
        transport.write(_BUSY)
        self._end = asyncio.get_running_loop().call_later(_PATIENCE, transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._going.discard(self)
        if self._end is not None:
            self._end.cancel()


class GatedSite(web.BaseSite):
    """Listens on an address, and lets in what the gate does. host: "" for every address, of IPv6 and of IPv4."""

    def __init__(
        self,
        runner: web.AppRunner,
        host: str,
        port: int,
        make_gate: Callable[[web.Server], Gate],
        *,
        tls: ssl.SSLContext | None,
        backlog: int,
    ) -> None:
        super().__init__(runner, ssl_context=tls, backlog=backlog)
        assert runner.server is not None
        self._gate = make_gate(runner.server)
        self._host = host
        self._port = port

    @property
    def name(self) -> str:
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        self._server = await asyncio.get_running_loop().create_server(
            self._gate,
            **self._where(),
            ssl=self._ssl_context,
            ssl_handshake_timeout=_HANDSHAKE if self._ssl_context is not None else None,
            backlog=self._backlog,
        )

    def _where(self) -> dict[str, Any]:
        """One socket for every address, as Distribution's `addr: :5000` is: asyncio's own would be two, of IPv4 and of
        IPv6, with two ports where the system chooses."""
        if self._host or not socket.has_dualstack_ipv6():
            return {"host": self._host or "0.0.0.0", "port": self._port}
        return {"sock": socket.create_server(("", self._port), family=socket.AF_INET6, dualstack_ipv6=True)}


@contextmanager
def accept_errors_told(on_event: OnEvent) -> Iterator[None]:
    """While inside, a connection that the system has no room for is a sentence, not a traceback for each."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    told = -_QUIET

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal told
        if str(context.get("message", "")).startswith("socket.accept()"):
            if time.monotonic() - told >= _QUIET:
                told = time.monotonic()
                on_event(Notice(message=f"a connection could not be taken: {context.get('exception')}"))
        elif before is not None:
            before(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        loop.set_exception_handler(before)
