"""Packs of random registries are, byte for byte, those of the naive model, and so is what is said of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from regstore.backup.packing import Packing
from regstore.backup.plan import PackPlan, make_tables
from regstore.digest import Digest
from regstore.errors import RegstoreError
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import scan
from tests.backup.places import SCANNING, memory
from tests.examples import examples
from tests.model import packs as model
from tests.model.random_registry import example_registry, registries
from tests.model.store import ModelStore


def compared(inventory: Inventory, lost: dict[Digest, str], tags: Sequence[str]) -> int:
    """Hold every repository's pack to the model's; how many packs."""
    names = [name for (name,) in inventory.all("select name from repository order by name")]
    packing = Packing(inventory)
    packing.plan(names, lost=lost, tags=tags)
    manifests, blobs = model.manifests(inventory), model.blobs(inventory)
    for name in names:
        wanted = model.plan_pack(model.listing(inventory, name), manifests, blobs, lost=lost, tags=tags)
        assert tuple(packing.left_out.get(name, ())) == wanted.left_out
        assert packing.missing.get(name, set()) == wanted.missing
        assert (name in packing.unlinked) == bool(wanted.unlinked)
        assert (name in packing.packs) == bool(wanted.pack.manifests)
        if wanted.pack.manifests:
            encoded, stored = model.encode_pack(wanted.pack)
            assert packing.packs[name].read() == stored
            assert packing.summaries[name] == model.summary(encoded, wanted.pack)
        needed = inventory.all(
            "select digest, size from backup_need n join repository r on r.id = n.repository where r.name = ?",
            [name],
        )
        assert dict(needed) == {digest.raw: size for digest, size in wanted.pack.blobs.items()}
    return len(packing.packs)


async def scanned(store: ModelStore, seed: int | None, tags: Sequence[str]) -> int:
    """seed: of what is lost, and of the sizes of what goes together."""
    async with scan(memory(store), SCANNING) as inventory:
        lost = {}
        if seed is not None:
            dice = random.Random(seed)
            held = sorted(model.blobs(inventory))
            lost = {digest: "is damaged at the source" for digest in held if dice.random() < 0.15}
        return compared(inventory, lost, tags)


@settings(
    max_examples=examples(8),
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
@given(
    registries(disk=False),
    st.one_of(st.none(), st.integers(0, 99)),
    st.sampled_from([(), (), ("*1*", "latest"), ("v*",)]),
)
def test_packs_are_those_of_the_model(store: ModelStore, seed: int | None, tags: Sequence[str]) -> None:
    asyncio.run(scanned(store, seed, tags))


async def test_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await scanned(example_registry(), None, ()) > 3
    monkeypatch.setattr("regstore.backup.plan._ROWS", 5)
    monkeypatch.setattr("regstore.backup.writing._CHUNK", 50)
    for tags in ((), ("*",)):
        assert await scanned(example_registry(), None, tags) > 3


@pytest.mark.parametrize("spoil", ["update backup_line set place = 0", "delete from backup_line where section = 1"])
async def test_rows_that_come_otherwise_than_planned_are_no_pack(
    spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regstore.backup.plan._ROWS", 5)
    async with scan(memory(example_registry()), SCANNING) as inventory:
        names = [name for (name,) in inventory.all("select name from repository order by name")]
        make_tables(inventory)
        plan = PackPlan(inventory, names, {}, ())
        inventory.execute(spoil)
        with pytest.raises(RegstoreError, match=r"nothing of this backup is kept"):
            list(plan.rows())
