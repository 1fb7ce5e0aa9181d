"""The pages for people: rendered here, usable without a script, from the index and from the objects that they show.

Everything that a store holds is hostile here: templates escape all of it, odd characters are written as escapes, texts
are cut, and no page leads to another origin.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from aiohttp import hdrs, web

from regstore.digest import Digest
from regstore.errors import (
    BlobUnknown,
    InputError,
    IntegrityError,
    InvalidManifest,
    NoSuchBucket,
    NotARegistry,
    RegistryError,
    RegstoreError,
    StorageError,
)
from regstore.manifest import EdgeKind
from regstore.reference import is_tag
from regstore.registry import Repository, StoredManifest
from regstore.serve.answers import TOLD
from regstore.serve.contents import read_attachments, read_config
from regstore.serve.garbage import plan_of, why_kept
from regstore.serve.health import HealthWatch
from regstore.serve.image import ImageConfig, texts_by_name
from regstore.serve.index import Index, IndexBusy, IndexClosed, View, between, digits
from regstore.serve.listing import Column, asked, tag_filter
from regstore.serve.mounts import Mounts
from regstore.serve.rendering import ASKED_HOST, page
from regstore.serve.treemap import Area, treemap
from regstore.words import printable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: A manifest larger than this is not shown as text.
_RAW_MAX: Final = 256 * 1024
#: Characters of a policy that is tried.
_POLICY_MAX: Final = 32_768
#: Repositories in the treemap.
_AREAS: Final = 60
#: What is attached to one image: beside its tag, and on its own page.
_BADGES: Final = 8
_ATTACHED: Final = 500
REPOSITORY_COLUMNS: Final = (
    Column("name", "Repository", "label"),
    Column("tags", "Tags", "tags", down=True, number=True),
    Column("size", "Size", "total", down=True, number=True),
    Column("own", "Its own", "own", down=True, number=True),
    Column("pushed", "Last push", "pushed", down=True),
)
TAG_COLUMNS: Final = (
    Column("name", "Tag", "name"),
    Column("pushed", "Pushed", "pushed", down=True),
    Column("size", "Size", "size", down=True, number=True),
    Column("type", "Type", "media_type"),
    Column("digest", "Digest", "digest"),
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """What pages are of. base: what stands before every address, "" or `/at/<snapshot>`. prefix: what stands before a
    repository's name when it is pulled from here. title: the store's own address. has_past: there are other snapshots.
    health: None where there is none to ask."""

    mounts: Mounts
    index: Index
    title: str
    base: str = ""
    prefix: str = ""
    pull_host: str = ""
    has_past: bool = False
    health: HealthWatch | None = None


#: The site that a request is about. PageError where there is none.
FindSite = Callable[[web.Request], Awaitable[Site]]


class Pages:
    """The handlers of the pages of sites, of which each request finds its own."""

    def __init__(self, find: FindSite, *, base: str = "") -> None:
        """base: the beginning of the pages' addresses, as a route of aiohttp."""
        self._find = find
        self._base = base

    def add_to(self, application: web.Application) -> None:
        for path, handler in (
            ("/", self.repositories),
            ("/repositories/{name:.+}", self.repository),
            ("/images/{name:.+}@{digest}", self.image),
            ("/images/{name:.+}:{tag}", self.tagged),
            ("/blobs/{digest}", self.blob),
            ("/search", self.search),
            ("/space", self.space),
            ("/garbage", self.garbage),
            ("/why/{digest}", self.why),
            ("/health", self.health),
        ):
            application.router.add_get(self._base + path, self._guarded(handler))
        application.router.add_post(self._base + "/garbage", self._guarded(self.garbage))

    # -- lists

    async def repositories(self, request: web.Request, site: Site) -> web.StreamResponse:
        path = request.query.get("path", "")[:300]
        if path and not path.endswith("/"):
            path += "/"
        wanted = asked(f"{site.base}/", request.query, REPOSITORY_COLUMNS, {"path": path})
        async with site.index.view() as view:
            if wanted.words:
                rows = await view.rows(
                    "find_repositories", wanted.window | {"words": wanted.words.lower()}, order=wanted.order
                )
            else:
                rows = await view.rows("level", wanted.window | {"path": path}, order=wanted.order)
            totals = (await view.rows("totals"))[0]
            return await page(
                request, site, view, "repositories.html", wanted=wanted, rows=rows, path=path, totals=totals
            )

    async def repository(self, request: web.Request, site: Site) -> web.StreamResponse:
        name = request.match_info["name"]
        wanted = asked(site.base + f"/repositories/{quote(name)}", request.query, TAG_COLUMNS)
        async with site.index.view() as view:
            found = await view.rows("repository", {"name": name})
            if not found:
                raise PageError(HTTPStatus.NOT_FOUND, f"There is no repository {printable(name)} in the index.")
            facts = found[0]
            rows = await view.rows(
                "tags",
                wanted.window | {"repository": facts[0]} | tag_filter(wanted.words) | between(digits(wanted.words)),
                order=wanted.order,
            )
            attached = await _attached(
                view, facts[0], [row[1] for row in rows if row[1] is not None], limit=_BADGES
            )
            return await page(
                request,
                site,
                view,
                "repository.html",
                wanted=wanted,
                rows=rows,
                name=name,
                facts=facts,
                attached=attached,
            )

    async def search(self, request: web.Request, site: Site) -> web.StreamResponse:
        words = request.query.get("q", "")[:300].strip()
        wanted = asked(f"{site.base}/", {"q": words}, REPOSITORY_COLUMNS)
        async with site.index.view() as view:
            hexes = digits(words)
            repositories = tags = digests = []
            if words:
                limits = {"limit": 50, "offset": 0}
                repositories = await view.rows(
                    "find_repositories", limits | {"words": words.lower()}, order="label"
                )
                tags = await view.rows("find_tags", {"words": words, "limit": 50})
            if hexes:
                digests = await view.rows("find_digests", between(hexes) | {"limit": 50})
            return await page(
                request,
                site,
                view,
                "search.html",
                wanted=wanted,
                words=words,
                repositories=repositories,
                tags=tags,
                digests=digests,
            )

    # -- one thing

    async def tagged(self, request: web.Request, site: Site) -> web.StreamResponse:
        """A tag's image as it is now, asked of the store."""
        name, tag = request.match_info["name"], request.match_info["tag"]
        repository = await site.mounts.find(site.prefix + name)
        digest = await repository.tags.get(tag)
        address = f"{site.base}/images/{quote(name)}@{digest}?tag={quote(tag)}"
        return web.Response(status=HTTPStatus.FOUND, headers={hdrs.LOCATION: address})

    async def image(self, request: web.Request, site: Site) -> web.StreamResponse:
        name, digest = request.match_info["name"], Digest.parse(request.match_info["digest"])
        repository = await site.mounts.find(site.prefix + name)
        stored = await repository.manifests.get(digest)
        config = await _config(repository, stored)
        contents = await read_attachments(repository, stored)
        async with site.index.view() as view:
            known = await view.rows("repository", {"name": name})
            tags: list[str] = []
            attached: dict[bytes, list[Any]] = {}
            if known:
                tags = [
                    row[0] for row in await view.rows("tags_of", {"repository": known[0][0], "digest": digest.raw})
                ]
                attached = await _attached(view, known[0][0], [digest.raw], limit=_ATTACHED)
            blobs = [layer.digest.raw for layer in stored.manifest.layers]
            total = await view.rows("image_total", {"digest": digest.raw})
            users = {row[0]: row for row in await view.rows("layer_users", {"digests": blobs})} if blobs else {}
            return await page(
                request,
                site,
                view,
                "image.html",
                name=name,
                stored=stored,
                config=config,
                contents=contents,
                total=total[0][0] if total else None,
                tag=_tag_to_pull(request.query.get("tag", ""), tags),
                tags=tags,
                attached=attached.get(digest.raw, []),
                users=users,
                annotations=texts_by_name(stored.annotations),
                raw=stored.data.decode("utf-8", "replace") if len(stored.data) <= _RAW_MAX else "",
                pull=f"{site.pull_host or request[ASKED_HOST] or 'localhost'}/{site.prefix}{name}",
            )

    async def blob(self, request: web.Request, site: Site) -> web.StreamResponse:
        digest = Digest.parse(request.match_info["digest"])
        async with site.index.view() as view:
            users = await view.rows("users", {"digest": digest.raw})
            named = await view.rows("named_by", {"digest": digest.raw})
            facts = await view.rows("find_digests", {"low": digest.raw, "high": digest.raw, "limit": 1})
            if not facts:
                raise PageError(HTTPStatus.NOT_FOUND, f"Nothing has the digest {digest} in the index.")
            kinds = {int(kind): kind.name.lower().replace("_", " ") for kind in EdgeKind}
            return await page(
                request,
                site,
                view,
                "blob.html",
                digest=digest,
                users=users,
                named=named,
                facts=facts[0],
                kinds=kinds,
            )

    async def space(self, request: web.Request, site: Site) -> web.StreamResponse:
        async with site.index.view() as view:
            return await page(request, site, view, "space.html", **await space_of(view))

    async def garbage(self, request: web.Request, site: Site) -> web.StreamResponse:
        """What gc would take. A policy that is tried comes by POST, for it may be long; nothing is written."""
        form = await request.post() if request.method == hdrs.METH_POST else request.query
        policy, untagged = str(form.get("policy", ""))[:_POLICY_MAX], form.get("delete_untagged") == "1"
        async with site.index.view() as view:
            tried, said = None, ""
            if view.database:
                said = (
                    f"Tags and manifests are in a database: {view.database} says so. gc by links is refused here."
                )
            else:
                try:
                    tried = await plan_of(view, delete_untagged=untagged, policy=policy)
                except InputError as error:
                    said = str(error)
            return await page(
                request, site, view, "garbage.html", tried=tried, said=said, policy=policy, untagged=untagged
            )

    async def why(self, request: web.Request, site: Site) -> web.StreamResponse:
        digest = Digest.parse(request.match_info["digest"])
        async with site.index.view() as view:
            return await page(request, site, view, "why.html", digest=digest, why=await why_kept(view, digest))

    async def health(self, request: web.Request, site: Site) -> web.StreamResponse:
        if site.health is None:
            raise PageError(
                HTTPStatus.NOT_FOUND, "A snapshot has no health of its own: look at the backup's check."
            )
        async with site.index.view() as view:
            return await page(request, site, view, "health.html", health=await site.health.look())

    def _guarded(self, handler: Callable[[web.Request, Site], Awaitable[web.StreamResponse]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            site = await self._find(request)
            if not site.index.ready:
                waiting = await page(request, site, None, "wait.html", again=request.raw_path)
                waiting.headers["Refresh"] = "3"
                return waiting
            return await handler(request, site)

        return guarded_page(handle)


async def space_of(view: View) -> dict[str, Any]:
    """What the page of space shows."""
    rows = await view.rows("largest", {"limit": _AREAS})
    return {
        "areas": treemap([Area(name, own, shared) for name, own, shared in rows]),
        "totals": (await view.rows("totals"))[0],
        "usage": view.usage,
        "rows": rows,
    }


def guarded_page(handler: Handler) -> Handler:
    """The handler; errors become a page that says them."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except PageError as error:
            status, said = error.status, error.message
        except (InvalidManifest, IntegrityError) as error:
            request[TOLD] = error
            status, said = int(HTTPStatus.INTERNAL_SERVER_ERROR), f"What is stored here is damaged: {error}"
        except (NotARegistry, NoSuchBucket) as error:  # it was there when this server began
            request[TOLD] = error
            status, said = int(HTTPStatus.SERVICE_UNAVAILABLE), "The store is gone: the log says how."
        except (RegistryError, InputError) as error:
            status, said = int(HTTPStatus.NOT_FOUND), str(error)
        except IndexClosed:
            status = int(HTTPStatus.SERVICE_UNAVAILABLE)
            said = "These pages were put away while others were looked at: ask again."
        except IndexBusy:
            status = int(HTTPStatus.SERVICE_UNAVAILABLE)
            said = "Others wait for a plan before you: ask again in a moment."
        except RegstoreError as error:
            request[TOLD] = error
            status, said = int(HTTPStatus.SERVICE_UNAVAILABLE), "The store could not be read: the log says why."
        response = await page(request, None, None, "error.html", said=said, status=status)
        response.set_status(status)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            response.headers[hdrs.RETRY_AFTER] = "5"
        return response

    return handle


async def _attached(view: View, repository: int, digests: list[bytes], *, limit: int) -> dict[bytes, list[Any]]:
    """Signatures and the like of some manifests of a repository, by the manifest, so many of each at most."""
    found: dict[bytes, list[Any]] = defaultdict(list)
    if digests:
        for subject, *rest in await view.rows(
            "attached", {"repository": repository, "subjects": digests, "limit": limit}
        ):
            found[bytes(subject)].append(rest)
    return found


class PageError(Exception):
    """A page that says why there is no other."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def _tag_to_pull(asked: str, tags: list[str]) -> str:
    """The tag that was asked for, or the first; "" for none. A store may hold a tag such as `1;reboot`, which nobody
    can pull, and which must not stand in a command to copy."""
    good = [tag for tag in tags if is_tag(tag)]
    return asked if asked in good else (good[0] if good else "")


async def _config(repository: Repository, stored: StoredManifest) -> ImageConfig | None:
    """What the config says; None also where it can't be read: the page is of the manifest."""
    try:
        return await read_config(repository, stored)
    except (BlobUnknown, StorageError):
        return None
