"""A registry, filled through the library and served in this process, and a client that looks at it from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from regstore.events import OnEvent, ignore
from regstore.serve.mounts import Mounts
from regstore.serve.server import ServeOptions, make_application, serving, url_of


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        import json

        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of the first error."""
        return str(self.json["errors"][0]["code"])


class Served:
    """A client of one server."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        import yarl

        names = {name.replace("_", "-"): value for name, value in headers.items()}
        url = yarl.URL(self.url + path, encoded=True)
        async with self.session.request(method, url, headers=names, allow_redirects=False) as response:
            return Answer(response.status, response.headers, await response.read())


@asynccontextmanager
async def served(mounts: Mounts, *, on_event: OnEvent = ignore, **options: Any) -> AsyncIterator[Served]:
    chosen = ServeOptions(**({"port": 0} | options))
    application = make_application(mounts, chosen, on_event=on_event)
    async with (
        serving(application, chosen, on_event=on_event) as addresses,
        aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=["Accept"]) as session,
    ):
        yield Served(url_of(chosen, addresses[0]), session)
