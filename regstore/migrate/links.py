"""The links of a pass, each step as LAYOUT orders them: what is named before what names it."""

from __future__ import annotations

from regstore import layout
from regstore.digest import Digest
from regstore.errors import NotFound, StorageError
from regstore.migrate.result import Problem
from regstore.migrate.work import SQL, Row, Work
from regstore.storage.streams import is_fatal


class Links:
    """Each method writes those of one kind. What needs a blob that was not copied is left out."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._result = work.result

    async def layers(self) -> None:
        async def left_out(row: Row) -> None:
            origin, digest = row[0], Digest.from_raw(bytes(row[2]))
            await self.skip(layout.LayerLinkKey(origin, digest), origin, f"layer link {digest}")

        written = await self._work.put_each("linking layers", "layer_links", _layer_link, left_out=left_out)
        self._result.layer_links += written

    async def revisions(self) -> None:
        """Those of one rank at a time: children before what names them."""

        async def left_out(row: Row) -> None:
            origin, digest = row[0], Digest.from_raw(bytes(row[2]))
            await self.skip(layout.RevisionLinkKey(origin, digest), origin, f"revision {digest}")

        ranks = [rank for (rank,) in self._work.inventory.all(SQL.text("ranks"))]
        for rank in ranks:
            self._result.revisions += await self._work.put_each(
                "linking revisions", "revisions", _revision_link, {"rank": rank}, left_out=left_out
            )

    async def signatures(self) -> None:
        self._result.signatures += await self._work.put_each("linking signatures", "signatures", _signature_link)

    async def tag_histories(self) -> None:
        self._result.tag_index += await self._work.put_each("linking tag history", "tag_index", _tag_index_link)

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


def _layer_link(row: Row) -> tuple[str, bytes]:
    return _link(layout.LayerLinkKey(row[1], Digest.from_raw(bytes(row[2]))), Digest.from_raw(bytes(row[3])))


def _revision_link(row: Row) -> tuple[str, bytes]:
    digest = Digest.from_raw(bytes(row[2]))
    return _link(layout.RevisionLinkKey(row[1], digest), digest)


def _signature_link(row: Row) -> tuple[str, bytes]:
    digest = Digest.from_raw(bytes(row[2]))
    return _link(layout.SignatureLinkKey(row[0], Digest.from_raw(bytes(row[1])), digest), digest)


def _tag_index_link(row: Row) -> tuple[str, bytes]:
    digest = Digest.from_raw(bytes(row[2]))
    return _link(layout.TagIndexKey(row[0], row[1], digest), digest)


def _link(key: layout.Key, target: Digest) -> tuple[str, bytes]:
    return layout.encode(key), layout.link_body(target)
