"""Blobs read in ranges, ahead: the same bytes, a bounded number at a time, and no mixture of two objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.errors import IntegrityError, StorageError
from regstore.storage import streams
from regstore.storage.base import ReadHandle
from regstore.storage.sizes import AHEAD
from regstore.storage.streams import SourceGone, read_blob, verified_size
from tests.model.memory import ModelStorage
from tests.model.store import ModelStore

BODY = bytes(range(256)) * 5


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WHOLE": 0, "RANGED": 10, "RANGE": 100}.items():
        monkeypatch.setattr(streams, name, value)


class Watched(ModelStorage):
    """Counts reads that are under way at the same time, until the last chunk was taken or they are closed; `before` is
    awaited with each one's start."""

    def __init__(self, body: bytes = BODY) -> None:
        store = ModelStore()
        store.objects["blob"] = (body, 0)
        super().__init__(store, now=0)
        self.open = self.most = 0
        self.starts: list[int] = []

    async def before(self, start: int) -> None:
        await asyncio.sleep(0)

    def open_read(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[ReadHandle]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[ReadHandle]:
            self.starts.append(start)
            self.open += 1
            self.most = max(self.most, self.open)
            under_way = 1
            try:
                await self.before(start)
                async with ModelStorage.open_read(self, key, start=start, length=length) as handle:
                    data = [chunk async for chunk in handle]

                    class Taken:
                        info = handle.info

                        async def __aiter__(taken) -> AsyncIterator[bytes]:
                            nonlocal under_way
                            for chunk in data:
                                yield chunk
                            self.open -= under_way
                            under_way = 0

                    yield Taken()
            finally:
                self.open -= under_way

        return opened()


async def read(storage: ModelStorage, size: int = len(BODY)) -> bytes:
    return b"".join([chunk async for chunk in read_blob(storage, "blob", size)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=1000), st.integers(0, 1000))
def test_the_bytes_whatever_size_was_expected(body: bytes, size: int) -> None:
    assert asyncio.run(read(Watched(body), size)) == body


async def test_some_ranges_at_a_time_each_once() -> None:
    storage = Watched()
    assert await read(storage) == BODY
    assert sorted(storage.starts) == list(range(0, len(BODY), 100))
    assert storage.most == AHEAD


async def test_in_order_however_late_one_comes() -> None:
    storage = Watched()

    async def before(start: int) -> None:
        for _ in range(10 if start % 200 else 1):
            await asyncio.sleep(0)

    storage.before = before  # type: ignore[method-assign]
    assert await read(storage) == BODY


async def test_one_stream_where_ranges_do_not_help() -> None:
    storage = Watched()
    storage.serves_in_parallel = False
    assert await read(storage) == BODY
    assert storage.starts == [0]


async def test_what_changes_meanwhile_is_no_blob() -> None:
    storage = Watched()

    async def before(start: int) -> None:
        if start == 500:
            storage.store.objects["blob"] = (BODY[::-1], 0)

    storage.before = before  # type: ignore[method-assign]
    with pytest.raises(IntegrityError, match="model/blob changed while it was read"):
        await read(storage)
    assert storage.open == 0


@pytest.mark.parametrize("at", [0, 500])
async def test_absent_is_said_of_the_source(at: int) -> None:
    storage = Watched()

    async def before(start: int) -> None:
        if start == at:
            del storage.store.objects["blob"]

    storage.before = before  # type: ignore[method-assign]
    with pytest.raises(SourceGone):
        await read(storage)
    assert storage.open == 0


async def test_a_failed_range_ends_all() -> None:
    storage = Watched()

    async def before(start: int) -> None:
        if start == 300:
            raise StorageError("down")

    storage.before = before  # type: ignore[method-assign]
    with pytest.raises(StorageError, match="down"):
        await read(storage)
    assert storage.open == 0


async def test_left_early_nothing_goes_on() -> None:
    storage = Watched()
    async with aclosing(read_blob(storage, "blob", len(BODY))) as chunks:
        assert await anext(chunks) == BODY[:100]
    assert storage.open == 0
    assert len(storage.starts) <= 1 + AHEAD


async def test_verified_size() -> None:
    digest = Digest.of(BODY)
    assert await verified_size(Watched(), "blob", digest, len(BODY)) == len(BODY)
    assert await verified_size(Watched(BODY + b"more"), "blob", digest, len(BODY)) is None
    assert await verified_size(Watched(BODY[:-1]), "blob", digest, len(BODY)) is None
    assert await verified_size(Watched(), "absent", digest, len(BODY)) is None
