"""An export: blobs and manifests, each hashed on its way; index.json last, so that nothing looks whole before it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regstore import layout
from regstore.digest import Digest
from regstore.errors import InputError, NoSuchBucket, NotFound
from regstore.events import OnEvent, Progress, ignore
from regstore.exchange.gathering import Content, ExportPlan
from regstore.exchange.image_layout import (
    BLOBS,
    INDEX,
    MARKER,
    MARKER_BODY,
    Entry,
    blob_path,
    check_marker,
    encode_index,
    raw_entries,
)
from regstore.exchange.tar_writing import TarTarget
from regstore.storage.base import Storage
from regstore.storage.optional import IsFolder
from regstore.storage.streams import verified_size
from regstore.storage.transfer import Attempts, Carrier, each_blob, in_order


@dataclass(kw_only=True)
class ExportResult:
    """entries: what is in the index now, of this export. written, bytes: contents that were copied; there: that were
    there, and right. left_out: what is not in the index, and why."""

    entries: list[Entry] = field(default_factory=list)
    written: int = 0
    bytes: int = 0
    there: int = 0
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def partial(self) -> bool:
        return bool(self.left_out)


def refuse_within(storage: Storage, target: Path) -> None:
    """InputError where a layout would lie in the folder of the store itself."""
    if isinstance(storage, IsFolder) and target.resolve().is_relative_to(storage.folder.resolve()):
        raise InputError(f"{target} lies within the store {storage.url}: give another place")


async def check_target(target: Storage) -> list[Mapping[str, Any]]:
    """What the index of a layout holds already. InputError where there are other things than a layout."""
    foreign = ""
    there: set[str] = set()
    try:
        async for page in target.list(""):
            there.update(key for key in page.keys if key in (MARKER, INDEX))
            foreign = foreign or next(
                (key for key in page.keys if key not in (MARKER, INDEX) and not key.startswith(BLOBS)), ""
            )
    except NoSuchBucket:
        return []
    if foreign:
        raise InputError(
            f"{target.url} holds other things than an OCI image layout, such as {foreign}: give an empty folder"
        )
    if INDEX not in there:
        return []
    check_marker(await target.get(MARKER) if MARKER in there else b"", target.url)
    return raw_entries(await target.get(INDEX), target.url)


async def export(
    storage: Storage, plan: ExportPlan, target: Storage, *, concurrency: int = 128, on_event: OnEvent = ignore
) -> ExportResult:
    """Write what was planned. target: as `places.open_target` gives it.

    A layout that is there gets more entries; one of the same name is replaced. What the store has lost, or has other
    bytes of, is left out with every image that needs it, and the rest goes on. Nothing is written but blobs where no
    image is left.
    """
    before = await check_target(target)
    work = _Export(storage, plan, target, concurrency, on_event)
    bad = await work.copy()
    result = work.result
    for entry in plan.entries:
        lost = sorted(map(str, plan.needs[entry.digest] & bad))
        if lost:
            result.left_out.append(f"{entry.name}: {lost[0]} could not be had from {storage.url}")
        else:
            result.entries.append(entry)
    if result.entries:
        if await _get(target, MARKER) is None:
            await target.put(MARKER, MARKER_BODY)
        await target.put(INDEX, encode_index(result.entries, before))
        if isinstance(target, TarTarget):
            await target.finish()
    return result


class _Export:
    def __init__(
        self, storage: Storage, plan: ExportPlan, target: Storage, concurrency: int, on_event: OnEvent
    ) -> None:
        self._storage = storage
        self._plan = plan
        self._target = target
        self._concurrency = concurrency
        self._on_event = on_event
        self._done = 0
        self._there: dict[str, int] = {}
        self.result = ExportResult(left_out=list(plan.left_out), notes=list(plan.notes))

    async def copy(self) -> set[Digest]:
        """All contents; those that could not be copied."""
        try:
            async for page in self._target.list(BLOBS):
                self._there.update(zip(page.keys, page.sizes, strict=True))
        except NoSuchBucket:
            pass
        carrier, attempts = Carrier(self._storage, self._target, put=None), Attempts(self._storage, self._others)
        bad: set[Digest] = set()

        async def one(item: tuple[Digest, Content]) -> None:
            digest, content = item
            if not await self._is_there(digest, content.size):
                key = layout.blob_key(content.stored_as)
                copying = carrier.copy(key, blob_path(digest), digest=digest, size=content.size)
                failure = await attempts.of(key, digest, content.size, copying)
                if failure is not None:
                    bad.add(digest)
                    self.result.notes.append(f"{digest}: {failure.error}")
                else:
                    self.result.written += 1
                    self.result.bytes += content.size
            self._done += content.size
            self._on_event(Progress(phase="writing blobs", done=self._done, total=self._plan.bytes, unit="B"))

        items = sorted(self._plan.contents.items(), key=lambda item: -item[1].size)
        await each_blob(
            carrier.road, in_order(items, lambda item: item[1].size), one, concurrency=self._concurrency
        )
        await attempts.end()
        return bad

    async def _is_there(self, digest: Digest, size: int) -> bool:
        """An export before this one wrote it, and it is as its digest says."""
        path = blob_path(digest)
        if self._there.get(path) != size or await verified_size(self._target, path, digest, size) is None:
            return False
        self.result.there += 1
        return True

    def _others(self, most: int, failed: Sequence[str]) -> list[str]:
        keys = [layout.blob_key(content.stored_as) for content in self._plan.contents.values()]
        return [key for key in keys if key not in failed][:most]


async def _get(storage: Storage, key: str) -> bytes | None:
    try:
        return await storage.get(key)
    except (NotFound, NoSuchBucket):
        return None
