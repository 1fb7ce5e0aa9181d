"""Stores and backups in memory, on disk and in buckets, and the runs of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regstore.backup import (
    CheckResult,
    CreateOptions,
    CreateResult,
    PruneOptions,
    PruneResult,
    ReadData,
    RestoreOptions,
    RestoreResult,
    Retention,
    check,
    create,
    prune,
    restore,
)
from regstore.inventory.scan import ScanOptions
from regstore.state.lock import hold_lock
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.storage.s3 import S3Storage
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW
from tests.model.store import ModelStore
from tests.servers.s3 import S3Root

SCANNING = ScanOptions(cache_dir=None, concurrency=4)
SEEDED = "_regstore/seed"


def memory(store: ModelStore | None = None, **more: Any) -> ModelStorage:
    """now: when it is not given, no earlier than what is in the store was written."""
    store = store if store is not None else ModelStore()
    newest = max((mtime for _, mtime in store.objects.values()), default=0)
    return ModelStorage(store, **({"now": max(NOW, newest)} | more))


def open_place(place: Path | S3Root) -> Storage:
    if isinstance(place, Path):
        return DiskStorage(place, create=True)
    return S3Storage(place.settings())


async def take(
    source: Storage, backup: Storage, *, scanning: ScanOptions = SCANNING, **options: Any
) -> CreateResult:
    return await create(source, backup, CreateOptions(**({"concurrency": 4} | options)), scanning=scanning)


async def give_back(backup: Storage, store: Storage, **options: Any) -> RestoreResult:
    async with hold_lock(store, command="restore") as lock:
        return await restore(backup, store, RestoreOptions(**({"concurrency": 4} | options)), lock=lock)


async def collect(backup: Storage, *, grace: int = 0, forget: tuple[str, ...] = (), **keep: int) -> PruneResult:
    kept = Retention(**keep) if keep else None
    options = PruneOptions(keep=kept, forget=forget, grace=grace, concurrency=4)
    async with hold_lock(backup, command="backup prune") as lock:
        return await prune(backup, options, lock=lock)


async def read_all(backup: Storage, **more: Any) -> CheckResult:
    return await check(backup, read_data=ReadData.parse("all"), concurrency=4, **more)


async def contents(storage: Storage) -> dict[str, bytes]:
    """Every key of the registry with its body; not the seeds, and not what is ours."""
    found = {}
    async for page in storage.list("docker/"):
        for key in page.keys:
            if not key.endswith(SEEDED):
                found[key] = await storage.get(key)
    return found


async def keys_below(storage: Storage, prefix: str) -> list[str]:
    return [key async for page in storage.list(prefix) for key in page.keys]
