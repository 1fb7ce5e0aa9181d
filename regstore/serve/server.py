"""The listening server: one origin, with passwords and TLS where asked, and safe answers whatever happens inside."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import hdrs, web

from regstore.errors import InputError, Refused, RegstoreError
from regstore.events import Notice, OnEvent, ignore
from regstore.hosts import bracketed, is_loopback
from regstore.serve.access import Passwords
from regstore.serve.answers import TOLD, ApiError, error_response
from regstore.serve.api import RegistryApi
from regstore.serve.bodies import send_whole
from regstore.serve.certificate import Certificate
from regstore.serve.connections import Gate, GatedSite, accept_errors_told, most_connections
from regstore.serve.metrics import CONTENT_TYPE, Figures, Requests, metrics
from regstore.serve.mounts import Mounts
from regstore.serve.proxies import NO_PROXIES, Proxies
from regstore.serve.rendering import ASKED_HOST, static

#: Seconds in which a client must have sent a request's head, and after which an idle connection is closed.
IDLE: Final = 60.0
#: Seconds that answers under way may still take when the server is told to stop.
LAST: Final = 30.0
#: No page of ours needs more than its own origin; an answer of the API is no page at all.
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
#: What aiohttp says of requests that are none, with tracebacks: whoever can connect could fill a log.
_NOBODY: Final = logging.Logger("regstore.serve", level=logging.CRITICAL + 1)
#: What looks again at files that may have changed: passwords, the certificate.
LOOKS: Final = web.AppKey("looks", list[Callable[[], None]])
#: Asked for by monitors, who have no password; it says nothing of the store but that it answers.
HEALTH: Final = "/healthz"

_MISDIRECTED: Final = "this server does not go by that name: start it with --registry-url, or --without-password"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """host, port: where to listen; no host is every address, port 0 takes a free one. tls_cert, tls_key: PEM files,
    both or none.

    open_to_all: listen on an address that others can reach though there is no password. redirect: send clients to the
    store itself for blobs, by addresses that are good for a while, where it has such (S3). names: under which clients
    may ask, without a password, besides addresses and `localhost`. proxies: whose `X-Forwarded-For` and
    `X-Forwarded-Host` count. connections: as many at a time; None: what the limit of open files allows.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    htpasswd: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    open_to_all: bool = False
    redirect: bool = False
    names: frozenset[str] = frozenset()
    proxies: Proxies = NO_PROXIES
    connections: int | None = None

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("--tls-cert and --tls-key belong together: give both")
        if not 0 <= self.port < 65536:
            raise InputError(f"{self.port} is no port: give 1 to 65535, or 0 for a free one")
        if not (is_loopback(self.host) or self.htpasswd is not None or self.open_to_all):
            raise Refused(
                f"{self.host or 'Every address'} can be reached by others, and there is no password: give --htpasswd "
                "FILE, or --without-password where everybody may read everything"
            )


def parse_listen(text: str) -> tuple[str, int]:
    """`127.0.0.1:5000`, `[::1]:5000`, `:5000` (every address), `localhost:0`. InputError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InputError(
            f"{text!r} is no address to listen on: give HOST:PORT, such as 127.0.0.1:5000 or [::1]:5000"
        )
    return host, int(port)


class PagesOf(Protocol):
    """Pages of a store, or of a backup."""

    def add_to(self, application: web.Application) -> None:
        """Add their addresses."""
        ...

    async def figures(self) -> Figures:
        """What they know, for `/metrics`."""
        ...


def make_application(
    mounts: Mounts, options: ServeOptions, *, pages: PagesOf | None = None, on_event: OnEvent = ignore
) -> web.Application:
    """All that is served, for any runner of aiohttp: the registry API, and the pages."""
    passwords = None
    if options.htpasswd is not None:
        passwords = Passwords(options.htpasswd, proxies=options.proxies, on_event=on_event)

    requests = Requests()

    async def show_metrics(request: web.Request) -> web.StreamResponse:
        text = await metrics(await pages.figures() if pages is not None else Figures(), requests)
        return web.Response(body=text.encode(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})

    @web.middleware
    async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
        requests.under_way += 1
        try:
            response = await handler(request)
            requests.answered[_method(request), response.status] += 1
            await send_whole(request, response)
        finally:
            requests.under_way -= 1
        return response

    async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers[hdrs.SERVER] = "regstore"  # not what it is built on

    application = web.Application(
        middlewares=[counted, _guard(options, passwords, on_event)], client_max_size=64 * 1024
    )
    application[LOOKS] = [passwords.look] if passwords is not None else []
    application.on_response_prepare.append(on_prepare)
    application.router.add_get(HEALTH, _health)
    application.router.add_get("/metrics", show_metrics)
    RegistryApi(mounts, redirect=options.redirect).add_to(application)
    if pages is not None:
        pages.add_to(application)
        application.router.add_get("/static/{name}", static)
    return application


def _guard(options: ServeOptions, passwords: Passwords | None, on_event: OnEvent) -> Any:
    """A middleware that lets in who may, and makes an answer of whatever goes wrong."""

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            await _let_in(request, options, passwords)
            request[ASKED_HOST] = options.proxies.host(request)
            response = await handler(request)
        except ApiError as error:
            response = error_response(error)
        except web.HTTPException as error:
            response = error_response(
                ApiError(error.status, "UNSUPPORTED", HTTPStatus(error.status).phrase.lower())
            )
        except (ConnectionError, asyncio.CancelledError):
            raise  # the client has gone
        except Exception as error:  # noqa: BLE001  # a mistake in here must not say more to a client than that
            request[TOLD] = error
            response = error_response(ApiError(500, "UNKNOWN", "this answer could not be made"))
        told = request.get(TOLD)
        if told is not None and response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            on_event(Notice(message=_line(request, told)))
        return response

    return around


async def _let_in(request: web.Request, options: ServeOptions, passwords: Passwords | None) -> None:
    """ApiError for whom this server does not answer."""
    if request.path == HEALTH or (passwords is None and options.open_to_all):
        return
    if passwords is not None:
        await passwords.check(request)
    elif not _is_ours(request.headers.get(hdrs.HOST, ""), options.names):
        raise ApiError(HTTPStatus.MISDIRECTED_REQUEST, "DENIED", _MISDIRECTED)


def _is_ours(host: str, names: frozenset[str]) -> bool:
    """Whether a `Host` header says an address, this computer, or a name that was told. Any other could be a name that
    leads here from a page in somebody's browser ("DNS rebinding"), and let that page read everything."""
    name = (host.rpartition(":")[0] if re.search(r":\d*$", host) else host).strip("[]").rstrip(".").lower()
    if not name or name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _method(request: web.Request) -> str:
    """A client may send any word as a method: those that nobody uses are counted as one."""
    return request.method if request.method in hdrs.METH_ALL else "other"


async def _health(request: web.Request) -> web.StreamResponse:
    return web.Response(text="ok\n")


def _line(request: web.Request, error: Exception) -> str:
    """One line for the log; what came from outside is quoted."""
    what = str(error) if isinstance(error, RegstoreError) else f"{type(error).__name__}: {error}"
    return f"{request.method} {request.raw_path[:200]!r}: {what}"


@asynccontextmanager
async def serving(
    application: web.Application, options: ServeOptions, *, on_event: OnEvent = ignore
) -> AsyncGenerator[list[tuple[str, int]], None]:
    """Listen, and give the addresses; leaving ends it, answers under way have `LAST` seconds. InputError where the
    address can't be listened on, or the certificate is none."""
    async with AsyncExitStack() as stack:
        certificate = None
        if options.tls_cert is not None and options.tls_key is not None:
            certificate = Certificate(options.tls_cert, options.tls_key, on_event=on_event)
            application[LOOKS].append(certificate.look)
            await stack.enter_async_context(certificate.kept())
        stack.enter_context(accept_errors_told(on_event))
        runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=IDLE,
            handler_cancellation=True,
            logger=_NOBODY,
            shutdown_timeout=LAST,
            max_line_size=8190,
            max_field_size=8190,
        )
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        most = options.connections if options.connections is not None else most_connections()
        site = GatedSite(
            runner,
            options.host,
            options.port,
            lambda server: Gate(server, most, on_event),
            tls=certificate.context if certificate is not None else None,
            backlog=512,
        )
        try:
            await site.start()
        except OSError as error:
            raise InputError(f"can't listen on {options.host}:{options.port}: {error.strerror or error}") from error
        yield [tuple(each[:2]) for each in runner.addresses]


def url_of(options: ServeOptions, address: tuple[str, int]) -> str:
    """How a client on this computer reaches it."""
    host, port = address
    return f"{'https' if options.tls_cert else 'http'}://{bracketed(host)}:{port}"
