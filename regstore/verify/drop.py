"""Tags that can't be pulled whole, removed from a registry that may be serving.

What a verification found is some seconds old, and pushes go on. So a tag goes only when, just before, it still has the
value that was seen, nothing of it was written within the grace, and a missing or damaged blob or link that it needs
is looked up by its name and is missing or damaged still. What can't be read is not damaged. When all that is in the
journal, the tag's own link is looked at once more: a push that put things right has set it anew. And when that link is
gone, its history is, which tells of a push in between (`runs.pushed_again`): such a tag comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from regstore import layout
from regstore.digest import Digest
from regstore.errors import NotFound, StorageError
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.layout import BlobKey, LayerLinkKey, RevisionLinkKey, TagCurrentKey
from regstore.state.journal import UNLINK, Entry
from regstore.state.pushed_again import give_back
from regstore.storage.base import ObjectInfo, Storage
from regstore.storage.streams import is_fatal, verified_size
from regstore.tagging import remove_tag_folders
from regstore.verify.fault import FaultKind
from regstore.verify.work import Work

_SQL: Final = Statements("regstore.verify", "drop.sql")


def broken_tags(inventory: Inventory) -> list[str]:
    """`repository:tag` of those that can't be pulled whole, and go unless they are spared."""
    return list(dict.fromkeys(f"{name}:{tag}" for name, tag, *_ in _SQL.run(inventory, "broken_tags").fetchall()))


async def drop_broken_tags(work: Work, inventory: Inventory) -> None:
    """Remove them with their history. What is left alone, and why, is in `work.spared`."""
    work.spared.clear()
    dropping = _Dropping(work, inventory.scanned_at)
    broken = _SQL.run(inventory, "broken_tags").fetchall()
    for (name, tag), rows in groupby(broken, key=lambda row: row[:2]):
        found = [row[2:] for row in rows]
        size, mtime, body = found[0][:3]
        seen = None if size is None else (size, mtime, None if body is None else bytes(body))
        faults = [_Fault.of(name, *row[3:]) for row in found]
        why = await dropping.drop(name, tag, seen, faults)
        if why:
            work.spared[f"{name}:{tag}"] = why
        else:
            work.dropped.append(f"{name}:{tag}")


@dataclass(frozen=True, slots=True)
class _Fault:
    """digest None: the tag's own link is what is damaged or missing."""

    kind: FaultKind
    key: str
    digest: Digest | None

    @classmethod
    def of(cls, repository: str, kind: str, area: str, raw: bytes | None) -> _Fault:
        if area == "tag" or raw is None:
            return cls(FaultKind(kind), "", None)
        digest = Digest.from_raw(bytes(raw))
        key: layout.Key = BlobKey(digest)
        if area in ("layer", "revision") and kind in (FaultKind.LINK_MISSING, FaultKind.LINK_DAMAGED):
            key = (RevisionLinkKey if area == "revision" else LayerLinkKey)(repository, digest)
        return cls(FaultKind(kind), layout.encode(key), digest)

    async def stands(self, storage: Storage) -> bool:
        """Whether it is there still, by one look at what it names."""
        if self.digest is None:
            return True  # what was looked at is the tag's link itself, and that is as it was
        try:
            match self.kind:
                case FaultKind.BLOB_DAMAGED:
                    size = (await storage.stat(self.key)).size
                    return await verified_size(storage, self.key, self.digest, size) is None
                case FaultKind.BLOB_MISSING:
                    await storage.stat(self.key)
                    return False
                case _:
                    target = layout.parse_link(await storage.get(self.key))
        except NotFound:
            return True
        if self.kind == FaultKind.LINK_MISSING:
            return False
        return target is None or (target != self.digest and self.digest.algorithm == "sha256")


class _Dropping:
    """now: when the store was scanned (microseconds, by its own clock)."""

    def __init__(self, work: Work, now: int) -> None:
        self._work = work
        self._storage = work.storage
        self._now = now
        #: What was written since is left alone.
        self._young = now - work.what.grace
        self._standing: dict[_Fault, bool] = {}

    async def drop(
        self, name: str, tag: str, seen: tuple[int, int, bytes | None] | None, faults: Sequence[_Fault]
    ) -> str:
        """ "" when it was dropped, else why it was not. seen: size, time and body of its link, as verified."""
        current = layout.encode(TagCurrentKey(name, tag))
        folder = f"{layout.tags_prefix(name)}{tag}/"
        infos = [info async for page in self._storage.list(folder) for info in page.objects()]
        there = next((info for info in infos if info.key == current), None)
        kinds = {info.key: layout.decode(info.key) for info in infos}
        if all(isinstance(kind, layout.NOBODYS) for kind in kinds.values()):
            return "it is gone"
        # Markers and litter go with it: a registry that lists by prefix would show the tag as long as one is left.
        keys = [info for info in infos if _goes_with_its_tag(kinds[info.key], info.size)]
        if any(info.mtime > self._young for info in infos):
            return "it was set within the grace: a push may be under way"
        if not await self._is_as_seen(current, there, seen):
            return "it was set anew meanwhile"
        try:
            if not await self._stand(faults):
                return "what was missing or damaged is right now"
        except StorageError as error:
            if is_fatal(error):
                raise
            return f"what was missing or damaged can't be looked at: {error}"
        keys.sort(key=lambda info: info.key != current)
        body = None if seen is None else seen[2]
        await self._work.write(
            [Entry(UNLINK, info.key, info.size, info.mtime, body if info.key == current else None) for info in keys]
        )
        if await self._stat(current) != (None if there is None else (there.size, there.mtime)):
            return "it was set anew meanwhile"
        return await self._delete(TagCurrentKey(name, tag), [info.key for info in keys], there)

    async def _is_as_seen(
        self, current: str, there: ObjectInfo | None, seen: tuple[int, int, bytes | None] | None
    ) -> bool:
        if there is None or seen is None:
            return there is None and seen is None
        size, mtime, body = seen
        if (there.size, there.mtime) != (size, mtime):
            return False
        try:
            return body is None or await self._storage.get(current) == body
        except NotFound:
            return False

    async def _stand(self, faults: Sequence[_Fault]) -> bool:
        """Whether any of them does. A damaged blob is read once, for however many tags: only a repair replaces it."""
        for fault in faults:
            if fault in self._standing:
                stands = self._standing[fault]
            else:
                stands = await fault.stands(self._storage)
                if fault.kind is FaultKind.BLOB_DAMAGED and fault.digest is not None:
                    self._standing[fault] = stands
            if stands:
                return True
        return False

    async def _stat(self, key: str) -> tuple[int, int] | None:
        """Size and time as a listing tells them, which is how they were seen."""
        async for page in self._storage.list(key):
            return next(((info.size, info.mtime) for info in page.objects() if info.key == key), None)
        return None

    async def _delete(self, tag: TagCurrentKey, keys: Sequence[str], there: ObjectInfo | None) -> str:
        """The first, its current/link where it has one, alone before the others. Why it failed, or ""."""
        work = self._work
        for part in (keys[:1], keys[1:]):
            outcomes = await work.lock.delete_many(part)
            failed = {key: str(error) for key, error in outcomes.items() if error is not None}
            if failed:
                work.failures |= failed
                return "it could not be deleted"
            if there is not None and there.key in part:
                busy, _ = await give_back(
                    self._storage, work.lock, {tag: there.mtime}, now=self._now, concurrency=1
                )
                if busy:
                    return "it was set anew meanwhile"
        await remove_tag_folders(self._storage, keys)
        return ""


def _goes_with_its_tag(key: layout.Key, size: int) -> bool:
    match key:
        case layout.MarkerKey():
            return size == 0
        case layout.LitterKey():
            return not key.kept
        case _:
            return not isinstance(key, layout.NOBODYS)
