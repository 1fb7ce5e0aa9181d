"""An S3 endpoint in memory, cheap enough not to be what a comparison measures.

    python -m benchmarks.s3_memory [--port 0] [--delay MS] [--bucket NAME] [--generate KEYS | --tree FOLDER] [--sink]

One process, one event loop, a parser for the part of HTTP/1.1 that S3 clients use. It listens on loopback only,
checks no signature, and keeps everything in memory. `--delay` holds back every answer by so many milliseconds;
requests on different connections wait at the same time. Memory, copies and MD5 cost more than all else when large
bodies come in: `--sink` throws the bytes of those above 1 MiB away as they arrive (their ETag is no MD5 then, and a
read gives zeros).

    GET  /_counters       JSON: requests by operation, bytes in and out, keys, CPU seconds, peak memory of this process
    POST /_reset          sets the counters to zero
    POST /_delay?ms=MS    changes the delay
    POST /_empty?bucket=NAME    makes a bucket, or takes all out of it

A generated registry, or a folder's files by their paths below it, are there when "listening on URL" is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from benchmarks.generate import Shape, generate
from benchmarks.s3_objects import Bucket, Object, md5
from benchmarks.s3_operations import Endpoint, Response, http_date

_REASONS = {
    200: b"OK", 204: b"No Content", 206: b"Partial Content", 304: b"Not Modified", 400: b"Bad Request",
    403: b"Forbidden", 404: b"Not Found", 405: b"Method Not Allowed", 409: b"Conflict", 412: b"Precondition Failed",
    416: b"Range Not Satisfiable", 501: b"Not Implemented",
}  # fmt: skip
_STATUS_LINES = {code: b"HTTP/1.1 %d %s\r\n" % (code, reason) for code, reason in _REASONS.items()}
#: Bodies beyond this are written slice by slice, as fast as the client takes them.
_SLICE = 1 << 18
#: What one read takes from a connection at most, beyond the body it is known to bring.
_SCRATCH = 1 << 18
#: `--sink` keeps bodies up to this size.
_SINK = 1 << 20


class Server:
    def __init__(self, delay: float = 0.0, sink: bool = False) -> None:
        self.endpoint = Endpoint()
        self.sink = sink
        self.scratch = memoryview(bytearray(_SCRATCH))
        self.delay = delay  # seconds
        self.in_flight = 0
        self.most_in_flight = 0

    def control(self, method: str, target: str) -> Response:
        path, _, query = target.partition("?")
        if (method, path) == ("POST", "/_reset"):
            self.endpoint.counts.clear()
            self.endpoint.bytes_in = self.endpoint.bytes_out = self.most_in_flight = 0
        elif (method, path) == ("POST", "/_delay"):
            self.delay = float(query.partition("=")[2]) / 1_000
        elif (method, path) == ("POST", "/_empty"):
            self.endpoint.empty(query.partition("=")[2])
        elif (method, path) != ("GET", "/_counters"):
            return Response(404, b"")
        usage = resource.getrusage(resource.RUSAGE_SELF)
        counts = dict(sorted(self.endpoint.counts.items()))
        answer = {
            "requests": sum(count for name, count in counts.items() if not name.startswith("error ")),
            "operations": counts,
            "keys": {name: len(bucket.objects) for name, bucket in self.endpoint.buckets.items()},
            "bytes_in": self.endpoint.bytes_in,
            "bytes_out": self.endpoint.bytes_out,
            "most_in_flight": self.most_in_flight,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "max_rss": usage.ru_maxrss * 1_024,
        }
        return Response(200, b"Content-Type: application/json\r\n", json.dumps(answer).encode())


class Connection(asyncio.BufferedProtocol):
    """One request at a time: what is pipelined waits in the buffer until the answer before it is written."""

    transport: asyncio.Transport

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop
        self.buffer = b""
        self.busy = False  # an answer is being waited for or written
        self.method = ""  # of the request whose body is being read
        self.target = ""
        self.headers: dict[str, str] = {}
        self.chunked = False
        self.missing = 0  # bytes of a body of known length still to come
        self.body = bytearray()  # of known length; empty when it is thrown away
        self.thrown_away = 0  # bytes
        self.decoder: ChunkDecoder | None = None
        self.paused = False
        self.rest = memoryview(b"")  # of a long body being written
        self.close = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=0)

    def get_buffer(self, sizehint: int) -> memoryview:
        if not self.missing:
            return self.server.scratch
        if not self.body:
            return self.server.scratch[: self.missing]
        return memoryview(self.body)[-self.missing :]

    def buffer_updated(self, count: int) -> None:
        if not self.missing:
            self.data_received(bytes(self.server.scratch[:count]))
            return
        self.missing -= count
        if not self.missing:
            body, self.body = self.body, bytearray()
            self._accept(body)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        self._advance()

    def _advance(self) -> None:
        while self.buffer and not self.busy:
            if self.decoder is not None:
                self.buffer = self.decoder.feed(self.buffer)
                if not self.decoder.finished:
                    return
                body, self.decoder = self.decoder.body(), None
                self._accept(body)
                continue
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self.buffer) > 65_536:
                    self.transport.abort()
                return
            head, self.buffer = self.buffer[:end].decode("latin-1"), self.buffer[end + 4 :]
            try:
                self._read_head(head)
            except ValueError:
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                self.transport.close()
                return

    def _read_head(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        self.method, self.target, version = first.split(" ")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self.headers = headers
        connection = headers.get("connection", "").lower()
        self.close = connection == "close" or (version == "HTTP/1.0" and connection != "keep-alive")
        if headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "transfer-encoding" in headers:
            self.decoder = ChunkDecoder()
            return
        length = int(headers.get("content-length") or 0)
        if length < 0:
            raise ValueError("negative length")
        have = len(self.buffer)
        if have >= length:
            body, self.buffer = (self.buffer[:length], self.buffer[length:]) if length else (b"", self.buffer)
            self._accept(body)
        else:
            self.thrown_away = length if self.server.sink and length > _SINK else 0
            if not self.thrown_away:
                self.body = bytearray(length)
                self.body[:have] = self.buffer
            self.buffer, self.missing = b"", length - have

    def _accept(self, body: bytes | bytearray) -> None:
        """A request is complete: answers it, now or after the delay."""
        server = self.server
        self.busy = True
        if self.target.startswith("/_"):
            self._write(server.control(self.method, self.target))
            return
        server.in_flight += 1
        if server.in_flight > server.most_in_flight:
            server.most_in_flight = server.in_flight
        if server.delay:
            self.loop.call_later(server.delay, self._answer_later, body)
        else:
            self._answer(body)

    def _answer_later(self, body: bytes | bytearray) -> None:
        self._answer(body)
        self._advance()

    def _answer(self, body: bytes | bytearray) -> None:
        headers = self.headers
        self.server.in_flight -= 1
        if body and (
            headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
            or "aws-chunked" in headers.get("content-encoding", "")
        ):
            decoder = ChunkDecoder()
            decoder.feed(bytes(body))
            body = decoder.body()
        thrown_away, self.thrown_away = self.thrown_away, 0
        self._write(self.server.endpoint.serve(self.method, self.target, headers, body, thrown_away))

    def _write(self, response: Response) -> None:
        status, lines, body, length = response
        if length < 0:
            length = len(body)
        head = b"%sDate: %s\r\nServer: s3-memory\r\nx-amz-request-id: 0\r\n%sContent-Length: %d\r\n%s\r\n" % (
            _STATUS_LINES[status],
            http_date(int(time.time())),
            lines,
            length,
            b"Connection: close\r\n" if self.close else b"",
        )
        if self.transport.is_closing():
            return
        if self.method == "HEAD" or status in (204, 304):
            if status in (204, 304):
                head = head.replace(b"Content-Length: 0\r\n", b"")
            self.transport.write(head)
        elif len(body) <= _SLICE:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.rest = memoryview(body)
            self._write_rest()
            return
        self._answered()

    def _write_rest(self) -> None:
        while self.rest and not self.paused:
            piece, self.rest = self.rest[:_SLICE], self.rest[_SLICE:]
            self.transport.write(piece)
        if not self.rest:
            self._answered()

    def _answered(self) -> None:
        self.busy = False
        if self.close:
            self.transport.close()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.rest:
            self._write_rest()
            self._advance()


class ChunkDecoder:
    """Takes a chunked body apart, HTTP's own or aws-chunked: each chunk is `size[;extension]` CRLF bytes CRLF."""

    def __init__(self) -> None:
        self.finished = False
        self._parts: list[bytes] = []
        self._left = -1  # bytes of the current chunk, with its CRLF, still to come; -1: a size line comes next
        self._trailer = False

    def feed(self, data: bytes) -> bytes:
        """Takes what it can; returns what it could not use yet, or what lies behind the body once finished."""
        at = 0
        while not self.finished:
            if self._left > 0:
                piece = data[at : at + self._left]
                if not piece:
                    return b""
                at += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._left = -1
                    piece = piece[:-2]
                elif self._left == 1:
                    piece = piece[:-1]
                self._parts.append(piece)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                return data[at:]
            line = data[at:end]
            at = end + 2
            if self._trailer:
                self.finished = not line
            elif size := int(line.partition(b";")[0], 16):
                self._left = size + 2
            else:
                self._trailer = True
        return data[at:]

    def body(self) -> bytes:
        return b"".join(self._parts)


def load_tree(bucket: Bucket, folder: Path) -> None:
    def items() -> Iterator[tuple[str, Object]]:
        for path in folder.rglob("*"):
            if path.is_file():
                body = path.read_bytes()
                status = path.stat()
                yield path.relative_to(folder).as_posix(), Object(body, len(body), md5(body), int(status.st_mtime))

    bucket.load(items())


def load_generated(bucket: Bucket, shape: Shape) -> None:
    bucket.load(
        (entry.key, Object(entry.body, entry.size, md5(entry.body), entry.mtime))
        for entry in generate(shape).entries()
    )


async def run(arguments: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    server = Server(arguments.delay / 1_000, arguments.sink)
    bucket = server.endpoint.buckets.setdefault(arguments.bucket, Bucket())
    gc.disable()
    if arguments.generate:
        load_generated(bucket, Shape(keys=arguments.generate, seed=arguments.seed))
    if arguments.tree:
        load_tree(bucket, arguments.tree)
    gc.freeze()
    gc.enable()
    listening = await loop.create_server(
        lambda: Connection(server, loop), "127.0.0.1", arguments.port, backlog=1_024
    )
    port = listening.sockets[0].getsockname()[1]
    print(f"listening on http://127.0.0.1:{port}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    listening.close()


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument(
        "--delay", type=float, default=0.0, metavar="MS", help="milliseconds added to every request"
    )
    parser.add_argument("--bucket", default="bench", help="made at start")
    parser.add_argument("--generate", type=int, metavar="KEYS", help="fill the bucket with a generated registry")
    parser.add_argument("--seed", type=int, default=1, help="of the generated registry")
    parser.add_argument("--sink", action="store_true", help="throw large bodies away")
    parser.add_argument("--tree", type=Path, metavar="FOLDER", help="fill the bucket with a folder's files")
    arguments = parser.parse_args()
    with contextlib.suppress(ImportError):
        import uvloop  # type: ignore[import-not-found,unused-ignore]

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
