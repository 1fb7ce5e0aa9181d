"""Healing goes by the repository: what a driver is brought of a store is healed as the whole is."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from regstore.errors import AccessDenied, NotARegistry, Refused
from regstore.gc.heal import Healed, give_back
from regstore.gc.past import Past
from regstore.gc.unread_needs import held_for_unread
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions, scan
from regstore.layout import BlobKey, LayerLinkKey, RevisionLinkKey, decode, encode
from regstore.spark.tasks.loading import PartScanner
from regstore.state import RUNS
from regstore.state.lock import break_locks, hold_lock
from regstore.storage.base import Storage
from regstore.testing.faulty import FaultyStorage, died
from tests.examples import examples
from tests.gc.scenes import collect, copy_of, model_storage, options, registry, small_registry
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW, example_registry, registries
from tests.model.store import ModelStore
from tests.spark.by_hand import HandLook

SCAN = ScanOptions(cache_dir=None, concurrency=1)


@pytest.fixture(autouse=True)
def any_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    async def look_at(storage: Storage) -> str:
        return storage.url

    monkeypatch.setattr("regstore.spark.tasks.executing.look_at", look_at)
    yield


@dataclass(frozen=True)
class Found:
    """What came of healing a store. seen: the keys that journals' claims to are void, by run."""

    blobs: set[str]
    links: set[str]
    damaged: set[str]
    held: set[str]
    seen: dict[str, set[str]]
    bodies: dict[str, bytes]


async def history(store: ModelStore, deaths: list[int], days: int) -> ModelStorage:
    """Runs that died after so many changes, or ended, days ago."""
    storage = model_storage(store)
    storage.clock = NOW - days * DAY
    for number in deaths:
        run = options(offline=False, concurrency=1, allow_empty=True, grace=0)
        try:
            await died(collect(FaultyStorage(storage, die_at=number or None, when="after"), run))
        except (Refused, NotARegistry):
            pass
        await break_locks(storage)
        storage.clock += DAY // 4
    storage.clock = NOW
    return storage


def told(storage: ModelStorage, healed: Healed, held: dict[str, str]) -> Found:
    seen: dict[str, set[str]] = {}
    for key in storage.store:
        if key.startswith(RUNS) and "/seen-" in key:
            lines = gzip.decompress(storage.store.objects[key][0]).splitlines()
            seen.setdefault(key.split("/")[2], set()).update(json.loads(line)["key"] for line in lines)
    return Found(
        set(healed.blobs),
        set(healed.links),
        set(healed.damaged),
        set(held),
        seen,
        dict(registry(storage.store).bodies()),
    )


async def heal(storage: ModelStorage, inventory: Inventory, past: Past, scanner: Any) -> Found:
    async with hold_lock(storage, command="heal") as lock:
        await past.note_seen(storage, lock)
        healed = await give_back(storage, inventory, scanner, lock, concurrency=1)
        await past.note_given_back(storage, lock, healed.links)
        return told(storage, healed, held_for_unread(inventory))


async def heal_whole(storage: ModelStorage) -> Found:
    from regstore.inventory.scan import Scanner

    async with scan(storage, SCAN) as inventory:
        past = await Past.load(storage, inventory)
        return await heal(storage, inventory, past, Scanner(storage, inventory, SCAN))


def heal_part(storage: ModelStorage, shards: int) -> tuple[Found, set[str]]:
    """And which repositories were brought."""
    look = HandLook(storage, shards)
    with Inventory() as inventory:
        past = asyncio.run(Past.read(storage, inventory))
        look.bring(past, inventory)
        past.judge()
        brought = {name for (name,) in inventory.all("select name from repository")}
        return asyncio.run(
            heal(storage, inventory, past, PartScanner(storage, inventory, SCAN, lambda event: None))
        ), brought


def compare(storage: ModelStorage, shards: int) -> tuple[Found, set[str]]:
    other = ModelStorage(copy_of(storage.store), now=storage.clock)
    other.unreadable = dict(storage.unreadable)
    whole = asyncio.run(heal_whole(other))
    part, brought = heal_part(storage, shards)
    assert part == whole
    return part, brought


@pytest.mark.long
@settings(
    max_examples=examples(10),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    print_blob=True,
    phases=[Phase.explicit, Phase.generate],
)
@given(st.data())
def test_a_part_is_healed_as_the_whole(data: st.DataObject) -> None:
    """After runs that ended or died, and pushes of what they took: by links, by tags, of manifests and of layers."""
    store = data.draw(st.one_of(registries(disk=False), st.builds(small_registry), st.builds(example_registry)))
    storage = asyncio.run(
        history(
            store,
            data.draw(st.lists(st.sampled_from([0, 0, *range(1, 60)]), min_size=1, max_size=2)),
            data.draw(st.sampled_from([0, 1, 3])),
        )
    )
    gone = sorted(key for key in store if key not in storage.store)
    for key in data.draw(st.lists(st.sampled_from(gone), max_size=6, unique=True)) if gone else ():
        storage.store.objects[key] = (store.objects[key][0], NOW - data.draw(st.sampled_from([0, DAY])))
    links = [key for key in gone if isinstance(decode(key), LayerLinkKey | RevisionLinkKey)]
    for key in data.draw(st.lists(st.sampled_from(links), max_size=2, unique=True)) if links else ():
        decoded = decode(key)
        assert isinstance(decoded, LayerLinkKey | RevisionLinkKey)
        storage.store.objects[encode(replace(decoded, name="pushed/elsewhere"))] = (store.objects[key][0], NOW)
    blobs = sorted(key for key in storage.store if isinstance(decode(key), BlobKey))
    for key in data.draw(st.lists(st.sampled_from(blobs), max_size=2, unique=True)) if blobs else ():
        if data.draw(st.booleans()):
            storage.unreadable[key] = AccessDenied("not this one")
        else:
            del storage.store.objects[key]
    compare(storage, data.draw(st.sampled_from([1, 2, 3])))


def test_only_what_concerns_is_brought() -> None:
    """A repository that runs took from, and one that names what lies in the trash: no other."""
    b = Builder(NOW - 30 * DAY)
    b.push("untouched", b.image(b.blob(b"its config"), [b.blob(b"its layer")]), "latest")
    before = small_registry()
    before.objects |= b.store.objects
    storage = asyncio.run(history(before, [0], 0))
    gone = [key for key in before if key not in storage.store and isinstance(decode(key), LayerLinkKey)]
    for key in gone[:2]:
        storage.store.objects[key.replace("/repositories/a/", "/repositories/mounted/")] = before.objects[key]
    found, brought = compare(storage, 3)
    assert len(found.blobs) == 2
    assert brought == {"a", "mounted"}
