"""A tiny image is pushed, found, pulled, compared, and its tag removed again.

All is in one repository of its own; the tag and every byte are new at each check, so that neither a cache nor another
check can answer for the store, and what is removed is nobody else's. Deleting by digest takes the tags with it in
every version of Distribution; where a tag stays, it is deleted by its name (3.x, and the specification).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final
from urllib.parse import quote, urlsplit

from regstore import layout
from regstore.deployment.check.answers import code_of, is_page, refusal, said
from regstore.deployment.check.client import REDIRECTS, Answer, Client, Credentials
from regstore.deployment.check.place import Place
from regstore.deployment.check.result import CheckLine, Outcome, Red, fail, not_tried, ok, warn
from regstore.deployment.check.tiny import MANIFEST_TYPE, TinyImage, digest_of, is_left_over
from regstore.digest import Digest
from regstore.errors import InputError, RegstoreError, Unreachable
from regstore.events import Notice, OnEvent
from regstore.storage.base import Storage
from regstore.words import counted, printable, size

REPOSITORY: Final = "regstore-check/probe"
NAMES: Final = ("push", "pull", "same store", "catalogue", "removal")
_BLOBS: Final = f"/v2/{REPOSITORY}/blobs"
_MANIFESTS: Final = f"/v2/{REPOSITORY}/manifests"
_BYTES: Final = {"Content-Type": "application/octet-stream"}
_ACCEPT: Final = {"Accept": MANIFEST_TYPE}
_HOPS: Final = 5
_BEFORE: Final = "see what stands before the registry"
_SAME: Final = "see that nothing between changes what goes through it, and look for damage with `regstore verify`"


class Trial:
    """One image on its way. timeout: seconds that tidying up after an interruption may take, twice."""

    def __init__(
        self,
        client: Client,
        credentials: Credentials | None,
        image: TinyImage,
        store: Storage | None,
        now: datetime,
    ) -> None:
        self._client = client
        self._credentials = credentials
        self._image = image
        self._store = store
        self._now = now
        self._uploads: list[str] = []  # begun, and not ended
        self._blobs = 0  # bytes that went in as blobs
        self._tagged = False  # perhaps
        self._earlier: list[str] = []

    async def run(self, timeout: float, on_event: OnEvent) -> list[CheckLine]:
        """A line for each of `NAMES`, without `same store` where there is none. What was pushed is removed, also when
        this is cancelled; a Notice then says whether it is gone."""
        try:
            lines = await self._put_and_get()
            lines.append(await self._remove())
        except asyncio.CancelledError:
            await self._tidy(timeout, on_event)
            raise
        return lines

    async def _put_and_get(self) -> list[CheckLine]:
        pushed = await _line("push", self._push)
        if pushed.outcome is not Outcome.OK:
            why = "nothing was pushed"
            lines = [pushed, not_tried("pull", why)]
            lines += [not_tried("same store", why)] if self._store is not None else []
        else:
            lines = [pushed, await _line("pull", self._pull)]
            lines += [await self._find_in(self._store)] if self._store is not None else []
        return [*lines, await _line("catalogue", lambda: self._catalogue(pushed.outcome is Outcome.OK))]

    # -- push

    async def _push(self) -> str:
        """As one piece and in chunks: clients do either."""
        image = self._image
        await self._upload(image.config, chunked=False)
        await self._upload(image.layer, chunked=True)
        self._tagged = True
        put = await self._ask(
            "PUT", f"{_MANIFESTS}/{image.tag}", body=image.manifest, headers={"Content-Type": MANIFEST_TYPE}
        )
        if put.status != 201:
            raise refusal(put, "read and write")
        self._same_digest(put, image.digest)
        return f"an image of {size(image.size)} went to {REPOSITORY}:{image.tag}"

    async def _upload(self, data: bytes, *, chunked: bool) -> None:
        begun = await self._ask("POST", f"{_BLOBS}/uploads/", body=b"", headers=_BYTES)
        target = self._next(begun, 202)
        self._uploads.append(target)
        if chunked:
            headers = {**_BYTES, "Content-Range": f"0-{len(data) - 1}"}
            patched = await self._ask("PATCH", target, body=data, headers=headers)
            self._uploads[-1] = target = self._next(patched, 202)
        digest = digest_of(data)
        target += ("&" if "?" in target else "?") + f"digest={quote(digest)}"
        put = await self._ask("PUT", target, body=b"" if chunked else data, headers=_BYTES)
        if put.status != 201:  # the registry reads what came, copies it to its place, and removes it where it was
            raise refusal(put, "read, write and delete")
        self._uploads.pop()
        self._blobs += len(data)
        self._same_digest(put, digest)

    def _next(self, answer: Answer, wanted: int) -> str:
        """The target of an upload's next request, which must lie where the registry is."""
        if answer.status != wanted:
            raise refusal(answer, "write")
        location = answer.headers.get("location", "")
        if not location:
            raise Red(f"{answer.request} was answered without a Location", _BEFORE)
        own = self._client.place
        try:
            url = own.join(answer.request.partition(" ")[2], location)
            place = Place.of(url, with_path=True)
        except InputError as error:
            raise Red(f"{answer.request} was answered with a Location that is none: {error}", _BEFORE) from error
        if place != own:
            where = place.origin
            raise Red(
                f"the registry sends uploads to {where}, and it was asked at {own.origin}",
                "have what stands before it pass on Host and X-Forwarded-Proto, or set `http.host` in config.yml",
            )
        parts = urlsplit(url)
        return parts.path + (f"?{parts.query}" if parts.query else "")

    def _same_digest(self, answer: Answer, digest: str) -> None:
        told = answer.headers.get("docker-content-digest", digest)
        if told != digest:
            raise Red(f"{answer.request} says {printable(told[:100])}, and {digest} was pushed", _SAME)

    # -- pull

    async def _pull(self) -> str:
        image = self._image
        target = f"{_MANIFESTS}/{image.tag}"
        manifest = await self._ask("GET", target, headers=_ACCEPT)
        if manifest.status != 200:
            raise refusal(manifest, "read")
        self._same_digest(manifest, image.digest)
        _must_equal(manifest, image.manifest)
        for data in (image.config, image.layer):
            _must_equal(await self._get_blob(f"{_BLOBS}/{digest_of(data)}"), data)
        await self._see_tags()
        return "manifest, config and layer came back, byte by byte"

    async def _get_blob(self, target: str) -> Answer:
        answer, elsewhere = await self._ask("GET", target), ""
        try:
            for _ in range(_HOPS):
                if answer.status not in REDIRECTS or "location" not in answer.headers:
                    break
                elsewhere = self._client.place.join(target, answer.headers["location"])
                answer = await self._client.follow(elsewhere, {})
        except InputError as error:
            raise Red(f"{answer.request} sends clients to a place that is none: {error}", _BEFORE) from error
        except Unreachable as error:
            raise _not_there(elsewhere, str(error)) from error
        if answer.status == 200:
            return answer
        raise _not_there(elsewhere, said(answer)) if elsewhere else refusal(answer, "read")

    async def _see_tags(self) -> None:
        listed = await self._ask("GET", f"/v2/{REPOSITORY}/tags/list")
        if listed.status != 200:
            raise refusal(listed, "list")
        tags = _list_in(listed, "tags")
        if "link" not in listed.headers and self._image.tag not in tags:
            raise Red("the tag is not among the repository's tags", "see that all replicas have the same storage")
        self._earlier = [tag for tag in tags if is_left_over(tag, self._now)]

    async def _find_in(self, store: Storage) -> CheckLine:
        """The registry writes where regstore reads."""
        name = "same store"
        key = layout.encode(layout.TagCurrentKey(REPOSITORY, self._image.tag))
        try:
            found = layout.parse_link(await store.get(key))
        except RegstoreError as error:
            cure = "compare `storage` in the registry's config.yml with the store that regstore is given"
            return fail(name, f"what was pushed is not in {store.url}: {error}", cure)
        if found != Digest.parse(self._image.digest):
            return fail(
                name, f"{key} in {store.url} is not what was pushed", "see whether two registries write there"
            )
        return ok(name, f"what was pushed is in {store.url}")

    async def _catalogue(self, pushed: bool) -> str:
        answer = await self._ask("GET", "/v2/_catalog?n=1")
        if answer.status != 200:
            raise refusal(answer, "list")
        if not _list_in(answer, "repositories") and pushed:
            raise Red("the catalogue is empty, and an image was just pushed", _BEFORE)
        return "the repositories can be listed"

    # -- removal

    async def _remove(self) -> CheckLine:
        for target in self._uploads:
            with contextlib.suppress(Unreachable):  # the registry removes old ones itself
                await self._ask("DELETE", target)
        self._uploads.clear()
        if not self._tagged:
            left = f", but blobs of {size(self._blobs)}, which stay until `regstore gc`" if self._blobs else ""
            return not_tried("removal", f"nothing was pushed{left}")
        return await _line("removal", self._untag)

    async def _untag(self) -> CheckLine:
        image, name = self._image, f"{REPOSITORY}:{self._image.tag}"
        by_hand = f"`regstore rm STORE {name}` removes it"
        deleted = await self._ask("DELETE", f"{_MANIFESTS}/{image.digest}")
        if await self._has_tag():
            if deleted.status == 405 or code_of(deleted) == "UNSUPPORTED":
                cure = f"set storage.delete.enabled: true in config.yml; {by_hand}"
                return warn("removal", f"the registry has deletion disabled: {name} stays", cure)
            if deleted.status not in (200, 202, 204, 404):
                red = refusal(deleted, "delete")
                raise Red(f"{red.detail}; {name} stays", f"{red.cure}; {by_hand}")
            by_name = await self._ask("DELETE", f"{_MANIFESTS}/{image.tag}")
            if await self._has_tag():
                raise Red(f"{name} stays, though it was deleted ({said(by_name)})", by_hand)
        self._tagged = False
        if self._earlier:
            detail = (
                f"the tag is gone again; {counted(len(self._earlier), 'tag')} of earlier checks that could not tidy up "
                f"stayed, such as {self._earlier[0]}"
            )
            return warn("removal", detail, f"`regstore rm STORE {REPOSITORY} --recursive` removes them all")
        detail = f"the tag is gone again; its blobs ({size(image.size)}) stay until `regstore gc`"
        return ok("removal", detail)

    async def _has_tag(self) -> bool:
        """Red where that can't be told."""
        answer = await self._ask("HEAD", f"{_MANIFESTS}/{self._image.tag}", headers=_ACCEPT)
        if answer.status in (200, 404):
            return answer.status == 200
        raise refusal(answer, "read")

    async def _tidy(self, timeout: float, on_event: OnEvent) -> None:
        name = f"{REPOSITORY}:{self._image.tag}"
        on_event(Notice(message="interrupted: what was pushed is removed again"))
        try:
            async with asyncio.timeout(2 * timeout):
                await self._remove()
        except (RegstoreError, TimeoutError):
            pass
        if self._tagged:
            on_event(Notice(message=f"{name} stays: `regstore rm STORE {name}` removes it"))

    async def _ask(
        self, method: str, target: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        return await self._client.ask(method, target, credentials=self._credentials, body=body, headers=headers)


async def _line(name: str, step: Callable[[], Awaitable[str | CheckLine]]) -> CheckLine:
    try:
        found = await step()
    except Red as red:
        return red.line(name)
    except Unreachable as error:
        return fail(name, str(error), "see the registry's log, and that of what stands before it")
    return ok(name, found) if isinstance(found, str) else found


def _must_equal(answer: Answer, data: bytes) -> None:
    if is_page(answer):
        raise refusal(answer, "read")
    if answer.body != data:
        raise Red(f"{answer.request} gave {counted(len(answer.body), 'byte')} other than were pushed", _SAME)


def _not_there(url: str, why: str) -> Red:
    parts = urlsplit(url)
    return Red(
        f"the registry sends clients to {parts.scheme}://{parts.netloc} for blobs, and {why}",
        "let clients reach the store there, or set storage.redirect.disable: true in config.yml",
    )


def _list_in(answer: Answer, key: str) -> list[str]:
    """A list of names; `null` is an empty one. Red."""
    try:
        return [str(name) for name in json.loads(answer.body)[key] or []]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Red(f"{said(answer)}, which is no list of {key}", _BEFORE) from None
