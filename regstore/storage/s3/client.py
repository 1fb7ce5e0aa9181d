"""Signed requests to one bucket: sent, counted, retried, and refusals told in regstore's errors."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from regstore.errors import AccessDenied, RegstoreError, Unreachable
from regstore.events import Retry
from regstore.storage.base import Counters
from regstore.storage.limit import check_limit, wait_for_turn
from regstore.storage.s3.aws_config import open_config
from regstore.storage.s3.credentials import CredentialSource
from regstore.storage.s3.failures import Malformed, Place, Refusal, WebPage, refused, unreachable, web_page
from regstore.storage.s3.http import NotConnected, Response, Server
from regstore.storage.s3.pieces import Pieces
from regstore.storage.s3.settings import (
    Endpoint,
    S3Settings,
    by_aiohttp,
    make_endpoint,
    proxy_for,
    tls_context,
)
from regstore.storage.s3.sigv4 import EMPTY_SHA256, Credentials, Signer, encode_query
from regstore.storage.s3.streamed import Streamed
from regstore.storage.s3.xml import parse_refusal

if TYPE_CHECKING:
    from regstore.storage.s3.proxied import ProxiedServer

T = TypeVar("T")

CONNECT_TIMEOUT: Final = 10.0
READ_TIMEOUT: Final = 60.0
#: For a request that moves gigabytes inside the server before it answers.
LONG_TIMEOUT: Final = 600.0
#: Bytes a second below which an upload is given up.
SLOWEST: Final = 50_000
#: A request that has failed: refused, or not answered in full. What the transport raises is an OSError.
FAILED: Final = (Refusal, Malformed, OSError)
_USER_AGENT: Final = "regstore"
_READS: Final = ("GetObject", "HeadObject")
#: Bodies above this many bytes are hashed in a thread, and written in slices of so many.
_SLICE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Header names are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def refusal(self) -> Refusal:
        found = parse_refusal(self.status, self.body)
        found.region = self.headers.get("x-amz-bucket-region", "") or found.region
        wait = self.headers.get("retry-after", "")
        found.wait = float(wait) if wait.isdigit() else 0.0
        return found


class Request(NamedTuple):
    """operation: S3's name. key: the full key, "" for the bucket. sha256: of the body, in hex."""

    operation: str
    method: str
    key: str
    query: Iterable[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes | Pieces | Streamed
    sha256: str


class SignedClient:
    """Requests to one bucket. Every try is counted under S3's name for it."""

    def __init__(self, settings: S3Settings, counters: Counters) -> None:
        self.settings = settings
        self.counters = counters
        self._config = open_config(settings.profile)
        self.endpoint: Endpoint = make_endpoint(settings, self._config)
        root = f"{settings.root}/" if settings.root else ""
        self.place = Place(settings.url, settings.bucket, self.endpoint.url, self.endpoint.region, root)
        self.credentials = CredentialSource(settings, self._config)
        self._by_aiohttp = by_aiohttp(settings)
        self._signer = Signer(self.endpoint.region)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._server: Server | ProxiedServer | None = None
        self._answered = False
        #: Whether anything has come that only S3 says.
        self._understood = False

    async def close(self) -> None:
        await self.credentials.close()
        if self._server is not None:
            await self._server.close()
            self._server = None

    def _connect(self) -> Server | ProxiedServer:
        if self._server is None:
            endpoint = self.endpoint
            tls = tls_context(self.settings, self._config) if endpoint.scheme == "https" else None
            proxy = proxy_for(endpoint)
            if proxy is not None or self._by_aiohttp:
                from regstore.storage.s3.proxied import ProxiedServer

                origin = f"{endpoint.scheme}://{endpoint.host}"
                self._server = ProxiedServer(origin, proxy, tls, connect_timeout=CONNECT_TIMEOUT)
            else:
                host, port = endpoint.address
                self._server = Server(host, port, tls, connect_timeout=CONNECT_TIMEOUT)
        return self._server

    def error(self, refusal: Refusal, operation: str, key: str) -> RegstoreError:
        return refused(refusal, operation, key, self.place)

    async def call(
        self,
        operation: str,
        method: str,
        key: str = "",
        *,
        parse: Callable[[Answer], T],
        query: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | Pieces | Streamed = b"",
        sha256: str = "",
        accept: tuple[int, ...] = (200,),
        about: str = "",
        retried: list[Exception] | None = None,
        patience: float = READ_TIMEOUT,
        broken: int | None = None,
    ) -> T:
        """Send until `parse` of an answer with an accepted status succeeds, and return what it gives.

        operation: S3's name, for counters and messages. key: the full key, "" for the bucket. sha256: of the body,
        in hex, where it is known. about: what a message names instead of the key. parse may raise Malformed (a
        failed request) or Refusal (an error in a 200). retried: gets the error of each try that failed and was
        repeated. patience: seconds without a byte of an answer before a try is given up. broken: connections that
        may break before it is given up, where that is less than the policy's tries. Raises regstore's errors, and what
        reading a Streamed body raises.
        """
        if self.settings.read_only and method not in ("GET", "HEAD"):
            raise AccessDenied(f"{self.place.url} was opened to be looked at only: no {operation} is sent")
        body, sha256 = await _hashed(body, sha256)
        request = Request(operation, method, key, query, headers or {}, body, sha256)
        attempt = 0
        while True:
            attempt += 1
            try:
                credentials = await self.credentials.get()
                answer = await self._answer(request, credentials, self._patience(patience, attempt))
                self._answered = True
                self.counters.bytes_read += len(answer.body)
                if answer.status not in accept:
                    raise answer.refusal()
                result = parse(answer)
                self._understood = self._understood or bool(answer.body)
                self.counters.bytes_written += len(body)
                return result
            except FAILED as error:
                if isinstance(body, Streamed) and body.error is not None:
                    raise body.error from None
                wait = await self._wait(error, attempt, credentials, operation, about or key, broken)
                if retried is not None:
                    retried.append(error)
            await asyncio.sleep(wait)

    async def _answer(self, request: Request, credentials: Credentials, patience: float) -> Answer:
        """One try, and all of its answer."""
        body = request.body
        async with self._slots:
            if isinstance(body, Streamed):
                async with body.opened() as data:
                    response = await self._send(request, data, credentials, patience)
                    return Answer(response.status, response.headers, await response.read())
            sent = _slices(body) if isinstance(body, Pieces) else body
            response = await self._send(request, sent, credentials, patience)
            return Answer(response.status, response.headers, await response.read())

    async def _wait(
        self,
        error: Exception,
        attempt: int,
        credentials: Credentials,
        operation: str,
        about: str,
        broken: int | None = None,
    ) -> float:
        """Seconds until the next try; raises when there is none. broken: as in `call`."""
        if await self._renewed(error, attempt, credentials):
            return 0.0
        return self._judge(error, attempt, operation, about, broken)

    async def _renewed(self, error: Exception, attempt: int, credentials: Credentials) -> bool:
        """Whether the request failed for credentials that have expired, and there are new ones."""
        if not isinstance(error, Refusal) or not error.expired or attempt >= self.settings.retries.tries:
            return False
        if not await self.credentials.replace(credentials):
            return False
        self.counters.retries += 1
        return True

    def _judge(
        self, error: Exception, attempt: int, operation: str, about: str, broken: int | None = None
    ) -> float:
        """Seconds until the next try; raises when there is none. broken: as in `call`."""
        policy = self.settings.retries
        what = f"{operation} of {self.place.relative(about)}" if about else operation
        asked = 0.0
        tries = policy.tries
        if isinstance(error, Refusal):
            if not error.transient or attempt >= tries:
                raise refused(error, operation, about, self.place) from error
            asked = error.wait if error.asks_to_wait else 0.0
        elif isinstance(error, WebPage) and not self._understood:
            raise web_page(what, self.place.endpoint) from error
        elif isinstance(error, Malformed):
            if attempt >= tries:
                raise Unreachable(f"{self.place.endpoint} kept answering {what} with a broken body") from error
        elif isinstance(error, RegstoreError):
            raise error
        else:
            if isinstance(error, NotConnected) and (error.untrusted or error.plain):
                tries = 1
            elif isinstance(error, (NotConnected, TimeoutError)) and not self._answered:
                tries = min(tries, policy.first_contact)
            elif isinstance(error, TimeoutError) and operation in _READS:
                tries = min(tries, policy.unanswered)
            elif broken is not None:
                tries = min(tries, broken)
            if attempt >= tries:
                raise unreachable(error, what, self.place.endpoint) from error
        self.counters.retries += 1
        self.settings.on_event(
            Retry(operation=operation, key=self.place.relative(about), attempt=attempt, reason=_reason(error))
        )
        return policy.delay(attempt, asked)

    def _patience(self, patience: float, attempt: int) -> float:
        """Less of it where nothing has been answered yet: this may be no server of S3 at all."""
        return patience if self._answered else min(patience, self.settings.retries.first_patience * attempt)

    async def _send(
        self,
        request: Request,
        data: bytes | AsyncIterator[bytes | memoryview],
        credentials: Credentials,
        patience: float,
    ) -> Response:
        """One try, signed now. data: the request's body as it is sent. The answer's is still to be read, or the
        response to be closed."""
        await wait_for_turn()
        endpoint, method, length = self.endpoint, request.method, len(request.body)
        path = endpoint.path(request.key)
        canonical = encode_query(request.query)
        signed = self._signer.headers(
            credentials,
            method,
            path,
            canonical,
            {"host": endpoint.host, **request.headers},
            request.sha256,
        )
        if canonical:
            # Some servers know a sub-resource (`?uploads`) only without the equals sign.
            path += "?" + "&".join(part[:-1] if part.endswith("=") else part for part in canonical.split("&"))
        if length or method in ("PUT", "POST"):
            signed["content-length"] = str(length)
        signed["user-agent"] = _USER_AGENT
        self.counters.count(request.operation)
        check_limit()
        limit = CONNECT_TIMEOUT + patience + length / SLOWEST
        return await self._connect().request(method, path, signed, data, patience=patience, limit=limit)

    async def presigned_url(self, key: str, *, seconds: int) -> str:
        """As `Presigns`."""
        endpoint = self.endpoint
        path = endpoint.path(key)
        query = self._signer.presigned(await self.credentials.get(), "GET", path, endpoint.host, seconds=seconds)
        return f"{endpoint.scheme}://{endpoint.host}{path}?{query}"

    @asynccontextmanager
    async def open(
        self, key: str, *, headers: Mapping[str, str], accept: tuple[int, ...], attempts: int = 0
    ) -> AsyncIterator[Response]:
        """A GET whose body is still to be read. Retried until the headers are here; `attempts` were used up."""
        request = Request("GetObject", "GET", key, (), headers, b"", EMPTY_SHA256)
        while True:
            attempts += 1
            try:
                credentials = await self.credentials.get()
                async with self._slots:
                    response = await self._send(request, b"", credentials, self._patience(READ_TIMEOUT, attempts))
                    if response.status not in accept:
                        raise Answer(response.status, response.headers, await response.read()).refusal()
                self._answered = True
            except FAILED as error:
                wait = await self._wait(error, attempts, credentials, "GetObject", key)
            else:
                break
            await asyncio.sleep(wait)
        try:
            yield response
        finally:
            # Not drained: what is left of the body may be gigabytes. After the end this does nothing.
            response.close()

    def broken(self, error: Exception, attempt: int, operation: str, key: str) -> float:
        """For a stream that broke after its headers: seconds until the next try, or raises."""
        return self._judge(error, attempt, operation, key)


async def _hashed(body: bytes | Pieces | Streamed, sha256: str) -> tuple[bytes | Pieces | Streamed, str]:
    """The body, as pieces where it is large, and its hash, unless that is known."""
    if isinstance(body, Streamed):
        return body, body.sha256
    if isinstance(body, bytes):
        if len(body) <= _SLICE:
            return body, sha256 or (hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256)
        body = Pieces((body,), len(body))
    return body, sha256 or await asyncio.to_thread(body.hashed, hashlib.sha256())


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _slices(body: Pieces) -> AsyncIterator[bytes | memoryview]:
    """Parts small enough not to hold up the loop."""
    for piece in body:
        if len(piece) <= _SLICE:
            yield piece
            continue
        view = memoryview(piece)
        for at in range(0, len(view), _SLICE):
            yield view[at : at + _SLICE]
