"""What is published is whole: proved by a look at the backup right before, whatever happened while the run went on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from regstore.backup import intent
from regstore.backup.format import blob_key
from regstore.backup.packing import Packing
from regstore.digest import Digest
from regstore.errors import IntegrityError, LockLost
from regstore.layout import REGISTRY
from regstore.storage.clock import clock
from regstore.testing.faulty import FaultyStorage
from tests.backup import reader
from tests.backup.places import collect, memory, take
from tests.backup.test_interrupted import LATER, copied, small
from tests.backup.test_live import when
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

OLD = Digest.of(b"base layer")
NEW = Digest.of(b"third layer")


def delete(backup: ModelStore, choose: Callable[[str], bool]) -> None:
    found = [key for key in backup if choose(key)]
    assert found
    for key in found:
        del backup.objects[key]


@pytest.mark.parametrize("what", ["a new blob", "a new pack", "a blob that was there", "a pack that was there"])
async def test_what_is_deleted_between_copy_and_publish_is_missed(what: str) -> None:
    backup = ModelStore()
    await take(memory(small()), memory(backup))
    before = set(backup)

    def goes(key: str) -> bool:
        kind = "blobs/" if "blob" in what else "packs/"
        if "new" in what:
            return key.startswith(kind) and key not in before
        return key == blob_key(OLD) if kind == "blobs/" else key.startswith(kind) and key in before

    # All is written when the backup is listed for the second time.
    hook = when(2, "list", "blobs/", lambda: delete(backup, goes))
    with pytest.raises(IntegrityError, match=f"{what.split()[-1] if 'new' in what else what.split()[1]} "):
        await take(memory(small(extra=True)), FaultyStorage(memory(backup, now=NOW + DAY), before=hook))
    assert len(reader.snapshots(backup.bodies())) == 1


@pytest.mark.parametrize("kind", ["blobs/", "packs/"])
@pytest.mark.parametrize("shortened", [False, True])
async def test_a_run_with_nothing_new_proves_what_it_names_too(kind: str, shortened: bool) -> None:
    backup = ModelStore()
    await take(memory(small()), memory(backup))

    def damage() -> None:
        key = next(key for key in backup if key.startswith(kind))
        body, mtime = backup.objects.pop(key)
        if shortened:
            backup.objects[key] = (body[:-1], mtime)

    source = FaultyStorage(memory(small()), before=when(1, "list", REGISTRY, damage))
    with pytest.raises(IntegrityError, match="no snapshot was published"):
        await take(source, memory(backup, now=NOW + DAY))
    assert len(reader.snapshots(backup.bodies())) == 1


@pytest.mark.parametrize("moment", ["packs/", "snapshots/"])
async def test_a_run_that_slept_a_day_publishes_nothing(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine slept: meanwhile its intent expired, and a prune deleted what nothing listed needed. It wakes just
    before it writes a pack, or just before it sends the snapshot."""
    backup = ModelStore()
    await take(memory(small()), memory(backup))
    slept: list[str] = []

    async def sleep(operation: str, key: str) -> None:
        if operation == "put" and key.startswith(moment) and not slept:
            slept.append(key)
            monkeypatch.setattr(intent, "clock", lambda: clock() + LATER / 1_000_000)
            await collect(memory(backup, now=NOW + 2 * LATER), last=1)

    with pytest.raises((LockLost, IntegrityError), match="published"):
        await take(memory(small(extra=True)), FaultyStorage(memory(backup, now=NOW + DAY), before=sleep))
    assert len(reader.snapshots(backup.bodies())) == 1
    assert not reader.problems(backup.bodies())


async def test_a_plan_that_takes_longer_than_a_lease_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intent is renewed meanwhile."""
    plan = Packing.plan

    def slow(*arguments: Any, **more: Any) -> None:
        time.sleep(1.5)
        plan(*arguments, **more)

    monkeypatch.setattr(Packing, "plan", slow)
    backup = ModelStore()
    await take(memory(small()), memory(backup), lease=1.0)
    assert len(reader.snapshots(backup.bodies())) == 1


async def test_a_prune_that_takes_a_running_create_for_expired_hurts_no_snapshot() -> None:
    """The backup's clock was set forward by days. The create goes on at each step of the prune: it publishes, and the
    prune sees that; or it is told that it can't."""
    # What the new snapshot needs is there, and nothing that is listed needs it.
    old = ModelStore()
    await take(memory(small(extra=True)), memory(old))
    await take(memory(small()), memory(old, now=NOW + DAY))
    await collect(memory(old, now=NOW + DAY), grace=LATER, last=1)
    assert blob_key(NEW) in old
    published = refused = 0
    for step in range(100):
        backup = copied(old)
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def wait(
            operation: str, key: str, arrived: asyncio.Event = arrived, go_on: asyncio.Event = go_on
        ) -> None:
            if operation == "list" and key.startswith("intents/"):
                arrived.set()
                await go_on.wait()

        creating = asyncio.create_task(
            take(memory(small(extra=True)), FaultyStorage(memory(backup, now=NOW + 2 * DAY), before=wait))
        )
        await arrived.wait()
        steps = 0

        async def next_step(
            operation: str,
            key: str,
            step: int = step,
            go_on: asyncio.Event = go_on,
            creating: asyncio.Future[Any] = creating,
        ) -> None:
            nonlocal steps
            if steps == step:
                go_on.set()
                await asyncio.wait([creating])
            steps += 1

        pruned = await collect(FaultyStorage(memory(backup, now=NOW + 9 * DAY), before=next_step), last=1)
        go_on.set()
        try:
            await creating
            published += 1
        except LockLost:
            refused += 1
        assert not reader.problems(backup.bodies()), f"the create went on at step {step}"
        assert not pruned.failures
        if steps <= step:
            break
    assert published and refused > 5


async def test_a_snapshot_whose_intent_went_while_it_was_sent_is_told() -> None:
    backup = ModelStore()
    after = when(1, "put", "snapshots/", lambda: delete(backup, lambda key: key.startswith("intents/")))
    with pytest.raises(LockLost, match="backup check"):
        await take(memory(small()), FaultyStorage(memory(backup), after=after))
    assert len(reader.snapshots(backup.bodies())) == 1
