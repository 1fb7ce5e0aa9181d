"""`regstore serve`: a read-only registry straight from a store or a backup."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regstore.cli.command import command
from regstore.cli.conduct import answer_now
from regstore.cli.outcome import Result
from regstore.cli.output import emit_error, emit_note
from regstore.cli.progress import retries
from regstore.cli.run import run_async
from regstore.cli.settings import StoreSettings
from regstore.cli.values import parse_duration
from regstore.cli.workers import Workers
from regstore.errors import InputError
from regstore.events import OnEvent

if TYPE_CHECKING:
    from regstore.serve.opening import PageOptions
    from regstore.serve.server import ServeOptions


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where a server listens, and who may ask it."""

    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")] = (
        "127.0.0.1:5000"
    )
    htpasswd: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Users and their bcrypt hashes (htpasswd -B)."),
    ] = None
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default=False, help="Certificate, PEM, with its chain.")
    ] = None
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", show_default=False, help="Its key, PEM.")] = None
    without_password: Annotated[
        bool,
        typer.Option("--without-password", help="Listen beyond this computer with no password: all may read all."),
    ] = False

    redirect: Annotated[
        bool,
        typer.Option("--redirect", help="Send clients to S3 itself for blobs, by addresses good for 20 minutes."),
    ] = False

    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            "--trusted-proxy",
            metavar="ADDRESS|NETWORK",
            show_default=False,
            help="A proxy whose X-Forwarded-For says who asks; may be repeated.",
        ),
    ] = None

    def options(self, names: Iterable[str] = ()) -> ServeOptions:
        from regstore.serve.proxies import Proxies
        from regstore.serve.server import ServeOptions, parse_listen

        host, port = parse_listen(self.listen)
        return ServeOptions(
            host=host,
            port=port,
            htpasswd=self.htpasswd,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            open_to_all=self.without_password,
            redirect=self.redirect,
            names=frozenset(name.lower() for name in names),
            proxies=Proxies.parse(self.trusted_proxy or ()),
        )


@command
def serve(
    settings: StoreSettings,
    *,
    listening: Listening,
    snapshot: Annotated[
        str,
        typer.Option(
            metavar="ID|latest|TIME",
            show_default=False,
            help="Of a backup: serve this snapshot only, under its own names.",
        ),
    ] = "",
    refresh: Annotated[
        str, typer.Option(metavar="DURATION", help="How often the pages' index is made anew, at most.")
    ] = "60s",
    registry_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", show_default=False, help="The registry that images are pulled from, as the pages say it."
        ),
    ] = None,
    workers: Workers,
) -> Result:
    """Serve a store or a backup as a read-only registry with pages to look at, until interrupted.

    No registry needs to run, and nothing is written. What is pulled is asked of the store as it is then; the pages are
    made from an index, which is made anew in the background. STORE may be a backup: then every snapshot is there under
    its own ID, and the newest as `latest/…`.
    """
    from regstore.inventory.scan import ScanOptions
    from regstore.serve.opening import PageOptions

    host = _host(registry_url)
    shown = PageOptions(
        refresh=parse_duration(refresh) / 1_000_000,
        pull_host=host,
        scanning=replace(ScanOptions.default(), runner=workers.runner(settings.concurrency)),
    )
    return run_async(
        _serve(
            settings,
            listening.options([host.rpartition(":")[0] or host] if host else []),
            shown,
            snapshot,
            retries(),
        )
    )


def _host(url: str | None) -> str:
    """Host and port of a registry's URL, as they stand in a reference."""
    from urllib.parse import urlsplit

    if url is None:
        return ""
    host = urlsplit(url if "//" in url else f"//{url}").netloc
    if not host or "@" in host:
        raise InputError(f"--registry-url {url!r} names no host: give https://registry.example.org")
    return host


async def _serve(
    settings: StoreSettings,
    options: ServeOptions,
    shown: PageOptions,
    snapshot: str,
    on_event: OnEvent,
) -> Result:
    import asyncio
    import signal
    import sys

    from regstore.serve.connections import more_files
    from regstore.serve.mounts import open_mounts
    from regstore.serve.opening import open_pages
    from regstore.serve.server import LOOKS, make_application, serving, url_of

    async with settings.open(read_only=True) as storage, AsyncExitStack() as stack:
        stack.enter_context(more_files())
        mounts = await open_mounts(storage, snapshot)
        pages = None
        if find_spec("jinja2") is None:
            emit_error("there are no pages, only the registry's API: they need pip install 'regstore[serve]'")
        else:
            pages = await stack.enter_async_context(open_pages(mounts, storage.url, shown, on_event=on_event))
        application = make_application(mounts, options, pages=pages, on_event=on_event)
        addresses = await stack.enter_async_context(serving(application, options, on_event=on_event))

        def look() -> None:
            for look_again in application[LOOKS]:
                look_again()

        if not (
            sys.stdin.isatty() or sys.stderr.isatty()
        ):  # there it says that the terminal is gone, and ends the run
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, look)
        urls = [url_of(options, address) for address in addresses]
        emit_note(f"{storage.url} is served, read-only, at {' and '.join(urls)}; Ctrl-C ends it")
        answer_now({"urls": urls})
        await asyncio.Event().wait()
        return Result()
