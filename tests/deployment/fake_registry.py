"""A registry in this process that differs from 2.8 where a test wants it to: as 3.x does, or what stands before one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Edit = Callable[[web.Request, web.Response], "web.Response | None"]


@dataclass
class FakeRegistry:
    """edit: sees each answer before it goes out, and may give another. tags_stay: deleting a manifest leaves its tags,
    which are deleted by their names. redirect: where blobs are; `blobs` answers there. deletes: whether it does."""

    edit: Edit = lambda request, answer: None
    tags_stay: bool = False
    deletes: bool = True
    redirect: str = ""
    relative: bool = True
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""
    #: How a request begins whose answer never comes, though it was done; `hung` is set then.
    hang_at: str = ""
    hung: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        answer = self._of(request, await request.read())
        if self.hang_at and f"{request.method} {request.path}".startswith(self.hang_at):
            self.hang_at = ""
            self.hung.set()
            await asyncio.Event().wait()
        return self.edit(request, answer) or answer

    def _of(self, request: web.Request, body: bytes) -> web.Response:
        kind, _, name = request.path.rpartition("/")
        if request.path == "/v2/":
            return web.json_response({})
        if request.path == "/v2/_catalog":
            return web.json_response({"repositories": ["regstore-check/probe"]})
        if kind.endswith("/tags"):
            return web.json_response({"name": "regstore-check/probe", "tags": sorted(self.tags)})
        if "/uploads" in request.path:
            return self._upload(request, name, body)
        if kind.endswith("/blobs"):
            if self.redirect:
                return web.Response(status=307, headers={"Location": f"{self.redirect}/{name}"})
            return web.Response(body=self.blobs[name]) if name in self.blobs else _error(404, "BLOB_UNKNOWN")
        return self._manifest(request, name, body)

    def _upload(self, request: web.Request, name: str, body: bytes) -> web.Response:
        if request.method == "POST":
            name = f"u{len(self.uploads)}"
            self.uploads[name] = b""
        elif request.method == "DELETE":
            del self.uploads[name]
            return web.Response(status=204)
        elif self.uploads[name] and request.method == "PATCH":
            return _error(416, "RANGE_INVALID")
        else:
            self.uploads[name] += body
        if request.method == "PUT":
            digest = request.query["digest"]
            data = self.uploads.pop(name)
            if digest != "sha256:" + hashlib.sha256(data).hexdigest():
                return _error(400, "DIGEST_INVALID")
            self.blobs[digest] = data
            return web.Response(status=201, headers={"Location": f"/v2/x/blobs/{digest}"})
        location = f"/v2/regstore-check/probe/blobs/uploads/{name}?_state=a%2Fb"
        location = location if self.relative else self.url + location
        return web.Response(status=202, headers={"Location": location, "OCI-Chunk-Min-Length": "1048576"})

    def _manifest(self, request: web.Request, reference: str, body: bytes) -> web.Response:
        digest = self.tags.get(reference, reference)
        if request.method == "PUT":
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            self.manifests[digest], self.tags[reference] = body, digest
            return web.Response(status=201, headers={"Docker-Content-Digest": digest})
        if request.method == "DELETE" and not self.deletes:
            return _error(405, "UNSUPPORTED")
        if digest not in self.manifests:
            return _error(404, "MANIFEST_UNKNOWN")
        if request.method == "DELETE":
            if reference in self.tags:
                del self.tags[reference]
            elif not self.tags_stay:
                self.tags = {tag: target for tag, target in self.tags.items() if target != digest}
                del self.manifests[digest]
            return web.Response(status=202)
        return web.Response(body=self.manifests[digest], headers={"Docker-Content-Digest": digest})


def _error(status: int, code: str) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": code.lower()}]}, status=status)


@asynccontextmanager
async def served(registry: FakeRegistry) -> AsyncGenerator[FakeRegistry, None]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return await registry.answer(request)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        registry.url = f"http://{host}:{port}"
        yield registry
    finally:
        await runner.cleanup()
