"""Manifests of a store: each that is linked, tagged or named by an index, from the cache where it was read before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from regstore import layout
from regstore.concurrency import for_each
from regstore.digest import Digest
from regstore.errors import InvalidManifest, NotFound, StorageError
from regstore.events import Notice, OnEvent, Progress
from regstore.inventory.cache import ManifestCache, ParsedManifest
from regstore.inventory.inventory import Inventory
from regstore.inventory.sample import note_not_given, other_blobs
from regstore.inventory.statements import EDGE_KINDS, Statements
from regstore.manifest import MAX_SIZE, parse_manifest
from regstore.storage.base import Storage
from regstore.storage.outage import OutageWatch

_BATCH_MANIFESTS: Final = 4_000
#: Digests held in memory at a time.
_SLICE: Final = 50_000
_SQL: Final = Statements("regstore.inventory", "manifests.sql", **EDGE_KINDS)


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
        stored_at: Mapping[bytes, str],
        on_event: OnEvent,
    ) -> None:
        self._storage = storage
        self._inventory = inventory
        self._cache_dir = cache_dir
        self._concurrency = concurrency
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
            while full and (rows := _SQL.run(self._inventory, "linked", most=str(_SLICE)).fetchall()):
                read, full = await self._read_batch(rows, cache, read), len(rows) == _SLICE
            while rows := _SQL.run(self._inventory, "children", most=str(_SLICE)).fetchall():
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
        chunk: list[ParsedManifest] = []
        for known in cache.load(list(unread)):
            if unread[known.digest] != known.size:
                continue  # another size than when it was verified: read it again
            del unread[known.digest]
            chunk.append(known)
            if len(chunk) >= _BATCH_MANIFESTS:
                self._store(chunk)
                chunk = []
        self._store(chunk)

        total = read_before + len(unread)
        done = read_before
        fresh: list[ParsedManifest] = []
        broken: list[tuple[bytes, int, str, str]] = []

        async def read(raw: bytes) -> None:
            nonlocal done, fresh, broken
            outcome = await self._read_manifest(raw)
            if isinstance(outcome, ParsedManifest):
                fresh.append(outcome)
            else:
                broken.append(outcome)
            done += 1
            self._on_event(Progress(phase="reading manifests", done=done, total=total, unit="manifests"))
            if len(fresh) >= _BATCH_MANIFESTS:
                ready, fresh = fresh, []
                self._store(ready)
                cache.save(ready)

        await for_each(unread, read, concurrency=self._concurrency)
        self._store(fresh)
        cache.save(fresh)
        self._store_unreadable(broken)
        return total

    async def _read_manifest(self, raw: bytes) -> ParsedManifest | tuple[bytes, int, str, str]:
        digest = Digest.from_raw(raw)
        key = self._stored_at.get(raw) or layout.encode(layout.BlobKey(digest))
        try:
            data = await self._storage.get(key)
        except NotFound:
            self._watch.good()
            return raw, 0, "missing", "its blob is missing"
        except StorageError as error:
            await note_not_given(self._inventory, self._watch, key, error)
            return raw, 0, "unreadable", str(error)
        self._watch.good()
        if not digest.matches(data):
            what = "it is empty" if not data else f"its {len(data):,} bytes have another digest"
            return raw, len(data), "mismatch", what
        try:
            return ParsedManifest.of(digest, len(data), parse_manifest(data))
        except InvalidManifest as error:
            return raw, len(data), "invalid", str(error)

    def _store(self, manifests: Sequence[ParsedManifest]) -> None:
        self._inventory.insert(
            "main.manifest",
            {
                "digest": ("binary", [known.digest for known in manifests]),
                "state": ("utf8", ["ok"] * len(manifests)),
                "media_type": ("utf8", [known.media_type for known in manifests]),
                "artifact_type": ("utf8", [known.artifact_type for known in manifests]),
                "size": ("int64", [known.size for known in manifests]),
            },
        )
        edges = [(known.digest, *edge) for known in manifests for edge in known.edges]
        self._inventory.insert(
            "main.edge",
            {
                "source": ("binary", [edge[0] for edge in edges]),
                "target": ("binary", [edge[1] for edge in edges]),
                "kind": ("int8", [edge[2] for edge in edges]),
                "size": ("int64", [edge[3] for edge in edges]),
            },
        )

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
