"""Blobs of a range go by a task: what it says of each, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from regstore.digest import Digest
from regstore.errors import AccessDenied, StorageError
from regstore.gc.apply import sweep_range as module
from regstore.gc.apply.fate import Fate
from regstore.gc.apply.sweep_range import SweepRange, SweptRange, sweep_range
from regstore.layout import BlobKey, encode
from regstore.state import RUNS, TRASH
from regstore.state import lock as lock_module
from regstore.state import lock_view as view_module
from regstore.state.journal import AttemptJournal, Entry, read_parts
from regstore.state.lock import hold_lock
from regstore.storage.base import Storage
from regstore.tasks import Context
from regstore.testing.faulty import FaultyStorage, died
from tests.model.memory import ModelStorage
from tests.model.store import ModelStore

NOW = 10**15
OLD = NOW - 10**12 + 123_456
SECOND = 1_000_000
FOR_EVER = 2**60


class Range:
    """Six blobs that may go, and others between them."""

    def __init__(self, *, others: int = 0, page: int = 1000) -> None:
        self.digests = sorted((Digest.of(b"%d" % number) for number in range(6)), key=str)
        self.keys = [encode(BlobKey(digest)) for digest in self.digests]
        objects = {encode(BlobKey(Digest.of(b"%d" % n))): (b"%d" % n, OLD) for n in range(6 + others)}
        self.storage = ModelStorage(ModelStore(objects), now=NOW, page=page)
        self.others = objects.keys() - set(self.keys)
        self.mtime = OLD  # as planned

    async def sweep(
        self, storage: Storage | None = None, *, attempt: int = 0, until: int = FOR_EVER, trash: bool = True
    ) -> SweptRange:
        async with hold_lock(self.storage, command="gc") as lock:
            self.run = lock.run
            return await self.sweep_by(lock.run, storage, attempt=attempt, until=until, trash=trash)

    async def sweep_by(self, run: str, storage: Storage | None = None, **more: Any) -> SweptRange:
        attempt = more.pop("attempt", 0)
        work = SweepRange(
            run=run,
            lease=600.0,
            shard=7,
            digests=[digest.raw for digest in self.digests],
            sizes=[1] * 6,
            mtimes=[self.mtime] * 6,
            **({"trash": True, "until": FOR_EVER} | more),
        )
        return await sweep_range(Context(stores=(storage or self.storage,), concurrency=2, attempt=attempt), work)

    def stands(self) -> list[str]:
        return [key for key in self.keys if key in self.storage.store]


@pytest.mark.parametrize("trash", [True, False])
async def test_each_key_has_its_fate(trash: bool) -> None:
    some = Range(others=20)
    objects = some.storage.store.objects
    del objects[some.keys[1]]
    objects[some.keys[2]] = (objects[some.keys[2]][0], NOW - 1)
    faulty = FaultyStorage(some.storage, delete_errors={some.keys[3]: StorageError("it is held")})
    swept = await some.sweep(faulty, trash=trash)
    assert swept.fates == [Fate.TAKEN, Fate.VANISHED, Fate.KEPT, Fate.FAILED, Fate.TAKEN, Fate.TAKEN]
    assert swept.reasons == {some.digests[3].raw: "it is held"}
    assert some.stands() == some.keys[2:4]
    assert some.others <= set(some.storage.store)
    assert not swept.repeated_deletes
    journal = [key for key in some.storage.store if key.startswith(RUNS)]
    assert journal == [f"{RUNS}{some.run}/000007-sweep-0-000001.jsonl.gz"]
    entries = [entry async for part in read_parts(some.storage, journal) for entry in part]
    assert [entry.key for entry in entries] == [some.keys[0], *some.keys[3:]]


async def test_what_may_not_be_deleted_ends_it() -> None:
    some = Range()
    with pytest.raises(AccessDenied, match="permits none of 6 changes"):
        await some.sweep(FaultyStorage(some.storage, delete_denied=""))
    assert some.stands() == some.keys


@pytest.mark.parametrize("trash", [True, False])
async def test_a_further_attempt_leaves_alone_what_came_back(trash: bool) -> None:
    """The first one died with two gone; one of these was pushed again, and one that stood as well."""
    some = Range()
    changes = 1 + 6 * trash + 2  # a part of the journal, copies, deletes
    mortal = FaultyStorage(some.storage, die_at=changes, when="after")
    async with hold_lock(some.storage, command="gc") as lock:
        assert await died(some.sweep_by(lock.run, mortal, trash=trash))
        assert some.stands() == some.keys[2:]
        for key in (some.keys[1], some.keys[4]):
            some.storage.store.objects[key] = (b"x", NOW)
        before = some.storage.counters.repeated_deletes
        swept = await some.sweep_by(lock.run, attempt=1, trash=trash)
    assert swept.fates == [Fate.TAKEN, Fate.KEPT, Fate.TAKEN, Fate.TAKEN, Fate.KEPT, Fate.TAKEN]
    assert some.stands() == [some.keys[1], some.keys[4]]
    assert swept.repeated_deletes == some.storage.counters.repeated_deletes - before == 6
    copies = [key for key in some.storage.store if key.startswith(TRASH)]
    assert len(copies) == (6 if trash else 0)


async def test_without_a_copy_nobody_took_it() -> None:
    some = Range()
    del some.storage.store.objects[some.keys[0]]
    assert (await some.sweep(attempt=1)).fates[0] is Fate.VANISHED


class _Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, storage: ModelStorage) -> None:
        self._storage = storage
        for one in (lock_module, view_module, module):
            monkeypatch.setattr(one, "clock", lambda: self._storage.clock / SECOND)

    def passes(self, seconds: float) -> None:
        self._storage.clock += int(seconds * SECOND)


async def test_what_comes_after_the_look_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    some = Range()
    swept = await some.sweep(until=NOW)
    assert set(swept.fates) == {Fate.LATE} and some.stands() == some.keys
    assert not [key for key in some.storage.store if key.startswith((RUNS, TRASH))]
    clock = _Clock(monkeypatch, some.storage)

    def slow(operation: str, key: str) -> None:
        if operation == "copy":
            clock.passes(20)

    swept = await some.sweep(FaultyStorage(some.storage, before=slow), until=NOW + 100 * SECOND)
    assert set(swept.fates) == {Fate.LATE} and some.stands() == some.keys, "copied, and too late to be deleted"
    swept = await some.sweep(until=some.storage.clock + 100 * SECOND)
    assert set(swept.fates) == {Fate.TAKEN} and not some.stands()


@pytest.mark.parametrize("late", [0, 1])
async def test_a_wide_range_is_asked_for_key_by_key(monkeypatch: pytest.MonkeyPatch, late: int) -> None:
    """Also where only a listing tells parts of a second."""
    monkeypatch.setattr(module, "_PAGES", 2)
    some = Range(others=60, page=5)
    stat = some.storage.stat

    async def whole_seconds(key: str) -> Any:
        info = await stat(key)
        return replace(info, mtime=info.mtime // SECOND * SECOND)

    monkeypatch.setattr(some.storage, "stat", whole_seconds)
    last = some.keys[-1]
    some.storage.store.objects[last] = (some.storage.store.objects[last][0], OLD + late * SECOND)
    del some.storage.store.objects[some.keys[-2]]
    swept = await some.sweep()
    assert swept.fates == [Fate.TAKEN] * 4 + [Fate.VANISHED, Fate.KEPT if late else Fate.TAKEN]
    assert some.storage.counters.requests["stat"] >= 2
    assert some.others <= set(some.storage.store)


async def test_a_time_of_which_only_the_second_was_told() -> None:
    """A plan by a report takes it for as late as it may be; what was written again has a later one."""
    some = Range()
    some.mtime = OLD // SECOND * SECOND + SECOND - 1
    first, last = some.keys[0], some.keys[-1]
    some.storage.store.objects[first] = some.storage.store.objects[first][0], OLD // SECOND * SECOND
    some.storage.store.objects[last] = some.storage.store.objects[last][0], some.mtime + 1
    assert (await some.sweep()).fates == [Fate.TAKEN] * 5 + [Fate.KEPT]
    some = Range()
    some.storage.store.objects[last] = some.storage.store.objects[last][0], OLD + 1
    assert (await some.sweep()).fates == [Fate.TAKEN] * 5 + [Fate.KEPT]


@pytest.mark.parametrize("conditional", [True, False])
async def test_a_part_that_stands_is_not_written_again(conditional: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store can tell; elsewhere the attempt in its name makes it the only one."""
    storage = ModelStorage(ModelStore({}), now=NOW)
    if not conditional:
        capabilities = await storage.capabilities()
        made: Callable[[], Any] = lambda: _given(replace(capabilities, conditional_put=False))  # noqa: E731
        monkeypatch.setattr(storage, "capabilities", made)
    run = "20260101T000000Z-00000000"
    for attempt in (0, 1 if not conditional else 0):
        journal = AttemptJournal(storage, run, shard=3, step="sweep", attempt=attempt)
        await journal.write([Entry("trash", f"key {len(storage.store)}", 1, OLD)])
        assert list(storage.store)[-1] == journal.parts[0]
        assert {entry.key for entry in await journal.written_before()} == {
            f"key {number}" for number in range(len(storage.store) - 1)
        }
    assert len(storage.store) == 2


async def _given(value: Any) -> Any:
    return value
