"""Manifests of a store: each that is linked, tagged or named by an index, from the cache where it was read before."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, Self

from regstore.concurrency import for_each, in_thread
from regstore.events import Notice, OnEvent, Progress
from regstore.inventory.cache import ManifestCache
from regstore.inventory.inventory import Inventory
from regstore.inventory.sample import note_not_given, other_blobs
from regstore.inventory.statements import EDGE_KINDS, Statements
from regstore.manifest import MAX_SIZE
from regstore.storage.base import Storage
from regstore.storage.outage import OutageWatch
from regstore.tasks.manifests import PHASE, ManifestRows, ReadManifests, read_manifests
from regstore.tasks.packing import PackedError, unpack_of_store
from regstore.tasks.runner import HERE, Here, Runner
from regstore.tasks.sharing import WORTH_WORKERS, Ways, times

_BATCH_MANIFESTS: Final = 4_000
#: In one task of another process.
_TASK_MANIFESTS: Final = 400
#: Digests held in memory at a time: enough for all that work on them.
_SLICE: Final = 50_000
_FAR_SLICE: Final = 200_000
_SQL: Final = Statements("regstore.inventory", "manifests.sql", **EDGE_KINDS)


def linked_manifests(inventory: Inventory) -> list[bytes]:
    """Digests that are named as manifests by links of the inventory, and are not known there."""
    return [bytes(raw) for raw, _ in _SQL.run(inventory, "linked", most=str(2**62)).fetchall()]


class ReadsManifests(Protocol):
    """What fills an inventory with the manifests that it lacks: a `Scanner`."""

    async def read_manifests(self) -> None: ...


class ManifestReader:
    """Fills `manifest` and `edge`. One GET for each that the cache does not know. stored_at: the keys of those that do
    not stand in their place, by digest."""

    def __init__(
        self,
        storage: Storage,
        inventory: Inventory,
        *,
        cache_dir: Path | None,
        concurrency: int,
        runner: Runner = HERE,
        stored_at: Mapping[bytes, str],
        on_event: OnEvent,
    ) -> None:
        self._storage = storage
        self._inventory = inventory
        self._cache_dir = cache_dir
        self._concurrency = concurrency
        self._runner = runner
        self._slice = _FAR_SLICE if runner.is_far else _SLICE
        self._stored_at = stored_at
        self._on_event = on_event
        self._watch = OutageWatch(storage, other_blobs(inventory))

    async def read(self) -> None:
        """Every revision, every tag's target and, from these, every child manifest, to a fixpoint."""
        cache = ManifestCache(self._cache_dir)
        if cache.trouble:
            self._on_event(Notice(message=cache.trouble))
        try:
            read, full = 0, True
            while full and (rows := _SQL.run(self._inventory, "linked", most=str(self._slice)).fetchall()):
                read, full = await self._read_batch(rows, cache, read), len(rows) == self._slice
            while rows := _SQL.run(self._inventory, "children", most=str(self._slice)).fetchall():
                read = await self._read_batch(rows, cache, read)
            await self._watch.end()
        finally:
            cache.close()

    async def _read_batch(
        self, rows: Sequence[tuple[bytes, int | None]], cache: ManifestCache, read_before: int
    ) -> int:
        """Look at digests, each with its blob's size, or None where the blob was not listed: it is asked for all the
        same, for it may have come after the blobs had been listed."""
        sizes = {bytes(digest): size for digest, size in rows}
        unread = {digest: size for digest, size in sizes.items() if size is None or size <= MAX_SIZE}
        large = [(digest, size) for digest, size in sizes.items() if size is not None and size > MAX_SIZE]
        self._store_unreadable(
            [(digest, size, "too large", f"{size:,} bytes are too many for a manifest") for digest, size in large]
        )
        known = ManifestRows()
        for row in cache.load(list(unread)):
            if unread[row[0]] != row[1]:
                continue  # another size than when it was verified: read it again
            del unread[row[0]]
            known.add_remembered(row)
            if len(known) >= _BATCH_MANIFESTS:
                store_manifests(self._inventory, known)
                known = ManifestRows()
        store_manifests(self._inventory, known)
        return await self._read_unknown(list(unread), cache, read_before)

    async def _read_unknown(self, digests: list[bytes], cache: ManifestCache, read_before: int) -> int:
        """In batches, each a task. Of a batch that stopped, since too much was not given, the rest is a batch again."""
        done, total = read_before, read_before + len(digests)

        def tell() -> None:
            self._on_event(Progress(phase=PHASE, done=done + ways.done, total=total, unit="manifests"))

        ways = Ways(tell, self._on_event)
        many = self._runner.takes(len(digests), WORTH_WORKERS, self._storage)
        size, at_once = (_BATCH_MANIFESTS, 1)
        if many:
            at_once = 2 * self._runner.size
            size = min(_TASK_MANIFESTS * times(self._runner), max(_TASK_MANIFESTS, len(digests) // at_once))
        runner: Runner = self._runner if many else Here(self._concurrency)
        batches = _Batches(digests, size)
        storing = asyncio.Lock()

        async def read(batch: Sequence[bytes]) -> None:
            nonlocal done
            keys = [self._stored_at.get(raw, "") for raw in batch]
            with ways.of_one() as on_event:
                result = await runner.run(
                    read_manifests, ReadManifests(batch, keys), self._storage, on_event=on_event
                )
                result.require(batch)
                done += len(batch) - len(result.left)
            tell()
            if result.left:
                batches.add(result.left)
            async with storing:
                await in_thread(store_manifests, self._inventory, result.sound)
                await in_thread(cache.save, result.sound.remembered)
                self._store_unreadable(result.broken)
                await self._note_not_given(len(batch) - len(result.left), result.not_given)

        await for_each(batches, read, concurrency=at_once)
        return total

    async def _note_not_given(self, asked: int, not_given: Sequence[tuple[bytes, str, PackedError]]) -> None:
        """Raises where that is no damage of single ones."""
        for _ in range(asked - len(not_given)):
            self._watch.good()
        for raw, key, packed in not_given:
            error = unpack_of_store(packed)
            await note_not_given(self._inventory, self._watch, key, error)
            self._store_unreadable([(raw, 0, "unreadable", str(error))])

    def _store_unreadable(self, rows: Iterable[tuple[bytes, int, str, str]]) -> None:
        rows = list(rows)
        self._inventory.insert(
            "main.manifest",
            {
                "digest": ("binary", [row[0] for row in rows]),
                "size": ("int64", [row[1] for row in rows]),
                "state": ("utf8", [row[2] for row in rows]),
                "reason": ("utf8", [row[3] for row in rows]),
            },
        )


def store_manifests(inventory: Inventory, manifests: ManifestRows) -> None:
    """That they can be read, and their edges."""
    if not manifests:
        return
    digests, sizes, media_types, artifact_types, _, _ = zip(*manifests.remembered, strict=True)
    inventory.insert(
        "main.manifest",
        {
            "digest": ("binary", digests),
            "state": ("utf8", ["ok"] * len(manifests)),
            "media_type": ("utf8", media_types),
            "artifact_type": ("utf8", artifact_types),
            "size": ("int64", sizes),
        },
    )
    inventory.insert(
        "main.edge",
        {
            "source": ("binary", manifests.sources),
            "target": ("binary", manifests.targets),
            "kind": ("int8", manifests.kinds),
            "size": ("int64", manifests.sizes),
        },
    )


class _Batches:
    """Those that are left, also such as were added meanwhile: an end is only for now."""

    def __init__(self, digests: Sequence[bytes], size: int) -> None:
        self._left = deque(digests[start : start + size] for start in range(0, len(digests), size))

    def add(self, batch: Sequence[bytes]) -> None:
        self._left.append(batch)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Sequence[bytes]:
        if not self._left:
            raise StopIteration
        return self._left.popleft()
