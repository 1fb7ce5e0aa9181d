"""Stores to collect, and what must hold of one at any moment of a run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from regstore.digest import Digest
from regstore.gc.plan import GcOptions
from regstore.gc.report import GcReport
from regstore.gc.run import GcRun, GcRunOptions, open_run
from regstore.inventory.scan import ScanOptions
from regstore.layout import BlobKey, TagCurrentKey, decode, link_body
from regstore.state import TRASH
from regstore.state.journal import find_runs, read_parts
from regstore.state.lock import break_locks, hold_lock
from regstore.storage.base import Storage
from tests.gc.clock import until_all_is_older
from tests.model.builder import Builder
from tests.model.gc_oracle import Expected, expected
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW, UPLOADS_OLDER_THAN
from tests.model.store import ModelStore
from tests.model.test_oracle import pulled_by_tag

REGISTRY = "docker/"
UPLOAD = "00000000-0000-4000-8000-000000000009"

both = pytest.mark.parametrize("offline", [True, False], ids=["offline", "serving"])
#: A run that serves takes every step that one offline takes.
serving = pytest.mark.parametrize(
    "offline", [pytest.param(True, id="offline", marks=pytest.mark.slow), pytest.param(False, id="serving")]
)


def options(*, offline: bool, grace: int = DAY, concurrency: int = 4, **more: Any) -> GcRunOptions:
    plan = GcOptions(
        delete_untagged=more.pop("delete_untagged", True), grace=grace, uploads_older_than=UPLOADS_OLDER_THAN
    )
    return GcRunOptions(
        plan=plan,
        scan=ScanOptions(cache_dir=None, concurrency=concurrency),
        offline=offline,
        settle=0,
        max_delete=more.pop("max_delete", 1.0),
        untagged_repositories=more.pop("untagged_repositories", True),
        unlinked_blobs=more.pop("unlinked_blobs", True),
        **more,
    )


def small_registry(mtime: int = NOW - 30 * DAY) -> ModelStore:
    """Every kind of key that can go, once or twice, and tags that share with what goes."""
    b = Builder(mtime)
    shared, config = b.blob(b"shared layer"), b.blob(b"config")
    kept = b.image(config, [shared])
    b.push("a", kept, "latest")
    alias = Digest("sha512", hashlib.sha512(b"by sha512").hexdigest())
    b.link_layer("b", alias, link_body(b.blob(b"by sha512")))
    b.push("b", b.index([kept, b.image(b.blob(b"other config"), [alias])]), "multi")
    # An index that nothing tags any more, its children, a referrer of it, and a tag that follows it.
    amd, arm = b.image(config, [shared, b.blob(b"amd")]), b.image(b.blob(b"arm config"), [b.blob(b"arm")])
    old = b.index([amd, arm])
    b.push("a", old, "latest")
    b.tag("a", "latest", kept)
    signature = b.image(b.blob(b"signature config"), [b.blob(b"signature")], subject=old)
    b.push("a", signature)
    b.push("a", b.image(b.blob(b"cosign config")), f"sha256-{old.encoded}.sig")
    legacy = b.schema1([b.blob(b"schema1 layer")])
    b.push("a", legacy)
    b.sign("a", legacy, b.blob(b"schema1 signature"))
    b.link_layer("gone", b.blob(b"mounted and never used"))
    b.upload("gone", UPLOAD)
    b.blob(b"nothing names this")
    return b.store


def wanted(store: ModelStore, run: GcRunOptions, multipart: Any = ()) -> Expected:
    plan = run.plan
    return expected(
        registry(store),
        now=NOW,
        delete_untagged=plan.delete_untagged,
        grace=plan.grace,
        uploads_older_than=plan.uploads_older_than,
        multipart=multipart,
    )


def registry(store: ModelStore) -> ModelStore:
    """Without what regstore leaves beside it."""
    return ModelStore({key: value for key, value in store.objects.items() if key.startswith(REGISTRY)})


def copy_of(store: ModelStore) -> ModelStore:
    return ModelStore(dict(store.objects))


def trash(store: ModelStore) -> dict[str, bytes]:
    """The registry's key of everything in the trash, whatever the run."""
    found = {}
    for key, (body, _) in store.objects.items():
        if key.startswith(TRASH):
            found[key[len(TRASH) :].partition("/")[2]] = body
    return found


async def collect(storage: Storage, run: GcRunOptions) -> GcReport:
    async with hold_lock(storage, command="gc") as lock, open_run(storage, run, lock) as opened:
        return await opened.apply()


async def collect_again(storage: Storage, run: GcRunOptions) -> GcReport:
    """After a death: the process is this one, so its lock counts as alive until it is broken."""
    await break_locks(storage)
    return await collect(storage, run)


async def look(storage: Storage, run: GcRunOptions) -> GcRun:
    """A dry run."""
    async with open_run(storage, run) as opened:
        return opened


@dataclass
class Watch:
    """What must hold of a store at every moment after `before`."""

    before: ModelStore
    pulls: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in self.before:
            decoded = decode(key)
            if isinstance(decoded, TagCurrentKey):
                found = set(pulled_by_tag(self.before, decoded.name, decoded.tag))
                self.pulls[key] = {part: self.before.objects[part][0] for part in found}

    def check(self, after: ModelStore) -> None:
        """Every tag that stands is as complete as it was, and no blob is gone without its copy."""
        for tag, parts in self.pulls.items():
            if tag in after:
                missing = {part for part, body in parts.items() if after.body(part) != body}
                assert not missing, f"{tag} lost {missing}"
        kept = trash(after)
        for key, (body, _) in self.before.objects.items():
            if isinstance(decode(key), BlobKey) and key not in after:
                assert kept.get(key) == body, f"{key} is gone without a copy"


async def journaled(storage: Storage) -> dict[str, bytes | None]:
    """Every key that a journal names, with the body that it holds."""
    found: dict[str, bytes | None] = {}
    for record in await find_runs(storage):
        async for entries in read_parts(storage, record.parts):
            found |= {entry.key: entry.body for entry in entries}
    return found


def removed_blobs(before: ModelStore, keys: frozenset[str]) -> dict[str, bytes]:
    return {key: before.objects[key][0] for key in keys if isinstance(decode(key), BlobKey)}


def model_storage(store: ModelStore, **more: Any) -> ModelStorage:
    return ModelStorage(copy_of(store), now=NOW, **more)


async def write_long_ago(store: ModelStore, storage: Storage) -> None:
    """So that all is older than what begins now, by a clock of whole seconds too."""
    await store.write_storage(storage)
    await until_all_is_older(storage)
