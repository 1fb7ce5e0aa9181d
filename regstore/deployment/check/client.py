"""HTTP to one registry: as few words as a client needs, and no answer is a sentence.

Nothing is unpacked, followed or tried again behind the caller's back, for what a server really does is what is asked.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from regstore.deployment.check.place import Place
from regstore.deployment.check.reaching import Reached
from regstore.errors import Unreachable
from regstore.hosts import bracketed

#: Bytes of an answer. All that is asked for is far smaller.
_MOST: Final = 4 << 20
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "regstore"}
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Answer:
    """request: `GET /v2/`, for messages. headers: names in lower case."""

    request: str
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    user: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class Client:
    """Use it as an async context manager. timeout: seconds of one request, with its answer."""

    def __init__(self, place: Place, reached: Reached, context: ssl.SSLContext | None, timeout: float) -> None:
        self.place = place
        self._base = f"{place.scheme}://{bracketed(reached.host)}:{reached.port}"
        self._context = context
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Content-Type",),
            max_line_size=64 << 10,
            max_field_size=64 << 10,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def ask(
        self,
        method: str,
        target: str,
        *,
        credentials: Credentials | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """target: a path, with its query. Unreachable where there is no whole answer in HTTP."""
        sent = {**_HEADERS, "Host": self.place.authority, **(headers or {})}
        if credentials is not None:
            sent["Authorization"] = credentials.header
        request = f"{method} {target.partition('?')[0]}"
        return await self._send(method, request, self._base + target, sent, body, server_hostname=self.place.host)

    async def follow(self, url: str, accept: Mapping[str, str]) -> Answer:
        """GET of an address elsewhere, with no password. Unreachable."""
        parts = urlsplit(url)
        request = f"GET {parts.scheme}://{parts.netloc}{parts.path}"
        return await self._send("GET", request, url, {**_HEADERS, **accept}, None, server_hostname=None)

    async def _send(
        self,
        method: str,
        request: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        server_hostname: str | None,
    ) -> Answer:
        tls = url.startswith("https://")
        try:
            async with self._session.request(
                method,
                URL(url, encoded=True),
                data=body,
                headers=headers,
                allow_redirects=False,
                ssl=self._context if tls and self._context is not None else True,
                server_hostname=server_hostname if tls else None,
            ) as response:
                found = await _limited(response, request)
                fields = {name.lower(): value for name, value in response.headers.items()}
                return Answer(request, response.status, fields, found)
        except TimeoutError:
            raise Unreachable(f"{request} was not answered within {self._timeout:g} s") from None
        except aiohttp.ClientSSLError as error:
            raise Unreachable(f"{request}: TLS failed: {error.os_error or error}") from error
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"{request}: no connection: {error.os_error.strerror or error.os_error}") from error
        except aiohttp.ServerDisconnectedError as error:
            raise Unreachable(f"{request}: the connection was closed without an answer") from error
        except aiohttp.ClientPayloadError as error:
            raise Unreachable(f"{request}: the answer ended before its end") from error
        except aiohttp.ClientResponseError as error:
            raise Unreachable(f"{request}: the answer is not HTTP") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(f"{request}: {error or type(error).__name__}") from error


async def _limited(response: aiohttp.ClientResponse, request: str) -> bytes:
    parts: list[bytes] = []
    total = 0
    async for data in response.content.iter_any():
        total += len(data)
        if total > _MOST:
            raise Unreachable(f"{request}: the answer has no end (more than {_MOST >> 20} MiB)")
        parts.append(data)
    return b"".join(parts)
