"""The links of a pass, each step as LAYOUT orders them: what is named before what names it."""

from __future__ import annotations

from typing import Any

from regstore import layout
from regstore.digest import Digest
from regstore.errors import NotFound, StorageError
from regstore.migrate.result import Problem
from regstore.migrate.work import SQL, Work
from regstore.storage.streams import is_fatal


class Links:
    """Each method writes those of one kind. What needs a blob that was not copied is left out."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._result = work.result

    async def layers(self) -> None:
        async def one(row: tuple[Any, ...]) -> None:
            origin, name, raw, target, blocked = row
            digest = Digest.from_raw(bytes(raw))
            if blocked:
                await self.skip(layout.LayerLinkKey(origin, digest), origin, f"layer link {digest}")
                return
            await self._put(layout.LayerLinkKey(name, digest), Digest.from_raw(bytes(target)))
            self._result.layer_links += 1

        await self._work.each("linking layers", "layer_links", one)

    async def revisions(self) -> None:
        """Those of one rank at a time: children before what names them."""

        async def one(row: tuple[Any, ...]) -> None:
            origin, name, raw, blocked = row
            digest = Digest.from_raw(bytes(raw))
            if blocked:
                await self.skip(layout.RevisionLinkKey(origin, digest), origin, f"revision {digest}")
                return
            await self._put(layout.RevisionLinkKey(name, digest), digest)
            self._result.revisions += 1

        ranks = [rank for (rank,) in self._work.inventory.all(SQL.text("ranks"))]
        for rank in ranks:
            await self._work.each("linking revisions", "revisions", one, {"rank": rank})

    async def signatures(self) -> None:
        async def one(row: tuple[Any, ...]) -> None:
            name, revision, digest = row[0], Digest.from_raw(bytes(row[1])), Digest.from_raw(bytes(row[2]))
            await self._put(layout.SignatureLinkKey(name, revision, digest), digest)
            self._result.signatures += 1

        await self._work.each("linking signatures", "signatures", one)

    async def tag_histories(self) -> None:
        async def one(row: tuple[Any, ...]) -> None:
            name, tag, digest = row[0], row[1], Digest.from_raw(bytes(row[2]))
            await self._put(layout.TagIndexKey(name, tag, digest), digest)
            self._result.tag_index += 1

        await self._work.each("linking tag history", "tag_index", one)

    async def _put(self, key: layout.Key, digest: Digest) -> None:
        await self._work.target.put(layout.encode(key), layout.link_body(digest), options=self._work.options.put)

    async def skip(self, key: layout.Key, repository: str, subject: str) -> None:
        """Something below could not be copied. If the source's own link is gone by now, that is no loss."""
        try:
            await self._work.source.get(layout.encode(key))
        except NotFound:
            self._result.gone += 1
            return
        except StorageError as error:
            if is_fatal(error):
                raise
        self._result.skipped.append(
            Problem(repository=repository, subject=subject, reason="was left out: a part of it was not copied")
        )
