"""Processor time of a small request: regstore's S3 storage, its bare transport, aiohttp and obstore, in turn.

    python -m benchmarks.small_requests [--count 20000] [--workers 64] [--repeat 3] [--clients NAME,NAME]

Each client puts so many objects of 71 bytes (a link) into the endpoint of `s3_memory`, and gets them again. Told is
the processor time of the client's process alone, a request, in microseconds: medians in a Markdown table. `http` and
`aiohttp` sign as regstore does; obstore (`pip install obstore`), Rust's object_store, signs for itself.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.util
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

from benchmarks.measure import ROOT, Endpoint, environment, machine, table
from regstore.concurrency import for_each

BODY = b"sha256:" + b"0" * 64
SHA256 = hashlib.sha256(BODY).hexdigest()
PATIENCE = 60.0
CLIENTS = ("storage", "http", "aiohttp", "obstore")

Request = Callable[[str, str], Awaitable[object]]  # method, key


async def _storage(url: str, stack: AsyncExitStack) -> Request:
    from regstore.storage.s3 import S3Settings, S3Storage

    settings = S3Settings(bucket="bench", endpoint_url=url, region="us-east-1", path_style=True)
    storage = await stack.enter_async_context(S3Storage(settings))

    async def request(method: str, key: str) -> object:
        return await (storage.put(key, BODY) if method == "PUT" else storage.get(key))

    return request


def _signed(url: str) -> Callable[[str, str], tuple[str, dict[str, str], bytes]]:
    from regstore.storage.s3.sigv4 import EMPTY_SHA256, Credentials, Signer

    signer, credentials, host = Signer("us-east-1"), Credentials("bench", "bench-secret"), urlsplit(url).netloc

    def sign(method: str, key: str) -> tuple[str, dict[str, str], bytes]:
        path, body = f"/bench/{key}", BODY if method == "PUT" else b""
        headers = signer.headers(credentials, method, path, "", {"host": host}, SHA256 if body else EMPTY_SHA256)
        if body:
            headers["content-length"] = str(len(body))
        return path, headers, body

    return sign


async def _http(url: str, stack: AsyncExitStack) -> Request:
    from regstore.storage.s3.http import Server

    parts, sign = urlsplit(url), _signed(url)
    server = Server(parts.hostname or "", parts.port or 80, None, connect_timeout=PATIENCE)
    stack.push_async_callback(server.close)

    async def request(method: str, key: str) -> object:
        path, headers, body = sign(method, key)
        answer = await server.request(method, path, headers, body, patience=PATIENCE, limit=2 * PATIENCE)
        assert answer.status == 200
        return await answer.read()

    return request


async def _aiohttp(url: str, stack: AsyncExitStack) -> Request:
    import aiohttp
    import yarl

    sign = _signed(url)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE, sock_read=PATIENCE)
    session = await stack.enter_async_context(
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type"),
            timeout=timeout,
        )
    )

    async def request(method: str, key: str) -> object:
        path, headers, body = sign(method, key)
        target = yarl.URL(url + path, encoded=True)
        async with asyncio.timeout(2 * PATIENCE):
            response = await session.request(method, target, headers=headers, data=body or None)
            assert response.status == 200
            return await response.read()

    return request


async def _obstore(url: str, stack: AsyncExitStack) -> Request:
    from obstore.store import S3Store  # type: ignore[import-not-found,unused-ignore]

    store = S3Store(
        "bench",
        endpoint=url,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    async def request(method: str, key: str) -> object:
        if method == "PUT":
            return await store.put_async(key, BODY)
        return bytes(await (await store.get_async(key)).bytes_async())

    return request


OPEN: dict[str, Callable[[str, AsyncExitStack], Awaitable[Request]]] = {
    "storage": _storage,
    "http": _http,
    "aiohttp": _aiohttp,
    "obstore": _obstore,
}


async def _run(client: str, url: str, count: int, workers: int) -> list[float]:
    """Microseconds of processor time a PUT and a GET."""
    found = []
    async with AsyncExitStack() as stack:
        request = await OPEN[client](url, stack)
        await request("PUT", "warm")
        for method in ("PUT", "GET"):
            keys: Iterator[str] = (f"key-{number:08d}" for number in range(count))
            before = time.process_time()

            async def one(key: str, method: str = method) -> None:
                await request(method, key)

            await for_each(keys, one, concurrency=workers)
            found.append((time.process_time() - before) / count * 1e6)
    return found


def _measure(client: str, url: str, arguments: argparse.Namespace) -> list[float]:
    """In a process of its own."""
    words: list[Any] = ["--only", client, "--url", url, "--count", arguments.count, "--workers", arguments.workers]
    command = [sys.executable, "-m", "benchmarks.small_requests", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--only", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(*asyncio.run(_run(arguments.only, arguments.url, arguments.count, arguments.workers)))
        return 0
    chosen = [
        name for name in arguments.clients.split(",") if importlib.util.find_spec(name) or name in CLIENTS[:2]
    ]
    results: dict[str, list[list[float]]] = {name: [] for name in chosen}
    described = machine()
    with Endpoint() as endpoint:
        for _ in range(arguments.repeat):
            for name in chosen:
                endpoint.empty("bench")
                results[name].append(_measure(name, endpoint.url, arguments))
    rows = [
        [name, *(f"{statistics.median(run[at] for run in runs):.0f} us" for at in (0, 1))]
        for name, runs in results.items()
    ]
    print(f"{described}. Median of {arguments.repeat} runs.\n")
    print(table(("", "PUT of 71 bytes", "GET"), rows))
    print(f"\nRepeat: `{shlex.join(['python', '-m', 'benchmarks.small_requests', *sys.argv[1:]])}`")
    return 0


if __name__ == "__main__":
    os.environ.pop("AWS_ENDPOINT_URL", None)
    sys.exit(main())
