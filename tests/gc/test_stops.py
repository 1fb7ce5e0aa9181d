"""gc refuses what looks wrong, and says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from regstore.digest import Digest
from regstore.errors import InputError, NotARegistry, Refused
from regstore.gc.caches import NoCache
from regstore.gc.heal import HealOptions, heal_store, plan_heal
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.gc.report import GcReport
from regstore.gc.run import GcRunOptions, open_run
from regstore.gc.trash import EmptyOptions, empty_trash
from regstore.inventory.scan import ScanOptions
from regstore.layout import PREFIX, SEEDS, BlobKey, encode
from regstore.state.lock import hold_lock
from regstore.storage.disk import DiskStorage
from tests.gc.scenes import collect as collect_model
from tests.gc.scenes import model_storage, options, registry, small_registry
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW

NOTHING_KEPT = GcOptions(grace=0)


async def collect(storage: DiskStorage, **options: object) -> GcReport:
    wanted = GcRunOptions(plan=NOTHING_KEPT, scan=ScanOptions(), offline=True, **options)  # type: ignore[arg-type]
    async with hold_lock(storage, command="gc") as lock, open_run(storage, wanted, lock) as run:
        return await run.apply()


async def put_blob(storage: DiskStorage, data: bytes) -> str:
    key = encode(BlobKey(Digest.of(data)))
    await storage.put(key, data)
    return key


async def test_a_folder_that_is_no_registry(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    await storage.put("letters/mum.txt", b"dear")
    with pytest.raises(NotARegistry, match="holds no registry"):
        await collect(storage)


async def test_a_seeded_store_is_an_empty_registry(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    for seed in SEEDS:
        await storage.put(encode(seed), b"seed")
    assert (await collect(storage)).blobs == 0


async def test_more_than_the_share_that_may_go(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    key = await put_blob(storage, b"dead")
    with pytest.raises(Refused, match="--max-delete 50% allows"):
        await collect(storage)
    assert await storage.get(key) == b"dead"
    assert (await collect(storage, max_delete=1.0)).blobs == 1


async def test_a_store_that_was_full_at_the_last_run(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    dead = [await put_blob(storage, b"dead %d" % number) for number in range(4)]
    async with hold_lock(storage, command="gc") as lock:
        options = GcRunOptions(plan=GcOptions(), scan=ScanOptions(), offline=True)  # all are young
        async with open_run(storage, options, lock) as run:
            await run.apply()
    for key in dead:
        (tmp_path / key).unlink()
    with pytest.raises(Refused, match="shows none of the 4 blobs that the last run left"):
        await collect(storage)
    assert (await collect(storage, allow_empty=True)).blobs == 0


async def test_a_policy_that_takes_more_than_that_share_of_the_tags() -> None:
    b = Builder(NOW - 30 * DAY)
    image = b.image(b.blob(b"config"), [b.blob(b"layer")])
    for number in range(4):
        b.push("a", image, f"v{number}")
    storage = ModelStorage(b.store, now=NOW)
    policy = Policy.parse("[[rule]]\nkeep_newest = 1")
    run = replace(options(offline=True, max_delete=0.5), plan=GcOptions(policy=policy))
    before = dict(storage.store.objects)
    with pytest.raises(
        Refused, match=r"^3 of 4 tags, by the retention rules, \(75%\) would go, more than --max-delete"
    ):
        await collect_model(storage, run)
    assert storage.store.objects == before
    assert (await collect_model(storage, replace(run, max_delete=0.75))).tags == 3


@pytest.mark.parametrize("area", ["blobs", "repositories"])
async def test_what_the_last_run_left_is_known_after_the_trash_is_emptied(area: str) -> None:
    storage = model_storage(small_registry())
    run = options(offline=True)
    await collect_model(storage, run)
    storage.clock += DAY
    async with hold_lock(storage, command="trash empty") as lock:
        emptying = EmptyOptions(scan=ScanOptions(cache_dir=None), settle=0)
        await empty_trash(storage, emptying, lock, cache=NoCache("none"))
    for key in [key for key in storage.store if key.startswith(f"{PREFIX}{area}/")]:
        del storage.store.objects[key]
    left = registry(storage.store)
    what = "blobs" if area == "blobs" else "links"
    with pytest.raises(
        Refused, match=rf"shows none of the \d+ {what} that the last run left in it; .* --allow-empty"
    ):
        await collect_model(storage, run)
    assert registry(storage.store) == left
    await collect_model(storage, replace(run, allow_empty=True))
    await collect_model(storage, run)  # that was right, and is what the last run left


async def test_symbolic_links(tmp_path: Path) -> None:
    storage = DiskStorage(tmp_path)
    await put_blob(storage, b"dead")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / PREFIX / "repositories").mkdir()
    (tmp_path / PREFIX / "repositories/app").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="symbolic links"):
        await collect(storage, max_delete=1.0)


async def test_the_trash_of_a_store_with_symbolic_links_stays(tmp_path: Path) -> None:
    """What lies behind them may name what is in the trash, and neither the scan nor heal sees that."""
    storage = DiskStorage(tmp_path)
    await put_blob(storage, b"dead")
    await collect(storage, max_delete=1.0)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / PREFIX / "repositories").mkdir(exist_ok=True)
    (tmp_path / PREFIX / "repositories/app").symlink_to(tmp_path / "elsewhere")
    before = {path for path in tmp_path.rglob("*") if "/locks" not in str(path)}
    options = HealOptions(scan=ScanOptions())
    async with hold_lock(storage, command="trash empty") as lock:
        with pytest.raises(Refused, match="symbolic links"):
            empty = EmptyOptions(scan=ScanOptions(), offline=True)
            await empty_trash(storage, empty, lock, cache=NoCache("none"))
        with pytest.raises(Refused, match="symbolic links"):
            await heal_store(storage, options, lock)
    with pytest.raises(Refused, match="symbolic links"):
        await plan_heal(storage, options)
    assert {path for path in tmp_path.rglob("*") if "/locks" not in str(path)} == before


def test_no_trash_needs_offline() -> None:
    with pytest.raises(InputError, match="--offline"):
        GcRunOptions(trash=False)
