"""A snapshot looked at as a store shows exactly what a restore of it writes."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from regstore import layout
from regstore.backup.as_store import SnapshotStorage
from regstore.errors import AccessDenied, NotARegistry, NotFound
from regstore.registry import Registry
from regstore.storage.base import Storage
from tests.backup.places import contents, give_back, memory, take
from tests.examples import examples
from tests.model.random_registry import example_registry, registries
from tests.model.store import ModelStore


async def everything(storage: Storage, prefix: str = "", start_after: str = "") -> dict[str, bytes]:
    """Every key that the listing shows, in its order, with its bytes."""
    found = {}
    async for page in storage.list(prefix, start_after=start_after):
        for info in page.objects():
            found[info.key] = body = await storage.get(info.key)
            assert info.size == len(body) == (await storage.stat(info.key)).size
            async with storage.open_read(info.key, start=1, length=3) as handle:
                assert b"".join([chunk async for chunk in handle]) == body[1:4]
    assert list(found) == sorted(found, key=str.encode)
    return found


async def same_as_restored(store: ModelStore) -> None:
    backup, target = memory(), memory()
    try:
        taken = await take(memory(store), backup)
    except NotARegistry:
        return
    await give_back(backup, target)
    restored = {key: body for key, body in (await contents(target)).items() if key.startswith(layout.PREFIX)}
    snapshot = SnapshotStorage(backup, taken.snapshot, links_kept=3)
    shown = await everything(snapshot)
    assert shown == {key: body for key, body in restored.items() if "_regstore/seed" not in key}
    for key in list(shown)[:: max(len(shown) // 8, 1)]:
        assert await everything(snapshot, start_after=key) == {k: v for k, v in shown.items() if k > key}
        prefix = key[: len(key) * 2 // 3]
        assert await everything(snapshot, prefix) == {k: v for k, v in shown.items() if k.startswith(prefix)}


@settings(
    max_examples=examples(15),
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
@given(registries(disk=False))
def test_a_snapshot_shows_what_a_restore_writes(store: ModelStore) -> None:
    asyncio.run(same_as_restored(store))


async def test_the_example_shows_what_a_restore_writes() -> None:
    await same_as_restored(example_registry())


async def test_times_are_those_of_tags_and_of_the_snapshot() -> None:
    source, backup = memory(example_registry()), memory()
    snapshot = (await take(source, backup)).snapshot
    there = SnapshotStorage(backup, snapshot)
    times: dict[str, int] = {}
    async for page in there.list(layout.REPOSITORIES):
        times |= dict(zip(page.keys, page.mtimes, strict=True))
    tags = {key for key in times if isinstance(layout.decode(key), layout.TagCurrentKey)}
    assert tags
    for key in tags:
        assert times[key] == (await source.stat(key)).mtime
    assert {time for key, time in times.items() if key not in tags} == {snapshot.begun}


async def test_nothing_can_be_changed_and_nothing_else_be_read() -> None:
    backup = memory()
    snapshot = (await take(memory(example_registry()), backup)).snapshot
    there = SnapshotStorage(backup, snapshot)
    name = next(iter(snapshot.repositories))
    for change in (there.put("docker/x", b""), there.delete_many(["docker/x"]), there.copy("a", "b")):
        with pytest.raises(AccessDenied, match="only be looked at"):
            await change
    for key in (
        "regstore-backup.json",
        f"snapshots/{snapshot.run}",
        layout.encode(layout.TagCurrentKey(name, "no")),
    ):
        with pytest.raises(NotFound):
            await there.get(key)
        with pytest.raises(NotFound):
            await there.stat(key)


async def test_a_pack_is_read_once_and_forgotten_when_there_are_too_many() -> None:
    backup = memory()
    snapshot = (await take(memory(example_registry()), backup)).snapshot
    assert len(snapshot.repositories) > 3
    for kept, packs in ((10**6, len(snapshot.repositories)), (1, 2 * len(snapshot.repositories))):
        there, before = SnapshotStorage(backup, snapshot, links_kept=kept), backup.counters.requests["get"]
        registry = Registry(there)
        for _ in range(2):
            for name in snapshot.repositories:
                await asyncio.gather(*(registry.repository(name).exists() for _ in range(3)))
        assert backup.counters.requests["get"] - before == packs
