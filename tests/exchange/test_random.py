"""Any registry out and in: each tag arrives whole and as it was, or it is named; and nothing else comes to be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from regstore import layout
from regstore.digest import Digest
from regstore.errors import InputError, NotARegistry, RegstoreError
from regstore.exchange import (
    ExportOptions,
    ImportOptions,
    Reference,
    export,
    import_layout,
    open_source,
    open_target,
    plan_export,
    plan_import,
)
from regstore.reference import is_name
from regstore.registry import Registry
from regstore.state.lock import hold_lock
from regstore.storage.base import Storage
from tests.backup.oracle import incomplete_tags
from tests.backup.places import contents, memory
from tests.examples import examples
from tests.model import builder
from tests.model.random_registry import example_registry, registries
from tests.model.store import ModelStore


@pytest.fixture(scope="module", autouse=True)
def sizes_are_not_said() -> Iterator[None]:
    """The model's manifests give every part one byte, and what has another size is left out."""
    real = builder.descriptor

    def descriptor(digest: Digest, media_type: str, size: int = -1, **more: Any) -> dict[str, Any]:
        return real(digest, media_type, size, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "descriptor", descriptor)
        yield


async def tags_of(storage: Storage) -> dict[str, str]:
    found = {}
    for key, body in (await contents(storage)).items():
        decoded = layout.decode(key)
        if isinstance(decoded, layout.TagCurrentKey):
            found[f"{decoded.name}:{decoded.tag}"] = body.decode(errors="replace")
    return found


async def there_and_back(store: ModelStore) -> tuple[int, int]:
    """How many tags came over, and how many were left out."""
    source, middle, target = memory(store), memory(), memory()
    try:
        names = [one.name async for one in Registry(source).repositories() if is_name(one.name)]
    except NotARegistry:
        return 0, 0
    tagged = {name: digest for name, digest in (await tags_of(source)).items() if is_name(name.partition(":")[0])}
    try:
        plan = await plan_export(source, ExportOptions(what=tuple(map(Reference.parse, names))))
    except InputError:
        assert not names
        return 0, 0
    done = await export(source, plan, middle)
    options = ImportOptions()
    if not done.entries:
        return 0, len(tagged)
    brought = await plan_import(middle, target, options)
    async with hold_lock(target, command="import") as lock:
        result = await import_layout(middle, target, brought, options, lock=lock)
    there = await contents(target)
    assert not incomplete_tags(there)
    arrived = await tags_of(target)
    assert arrived.items() <= tagged.items()
    said = " ".join([*done.left_out, *result.left_out])
    for name in tagged.keys() - arrived.keys():
        repository, _, tag = name.partition(":")
        assert f"{name}:" in said or f"{repository}: tag {tag}" in said, (name, said)
    for key, body in there.items():
        if key.startswith(layout.BLOBS) and "_regstore" not in key:
            assert (await source.get(key)) == body
    return len(arrived), len(tagged) - len(arrived)


@settings(
    max_examples=examples(15),
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
@given(registries(disk=False))
def test_any_registry(store: ModelStore) -> None:
    asyncio.run(there_and_back(store))


async def test_the_example() -> None:
    arrived, left = await there_and_back(example_registry())
    assert arrived > 3 and left >= 0


async def whole_layout(path: Path) -> bytes:
    source = memory(example_registry())
    plan = await plan_export(source, ExportOptions(what=(Reference.parse("team/app"), Reference.parse("b"))))
    async with open_target(path) as target:
        await export(source, plan, target)
    return path.read_bytes()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return asyncio.run(whole_layout(tmp_path_factory.mktemp("whole") / "f.tar"))


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
@given(st.data())
def test_an_archive_with_any_bytes_changed(archive: bytes, tmp_path: Path, data: st.DataObject) -> None:
    """A sentence, or what is whole; never a blob that is not as its digest says, and never a link to nothing."""
    changed = bytearray(archive)
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(archive) - 1), st.integers(0, 255)), max_size=4)
    ):
        changed[place] = byte
    if data.draw(st.booleans()):
        changed = changed[: data.draw(st.integers(0, len(archive)))]
    path = tmp_path / "changed.tar"
    path.write_bytes(changed)

    async def work() -> dict[str, bytes]:
        target = memory()
        try:
            async with open_source(path) as source:
                plan = await plan_import(source, target, ImportOptions())
                async with hold_lock(target, command="import") as lock:
                    await import_layout(source, target, plan, ImportOptions(), lock=lock)
        except RegstoreError as error:
            assert str(error).isprintable() and len(str(error)) < 1000
        return await contents(target)

    there = asyncio.run(work())
    assert not incomplete_tags(there)
    for key, body in there.items():
        decoded = layout.decode(key)
        assert not isinstance(decoded, layout.BlobKey) or decoded.digest.matches(body)
