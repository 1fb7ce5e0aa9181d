"""Heal: give back what an earlier step took and what is referenced again.

- A blob that anything names, that is gone and lies in some run's trash, is copied back (never moved), once its copy
  is read and has its digest, and its manifest read, to a fixpoint.
- A link that a journal says we removed from a repository comes back, with the journaled body, when that repository
  needs it (`gc.claims`): a layer link is a right to read, so no other missing link is ever made. A removal that was
  undone since (`gc.past`) is no longer ours to undo: whoever removed the link next meant it.
- What a run that was cut short, or was not told the outcome of all that it sent, had asked the store to delete may yet
  go, even after it was seen to stand. So for a day, its removals stay ours to undo; and where it took a tag's
  current/link, and an index link shows that the tag was pushed since, the tag gets it back: until a gc that began
  after that day has come to its end.

Nothing that stands is overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass

from regstore import layout
from regstore.concurrency import for_each, in_thread
from regstore.digest import Digest
from regstore.errors import NotFound
from regstore.gc.claims import plan_links
from regstore.gc.copying_back import copy_back
from regstore.inventory.inventory import Inventory
from regstore.inventory.reachability import Reachability
from regstore.inventory.scan import Scanner
from regstore.inventory.tag_times import TagTimes
from regstore.layout import BlobKey, LayerLinkKey, RevisionLinkKey, TagCurrentKey
from regstore.state.lock import Lock
from regstore.storage.base import Storage
from regstore.tagging import put_missing


@dataclass(frozen=True, kw_only=True)
class Healed:
    """What came back: blobs by digest, links by key. damaged: keys of copies in the trash that were wanted, and have
    other bytes than their digest says; they stay where they are."""

    blobs: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        return not self.blobs and not self.links

    def __add__(self, other: Healed) -> Healed:
        return Healed(
            blobs=self.blobs + other.blobs,
            links=self.links + other.links,
            damaged=tuple(sorted({*self.damaged, *other.damaged})),
        )


def reach_all(inventory: Inventory, table: str = "heal_reach") -> Reachability:
    """All that anything names."""
    reach = Reachability(inventory, table)
    reach.add(
        """
        select repository, unnest([digest, target]) as digest, true as expand from revision_link
        union all select repository, target, true from tag
        union all select repository, unnest([digest, target]), false from layer_link
        union all select repository, digest, false from signature_link
        union all select repository, digest, true from legacy_revision
        union all select -1, digest, followed from unknown_digest
        """
    )
    return reach


class Healer:
    """Heals one store by one inventory, which it keeps up to date with what came back."""

    def __init__(
        self, storage: Storage, inventory: Inventory, scanner: Scanner, lock: Lock, *, concurrency: int
    ) -> None:
        self._storage = storage
        self._inventory = inventory
        self._scanner = scanner
        self._lock = lock
        self._concurrency = concurrency

    async def run(self, *, trash: str = "trash", removed: str = "removed") -> Healed:
        """To a fixpoint: a blob that comes back may be a manifest that names more."""
        healed = await self._tags()
        while True:
            step = await self._blobs(trash) + await self._links(removed)
            healed += step
            if step.nothing and not step.damaged:  # there may be an older copy of what is damaged
                return healed

    def plan_blobs(self, trash: str = "trash") -> list[tuple[bytes, str, int]]:
        """(digest, key in the trash, size) of what is named and missing; the newest copy of each."""
        if not self._inventory.count(trash):
            return []
        reach = reach_all(self._inventory)
        return self._inventory.all(
            f"""
            select t.digest, arg_max(t.key, t.run), arg_max(t.size, t.run) from {trash} t
            where t.digest in (select digest from {reach.table}) and t.digest not in (select digest from blob)
            group by t.digest
            """
        )

    async def _tags(self) -> Healed:
        """Tags whose current/link went although they had been pushed again: their newest index link says where to."""
        rows = self._inventory.all(
            """
            select m.key, r.id, m.tag, arg_max(i.digest, i.mtime), max(i.mtime) from removed_tag m
            join repository r using (name)
            join tag_index i on i.repository = r.id and i.name = m.tag and i.mtime > m.mtime
            where not exists (from tag t where t.repository = r.id and t.name = m.tag)
            group by m.key, r.id, m.tag order by m.key
            """
        )
        times = TagTimes(self._storage, "heal")
        lines = [
            times.line(place.name, place.tag, Digest.from_raw(bytes(raw)), mtime)
            for key, _, _, raw, mtime in rows
            if isinstance(place := layout.decode(key), TagCurrentKey)
        ]
        async with times.setting(lines):
            for key, repository, tag, raw, mtime in rows:
                body = layout.link_body(Digest.from_raw(bytes(raw)))
                async with self._lock.batch():
                    await put_missing(self._storage, key, body, since=mtime)
                self._inventory.insert(
                    "tag",
                    {
                        "repository": ("int32", [repository]),
                        "name": ("utf8", [tag]),
                        "target": ("binary", [bytes(raw)]),
                        "size": ("int64", [len(body)]),
                        "mtime": ("int64", [mtime]),
                    },
                )
        if rows:
            await self._scanner.read_manifests()
        return Healed(links=tuple(key for key, *_ in rows))

    async def _blobs(self, trash: str) -> Healed:
        rows = await in_thread(self.plan_blobs, trash)
        restored: list[tuple[bytes, int]] = []
        damaged: list[str] = []

        async def restore(row: tuple[bytes, str, int]) -> None:
            raw, key, size = row
            digest = Digest.from_raw(bytes(raw))
            try:
                present = (await self._storage.stat(layout.encode(BlobKey(digest)))).size
            except NotFound:
                present = None
            if present is None:
                await self._lock.guard()  # a copy takes nothing away, and a large one takes its time
                if not await copy_back(self._storage, key, digest, size=size):
                    damaged.append(key)
                    return
            restored.append((bytes(raw), size if present is None else present))

        await for_each(rows, restore, concurrency=self._concurrency)
        self._inventory.execute(f"delete from {trash} where key in (select unnest(?::varchar[]))", [damaged])
        if not restored:
            return Healed(damaged=tuple(damaged))
        now = await self._storage.now()
        self._inventory.insert(
            "main.blob",
            {
                "digest": ("binary", [raw for raw, _ in restored]),
                "size": ("int64", [size for _, size in restored]),
                "mtime": ("int64", [now] * len(restored)),
            },
        )
        self._inventory.execute(
            "delete from main.manifest where state = 'missing' and digest in (select digest from main.blob)"
        )
        await self._scanner.read_manifests()
        return Healed(blobs=tuple(sorted(str(Digest.from_raw(raw)) for raw, _ in restored)), damaged=tuple(damaged))

    async def _links(self, removed: str) -> Healed:
        rows = await in_thread(plan_links, self._inventory, removed)
        if not rows:
            return Healed()

        async def restore(row: tuple[str, bytes]) -> None:
            key, body = row
            async with self._lock.batch():
                await put_missing(self._storage, key, bytes(body))

        for kind in (LayerLinkKey, RevisionLinkKey):  # a revision's own time says that its layers were there
            step = sorted(row for row in rows if isinstance(layout.decode(row[0]), kind))
            await for_each(step, restore, concurrency=self._concurrency)
        ids = {name: number for number, name in self._inventory.all("select id, name from repository")}
        now = await self._storage.now()
        for kind, table in ((LayerLinkKey, "layer_link"), (RevisionLinkKey, "revision_link")):
            links = [(key, bytes(body)) for text, body in rows if isinstance(key := layout.decode(text), kind)]
            targets = [layout.parse_link(body) for _, body in links]
            self._inventory.insert(
                table,
                {
                    "repository": ("int32", [ids[key.name] for key, _ in links]),
                    "digest": ("binary", [key.digest.raw for key, _ in links]),
                    "target": ("binary", [target.raw if target else None for target in targets]),
                    "size": ("int64", [len(body) for _, body in links]),
                    "mtime": ("int64", [now] * len(links)),
                },
            )
        await self._scanner.read_manifests()
        return Healed(links=tuple(sorted(key for key, _ in rows)))
