"""What a scan and a run ask of the store, counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from regstore.gc.plan import plan_gc
from regstore.inventory.scan import ScanOptions, scan
from regstore.layout import BLOBS, REGISTRY, REPOSITORIES, BlobKey, decode
from regstore.testing.faulty import FaultyStorage
from tests.gc.scenes import collect, model_storage, options, removed_blobs, small_registry, wanted
from tests.model.builder import Builder
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore


def images(number: int, layers: int = 2, tagged: int = 1) -> ModelStore:
    """Images of unique layers, every `tagged`-th of them with a tag."""
    b = Builder(NOW - 30 * DAY)
    for one in range(number):
        parts = [b.blob(f"layer {one} {part}".encode()) for part in range(layers)]
        image = b.image(b.blob(f"config {one}".encode()), parts)
        b.push(f"team/app{one % 7}", image, f"v{one}" if one % tagged == 0 else None)
    return b.store


@pytest.mark.parametrize("number", [3, 400])
async def test_a_scan(tmp_path: Path, number: int) -> None:
    """LIST: at most keys / 1000 + ranges; GET: each manifest once, no link; and none when they are known."""
    store = images(number)
    storage = model_storage(store)
    wanted_options = ScanOptions(cache_dir=tmp_path / "cache", concurrency=8)
    async with scan(storage, wanted_options) as inventory:
        ranges = inventory.ranges
        assert inventory.count("manifest") == number
    first = dict(storage.counters.requests)
    assert first["get"] == number
    assert first["list"] <= len(store) // 1000 + ranges
    assert first["list_multipart_uploads"] == 1
    assert first.keys() == {"get", "list", "list_multipart_uploads"}

    storage = model_storage(store)
    async with scan(storage, wanted_options) as inventory:
        assert inventory.count("edge") == 3 * number
    assert "get" not in storage.counters.requests


async def test_a_small_registry_takes_two_lists() -> None:
    storage = model_storage(small_registry())
    async with scan(storage, options(offline=True).scan) as inventory:
        plan_gc(inventory, options(offline=True).plan, now=NOW)
    assert storage.counters.requests["list"] == 2
    assert storage.counters.requests["list_multipart_uploads"] == 1


async def test_links_are_read_where_no_etag_proves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("links", "manifests"):
        monkeypatch.setattr(f"regstore.inventory.{module}._SLICE", 3)
    store = small_registry()
    links = [key for key in store if key.endswith("/link") and "/index/" not in key and "/signatures/" not in key]
    manifests = 9
    storage = model_storage(store, etags=False)
    async with scan(storage, options(offline=True).scan) as inventory:
        assert inventory.count("manifest") == manifests
    assert storage.counters.requests["get"] == len(links) + manifests


class Passes:
    """LIST and other requests of a run, by what they are about."""

    def __init__(self) -> None:
        self.lists: Counter[str] = Counter()
        self.operations: Counter[str] = Counter()

    def __call__(self, operation: str, key: str) -> None:
        self.operations[operation] += 1
        if operation == "list":
            key = BLOBS if key == REGISTRY else key  # the blobs, and the marks that sort before them
            whole = key in (BLOBS, REPOSITORIES)
            self.lists[key if whole else "one repository" if key.startswith(REPOSITORIES) else "ours"] += 1


@pytest.mark.parametrize("offline", [True, False], ids=["offline", "serving"])
async def test_passes_of_a_whole_run(offline: bool) -> None:
    """As the docstring of gc.run has it."""
    before = small_registry()
    run = options(offline=offline)
    dead = wanted(before, run).dead
    passes = Passes()
    await collect(FaultyStorage(model_storage(before), before=passes), run)
    blobs = len(removed_blobs(before, dead))
    losing = {decode(key).name for key in dead if not isinstance(decode(key), BlobKey)}  # type: ignore[union-attr]
    assert passes.lists[BLOBS] == 1
    assert passes.lists[REPOSITORIES] == (1 if offline else 3)
    assert passes.lists["one repository"] <= (0 if offline else 3 * len(losing))
    assert passes.operations["copy"] == blobs
    assert passes.operations["stat"] == 0


@pytest.mark.parametrize("offline", [True, False], ids=["offline", "serving"])
async def test_deletes_go_by_the_thousand(offline: bool) -> None:
    """One DeleteObjects a thousand keys of each kind, whatever the number of repositories, and one copy a blob."""
    before = images(350, layers=2, tagged=10)
    run = options(offline=offline, concurrency=16)
    dead = wanted(before, run).dead
    storage = model_storage(before)
    await collect(storage, run)
    blobs = len(removed_blobs(before, dead))
    assert blobs == 315 * 4
    requests = storage.counters.requests
    assert requests["copy"] == blobs
    # whether it is permitted, revisions and layers (315 and 945), blobs (2 batches), the lock
    assert requests["delete"] == 1 + 1 + 1 + 2 + 1
    # the lock, what was asked and done, journal parts of links and of two batches of blobs, what is left
    assert requests["put"] == 1 + 2 + 1 + 2 + 1
    assert requests["get"] <= 1 + (350 + 1) * (1 if offline else 3)  # what the last run left, manifests, the lock
