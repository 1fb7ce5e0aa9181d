"""An HTTP proxy between a client and an S3 server, that delays, refuses, breaks and counts on request.

    with FaultProxy(moto.endpoint_url) as proxy:
        proxy.answer(503, "SlowDown", operation="PutObject", times=2)
        server = moto.at(proxy.endpoint_url)

The client's head goes through unchanged, its Host too, so signatures stay right. Rules are tried in the order in
which they were added; the first that matches and is not used up decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Final, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

_CHUNK: Final = 256 * 1024
_HEAD_LIMIT: Final = 256 * 1024
#: Seconds for a server to answer what it has, at the end.
_PATIENCE: Final = 10.0
_WORDS: Final = {
    "SlowDown": "Please reduce your request rate.",
    "InternalError": "We encountered an internal error. Please try again.",
    "ExpiredToken": "The provided token has expired.",
    "AccessDenied": "Access Denied",
}


@dataclass(frozen=True)
class Request:
    """What a rule can look at. key is decoded, without the bucket; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    bucket: str
    key: str
    query: dict[str, str]
    operation: str

    @classmethod
    def parse(cls, head: bytes) -> Request:
        line, *fields = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ", 2)
        headers = {}
        for entry in fields:
            name, colon, value = entry.partition(":")
            if colon:
                headers[name.strip().lower()] = value.strip()
        parts = urlsplit(target)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/") if parts.path != "/" else ("", "", "")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return cls(method, target, headers, bucket, key, query, _operation(method, key, query, headers))


def _operation(method: str, key: str, query: dict[str, str], headers: dict[str, str]) -> str:
    """The S3 operation, by its name in the API. A guess, good for what object stores are asked here."""
    copied = "x-amz-copy-source" in headers
    if not key:
        listings = {"versions": "ListObjectVersions", "uploads": "ListMultipartUploads"}
        for name, operation in listings.items():
            if method == "GET" and name in query:
                return operation
        for name in ("location", "versioning", "lifecycle", "encryption", "policy", "publicAccessBlock", "acl"):
            if name in query:
                return f"{method.capitalize()}Bucket{name[0].upper()}{name[1:]}"
        if method == "GET" and "list-type" in query:
            return "ListObjectsV2"
        if method == "POST" and "delete" in query:
            return "DeleteObjects"
        return {"GET": "ListObjects", "PUT": "CreateBucket", "DELETE": "DeleteBucket", "HEAD": "HeadBucket"}.get(
            method, method
        )
    if "uploadId" in query:
        part = "UploadPartCopy" if copied else "UploadPart"
        return {
            "PUT": part,
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
            "GET": "ListParts",
        }.get(method, method)
    if method == "POST" and "uploads" in query:
        return "CreateMultipartUpload"
    if method == "PUT":
        return "CopyObject" if copied else "PutObject"
    return {"GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}.get(method, method)


class Gate:
    """Holds requests: `release` lets all of them go."""

    def __init__(self) -> None:
        self._released = threading.Event()
        self._waiting: list[Callable[[], object]] = []
        self._reached = 0
        self._lock = threading.Condition()

    def wait_reached(self, seconds: float = 30.0, *, requests: int = 1) -> None:
        """Until so many have come to it."""
        with self._lock:
            if not self._lock.wait_for(lambda: self._reached >= requests, seconds):
                raise AssertionError(
                    f"{self._reached} of {requests} requests came to the gate within {seconds:g} s"
                )

    def release(self) -> None:
        with self._lock:
            self._released.set()
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    async def _pass(self) -> None:
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if self._released.is_set():
                return
            self._waiting.append(lambda: loop.call_soon_threadsafe(event.set))
            self._reached += 1
            self._lock.notify_all()
        await event.wait()


@dataclass
class Rule:
    """What happens to requests that match. `seen` counts the matching ones, `used` those that it was applied to."""

    matches: Callable[[Request], bool]
    action: Literal["answer", "pretend", "reset", "reset_after", "truncate", "delay", "hold", "edit"]
    after: int = 0
    times: int | None = 1
    status: int = 503
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    keep_bytes: int = 0
    seconds: float = 0.0
    gate: Gate = field(default_factory=Gate)
    edit: Callable[[bytes], bytes] = bytes
    body: bytes = b""
    seen: int = 0
    used: int = 0

    def take(self, request: Request) -> bool:
        if not self.matches(request):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.used >= self.times):
            return False
        self.used += 1
        return True


@dataclass
class _Response:
    head: bytes
    status: int
    headers: dict[str, str]


class FaultProxy:
    """A context manager. `endpoint_url` is where clients go instead of `upstream`. What is still held at its end never
    reaches the server.

    delay: seconds that every request waits before it is forwarded, as a network would make it.
    clock: seconds by which its own clock, which writes the Date of every answer, is ahead; None: there is no Date.
    counts: requests that came, by operation ("PutObject"); methods: by HTTP method. Refused ones count too.
    bytes_in, bytes_out: bodies of requests, bodies of answers.
    """

    def __init__(self, upstream: str, *, delay: float = 0.0) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.delay = delay
        self.clock: int | None = 0
        self.counts: Counter[str] = Counter()
        self.methods: Counter[str] = Counter()
        self.requests: list[Request] = []
        self.bytes_in = 0
        self.bytes_out = 0
        self.in_flight = 0
        #: Of these, those that the server has as a whole and has not answered.
        self._unanswered = 0
        self.most_in_flight = 0
        self.endpoint_url = ""
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None

    # -- rules

    def answer(self, status: int, code: str = "InternalError", *, headers: Any = None, **where: Any) -> Rule:
        """Do not forward; answer with S3's error body. See `rule` for `where`."""
        return self.rule("answer", status=status, code=code, headers=dict(headers or {}), **where)

    def pretend(self, body: bytes, **where: Any) -> Rule:
        """Do not forward; answer 200 with this body, as a server does that says it is done and did nothing."""
        return self.rule("pretend", status=200, code="OK", body=body, **where)

    def reset(self, *, forwarded: bool = False, **where: Any) -> Rule:
        """Break the connection (RST): before anything is forwarded, or after the server has done its work."""
        return self.rule("reset_after" if forwarded else "reset", **where)

    def truncate(self, keep_bytes: int, **where: Any) -> Rule:
        """Forward, and break the connection after so many bytes of the answer's body."""
        return self.rule("truncate", keep_bytes=keep_bytes, **where)

    def slow(self, seconds: float, **where: Any) -> Rule:
        """Forward later."""
        return self.rule("delay", seconds=seconds, **where)

    def hold(self, **where: Any) -> Gate:
        """Forward once the gate is released."""
        return self.rule("hold", **where).gate

    def edit(self, change: Callable[[bytes], bytes], **where: Any) -> Rule:
        """Forward, and change the answer's body (Content-Length follows)."""
        return self.rule("edit", edit=change, **where)

    def rule(
        self,
        action: Any,
        *,
        method: str | Sequence[str] = (),
        operation: str | Sequence[str] = (),
        key: str = "",
        query: str = "",
        when: Callable[[Request], bool] | None = None,
        after: int = 0,
        times: int | None = 1,
        **settings: Any,
    ) -> Rule:
        """A rule for requests that meet all of: method, operation (one or several), regular expressions searched
        in the key and in the raw target's query, and `when`. It leaves the first `after` of them alone, then is
        applied `times` times (None: for ever)."""
        methods = {method} if isinstance(method, str) else set(method)
        operations = {operation} if isinstance(operation, str) else set(operation)

        def matches(request: Request) -> bool:
            return (
                (not methods or request.method in methods)
                and (not operations or request.operation in operations)
                and (not key or re.search(key, request.key) is not None)
                and (not query or re.search(query, urlsplit(request.target).query) is not None)
                and (when is None or when(request))
            )

        rule = Rule(matches, action, after, times, **settings)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Forget the rules (held requests go on) and the counts."""
        with self._lock:
            rules, self._rules = self._rules, []
            self.counts.clear()
            self.methods.clear()
            self.requests.clear()
            self.bytes_in = self.bytes_out = self.most_in_flight = 0
        for rule in rules:
            rule.gate.release()

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    # -- its thread

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *exc: object) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        sys.settrace(None)  # coverage would follow every line
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await self._connection(reader, writer)
            except asyncio.CancelledError:
                pass  # the proxy stops
            finally:
                connections.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=_HEAD_LIMIT)
        self.endpoint_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        # Their clients may be gone; what the server does of them is to be over before anybody looks at it.
        end = time.monotonic() + _PATIENCE
        while self._unanswered and time.monotonic() < end:
            await asyncio.sleep(0.005)
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()
        await asyncio.sleep(0)  # transports close in the loop's next round

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = _Upstream(*self._upstream)
        try:
            while await self._exchange(reader, writer, upstream):
                pass
        except (OSError, asyncio.IncompleteReadError, EOFError):
            writer.transport.abort()
        finally:
            upstream.close()
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: _Upstream
    ) -> bool:
        """One request and its answer; False when the connection has ended."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        request = Request.parse(head)
        rule = self._admit(request)
        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            if rule is not None:
                if rule.action == "delay":
                    await asyncio.sleep(rule.seconds)
                elif rule.action == "hold":
                    await rule.gate._pass()
                elif rule.action == "reset":
                    _break(writer)
                    return False
                elif rule.action in ("answer", "pretend"):
                    await self._discard_body(request, reader, writer)
                    writer.write(_error(request, rule))
                    await writer.drain()
                    return True
            return await self._forward(head, request, rule, reader, writer, upstream)
        finally:
            self.in_flight -= 1

    def _admit(self, request: Request) -> Rule | None:
        with self._lock:
            self.counts[request.operation] += 1
            self.methods[request.method] += 1
            self.requests.append(request)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            return next((rule for rule in self._rules if rule.take(request)), None)

    async def _discard_body(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if _expects_continue(request):
            return  # the refusal comes instead of the 100, and no body
        await self._copy_body(request.headers, reader, None)

    async def _forward(
        self,
        head: bytes,
        request: Request,
        rule: Rule | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream: _Upstream,
    ) -> bool:
        if _expects_continue(request):
            # Answered here: the header is not signed, and the server need not be asked.
            head = re.sub(rb"\r\nexpect:[^\r\n]*", b"", head, count=1, flags=re.IGNORECASE)
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
        await upstream.connect()
        upstream.writer.write(head)
        try:
            self.bytes_in += await self._copy_body(request.headers, reader, upstream.writer)
            await upstream.writer.drain()
        except ConnectionError:
            pass  # the server may have refused before it had read all: its answer is there
        self._unanswered += 1
        try:
            response = await upstream.response()
        finally:
            self._unanswered -= 1
        response.head = self._dated(response.head)
        if rule is not None and rule.action == "reset_after":
            await self._answer_body(request, response, upstream, None)
            _break(writer)
            return False
        if rule is not None and rule.action == "truncate":
            body = await self._answer_body(request, response, upstream, None)
            writer.write(response.head + body[: rule.keep_bytes])
            await writer.drain()
            writer.close()
            return False
        if rule is not None and rule.action == "edit":
            wire = await self._answer_body(request, response, upstream, None)
            chunked = "chunked" in response.headers.get("transfer-encoding", "").lower()
            body = rule.edit(_unchunked(wire) if chunked else wire)
            kept = [
                line
                for line in response.head.rstrip().split(b"\r\n")
                if not re.match(rb"(?i)(content-length|transfer-encoding|etag|content-md5|x-amz-checksum)", line)
            ]
            writer.write(b"\r\n".join([*kept, b"Content-Length: %d" % len(body), b"", body]))
            await writer.drain()
        else:
            writer.write(response.head)
            await self._answer_body(request, response, upstream, writer)
            await writer.drain()
        keep = _keeps_alive(response)
        if not keep:
            upstream.close()
        return keep and request.headers.get("connection", "").lower() != "close"

    def _dated(self, head: bytes) -> bytes:
        if self.clock == 0:
            return head
        head = re.sub(rb"\r\nDate:[^\r\n]*", b"", head, flags=re.IGNORECASE)
        if self.clock is None:
            return head
        date = formatdate(time.time() + self.clock, usegmt=True).encode()
        return head.replace(b"\r\n", b"\r\nDate: " + date + b"\r\n", 1)

    async def _answer_body(
        self, request: Request, response: _Response, upstream: _Upstream, writer: asyncio.StreamWriter | None
    ) -> bytes:
        """Pass the body on, or without a writer give it back as it is on the wire."""
        if request.method == "HEAD" or response.status in (204, 304) or response.status < 200:
            return b""
        kept = _Kept() if writer is None else None
        sink: Any = writer if kept is None else kept
        if not {"content-length", "transfer-encoding"} & response.headers.keys():
            while data := await upstream.reader.read(_CHUNK):
                sink.write(data)
                await sink.drain()
                self.bytes_out += len(data)
        else:
            self.bytes_out += await self._copy_body(response.headers, upstream.reader, sink)
        return b"".join(kept.chunks) if kept is not None else b""

    async def _copy_body(self, headers: dict[str, str], reader: asyncio.StreamReader, sink: Any) -> int:
        """Of a message with these headers, framing included; returns the bytes of the wire."""
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return await _copy_chunked(reader, sink)
        left = length = int(headers.get("content-length", "0") or "0")
        while left:
            data = await reader.read(min(left, _CHUNK))
            if not data:
                raise EOFError("the body ended early")
            left -= len(data)
            if sink is not None:
                sink.write(data)
                await sink.drain()
        return length


class _Kept:
    """A sink that keeps what is written."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.chunks.append(data)

    async def drain(self) -> None:
        pass


class _Upstream:
    """The connection to the server that belongs to one client connection."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> None:
        if self._streams is not None and (self.reader.at_eof() or self.writer.is_closing()):
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address, limit=_HEAD_LIMIT)

    @property
    def reader(self) -> asyncio.StreamReader:
        assert self._streams is not None
        return self._streams[0]

    @property
    def writer(self) -> asyncio.StreamWriter:
        assert self._streams is not None
        return self._streams[1]

    async def response(self) -> _Response:
        while True:
            head = await self.reader.readuntil(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").split("\r\n")
            status = int(line.split(" ", 2)[1])
            if status != 100:
                break
        headers = {}
        for entry in fields:
            name, colon, value = entry.partition(":")
            if colon:
                headers[name.strip().lower()] = value.strip()
        headers["\0version"] = line.split(" ", 1)[0]
        return _Response(head, status, headers)

    def close(self) -> None:
        if self._streams is not None:
            self.writer.transport.abort()  # close() would wait for what nobody reads
            self._streams = None


async def _copy_chunked(reader: asyncio.StreamReader, sink: Any) -> int:
    total = 0
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        data = await reader.readexactly(size + 2) if size else b""
        if not size:
            while (trailer := await reader.readuntil(b"\r\n")) != b"\r\n":
                data += trailer
            data += b"\r\n"
        total += len(data)
        if sink is not None:
            sink.write(line + data)
            await sink.drain()
        if not size:
            return total


def _unchunked(wire: bytes) -> bytes:
    body = b""
    while wire:
        line, _, wire = wire.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if not size:
            break
        body += wire[:size]
        wire = wire[size + 2 :]
    return body


def _expects_continue(request: Request) -> bool:
    return request.headers.get("expect", "").lower() == "100-continue"


def _keeps_alive(response: _Response) -> bool:
    connection = response.headers.get("connection", "").lower()
    if connection == "close" or (response.headers["\0version"] == "HTTP/1.0" and connection != "keep-alive"):
        return False
    framed = {"content-length", "transfer-encoding"} & response.headers.keys()
    return bool(framed) or response.status in (204, 304)


def _error(request: Request, rule: Rule) -> bytes:
    code = rule.code
    body = (
        rule.body
        if rule.body or request.method == "HEAD"
        else (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{_WORDS.get(code, code)}</Message>"
            f"<Resource>/{request.bucket}</Resource><RequestId>0</RequestId></Error>"
        ).encode()
    )
    head = {
        "Content-Type": "application/xml",
        "Content-Length": str(len(body)),
        "x-amz-request-id": "0",
        # An unread body may follow where the client did not wait for its 100.
        "Connection": "close" if _expects_continue(request) else "keep-alive",
    } | rule.headers
    fields = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"HTTP/1.1 {rule.status} {code}\r\n{fields}\r\n".encode() + body


def _break(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN: lingering zero seconds."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
