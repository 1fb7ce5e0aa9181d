"""The same requests by aiohttp: through a proxy (HTTP_PROXY, HTTPS_PROXY), whose ways it knows, or as the other
transport (`S3Settings.transport`)."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regstore.storage.s3.http import KEPT, NOT_TLS, NotConnected, Response

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp


class ProxiedServer:
    """Like `http.Server`, with the same errors, behind `proxy` (a URL) where there is one."""

    def __init__(
        self, origin: str, proxy: str | None, tls: ssl.SSLContext | None, *, connect_timeout: float
    ) -> None:
        """origin: scheme and host, as in a URL."""
        self._origin = origin
        self._proxy = proxy
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True, keepalive_timeout=KEPT),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type"),
                read_bufsize=512 * 1024,
            )
            # aiohttp would repeat a PUT by itself on a kept-alive connection that breaks: uncounted, and a
            # conditional create would find what its own first try has made.
            self._session._retry_connection = False
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

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
        import aiohttp
        import yarl

        end = asyncio.get_running_loop().time() + limit
        with _translated("through the proxy: " if self._proxy else ""):
            async with asyncio.timeout_at(end):
                response = await self._open().request(
                    method,
                    yarl.URL(self._origin + target, encoded=True),
                    headers=dict(headers),
                    data=body or None,
                    allow_redirects=False,
                    proxy=self._proxy,
                    timeout=aiohttp.ClientTimeout(
                        total=None, sock_connect=self._connect_timeout, sock_read=patience
                    ),
                )
        return _Answer(response, end)


class _Answer:
    def __init__(self, response: aiohttp.ClientResponse, end: float) -> None:
        self._response = response
        self._end = end
        self.status = response.status
        self.headers = response.headers

    async def read(self) -> bytes:
        with _translated():
            async with asyncio.timeout_at(self._end):
                return await self._response.read()

    async def chunks(self) -> AsyncIterator[bytes]:
        with _translated():
            async for chunk in self._response.content.iter_any():
                yield chunk

    def close(self) -> None:
        self._response.close()


def without_secrets(text: str) -> str:
    """A message without what stands before the @ of a URL: a proxy's URL may hold a password."""
    return re.sub(r"://[^/\s]*@", "://", text)


@contextmanager
def _translated(where: str = "") -> Iterator[None]:
    """aiohttp's errors as those of `http`. where: before the reason of a connection that can't be made."""
    import aiohttp

    try:
        yield
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError) as error:
        plain = any(reason in str(error) for reason in NOT_TLS)
        raise NotConnected(str(error), untrusted=not plain, plain=plain) from error
    except aiohttp.ClientConnectorDNSError as error:
        raise NotConnected(str(error), no_address=True) from error
    except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.InvalidURL) as error:
        raise NotConnected(where + without_secrets(str(error))) from error
    except TimeoutError:
        raise TimeoutError("no answer in time") from None
    except aiohttp.ClientError as error:
        raise ConnectionError(without_secrets(str(error)) or type(error).__name__) from error
