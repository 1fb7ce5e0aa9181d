"""Heal alone: give back what is referenced and lies in the trash, without collecting anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from regstore.errors import NotFound
from regstore.events import OnEvent, ignore
from regstore.gc.caches import NoCache, RegistryCache
from regstore.gc.forgetting import forget_past
from regstore.gc.heal import Healed, Healer
from regstore.gc.past import Past
from regstore.gc.trash import heal_all, refuse_symbolic_links
from regstore.inventory.scan import Scanner, ScanOptions, scan
from regstore.state.journal import find_runs
from regstore.state.lock import Lock
from regstore.storage.base import Capabilities, ObjectInfo, PutOptions, Storage


@dataclass(frozen=True, kw_only=True)
class HealOptions:
    scan: ScanOptions = field(default_factory=ScanOptions.default)


async def plan_heal(storage: Storage, options: HealOptions, *, on_event: OnEvent = ignore) -> Healed:
    """What `heal_store` would give back. Nothing is written."""
    imagined = cast(Storage, _Imagined(storage))
    async with scan(storage, options.scan, on_event=on_event) as inventory:
        refuse_symbolic_links(storage)
        await Past.load(storage, inventory)
        scanner = Scanner(imagined, inventory, options.scan, on_event)
        lock = cast(Lock, _NoLock())
        return await Healer(imagined, inventory, scanner, lock, concurrency=options.scan.concurrency).run()


async def heal_store(
    storage: Storage,
    options: HealOptions,
    lock: Lock,
    *,
    cache: RegistryCache | None = None,
    on_event: OnEvent = ignore,
) -> Healed:
    """Scan, and give back what is referenced and gone; the registry's Redis forgets what went and stays gone."""
    cache = cache or NoCache("unknown")
    async with scan(storage, options.scan, on_event=on_event) as inventory:
        healed = await heal_all(storage, inventory, options.scan, lock, on_event)
        await forget_past(inventory, cache, await find_runs(storage))
        return healed


class _NoLock:
    async def guard(self) -> None:
        return

    @asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        yield


class _Imagined:
    """A store in which copies and puts are remembered, and never made."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._sources: dict[str, str] = {}
        self._bodies: dict[str, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    async def capabilities(self) -> Capabilities:
        return Capabilities()

    async def stat(self, key: str) -> ObjectInfo:
        if key in self._bodies:
            return ObjectInfo(key, len(self._bodies[key]), "", await self._storage.now())
        return await self._storage.stat(self._sources.get(key, key))

    async def get(self, key: str) -> bytes:
        return self._bodies[key] if key in self._bodies else await self._storage.get(self._sources.get(key, key))

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, options: PutOptions | None = None
    ) -> None:
        self._bodies[key] = data

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        self._sources[target] = source

    async def delete_many(self, keys: object) -> None:
        raise NotFound("an imagined store deletes nothing")
