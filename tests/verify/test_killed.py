"""Repair is killed at each of its changes: nothing gets worse, damaged bytes are kept, the next run finishes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from regstore.digest import Digest
from regstore.gc.heal import HealOptions, heal_store
from regstore.inventory.scan import ScanOptions
from regstore.layout import BlobKey, decode
from regstore.state.lock import break_locks, hold_lock
from regstore.storage.base import Storage
from regstore.testing.faulty import FaultyStorage, died
from regstore.verify.fault import FaultKind
from tests.examples import points
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore
from tests.servers import images
from tests.verify.stores import (
    APP,
    ARM,
    DOCKER,
    MULTI,
    SINGLE,
    link,
    mend,
    pristine,
    registry_of,
    storage_of,
)


def damaged() -> ModelStore:
    """A bit of each."""
    store = pristine()
    layer, lost = images.blob_key(SINGLE.blobs[1].digest), images.blob_key(SINGLE.blobs[2].digest)
    store.objects[layer] = (b"rotten", NOW)
    manifest = images.blob_key(DOCKER.digest)
    store.objects[manifest] = (store.objects[manifest][0][:-1], NOW)
    for key in (lost, images.blob_key(MULTI.digest), images.blob_key(ARM.digest)):
        del store.objects[key]
    store.objects[link("team/app", "_layers", SINGLE.blobs[0].digest)] = (b"", NOW)
    store.objects[link("other", "_manifests/revisions", SINGLE.digest)] = (b"x" * 2000, NOW)
    del store.objects[link("other", "_layers", SINGLE.blobs[0].digest)]
    del store.objects[f"{APP}/_manifests/tags/multi/current/link"]
    # Of no copy: the tag goes.
    broken = images.image("broken")
    keys = images.registry_keys("team/app", broken, "broken")
    del keys[images.blob_key(broken.blobs[1].digest)]
    store.objects |= {key: (body, NOW - DAY) for key, body in keys.items()}
    return store


def is_right(key: str, body: bytes) -> bool:
    decoded = decode(key)
    if isinstance(decoded, BlobKey):
        return decoded.digest.matches(body)
    return pristine().bodies().get(key) == body


async def test_killed_anywhere(pytestconfig: pytest.Config) -> None:
    """After some of the changes; with --slow at each of them, before it and after."""
    store = damaged()
    storage = FaultyStorage(storage_of(store))
    copy = storage_of(pristine())
    _, repairs, left = await mend(storage, copy, restore_links=True, drop_broken_tags=True)
    # The image of the dropped tag is still linked.
    assert left.findings.counts == {FaultKind.BLOB_MISSING: 1}
    assert left.findings.tags_touched == 0
    assert (len(repairs.rewritten), len(repairs.blobs), len(repairs.restored)) == (2, 5, 2)
    assert repairs.dropped == ("team/app:broken",)
    end = registry_of(store)
    assert {key: body for key, body in end.items() if key in pristine()} == pristine().bodies()
    mutations = len(storage.mutations)
    assert mutations > 20
    slow = pytestconfig.getoption("--slow")
    for number in points(mutations, 2):
        await kill(number, "after", end)
        if slow:
            await kill(number, "before", end)


async def kill(number: int, when: Literal["before", "after"], end: dict[str, bytes]) -> None:
    store, copy = damaged(), storage_of(pristine())
    start = registry_of(store)
    faulty = FaultyStorage(storage_of(store), die_at=number, when=when)
    await died(mend(faulty, copy, restore_links=True, drop_broken_tags=True))
    now = registry_of(store)
    for key, body in start.items():
        if is_right(key, body) and "/tags/broken/" not in key:
            assert now.get(key) == body, f"{key} got worse when killed {when} {number}"
        elif isinstance(decode(key), BlobKey) and now[key] != body:
            assert is_right(key, now[key])
            kept = [kept for name, (kept, _) in store.objects.items() if name.endswith(f"/damaged/{key}")]
            assert body in kept, f"the damaged {key} was not kept when killed {when} {number}"
    for key, body in now.items():
        if key not in start:
            assert is_right(key, body), key
    await break_locks(storage_of(store))
    await mend(storage_of(store), copy, restore_links=True, drop_broken_tags=True)
    after = registry_of(store)
    # Between a tag's current link and its history: without the first it is no tag any more, and the rest is gc's.
    history = {key for key in after.keys() - end.keys() if "/tags/broken/index/" in key}
    assert {key: body for key, body in after.items() if key not in history} == end, f"killed {when} {number}"


async def test_a_damaged_copy_in_the_trash_never_counts_as_good() -> None:
    """What repair puts aside is not what gc's heal, or a later repair, brings back."""
    store = pristine()
    digest = Digest.parse(SINGLE.blobs[1].digest)
    key = images.blob_key(str(digest))
    store.objects[key] = (b"rotten", NOW)
    await mend(storage_of(store), storage_of(pristine()))
    assert digest.matches(store.objects[key][0])
    del store.objects[key]
    _, repairs, left = await mend(storage_of(store))
    assert repairs.nothing
    assert left.findings.damage == 1
    assert key not in store


@pytest.mark.parametrize("change", ["moved", "gone", "put right"])
async def test_a_link_that_changes_meanwhile_is_left_alone(change: str) -> None:
    store = pristine()
    key = link("team/app", "_layers", SINGLE.blobs[0].digest)
    right = store.objects[key][0]
    store.objects[key] = (b"", NOW)

    def before(operation: str, text: str) -> None:
        # The journal is written: the change is just about to be made.
        if operation == "put" and text.endswith("000001.jsonl.gz"):
            if change == "gone":
                del store.objects[key]
            else:
                store.objects[key] = (right if change == "put right" else b"other", NOW + 1)

    _, repairs, _ = await mend(FaultyStorage(storage_of(store), before=before))
    assert repairs.nothing
    assert store.body(key) == {"moved": b"other", "gone": None, "put right": right}[change]


CURRENT = f"{APP}/_manifests/tags/single/current/link"
ENTRY = link("team/app", "_manifests/tags/single/index", DOCKER.digest)


async def interrupt(
    store: ModelStore, run: Callable[[Storage], Awaitable[object]], pushed: int, killed: int
) -> None:
    """One run in which a tag is pushed just before the change of that number, and which is killed after another."""

    def push(operation: str, _: str) -> None:
        if operation in ("put", "copy", "delete") and len(faulty.mutations) == pushed - 1:
            store.objects |= dict.fromkeys((ENTRY, CURRENT), (DOCKER.digest.encode(), NOW + 1_000_000))

    faulty = FaultyStorage(storage_of(store), die_at=killed, when="after", before=push)
    await died(run(faulty))
    await break_locks(storage_of(store))


@pytest.mark.parametrize("what", ["dropped", "restored"])
async def test_a_tag_pushed_meanwhile_stands_wherever_the_run_is_killed(what: str) -> None:
    """The push comes just before a change, which is the last one that the run makes, or the last but one. A tag that
    a run took with the push, and did not live to give back, comes back by heal, which every gc begins with."""

    def start() -> ModelStore:
        store = pristine()
        del store.objects[images.blob_key(SINGLE.blobs[1].digest) if what == "dropped" else CURRENT]
        return store

    async def run(storage: Storage) -> None:
        source = storage_of(pristine()) if what == "restored" else None
        await mend(storage, source, read="", restore_links=source is not None, drop_broken_tags=what == "dropped")

    undisturbed = FaultyStorage(storage_of(start()))
    await run(undisturbed)
    mutations = undisturbed.mutations
    own = [number for number, mutation in enumerate(mutations, 1) if mutation.key == CURRENT]
    assert own
    for pushed in sorted({*own, *points(len(mutations), 1)}):
        for killed in (pushed, pushed + 1):
            store = start()
            await interrupt(store, run, pushed, killed)
            told = f"pushed before {pushed}, killed after {killed}: {mutations[pushed - 1]}"
            assert ENTRY in store, told
            if what == "dropped":
                async with hold_lock(storage_of(store), command="heal") as lock:
                    await heal_store(storage_of(store), HealOptions(scan=ScanOptions(concurrency=1)), lock)
            await run(storage_of(store))
            assert store.body(CURRENT) == DOCKER.digest.encode(), told
