"""The registry API, read-only: pull and discovery of the OCI distribution specification 1.1.

Every answer is asked of the store as it is then: what is pushed can be pulled at once. What never changes, a manifest's
bytes and what they say, is remembered by digest.

Sources: github.com/opencontainers/distribution-spec, spec.md v1.1 (end-1 to end-3, end-8, end-12); for
`Docker-Content-Digest`, ETag, `_catalog` and the pages of both lists as Distribution's docs/content/spec/api.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson
from aiohttp import hdrs, web

from regstore import layout
from regstore.digest import Digest
from regstore.errors import BlobUnknown, ManifestUnknown, NotFound, RegstoreError, Unsupported
from regstore.manifest import DOCKER_LIST, OCI_INDEX
from regstore.reference import is_tag
from regstore.registry import Repository
from regstore.serve.accept import Accepts
from regstore.serve.answers import JSON, TOLD, ApiError, api_error, error_response
from regstore.serve.bodies import Bodies
from regstore.serve.manifests import Facts, ManifestFacts
from regstore.serve.mounts import Mounts
from regstore.serve.referrers import ReferrersMemory
from regstore.storage.optional import Presigns

VERSION_HEADER: Final = {"Docker-Distribution-Api-Version": "registry/2.0"}
#: Names, or tags, of one answer where the client asks for no number, or for more.
PAGE: Final = 1000
#: Characters of the name that a page begins after.
_LAST: Final = 512
#: Bytes of an index of referrers, which clients read as they read a manifest: as large as registries take one.
_ANSWER: Final = 4 * 1024 * 1024 - 1000
#: Seconds for which an address to which a client is sent is good: it must begin by then.
REDIRECT: Final = 1200
#: What never changes may be kept for ever, says the answer; a tag's answer says nothing.
_FOR_EVER: Final = "max-age=31536000, immutable"
_CONTENT_DIGEST: Final = "Docker-Content-Digest"
_SAFE: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RegistryApi:
    """The handlers under `/v2/`, for any server of aiohttp."""

    def __init__(self, mounts: Mounts, *, redirect: bool = False) -> None:
        """redirect: send clients to the store for the bytes of blobs, where it has addresses for them."""
        self._mounts = mounts
        self._redirect = redirect
        self._referrers = ReferrersMemory()
        self._bodies = Bodies()
        self._manifests = ManifestFacts()

    def add_to(self, application: web.Application) -> None:
        for path, handler in (
            ("/v2/", self.version),
            ("/v2/_catalog", self.catalog),
            ("/v2/{name:.+}/tags/list", self.tags),
            ("/v2/{name:.+}/manifests/{reference}", self.manifest),
            ("/v2/{name:.+}/blobs/{digest}", self.blob),
            ("/v2/{name:.+}/referrers/{digest}", self.referrers),
        ):
            application.router.add_get(path, guarded(handler))
        application.router.add_route("*", "/v2{rest:(?:/.*)?}", guarded(self.other))
        application.on_cleanup.append(self._close)

    async def _close(self, application: web.Application) -> None:
        self._bodies.close()

    async def version(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"{}", content_type=JSON)

    async def other(self, request: web.Request) -> web.StreamResponse:
        """Writes, and what no registry knows."""
        if request.method not in _SAFE:
            raise ApiError(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "UNSUPPORTED",
                "the operation is unsupported: this registry is read-only",
                Allow="GET, HEAD",
            )
        if request.path == "/v2":
            return web.Response(status=HTTPStatus.MOVED_PERMANENTLY, headers={hdrs.LOCATION: "/v2/"})
        raise ApiError(HTTPStatus.NOT_FOUND, "UNSUPPORTED", "there is no such endpoint")

    async def catalog(self, request: web.Request) -> web.StreamResponse:
        """What was there when the page was listed, in byte order: a repository that is pushed meanwhile, behind the
        last name of a page, is on a later one."""
        number = _number(request)
        names, more = await self._mounts.names(_last(request), PAGE if number is None else min(number, PAGE))
        return _page(request, {"repositories": names}, names, more)

    async def tags(self, request: web.Request) -> web.StreamResponse:
        """In byte order, as registries have it: the specification's "case-insensitive" is none of theirs, and its
        conformance suite takes both."""
        repository = await self._repository(request)
        names, more = await repository.tags.page(after=_last(request), most=_number(request))
        return _page(request, {"name": request.match_info["name"], "tags": names}, names, more)

    async def manifest(self, request: web.Request) -> web.StreamResponse:
        repository = await self._repository(request)
        reference = request.match_info["reference"]
        if ":" not in reference and not is_tag(reference):
            raise ApiError(HTTPStatus.NOT_FOUND, "MANIFEST_UNKNOWN", "no such tag: this can't be one")
        digest = await repository.manifests.require(reference)
        facts, data = await self._manifests.of(repository, digest)
        accepts = Accepts(request.headers.getall(hdrs.ACCEPT, ()))
        image = _instead(digest, facts, accepts, by_digest=":" in reference)
        if image is not None:
            digest = await repository.manifests.require(image)
            facts, data = await self._manifests.of(repository, digest)
        headers = _headers(digest) | {hdrs.VARY: hdrs.ACCEPT}
        if ":" in reference:
            headers[hdrs.CACHE_CONTROL] = _FOR_EVER
        if _has_it(request, digest):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        headers[hdrs.CONTENT_TYPE] = facts.media_type
        if data is not None:
            return web.Response(body=data, headers=headers)
        key = layout.blob_key(digest)
        try:
            if request.method == hdrs.METH_HEAD:
                size = (await repository.storage.stat(key)).size
                return web.Response(headers=headers | {hdrs.CONTENT_LENGTH: str(size)})
            return await self._bodies.send(request, repository.storage, key, None, headers)
        except NotFound as error:
            raise ManifestUnknown(f"{repository.name} links the manifest {digest}, but {key} is gone") from error

    async def blob(self, request: web.Request) -> web.StreamResponse:
        repository = await self._repository(request)
        digest = Digest.parse(request.match_info["digest"])
        target = await repository.blobs.resolve(digest)
        key = layout.blob_key(target)
        headers = _headers(digest) | {
            hdrs.ACCEPT_RANGES: "bytes",
            hdrs.CACHE_CONTROL: _FOR_EVER,
            hdrs.CONTENT_TYPE: "application/octet-stream",
        }
        storage = repository.storage
        try:
            if _has_it(request, digest):
                await storage.stat(key)
                return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
            wanted = request.headers.get(hdrs.RANGE)
            if not _still(request, digest):
                wanted = None
            if request.method == hdrs.METH_HEAD:
                size = (await storage.stat(key)).size
                return web.Response(headers=headers | {hdrs.CONTENT_LENGTH: str(size)})
            if self._redirect and isinstance(storage, Presigns):
                await storage.stat(key)
                with suppress(Unsupported):
                    headers[hdrs.LOCATION] = await storage.presigned_url(key, seconds=REDIRECT)
                    headers[hdrs.CACHE_CONTROL] = "no-store"
                    return web.Response(status=HTTPStatus.TEMPORARY_REDIRECT, headers=headers)
            return await self._bodies.send(request, storage, key, wanted, headers)
        except NotFound as error:
            raise BlobUnknown(f"{repository.name} links {digest}, but {key} is gone") from error

    async def referrers(self, request: web.Request) -> web.StreamResponse:
        """By the specification never 404: who has no referrers, or is not there, has an empty list."""
        repository = await self._repository(request)
        digest = Digest.parse(request.match_info["digest"])
        wanted = request.query.get("artifactType", "")
        found = await self._referrers.of(repository, digest)
        headers = {}
        if wanted:
            found = [each for each in found if each.get("artifactType") == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        found, rest = _what_fits(found, request.query.get("last", ""))
        if rest:
            query = {"artifactType": wanted} if wanted else {}
            after = urlencode(query | {"last": found[-1]["digest"]}, quote_via=quote)
            headers[hdrs.LINK] = f'<{quote(request.path)}?{after}>; rel="next"'
        body = orjson.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found})
        return web.Response(body=body, content_type=OCI_INDEX, headers=headers)

    async def _repository(self, request: web.Request) -> Repository:
        return await self._mounts.find(request.match_info["name"])


def guarded(handler: Handler) -> Handler:
    """The handler, with the library's errors as answers, and the header that says what answers here."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            response = await handler(request)
        except ApiError as error:
            response = error_response(error)
        except RegstoreError as error:
            request[TOLD] = error
            response = error_response(api_error(error))
        if not response.prepared:
            response.headers.update(VERSION_HEADER)
        return response

    return handle


def _instead(digest: Digest, facts: Facts, accepts: Accepts, *, by_digest: bool) -> Digest | None:
    """The manifest to give in place of one, None for itself, and never where a digest was asked for: as Distribution,
    which gives a Docker list then whatever is accepted. ManifestUnknown where the client takes neither."""
    if accepts.takes(facts.media_type) or (by_digest and facts.media_type == DOCKER_LIST):
        return None
    if facts.image is not None and accepts.takes(facts.image.media_type):
        return facts.image.digest
    raise ManifestUnknown(f"{digest} is {facts.media_type}, which the client does not accept")


def _what_fits(found: list[dict[str, Any]], last: str) -> tuple[list[dict[str, Any]], bool]:
    """Descriptors after a digest for one answer, at least one, and whether there are more. found: by their digests."""
    size = 0
    rest = [each for each in found if each["digest"] > last]
    for number, each in enumerate(rest):
        size += len(orjson.dumps(each)) + 1
        if number and size > _ANSWER:
            return rest[:number], True
    return rest, False


def _headers(digest: Digest) -> dict[str, str]:
    return VERSION_HEADER | {_CONTENT_DIGEST: str(digest), hdrs.ETAG: f'"{digest}"'}


def _has_it(request: web.Request, digest: Digest) -> bool:
    """Whether an If-None-Match names it, quoted as the RFC asks or bare as old clients write it."""
    given = ",".join(request.headers.getall(hdrs.IF_NONE_MATCH, ()))
    return any(one.strip().removeprefix("W/").strip('"') in (str(digest), "*") for one in given.split(","))


def _still(request: web.Request, digest: Digest) -> bool:
    """Whether an If-Range, where there is one, names the blob as it is."""
    given = request.headers.get(hdrs.IF_RANGE)
    return given is None or given.strip('"') == str(digest)


def _page(request: web.Request, body: dict[str, Any], names: Sequence[str], more: bool) -> web.Response:
    """A page of names, and a Link to the next where there are more."""
    headers = {}
    if more and names:
        query = urlencode({"last": names[-1], "n": len(names)}, quote_via=quote)
        headers[hdrs.LINK] = f'<{quote(request.path)}?{query}>; rel="next"'
    return web.Response(body=orjson.dumps(body), content_type=JSON, headers=headers)


def _last(request: web.Request) -> str:
    """The name after which a list is to begin, however odd: a store may have it."""
    text = request.query.get("last", "")
    if len(text) > _LAST or "\0" in text:
        raise ApiError(HTTPStatus.BAD_REQUEST, "NAME_INVALID", "last is no name that a list could end with")
    return text


def _number(request: web.Request) -> int | None:
    text = request.query.get("n", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ApiError(HTTPStatus.BAD_REQUEST, "PAGINATION_NUMBER_INVALID", "n is no number of results")
    return int(text)
