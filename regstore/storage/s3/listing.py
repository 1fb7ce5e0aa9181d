"""LIST, page by page and exactly: ListObjectsV2, or ListObjects where a server knows only that."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final

from regstore.errors import StorageError
from regstore.storage.base import ObjectInfo, Page
from regstore.storage.s3.client import SignedClient
from regstore.storage.s3.failures import Refusal
from regstore.storage.s3.order import Disorder, in_order
from regstore.storage.s3.xml import ListedPage, parse_list

_NOT_FOR_XML: Final = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")


def _in_xml(key: str) -> str:
    """The key up to what XML cannot say: servers echo where a listing starts, and some then send broken XML.
    It sorts before the key, so nothing is missed, and what comes too much is dropped here."""
    found = _NOT_FOR_XML.search(key)
    return key[: found.start()] if found else key


class Lister:
    """Remembers that a server answers V2 questions in the old form; it then ignored `start-after`."""

    def __init__(self, client: SignedClient) -> None:
        self._client = client
        self._old = False

    async def pages(self, root: str, prefix: str, start_after: str) -> AsyncIterator[Page]:
        """root: "" or with a slash at its end; prefix, start_after and the keys given are relative to it.

        Every key once, strictly increasing (`order`). StorageError when the server sends keys that are not in byte
        order, or that were not asked for, or one twice with different facts, or ends a page without saying how to go
        on: what is then missing would look absent.
        """
        full = root + prefix
        last = root + start_after if start_after else ""
        token: str | None = None
        floor = ""
        entry: ObjectInfo | None = None
        while True:
            if not token:
                floor = last if _in_xml(last) != last else ""
            found = await self._page(full, last, token)
            if last and last == floor and found.keys:
                found = found.only([key > floor for key in found.keys])
            try:
                found = in_order(found, entry)
            except Disorder as error:
                raise self._wrong(full, str(error)) from error
            keys = found.keys
            if keys:
                if keys[0] <= last:
                    raise self._wrong(full, f"shows {keys[0]!r} where it should come after {last!r}")
                if not (keys[0].startswith(full) and keys[-1].startswith(full)):
                    raise self._wrong(full, "shows keys outside the prefix")
                last = keys[-1]
                entry = ObjectInfo(last, found.sizes[-1], found.etags[-1], found.mtimes[-1])
                if root:
                    cut = len(root)
                    keys = [key[cut:] for key in keys]
            if found.truncated:
                if not keys and (not found.token or found.token == token):
                    raise self._wrong(full, "is cut off without saying where to go on")
                token = found.token
            archived = {key[len(root) :]: name for key, name in found.archived.items()}
            yield Page(keys, found.sizes, found.etags, found.mtimes, not found.truncated, archived)
            if not found.truncated:
                return

    async def _page(self, prefix: str, last: str, token: str | None) -> ListedPage:
        if not self._old:
            try:
                position = ("continuation-token", token) if token else ("start-after", _in_xml(last))
                found = await self._ask("ListObjectsV2", prefix, [("list-type", "2"), position])
            except StorageError as error:
                refusal = error.__cause__
                if not (isinstance(refusal, Refusal) and refusal.lacks_operation):
                    raise
            else:
                if found.version == 2 or not _in_xml(last):
                    self._old = found.version == 1
                    return found
            self._old = True
        return await self._ask("ListObjects", prefix, [("marker", _in_xml(last))])

    async def _ask(self, operation: str, prefix: str, more: list[tuple[str, str]]) -> ListedPage:
        size = str(self._client.settings.page_size)
        query = [("encoding-type", "url"), ("max-keys", size), ("prefix", prefix), *more]
        return await self._client.call(
            operation,
            "GET",
            query=[(name, value) for name, value in query if value],
            parse=lambda answer: parse_list(answer.body),
            about=prefix,
        )

    def _wrong(self, prefix: str, what: str) -> StorageError:
        where = f"{self._client.place.url}: the server's listing of {self._client.place.relative(prefix)!r}"
        return StorageError(
            f"{where} {what}; it cannot be trusted, and nothing was done with it: the server lists wrongly (as rustfs "
            "#2439 and #1165 did), so it must be mended or another one used"
        )
