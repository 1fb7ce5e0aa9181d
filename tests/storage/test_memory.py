"""A store in memory keeps the contract, and is one store for a whole process."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

import regstore
from regstore.errors import AccessDenied, InputError
from regstore.gc.run import GcRunOptions, open_run
from regstore.storage import parse_location
from regstore.storage.base import Storage
from regstore.storage.memory import MemoryStorage, forget, objects_of
from regstore.testing.any_keys import AnyKeys
from regstore.testing.conformance import StorageConformance
from tests.registry.stores import push
from tests.servers import images


class TestMemory(StorageConformance, AnyKeys):
    odd_keys = ("a//b", "a/", "/lead", "a/./b", "a/../b", "a\nb", "\x01", "é/", "a", "a/b/")
    root = ""

    @pytest.fixture
    async def storage(self) -> AsyncIterator[Storage]:
        self.name = secrets.token_hex(8)
        self.before = f"{self.root}/" if self.root else ""
        async with MemoryStorage(self.name, self.root) as storage:
            yield storage
        forget(self.name)

    @pytest.fixture
    async def missing(self) -> AsyncIterator[Storage]:
        async with MemoryStorage(secrets.token_hex(8), self.root, create=False) as storage:
            yield storage

    async def raw_put(self, key: str, data: bytes) -> None:
        objects_of(self.name).put(self.before + key, data)

    async def raw_get(self, key: str) -> bytes | None:
        found = objects_of(self.name).found.get(self.before + key)
        return found.data if found else None

    async def raw_keys(self) -> list[str]:
        return [key[len(self.before) :] for key in objects_of(self.name).found]


class TestMemoryWithRoot(TestMemory):
    root = "some/root"


async def test_a_name_is_one_store_until_it_is_forgotten() -> None:
    one, other = MemoryStorage("one-for-all", "root"), MemoryStorage("one-for-all")
    await one.put("key", b"body")
    assert other.contents() == {"root/key": b"body"} and one.contents() == {"key": b"body"}
    forget("one-for-all")
    assert MemoryStorage("one-for-all").contents() == {}


async def test_opened_to_be_looked_at_it_changes_nothing() -> None:
    await MemoryStorage("looked-at").put("key", b"body")
    looking = MemoryStorage("looked-at", read_only=True)
    assert await looking.get("key") == b"body"
    for change in (looking.put("a", b""), looking.delete_many(["key"]), looking.copy("key", "b")):
        with pytest.raises(AccessDenied):
            await change
    assert looking.contents() == {"key": b"body"}
    forget("looked-at")


async def test_the_library_works_on_a_store_in_memory() -> None:
    assert str(parse_location("memory://lib/a/b/")) == "memory://lib/a/b"
    for text in ("memory:lib", "memory://", "memory:///root"):
        with pytest.raises(InputError, match="expected"):
            parse_location(text)
    async with regstore.open("memory://lib/root") as registry:
        repository = registry.repository("team/app")
        document = images.multiarch("x")
        await push(repository, document, "1.0")
        assert [tag.name async for tag in repository.tags] == ["1.0"]
    async with MemoryStorage("lib", "root") as storage, open_run(storage, GcRunOptions()) as run:
        assert run.summary.nothing_to_do and run.summary.blobs.total == len(document.closure())
    forget("lib")
