"""What SQL finds is what the naive model finds, for every registry."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstore.proving.read_data import ReadData
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.verify.fault import Fault, FaultKind
from regstore.verify.options import VerifyOptions
from regstore.verify.run import VerifyReport, verify
from tests.examples import examples
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW, example_registry, registries
from tests.model.store import ModelStore
from tests.verify.oracle import Name, verify_naively

generated = settings(
    max_examples=examples(10),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)


def name_of(fault: Fault) -> Name:
    if fault.area in ("blob", "manifest"):
        return fault.kind, "", "", str(fault.digest)
    return fault.kind, fault.area, fault.repository, fault.tag or str(fault.digest)


async def find(storage: Storage, *, pull_through: bool = False) -> VerifyReport:
    return await verify(storage, VerifyOptions(read=ReadData.parse("all"), pull_through=pull_through))


async def compare(storage: Storage, store: ModelStore, *, pull_through: bool) -> None:
    report = await find(storage, pull_through=pull_through)
    wanted = verify_naively(store, pull_through=pull_through)
    found: dict[Name, dict[tuple[str, str], bool]] = defaultdict(dict)
    for fault in report.findings.faults:
        known = found[name_of(fault)]
        for tag in fault.touched:
            known[tag.repository, tag.tag] = known.get((tag.repository, tag.tag), False) or tag.pull
    sizes = {name for name in wanted.faults if name[0] is FaultKind.SIZE_DIFFERS}
    assert found.keys() == wanted.faults.keys()
    for name in found:
        if name in sizes:  # struck wherever it is needed, not only where a descriptor is wrong
            assert found[name].items() >= wanted.faults[name].items(), name
        else:
            assert found[name] == wanted.faults[name], name
    absent = report.findings.absent
    assert (absent.sparse, absent.foreign, absent.leftovers) == (wanted.sparse, wanted.foreign, wanted.leftovers)
    broken = {
        tag
        for name, touched in found.items()
        for tag, pull in touched.items()
        if pull and name[0] is not FaultKind.MANIFEST_UNREADABLE
    }
    assert report.findings.tags_broken == len(broken)


@generated
@given(registries(disk=False), st.booleans(), st.booleans(), st.sampled_from([1000, 7]))
def test_on_a_store_like_s3(store: ModelStore, pull_through: bool, etags: bool, page: int) -> None:
    if not any(key.startswith("docker/registry/v2/") for key in store):
        return
    storage = ModelStorage(store, now=NOW, etags=etags, page=page)
    asyncio.run(compare(storage, store, pull_through=pull_through))


@generated
@given(registries())
def test_on_disk(tmp_path_factory: pytest.TempPathFactory, store: ModelStore) -> None:
    if not any(key.startswith("docker/registry/v2/") for key in store):
        return
    root = tmp_path_factory.mktemp("store")
    store.write_folder(root)
    asyncio.run(compare(DiskStorage(root), store, pull_through=False))


async def test_the_example() -> None:
    store = example_registry()
    await compare(ModelStorage(store, now=NOW), store, pull_through=False)
