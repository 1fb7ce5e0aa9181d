"""Retention after a way back: a tag that was put back is as old as it was before."""

from __future__ import annotations

from pathlib import Path

import pytest

from regstore.backup.create import create
from regstore.backup.options import CreateOptions
from regstore.backup.restore import restore as restore_backup
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.gc.restore import RestoreOptions, apply_restore, plan_restore
from regstore.gc.run import GcRunOptions, open_run
from regstore.layout import TAG_RECORDS, TagCurrentKey, decode, encode, parse_link
from regstore.state.lock import hold_lock
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from tests.gc.test_retention import SCAN, versions
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

#: v1.10 sorts before v1.2: the order of names is not that of their times.
TWELVE = {f"v1.{number}": 60.0 - number for number in range(1, 13)}


async def collect(storage: Storage, rule: str) -> None:
    options = GcRunOptions(
        plan=GcOptions(policy=Policy.parse(f"[[rule]]\n{rule}"), grace=0), scan=SCAN, settle=0, max_delete=1.0
    )
    async with hold_lock(storage, command="gc") as lock, open_run(storage, options, lock) as run:
        await run.apply()


async def tags(storage: Storage) -> set[str]:
    store = await ModelStore.from_storage(storage)
    return {key.tag for text in store if isinstance(key := decode(text), TagCurrentKey)}


@pytest.mark.parametrize("runs", [1, 2])
async def test_an_undo_keeps_the_times_of_tags(runs: int) -> None:
    """Also the second time, when the links themselves are as young as the first undo."""
    storage = ModelStorage(versions(TWELVE).store, now=NOW)
    for _ in range(runs):
        await collect(storage, "drop = ['*']\nkeep = ['v1.3']")
        storage.clock += DAY
        async with hold_lock(storage, command="trash restore") as lock:
            await apply_restore(storage, await plan_restore(storage, RestoreOptions()), lock)
        assert len(await tags(storage)) == 12
        storage.clock += DAY
    await collect(storage, "keep_newest = 3")
    assert await tags(storage) == {"v1.10", "v1.11", "v1.12"}


async def test_a_restored_backup_keeps_the_times_of_tags(tmp_path: Path) -> None:
    versions(TWELVE).store.write_folder(tmp_path / "registry")
    for name in ("backup", "restored"):
        (tmp_path / name).mkdir()
    async with (
        DiskStorage(tmp_path / "registry") as registry,
        DiskStorage(tmp_path / "backup") as backup,
        DiskStorage(tmp_path / "restored") as restored,
    ):
        await create(registry, backup, CreateOptions())
        async with hold_lock(restored, command="restore") as lock:
            result = await restore_backup(backup, restored, lock=lock)
        assert result.tags == 12
        assert any(key.startswith(TAG_RECORDS) for key in await ModelStore.from_storage(restored))
        await collect(restored, "keep_newest = 3")
        assert await tags(restored) == {"v1.10", "v1.11", "v1.12"}


@pytest.mark.parametrize(
    ("ages", "rule", "stops"),
    [
        ({name: 30 + number / 86_400 for number, name in enumerate(TWELVE)}, "keep_newest = 3", True),
        ({name: 30 + number / 86_400 for number, name in enumerate(TWELVE)} | {"v2": 9}, "keep_newest = 3", True),
        ({name: 30 + number / 86_400 for number, name in enumerate(TWELVE)}, "keep_newest = 12", False),
        (
            {name: 30 + number / 86_400 for number, name in enumerate(TWELVE)} | {"v2": 9, "v3": 8, "v4": 7},
            "keep_newest = 3",
            False,
        ),
        ({name: 30 + number / 86_400 for number, name in enumerate(TWELVE)}, "drop = ['v*']", False),
        (TWELVE, "keep_newest = 3", False),
        ({"a": 20, "b": 20, "c": 20, "d": 15, "e": 12, "f": 10}, "keep_newest = 4", False),
    ],
    ids=["copied", "and pushed since", "all stay", "all go", "by names", "as pushed", "three at once"],
)
async def test_tags_that_were_all_set_at_one_time(ages: dict[str, float], rule: str, stops: bool) -> None:
    """As by a copy of the store: to choose the newest among them is refused, unless that is confirmed."""
    storage = ModelStorage(versions(ages).store, now=NOW)
    for confirmed in (False, True):
        options = GcRunOptions(
            plan=GcOptions(policy=Policy.parse(f"[[rule]]\n{rule}"), grace=0),
            scan=SCAN,
            settle=0,
            max_delete=1.0,
            copied_times=confirmed,
        )
        async with open_run(storage, options) as run:
            found = [why for why in run.stops if "--copied-times" in why]
            assert bool(found) == (stops and not confirmed)
            assert not stops or run.summary.one_time == ("team/app",)


async def test_one_manifest_with_many_names_is_no_sign() -> None:
    b = versions({"v1": 40, "v2": 30})
    image = parse_link(b.store.objects[encode(TagCurrentKey("team/app", "v2"))][0])
    assert image is not None
    b.mtime = NOW - 30 * DAY
    for tag in ("2", "2.0", "2.0.3", "latest"):
        b.tag("team/app", tag, image)
    options = GcRunOptions(plan=GcOptions(policy=Policy.parse("[[rule]]\nkeep_newest = 3"), grace=0), scan=SCAN)
    async with open_run(ModelStorage(b.store, now=NOW), options) as run:
        assert run.summary.one_time == ()
