"""What time it is at a store whose answers bear a Date that anybody may have written."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from regstore.errors import AccessDenied, NotFound, StorageError
from regstore.events import Event, Notice
from regstore.storage import clock as clock_module
from regstore.storage.base import ObjectInfo, Page
from regstore.storage.clock import StoreClock

SECOND = 1_000_000
DAY = 86_400


class Store:
    """Times in seconds after this computer's: `ahead` of the store, `date` of what answers (None: no Date)."""

    url = "s3://bucket"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, read_only: bool = False) -> None:
        self.passed = 0.0
        self.ahead = 0.0
        self.date: float | None = 0.0
        self.refuses = False
        #: For so long this machine sleeps when a put has been made, before it hears of that.
        self.slept = 0.0
        self.asked: list[str] = []
        self.told: list[Event] = []
        self.objects: dict[str, int] = {}
        self.clock = StoreClock(self, self._date, read_only=read_only, on_event=self.told.append)
        began = time.time()
        monkeypatch.setattr(clock_module, "clock", lambda: self.passed)
        monkeypatch.setattr(time, "time_ns", lambda: int((began + self.passed) * 1e9))

    @property
    def here(self) -> int:
        return time.time_ns() // 1000

    async def _date(self) -> int | None:
        self.asked.append("date")
        return None if self.date is None else int(self.here // SECOND + self.date) * SECOND

    async def stat(self, key: str) -> ObjectInfo:
        self.asked.append("stat")
        if key not in self.objects:
            raise NotFound(key, self.url)
        return ObjectInfo(key, 0, "", self.objects[key])

    async def put(self, key: str, data: bytes) -> None:
        self.asked.append("put")
        if self.refuses:
            raise AccessDenied("no")
        begun = self.passed
        self.objects[key] = int(self.here // SECOND + self.ahead) * SECOND
        self.passed += self.slept
        self.clock.wrote(key, begun)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        self.asked.append("delete")
        self.clock.deleted(keys)
        for key in keys:
            self.objects.pop(key, None)
        return dict.fromkeys(keys)

    def list(self) -> None:
        keys = sorted(self.objects)
        mtimes = [self.objects[key] for key in keys]
        self.clock.listed(Page(keys, [0] * len(keys), [""] * len(keys), mtimes, True))

    async def off(self) -> float:
        """How far `now` is from the store's own time, in seconds."""
        return (await self.clock.now() - self.here) / SECOND - self.ahead


@pytest.mark.parametrize("ahead", [-DAY, 0, DAY])
@pytest.mark.parametrize("look", ["listed", "asked for"])
async def test_what_was_put_tells_it(monkeypatch: pytest.MonkeyPatch, ahead: float, look: str) -> None:
    """Also where the Date and this computer agree, and the store that gives the times is a day off."""
    store = Store(monkeypatch)
    store.ahead = ahead
    await store.put("lock", b"")
    if look == "listed":
        store.list()
    assert -1 <= await store.off() <= 0
    store.passed += 3600
    assert -1 <= await store.off() <= 0
    assert store.asked == ["put", *([] if look == "listed" else ["stat"])]


async def test_what_was_not_put_here_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' objects may have any time."""
    store = Store(monkeypatch)
    store.objects["other"] = store.here + DAY * SECOND
    store.list()
    await store.put("gone", b"")
    await store.delete_many(["gone"])
    store.list()
    assert -1 <= await store.off() <= 0
    assert store.asked[-1] == "date"


async def test_of_nodes_that_differ_the_earliest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    for ahead in (0, -20, 20):
        store.ahead = ahead
        await store.put(f"by {ahead}", b"")
        store.list()
    store.ahead = -20
    assert -1 <= await store.off() <= 0


@pytest.mark.parametrize("ahead", [-DAY, 0, DAY])
@pytest.mark.parametrize("slept", [0, 7, DAY])
async def test_it_is_no_later_than_the_latest(monkeypatch: pytest.MonkeyPatch, ahead: float, slept: float) -> None:
    store = Store(monkeypatch)
    store.ahead, store.slept = ahead, slept
    await store.put("slow", b"")
    store.list()
    for passed in (0, 3600):
        store.passed += passed
        assert await store.off() <= 0
        assert 0 <= await latest_off(store) <= slept + 1
    store.slept = 0
    await store.put("quick", b"")
    assert 0 <= await latest_off(store) <= slept + 1
    store.list()
    assert 0 <= await latest_off(store) <= 1


async def latest_off(store: Store) -> float:
    return (await store.clock.latest() - store.here) / SECOND - store.ahead


async def test_a_date_leaves_room_for_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    for date in (-9, 0, 9):
        store.date = store.ahead = date
        assert 0 <= await latest_off(store) <= 11
    assert store.asked == ["date"] * 3


@pytest.mark.parametrize("date", [DAY, -DAY, None])
async def test_a_date_that_this_computer_does_not_confirm(
    monkeypatch: pytest.MonkeyPatch, date: float | None
) -> None:
    store = Store(monkeypatch)
    store.date, store.ahead = date, 5
    assert -1 <= await store.off() <= 0
    assert store.asked == ["date", "put", "stat", "delete"]
    assert -1 <= await store.off() <= 0
    assert len(store.asked) == 4
    assert not store.objects and not store.told


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("date", [DAY, -DAY])
async def test_the_earlier_counts_where_nothing_can_be_put(
    monkeypatch: pytest.MonkeyPatch, date: float, read_only: bool
) -> None:
    store = Store(monkeypatch, read_only=read_only)
    store.date, store.refuses = date, True
    assert min(date, 0) - 1 <= await store.off() <= 0
    (notice,) = store.told
    assert isinstance(notice, Notice)
    assert ("s ahead of" if date > 0 else "s behind") in notice.message
    assert ("put" in store.asked) is not read_only


async def test_no_date_and_nothing_can_be_put(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch, read_only=True)
    store.date = None
    with pytest.raises(StorageError, match="without a Date"):
        await store.clock.now()
