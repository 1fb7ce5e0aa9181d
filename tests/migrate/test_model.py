"""Random registries to an empty target: what arrives is what the naive model says, and killed runs do no harm."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstore.layout import REPOSITORIES, RevisionLinkKey, SignatureLinkKey, TagIndexKey, decode, link_body
from regstore.migrate.options import MigrateOptions
from regstore.testing.faulty import FaultyStorage, died
from tests.examples import examples
from tests.migrate.naive import Naive, incomplete_tags
from tests.migrate.stores import OURS, dangling, move
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW, example_registry, registries
from tests.model.store import ModelStore

generated = settings(
    deadline=None,
    max_examples=examples(10),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)


def storage(store: ModelStore, name: str, **more: object) -> ModelStorage:
    made = ModelStorage(store, now=NOW, **more)  # type: ignore[arg-type]
    made.url = name
    return made


def registry_part(store: ModelStore) -> dict[str, bytes]:
    return {key: body for key, body in store.bodies().items() if not key.startswith(OURS)}


def derived_body(key: str) -> bytes | None:
    """What a history or signature link is written with: its path says it, a wrong body is not carried along. And the
    link of a manifest that had a layer link alone."""
    decoded = decode(key)
    if isinstance(decoded, TagIndexKey | SignatureLinkKey | RevisionLinkKey):
        return link_body(decoded.digest)
    return None


async def check(store: ModelStore, etags: bool, page: int) -> None:
    before = store.bodies()
    target = ModelStore()
    source = storage(store, "source", etags=etags, page=page)
    result = await move(source, storage(target, "target"))
    wanted = Naive(store, now=NOW, grace=MigrateOptions().grace).expected()
    arrived = registry_part(target)
    assert arrived.keys() == wanted.keys
    for key, body in arrived.items():
        assert body in (before.get(key), derived_body(key)), key
    assert not dangling(arrived)
    assert not incomplete_tags(store, target, now=NOW)
    assert store.bodies() == before, "the source is never written"
    assert result.objects == len(arrived)
    writes = len(target)
    again = await move(source, storage(target, "target"))
    assert (again.objects, len(target)) == (0, writes)


@generated
@given(registries(disk=False), st.booleans(), st.sampled_from([1000, 7]))
def test_any_registry(store: ModelStore, etags: bool, page: int) -> None:
    if any(key.startswith(REPOSITORIES) or "/blobs/" in key for key in store):
        asyncio.run(check(store, etags, page))


async def test_the_example() -> None:
    await check(example_registry(), True, 1000)


@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.slow), "after"])
async def test_killed_at_each_mutation(when: str) -> None:
    """The store after one is the store before the next: --slow looks at both."""
    store = example_registry()
    whole = ModelStore()
    await move(storage(store, "source"), storage(whole, "target"))
    number = 0
    while True:
        number += 35 if number > 2 else 1  # every one would take minutes
        target = ModelStore()
        faulty = FaultyStorage(storage(target, "target"), die_at=number, when=when)  # type: ignore[arg-type]
        if not await died(move(storage(store, "source"), faulty)):
            break
        assert not dangling(registry_part(target)), f"after mutation {number}"
        assert not incomplete_tags(store, target, now=NOW), f"after mutation {number}"
        had = len(registry_part(target))
        result = await move(storage(store, "source"), storage(target, "target"))
        assert not result.conflicts
        assert registry_part(target) == registry_part(whole)
        assert result.objects == len(registry_part(whole)) - had, "only the rest"
    assert number > 80
