"""Heal: give back what an earlier step took and what is referenced again.

- A blob that anything names, that is gone and lies in some run's trash, is copied back (never moved), and its
  manifest read, to a fixpoint.
- A link that a journal says we removed from a repository comes back, with the journaled body, when that repository
  reaches what it names: a layer link is a right to read, so no other missing link is ever made. A removal that was seen
  undone since (the link stood there again) is no longer ours to undo: whoever removed it next meant it.
- Where a tag was pushed long after a run had ended, the registry then saw that the manifests which the tag's own
  manifest lists were linked. What is missing of these a client deleted since; it does not come back.
- What a run that was cut short, or was not told the outcome of all that it sent, had asked the store to delete may yet
  go, even after it was seen to stand. So for a day, its removals stay ours to undo; and where it took a tag's
  current/link, and an index link shows that the tag was pushed since, the tag gets it back: until a gc that began
  after that day has come to its end.

Nothing that stands is overwritten.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from regstore import layout
from regstore.concurrency import for_each, in_thread
from regstore.digest import Digest
from regstore.errors import NotFound
from regstore.inventory.inventory import Inventory
from regstore.inventory.reachability import Reachability
from regstore.inventory.scan import Scanner
from regstore.layout import BlobKey, LayerLinkKey, RevisionLinkKey, TagCurrentKey
from regstore.manifest import EdgeKind
from regstore.runs import TRASH, is_run, started_at
from regstore.runs.journal import (
    LATE,
    STALLED,
    UNLINK,
    Entry,
    RunRecord,
    find_runs,
    read_parts,
    read_seen,
    write_seen,
)
from regstore.runs.lock import Lock
from regstore.storage.base import Storage
from regstore.tagging import UNDER_WAY, put_missing

_BATCH: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Healed:
    """What came back: blobs by digest, links by key."""

    blobs: tuple[str, ...] = ()
    links: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        return not self.blobs and not self.links

    def __add__(self, other: Healed) -> Healed:
        return Healed(blobs=self.blobs + other.blobs, links=self.links + other.links)


class Past:
    """The trash and the journals of a store, as relations of an inventory: trash(digest, run, key, size) and
    removed(run, key, name, is_revision, digest, body, over). `nothing` when there is neither. And
    removed_tag(key, name, tag, mtime): current/links that a run may yet delete.

    Times in microseconds. over: what is newer was pushed when all of the run was over; null while it may not be.
    mtime: what is newer was pushed since.
    """

    def __init__(self, inventory: Inventory, records: Sequence[RunRecord]) -> None:
        self._inventory = inventory
        self.records = records
        self._seen: dict[str, set[str]] = {}
        self._acting: set[str] = set()
        self._tags_open: set[str] = set()
        self._over: dict[str, int] = {}
        for table, columns in (
            ("trash", "digest blob, run varchar, key varchar, size bigint"),
            (
                "removed",
                "run varchar, key varchar, name varchar, is_revision boolean, digest blob, body blob, over bigint",
            ),
            ("removed_tag", "key varchar, name varchar, tag varchar, mtime bigint"),
        ):
            inventory.execute(f"create or replace table {table} ({columns})")

    @classmethod
    async def load(cls, storage: Storage, inventory: Inventory) -> Past:
        """One LIST of `trash/`, one of `runs/`, and a GET a journal part."""
        past = cls(inventory, await find_runs(storage))
        now = await storage.now()
        past._acting = {record.run for record in past.records if record.is_acting(now)}
        healed = max((started_at(record.run) for record in past.records if _has_healed(record)), default=0)
        for record in past.records:
            if record.settled:
                past._over[record.run] = record.written + STALLED
            elif healed <= record.written + LATE:
                past._tags_open.add(record.run)
        found: list[tuple[str, str, int]] = []
        async for one in list_trash(storage):
            found.append(one)
            if len(found) >= _BATCH:
                past.add_trash(found)
                found = []
        past.add_trash(found)
        for record in past.records:
            past._seen[record.run] = await read_seen(storage, record)
            async for entries in read_parts(storage, record.parts):
                past.add_removed(record.run, entries)
        return past

    @property
    def nothing(self) -> bool:
        return not self._inventory.count("trash") and not self._inventory.count("removed")

    def add_trash(self, found: Iterable[tuple[str, str, int]]) -> None:
        """(run, key in the trash, size in bytes)."""
        rows = []
        for run, key, size in found:
            original = layout.decode(key[len(f"{TRASH}{run}/") :])
            if isinstance(original, BlobKey):
                rows.append((original.digest.raw, run, key, size))
        self._inventory.insert(
            "trash",
            {
                "digest": ("binary", [row[0] for row in rows]),
                "run": ("utf8", [row[1] for row in rows]),
                "key": ("utf8", [row[2] for row in rows]),
                "size": ("int64", [row[3] for row in rows]),
            },
        )

    def add_removed(self, run: str, entries: Sequence[Entry]) -> None:
        seen = self._seen.get(run, set())
        if run in self._tags_open:
            self._add_removed_tags(entries, started_at(run) - UNDER_WAY)
        rows = []
        for entry in entries:
            if entry.op != UNLINK or entry.body is None or entry.key in seen:
                continue
            key = layout.decode(entry.key)
            if isinstance(key, LayerLinkKey | RevisionLinkKey):
                is_revision = isinstance(key, RevisionLinkKey)
                rows.append((run, entry.key, key.name, int(is_revision), key.digest.raw, entry.body))
        self._inventory.insert(
            "removed",
            {
                "run": ("utf8", [row[0] for row in rows]),
                "key": ("utf8", [row[1] for row in rows]),
                "name": ("utf8", [row[2] for row in rows]),
                "is_revision": ("int8", [row[3] for row in rows]),
                "digest": ("binary", [row[4] for row in rows]),
                "body": ("binary", [row[5] for row in rows]),
                "over": ("int64", [self._over.get(run)] * len(rows)),
            },
        )

    def _add_removed_tags(self, entries: Sequence[Entry], since: int) -> None:
        found = [(entry, layout.decode(entry.key)) for entry in entries if entry.op == UNLINK]
        tags = [(entry, key) for entry, key in found if isinstance(key, TagCurrentKey)]
        self._inventory.insert(
            "removed_tag",
            {
                "key": ("utf8", [entry.key for entry, _ in tags]),
                "name": ("utf8", [key.name for _, key in tags]),
                "tag": ("utf8", [key.tag for _, key in tags]),
                "mtime": ("int64", [max(entry.mtime, since) for entry, _ in tags]),
            },
        )

    async def note_seen(self, storage: Storage, lock: Lock) -> None:
        """Void the journals' claims to links that stand again, unless they may yet go."""
        found = self._inventory.all(
            """
            select m.run, m.key from removed m join repository r using (name)
            where case when m.is_revision
                then exists (from revision_link x where x.repository = r.id and x.digest = m.digest)
                else exists (from layer_link x where x.repository = r.id and x.digest = m.digest) end
            """
        )
        keys: dict[str, list[str]] = {}
        for run, key in found:
            keys.setdefault(run, []).append(key)
        for record in self.records:
            if record.run in keys and record.run not in self._acting:
                async with lock.batch():
                    await write_seen(storage, record, lock.run, keys[record.run])


def _has_healed(record: RunRecord) -> bool:
    """It heals as it begins, and came to its end."""
    return record.done is not None and record.begun.get("command") == "gc"


async def list_trash(storage: Storage) -> AsyncIterator[tuple[str, str, int]]:
    """(run, key, size in bytes) of everything in the trash."""
    async for page in storage.list(TRASH):
        for key, size in zip(page.keys, page.sizes, strict=True):
            run = key[len(TRASH) :].partition("/")[0]
            if is_run(run):
                yield run, key, size


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
            if step.nothing:
                return healed
            healed += step

    def _reach(self) -> Reachability:
        reach = Reachability(self._inventory, "heal_reach")
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

    def plan_blobs(self, trash: str = "trash") -> list[tuple[bytes, str, int]]:
        """(digest, key in the trash, size) of what is named and missing; the newest copy of each."""
        if not self._inventory.count(trash):
            return []
        reach = self._reach()
        return self._inventory.all(
            f"""
            select t.digest, arg_max(t.key, t.run), arg_max(t.size, t.run) from {trash} t
            where t.digest in (select digest from {reach.table}) and t.digest not in (select digest from blob)
            group by t.digest
            """
        )

    def plan_links(self, removed: str = "removed") -> list[tuple[str, bytes]]:
        """(key, body) of links that were removed by us and are reached in their repository, and are not there."""
        if not self._inventory.count(removed):
            return []
        reach = self._reach()
        return self._inventory.all(
            f"""
            with old as (select digest, over from {removed} where is_revision and over is not null),
            pushed as (
                select repository, digest, mtime from tag_index
                where digest in (select digest from old)
                union all select i.repository, e.target, i.mtime from tag_index i
                join edge e on e.source = i.digest and e.kind = {EdgeKind.MANIFEST.value}
                where i.mtime > (select min(over) from old) and e.target in (select digest from old)
            ),
            found as (select repository, digest, max(mtime) as mtime from pushed group by all)
            select m.key, arg_max(m.body, m.run) from {removed} m
            join repository r using (name)
            join {reach.table} k on k.repository = r.id and k.digest = m.digest
            left join found f on m.is_revision and f.repository = r.id and f.digest = m.digest
            where coalesce(f.mtime <= m.over, true) and case when m.is_revision
                then k.expand and not exists (
                    from revision_link x where x.repository = r.id and x.digest = m.digest)
                else not exists (from layer_link x where x.repository = r.id and x.digest = m.digest) end
            group by m.key
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

        async def restore(row: tuple[bytes, str, int]) -> None:
            raw, key, size = row
            target = layout.encode(BlobKey(Digest.from_raw(bytes(raw))))
            try:
                present = (await self._storage.stat(target)).size
            except NotFound:
                present = None
            if present is None:
                await self._lock.guard()  # a copy takes nothing away, and a large one takes its time
                await self._storage.copy(key, target, size=size)
            restored.append((bytes(raw), size if present is None else present))

        await for_each(rows, restore, concurrency=self._concurrency)
        if not restored:
            return Healed()
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
        return Healed(blobs=tuple(sorted(str(Digest.from_raw(raw)) for raw, _ in restored)))

    async def _links(self, removed: str) -> Healed:
        rows = await in_thread(self.plan_links, removed)
        if not rows:
            return Healed()

        async def restore(row: tuple[str, bytes]) -> None:
            key, body = row
            async with self._lock.batch():
                await put_missing(self._storage, key, bytes(body))

        await for_each(sorted(rows), restore, concurrency=self._concurrency)
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
