"""Stores for migrations: opened as a user's are, and looked at without them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regstore.inventory.scan import ScanOptions
from regstore.migrate import MigrateOptions, MigrateResult, migrate
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.storage.s3 import S3Storage
from regstore.testing.faulty import FaultyStorage
from tests.model.memory import ModelStorage
from tests.servers.s3 import S3Root, S3Server

SCANNING = ScanOptions(cache_dir=None, concurrency=8)
OURS = "regstore/"
SEEDED = "_regstore/seed"


def bucket_storage(server: S3Server, bucket: str, root: str = "", **more: Any) -> S3Storage:
    return S3Storage(server.settings(bucket, root, **more))


def open_place(place: Path | S3Root, **more: Any) -> Storage:
    if isinstance(place, Path):
        return DiskStorage(place, create=True)
    return bucket_storage(place.server, place.bucket, place.rootdirectory, **more)


async def move(source: Storage, target: Storage, *, follow: bool = False, **options: Any) -> MigrateResult:
    """As `migrate`. Where it waits, a model's clock goes on at once."""

    async def pause(seconds: float) -> None:
        store = target.inner if isinstance(target, FaultyStorage) else target
        assert isinstance(store, ModelStorage)
        store.clock += int(seconds * 1_000_000)

    chosen = MigrateOptions(concurrency=8, **options)
    return await migrate(source, target, chosen, follow=follow, scanning=SCANNING, pause=pause)


async def contents(storage: Storage) -> dict[str, bytes]:
    """Every key of the registry with its body; not what is ours."""
    found = {}
    async for page in storage.list(""):
        for key in page.keys:
            if not key.startswith(OURS) and not key.endswith(SEEDED):
                found[key] = await storage.get(key)
    return found


def dangling(objects: Mapping[str, bytes]) -> list[str]:
    """Links that lead to nothing or to other bytes, and tags without a revision. Written without regstore."""
    bad = []
    for key, body in objects.items():
        if not key.endswith("/link"):
            continue
        algorithm, _, encoded = body.decode("latin-1").partition(":")
        blob = objects.get(f"docker/registry/v2/blobs/{algorithm}/{encoded[:2]}/{encoded}/data")
        if blob is None or hashlib.new(algorithm, blob).hexdigest() != encoded:
            bad.append(key)
        if "/_manifests/tags/" in key:
            name = key.partition("/_manifests/")[0]
            places = ("_manifests/revisions", "_layers")  # v2.1.0 linked manifests as layers
            if not any(f"{name}/{place}/{algorithm}/{encoded}/link" in objects for place in places):
                bad.append(key)
    return bad
