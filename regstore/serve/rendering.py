"""Pages from templates: everything from a store is escaped, odd characters are written as escapes."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import orjson
from aiohttp import web

from regstore.concurrency import in_thread
from regstore.digest import Digest
from regstore.serve.kinds import attached_kind, kind_of
from regstore.serve.listing import ROWS
from regstore.words import moment, printable, size

if TYPE_CHECKING:
    from regstore.serve.index import View
    from regstore.serve.pages import Site

_JOINTS: Final = re.compile(r"([./_+-])(?=\w)")
#: Host and port by which a client asks for this server, "" where it says none.
ASKED_HOST: Final = web.RequestKey("asked_host", str)


async def page(
    request: web.Request, site: Site | None, view: View | None, template: str, **values: Any
) -> web.Response:
    """A template with its values as an answer. site: None for a page that is of none. Large pages take their time, so
    that is done in a thread, and others are answered meanwhile."""
    values |= {"site": site, "base": site.base if site else "", "view": view, "here": request.path}
    text = await in_thread(render, template, values)
    return web.Response(text=text, content_type="text/html")


def render(template: str, values: dict[str, Any]) -> str:
    """A template's text."""
    return str(templates().get_template(template).render(rows_a_page=ROWS, **values))


@cache
def templates() -> Any:
    """The environment of the templates: everything is escaped, and what is not defined is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regstore.serve"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": size,
        "moment": moment,
        "odd": printable,
        "breaks": _breaks,
        "count": "{:,}".format,
        "kind": kind_of,
        "attached": lambda row: attached_kind(row[0], row[2]),
        "minute": lambda time: moment(time)[:16].replace("T", " "),
        "digest": lambda raw: str(Digest.from_raw(bytes(raw))),
        "short": lambda raw: (raw if isinstance(raw, Digest) else Digest.from_raw(bytes(raw))).short,
        "path": quote,
        "tojson_text": lambda texts: orjson.dumps(list(texts)).decode(),
    }
    return environment


def _breaks(text: str) -> Any:
    """A long name, escaped, that may be broken behind its dots and slashes rather than within a word."""
    import markupsafe

    return markupsafe.Markup(_JOINTS.sub(r"\1<wbr>", str(markupsafe.escape(text))))


async def static(request: web.Request) -> web.StreamResponse:
    content, media_type = static_files().get(request.match_info["name"], (b"", ""))
    if not media_type:
        raise web.HTTPNotFound
    return web.Response(body=content, content_type=media_type, headers={"Cache-Control": "max-age=300"})


@cache
def static_files() -> dict[str, tuple[bytes, str]]:
    """The files that pages refer to, by name: content and type."""
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    return {
        entry.name: (entry.read_bytes(), kinds[entry.name.rpartition(".")[2]])
        for entry in (files("regstore.serve") / "static").iterdir()
        if entry.name.rpartition(".")[2] in kinds
    }
