"""Killed at any change of create, restore or prune: every listed snapshot is sound, and the next run finishes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage, died
from tests.backup import reader
from tests.backup.oracle import expected, incomplete_tags
from tests.backup.places import collect, contents, give_back, keys_below, memory, read_all, take
from tests.model.builder import Builder
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

#: Longer than an intent of a killed run counts, and than a lock lives.
LATER = 2 * DAY


def small(*, extra: bool = False) -> ModelStore:
    """Two repositories that share a layer; with `extra`, the second has another image instead."""
    b = Builder(NOW - DAY)
    base, config = b.blob(b"base layer"), b.blob(b'{"config":1}')
    first = b.image(config, [base])
    b.push("a", b.index([first]), "1")
    if extra:
        b.push("b/c", b.image(config, [b.blob(b"third layer")]), "latest")
    else:
        b.push("b/c", b.image(config, [base, b.blob(b"second layer")]), "latest")
    return b.store


def copied(store: ModelStore) -> ModelStore:
    return ModelStore(dict(store.objects))


async def mutations_of_create(store: ModelStore, backup: ModelStore) -> int:
    faulty = FaultyStorage(memory(copied(backup)))
    await take(memory(store), faulty)
    return len(faulty.mutations)


async def test_create_killed_anywhere() -> None:
    empty, store = ModelStore(), small()
    total = await mutations_of_create(store, empty)
    assert total >= 10
    for number in range(1, total + 1):
        backup = copied(empty)
        assert await died(take(memory(store), FaultyStorage(memory(backup), die_at=number, when="after")))
        assert not reader.problems(backup.bodies())
        done = await take(memory(store), memory(backup, now=NOW + LATER))
        assert not done.partial
        assert not reader.problems(backup.bodies())
        assert reader.tags(backup.bodies(), done.key).keys() == {"a:1", "b/c:latest"}


async def test_create_killed_while_it_writes_to_a_disk(tmp_path: Path) -> None:
    """What it was writing is there under a temporary name."""
    store = small()
    total = await mutations_of_create(store, ModelStore())
    for number in (1, 3, total - 1):
        folder = tmp_path / str(number)
        backup = DiskStorage(folder, create=True)
        faulty = FaultyStorage(backup, die_at=number)
        assert await died(take(memory(store), faulty))
        writing = folder / faulty.mutations[-1].key
        writing.parent.mkdir(parents=True, exist_ok=True)
        (writing.parent / ".regstore-0123456789abcdef").write_bytes(b"half of it")
        done = await take(memory(store), backup)
        assert not done.partial
        assert not (await read_all(backup)).damage
        objects = {key: await backup.get(key) for key in await keys_below(backup, "")}
        assert reader.tags(objects, done.key).keys() == {"a:1", "b/c:latest"}


async def test_the_next_create_copies_only_the_rest() -> None:
    store, backup = small(), ModelStore()
    faulty = FaultyStorage(memory(backup), die_at=6, when="after")
    assert await died(take(memory(store), faulty))
    there = {key for key in backup if key.startswith("blobs/")}
    assert there
    done = await take(memory(store), memory(backup))
    blobs = {key for key in backup if key.startswith("blobs/")}
    assert done.snapshot.new_blobs == len(blobs) - len(there) < len(blobs)


async def test_restore_killed_anywhere() -> None:
    store, backup = small(), ModelStore()
    await take(memory(store), memory(backup))
    counting = FaultyStorage(memory())
    await give_back(memory(backup), counting)
    total = len(counting.mutations)
    assert total >= 20
    for number in range(1, total + 1):
        target = ModelStore()
        assert await died(give_back(memory(backup), FaultyStorage(memory(target), die_at=number, when="after")))
        registry = {key: body for key, body in target.bodies().items() if key.startswith("docker/")}
        assert not incomplete_tags(registry), number
        done = await give_back(memory(backup), memory(target, now=NOW + LATER))
        assert not done.partial
        assert (await contents(memory(target))).keys() == expected(store.bodies())


async def test_what_a_killed_restore_was_writing_goes_once_it_is_old(tmp_path: Path) -> None:
    store, backup = small(), ModelStore()
    await take(memory(store), memory(backup))
    (blob, *_) = (key for key in store if key.endswith("/data"))
    left = tmp_path / blob.replace("data", ".regstore-" + "0a" * 16)
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    async with DiskStorage(tmp_path) as target:
        await give_back(memory(backup), target)
        assert left.exists(), "somebody may be at it"
        os.utime(left, (time.time() - 7 * 3600,) * 2)
        await give_back(memory(backup), target)
        assert not left.exists()
        assert await contents(target) == store.bodies()


async def test_prune_killed_anywhere() -> None:
    backup = ModelStore()
    await take(memory(small()), memory(backup))
    await take(memory(small(extra=True)), memory(backup, now=NOW + DAY))
    pruned = copied(backup)
    counting = FaultyStorage(memory(pruned, now=NOW + LATER))
    done = await collect(counting, last=1)
    assert done.snapshots == 1
    assert done.packs == 1
    assert done.blobs == 2  # the second layer, and the manifest that named it
    for number in range(1, len(counting.mutations) + 1):
        left = copied(backup)
        faulty = FaultyStorage(memory(left, now=NOW + LATER), die_at=number, when="after")
        assert await died(collect(faulty, last=1))
        assert not reader.problems(left.bodies()), number
        assert (await read_all(memory(left))).damage == []
        await collect(memory(left, now=NOW + 2 * LATER), last=1)
        assert not reader.problems(left.bodies())
        assert {key for key in left if key.startswith(("blobs/", "packs/"))} == {
            key for key in pruned if key.startswith(("blobs/", "packs/"))
        }


async def test_what_is_written_for_a_failed_create_is_collected_after_the_grace() -> None:
    store, backup = small(), ModelStore()
    assert await died(take(memory(store), FaultyStorage(memory(backup), die_at=8, when="after")))
    assert not (await collect(memory(backup, now=NOW + 1), last=1)).plan.blobs  # its intent counts
    result = await collect(memory(backup, now=NOW + LATER), last=1, grace=DAY)
    assert result.blobs > 0
    assert [key for key in backup if not key.startswith("regstore/")] == ["regstore-backup.json"]
