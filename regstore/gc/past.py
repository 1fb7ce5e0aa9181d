"""What earlier runs took of a store, by their journals and the trash, as relations of an inventory.

A journal says what a run was about to delete, not what it deleted, and a client may delete the same link later. So
that nothing comes back which somebody else removed, and meant to, a journal's claim to a link is void where

- a run saw the link stand again, or gave it back, when nothing of the claiming run was under way any more (`seen`);
- the run never came to it: of the same repository a key stands as the journal has it that goes in an earlier step,
  and no step of a repository is begun before the one before it has succeeded; where more than one process tried, each
  attempt is judged by itself, for a later one may have planned otherwise;
- a registry found the link since (`gc.claims`): a push was accepted when all of the run was `over`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from regstore import layout
from regstore.gc.plan import Step
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.layout import BlobKey, LayerLinkKey, RevisionLinkKey, TagCurrentKey, TagIndexKey
from regstore.state import TRASH, is_run, started_at
from regstore.state.journal import (
    CREATED,
    GIVEN_BACK,
    LATE,
    REWRITTEN,
    STALLED,
    UNLINK,
    Entry,
    RunRecord,
    attempt_of,
    find_runs,
    read_parts,
    read_seen,
    write_seen,
)
from regstore.state.lock import Lock
from regstore.storage.base import Storage
from regstore.tagging import UNDER_WAY

_BATCH: Final = 10_000
_SQL: Final = Statements(
    "regstore.gc",
    "past.sql",
    tag=str(int(Step.TAG)),
    tag_index=str(int(Step.TAG_INDEX)),
    revision=str(int(Step.REVISION)),
)
#: Commands whose runs unlink step by step (`gc.apply.unlink`).
_UNLINK: Final = ("gc", "rm", "untag")
#: Caches of layers' descriptors that don't answer for a link once the run that removed it has ended.
_FORGETFUL: Final = ("none", "redis")


class Past:
    """The trash and the journals of a store, as relations of an inventory: trash(digest, run, key, size) and
    removed(run, key, name, step, digest, body, over). And removed_tag(key, name, tag, mtime): current/links that a run
    may yet delete.

    Times in microseconds. over: a registry that found the link after this did not find it by what the run was about to
    take; null where no time says so. mtime: what is newer was pushed since.
    """

    def __init__(self, inventory: Inventory, records: Sequence[RunRecord]) -> None:
        self._inventory = inventory
        self.records = records
        self._seen: dict[str, set[str]] = {}
        self._acting: set[str] = set()
        self._tags_open: set[str] = set()
        self._over: dict[str, int] = {}
        self._written_by_us = 0
        #: Runs that unlinked step by step, and are over.
        self._unlinking: set[str] = set()
        _SQL.run(inventory, "tables")

    @classmethod
    async def load(cls, storage: Storage, inventory: Inventory) -> Past:
        """One LIST of `trash/`, one of `runs/`, and a GET a journal part. The inventory holds the store's links."""
        past = await cls.read(storage, inventory)
        past.judge()
        return past

    @classmethod
    async def read(cls, storage: Storage, inventory: Inventory) -> Past:
        """The same, where what `of_repositories` names comes into the inventory later: then comes `judge`."""
        past = cls(inventory, await find_runs(storage))
        now = await storage.now()
        past._acting = {record.run for record in past.records if record.is_acting(now)}
        healed = max((started_at(record.run) for record in past.records if _has_healed(record)), default=0)
        for record in past.records:
            past._over[record.run] = record.written + STALLED + (0 if record.settled else LATE)
            past._written_by_us = max(past._written_by_us, record.restored)
            if not record.settled and healed <= record.written + LATE:
                past._tags_open.add(record.run)
        found: list[tuple[str, str, int]] = []
        async for one in list_trash(storage):
            found.append(one)
            if len(found) >= _BATCH:
                past.add_trash(found)
                found = []
        past.add_trash(found)
        unlinking = {record.run for record in past.records if record.begun.get("command") in _UNLINK}
        past._unlinking = unlinking - past._acting
        if past._unlinking:
            _SQL.run(inventory, "intended")
        for record in past.records:
            past._seen[record.run] = await read_seen(storage, record)
            for part in record.parts:
                async for entries in read_parts(storage, [part]):
                    past.add_removed(record.run, entries, attempt_of(part))
                    if record.run in past._unlinking:
                        past._add_intended(record.run, entries, attempt_of(part))
                    if any(entry.op in (REWRITTEN, CREATED) for entry in entries):
                        past._written_by_us = max(past._written_by_us, record.written)
        return past

    def judge(self) -> None:
        """Void the claims that the links which stand, and the times, say are none. Once, before anything is asked."""
        if self._unlinking:
            _SQL.run(self._inventory, "void_what_was_not_begun")
        if self._written_by_us:  # an undo and a repair write links one by one, and without all that they need
            _SQL.run(self._inventory, "trust_no_times_of_ours", {"written_by_us": self._written_by_us})

    def of_repositories(self) -> list[str]:
        """Names of those whose links it has to know for what it says. Before `judge`."""
        found = {name for (name,) in _SQL.run(self._inventory, "of_repositories").fetchall()}
        if self._unlinking:
            found |= {name for (name,) in _SQL.run(self._inventory, "of_intended").fetchall()}
        return sorted(found)

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

    def add_removed(self, run: str, entries: Sequence[Entry], attempt: str = "") -> None:
        seen = self._seen.get(run, set())
        if run in self._tags_open:
            self._add_removed_tags(entries, started_at(run) - UNDER_WAY)
        over = self._over.get(run)
        misled = not self._layers_are_looked_up(run)
        rows: list[tuple[Entry, LayerLinkKey | RevisionLinkKey, Step, int | None]] = []
        for entry in entries:
            if entry.op != UNLINK or entry.body is None or entry.key in seen:
                continue
            key = layout.decode(entry.key)
            if isinstance(key, RevisionLinkKey):
                rows.append((entry, key, Step.REVISION, over))
            elif isinstance(key, LayerLinkKey):
                rows.append((entry, key, Step.LAYER, None if misled else over))
        self._inventory.insert(
            "removed",
            {
                "run": ("utf8", [run] * len(rows)),
                "key": ("utf8", [entry.key for entry, *_ in rows]),
                "name": ("utf8", [key.name for _, key, *_ in rows]),
                "step": ("int8", [int(step) for _, _, step, _ in rows]),
                "digest": ("binary", [key.digest.raw for _, key, *_ in rows]),
                "body": ("binary", [entry.body for entry, *_ in rows]),
                "over": ("int64", [row[3] for row in rows]),
                "attempt": ("utf8", [attempt] * len(rows)),
            },
        )

    def _layers_are_looked_up(self, run: str) -> bool:
        """Whether a registry that accepted a manifest after the run had found its layers by their links: no cache
        answered for what the run took. (For manifests it asks no cache.)"""
        for record in self.records:
            if record.run == run:
                done = record.done or {}
                return done.get("cache") in _FORGETFUL or (not done and record.begun.get("cache") == "none")
        return False

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

    def _add_intended(self, run: str, entries: Sequence[Entry], attempt: str) -> None:
        """What must have gone before others of its repository could."""
        rows = []
        for entry in entries:
            key = layout.decode(entry.key)
            if entry.op != UNLINK or not isinstance(key, TagCurrentKey | TagIndexKey | RevisionLinkKey):
                continue
            step = _STEPS[type(key)]
            tag = "" if isinstance(key, RevisionLinkKey) else key.tag
            digest = b"" if isinstance(key, TagCurrentKey) else key.digest.raw
            rows.append((key.name, int(step), tag, digest, entry.size, entry.mtime))
        self._inventory.insert(
            "intended",
            {
                "run": ("utf8", [run] * len(rows)),
                "attempt": ("utf8", [attempt] * len(rows)),
                "name": ("utf8", [row[0] for row in rows]),
                "step": ("int8", [row[1] for row in rows]),
                "tag": ("utf8", [row[2] for row in rows]),
                "digest": ("binary", [row[3] for row in rows]),
                "size": ("int64", [row[4] for row in rows]),
                "mtime": ("int64", [row[5] for row in rows]),
            },
        )

    async def note_seen(self, storage: Storage, lock: Lock) -> None:
        """Void the journals' claims to links that stand again, unless they may yet go."""
        if self.records:
            await self._note(storage, lock, _SQL.run(self._inventory, "standing_again").fetchall())

    async def note_given_back(self, storage: Storage, lock: Lock, keys: Sequence[str]) -> None:
        """Void the journals' claims to links that were given back: who removes one now, means it."""
        if keys:
            rows = _SQL.run(self._inventory, "with_keys", {"keys": list(keys)}).fetchall()
            await self._note(storage, lock, rows, GIVEN_BACK)

    async def _note(self, storage: Storage, lock: Lock, found: Iterable[tuple[str, str]], why: str = "") -> None:
        keys: dict[str, list[str]] = {}
        for run, key in found:
            keys.setdefault(run, []).append(key)
        for record in self.records:
            if record.run in keys and record.run not in self._acting:
                async with lock.batch():
                    await write_seen(storage, record.run, lock.run, sorted(set(keys[record.run])), why)


_STEPS: Final = {TagCurrentKey: Step.TAG, TagIndexKey: Step.TAG_INDEX, RevisionLinkKey: Step.REVISION}


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
