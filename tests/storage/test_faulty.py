"""The storage that fails and dies: does it do so exactly where it was told?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest

from regstore.errors import AccessDenied, StorageError, Unreachable
from regstore.storage.base import Capabilities
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage, Killed, Mutation, died
from regstore.testing.store import keys, stream


@pytest.fixture
async def inner(tmp_path: Path) -> AsyncIterator[DiskStorage]:
    async with DiskStorage(tmp_path) as storage:
        yield storage


async def work(storage: FaultyStorage) -> None:
    """Seven mutations."""
    await storage.put("a", b"1")
    await storage.put_stream("b", stream(b"2"))
    await storage.copy("a", "c")
    await storage.delete_many(["a", "b", "c"])
    await storage.put("d", b"3")


#: The keys after each number of the mutations above.
STATES = [[], ["a"], ["a", "b"], ["a", "b", "c"], ["b", "c"], ["c"], [], ["d"]]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 8))
async def test_it_dies_at_every_mutation(inner: DiskStorage, number: int, when: Literal["before", "after"]) -> None:
    faulty = FaultyStorage(inner, die_at=number, when=when)
    assert await died(work(faulty))
    assert len(faulty.mutations) == number
    assert await keys(inner) == STATES[number if when == "after" else number - 1]
    for call in (faulty.get("d"), faulty.put("e", b""), faulty.delete_many(["d"]), faulty.now(), keys(faulty)):
        with pytest.raises(Killed):
            await call
    assert await keys(inner) == STATES[number if when == "after" else number - 1]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_it_fails_once(inner: DiskStorage, when: Literal["before", "after"]) -> None:
    faulty = FaultyStorage(inner, fail_at=1, when=when, error=Unreachable)
    with pytest.raises(Unreachable, match="mutation 1"):
        await faulty.put("a", b"1")
    assert await keys(inner) == ([] if when == "before" else ["a"])
    await faulty.put("a", b"1")
    assert faulty.mutations == [Mutation("put", "a")] * 2


async def test_without_faults_it_only_records(inner: DiskStorage) -> None:
    faulty = FaultyStorage(inner, die_at=8)
    assert not await died(work(faulty))
    assert [mutation.operation for mutation in faulty.mutations] == ["put", "put", "copy", *["delete"] * 3, "put"]


async def test_death_within_a_group_of_tasks_is_seen(inner: DiskStorage) -> None:
    faulty = FaultyStorage(inner, die_at=2)

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(5):
                tasks.create_task(faulty.put(str(number), b""))

    assert await died(group())
    assert len(await keys(inner)) == 1


async def test_deletes_fail_key_by_key(inner: DiskStorage) -> None:
    error = AccessDenied("no")
    faulty = FaultyStorage(inner, delete_errors={"b": error})
    for key in "abc":
        await inner.put(key, b"")
    assert await faulty.delete_many(["a", "b", "c"]) == {"a": None, "b": error, "c": None}
    assert await keys(inner) == ["b"]


async def test_a_page_fails_once(inner: DiskStorage) -> None:
    await inner.put("x/1", b"")
    faulty = FaultyStorage(inner, fail_list_page=2, fail_list_prefix="x/")
    assert await keys(faulty, "x/") == ["x/1"]
    assert await keys(faulty, "y/") == []
    with pytest.raises(StorageError, match="page 2"):
        await keys(faulty, "x/")
    assert await keys(faulty, "x/") == ["x/1"]


async def test_hooks_see_every_call_and_may_change_things_meanwhile(inner: DiskStorage) -> None:
    seen: list[str] = []

    async def before(operation: str, key: str) -> None:
        seen.append(f"before {operation} {key}")
        if operation == "get":
            await inner.put(key, b"changed meanwhile")

    faulty = FaultyStorage(
        inner, before=before, after=lambda operation, key: seen.append(f"after {operation} {key}")
    )
    await faulty.put("k", b"first")
    assert await faulty.get("k") == b"changed meanwhile"
    await faulty.delete_many(["k"])
    await keys(faulty, "k")
    assert seen == [f"{when} {what} k" for what in ("put", "get", "delete", "list") for when in ("before", "after")]


async def test_a_move_without_renames_is_two_mutations(inner: DiskStorage) -> None:
    class Renaming(DiskStorage):
        async def capabilities(self) -> Capabilities:
            return Capabilities(atomic_rename=False)

    async with Renaming(inner.root) as storage:
        await storage.put("a", b"1")
        faulty = FaultyStorage(storage, die_at=2)
        assert await died(faulty.move("a", "b", size=1))
        assert faulty.mutations == [Mutation("copy", "a", "b"), Mutation("delete", "a")]
        assert await keys(inner) == ["a", "b"]
        await FaultyStorage(storage).move("a", "b", size=1)
        assert await keys(inner) == ["b"]
