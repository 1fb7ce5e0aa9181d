"""A listing in parallel ranges gives every key exactly once, whatever the keys and however the server pages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regstore.errors import StorageError, Unreachable
from regstore.inventory.listing import list_in_parallel
from regstore.storage.base import Page

PREFIX = "docker/registry/v2/"


class Pages:
    """A server's listing: pages of at most `page` keys, short or empty ones now and then, answers in any order."""

    def __init__(self, keys: list[str], *, page: int, seed: int, short: float = 0.0, fail_at: int = 0) -> None:
        self.keys = sorted(keys)
        self.page = page
        self.random = random.Random(seed)
        self.short = short
        self.fail_at = fail_at
        self.requests = 0

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        keys = [key for key in self.keys if key.startswith(prefix) and key > start_after]
        while True:
            self.requests += 1
            if self.requests == self.fail_at:
                raise Unreachable(f"page {self.requests}")
            for _ in range(self.random.randrange(3)):
                await asyncio.sleep(0)
            count = self.random.randrange(self.page) if self.random.random() < self.short else self.page
            page, keys = keys[:count], keys[count:]
            yield Page(page, [1] * count, [""] * count, [0] * count, not keys)
            if not keys:
                return


def hexes(number: int, rng: random.Random) -> list[str]:
    return [f"{rng.getrandbits(256):064x}" for _ in range(number)]


def make_keys(shape: str, number: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    match shape:
        case "blobs":
            return [f"{PREFIX}blobs/sha256/{text[:2]}/{text}/data" for text in hexes(number, rng)]
        case "skewed blobs":
            return [f"{PREFIX}blobs/sha256/00/00{text[2:]}/data" for text in hexes(number, rng)]
        case "layers":
            names = [f"r{rng.randrange(50)}/{'x' * rng.randrange(3)}" for _ in range(5)]
            texts = hexes(number, rng)
            return [f"{PREFIX}repositories/{rng.choice(names)}/_layers/sha256/{text}/link" for text in texts]
        case "tags":
            return [
                f"{PREFIX}repositories/a/_manifests/tags/v{n}.{rng.randrange(9)}/current/link"
                for n in range(number)
            ]
        case "repositories":
            return [f"{PREFIX}repositories/team-{n}/app/_layers/sha256/{'0' * 64}/link" for n in range(number)]
        case _:
            alphabet = "aZ0-._/~ é\U0001f600\x7f"
            return [PREFIX + "".join(rng.choices(alphabet, k=rng.randrange(1, 9))) for _ in range(number)]


SHAPES = ("blobs", "skewed blobs", "layers", "tags", "repositories", "anything")


async def listed(server: Pages, concurrency: int) -> tuple[list[str], int]:
    found: list[str] = []

    async def sink(page: Page) -> None:
        await asyncio.sleep(0)
        found.extend(page.keys)

    ranges = await list_in_parallel(server, PREFIX, sink, concurrency=concurrency)  # type: ignore[arg-type]
    return found, ranges


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(SHAPES), st.integers(0, 400)), max_size=3),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.3, 0.9]),
    st.integers(1, 40),
    st.integers(0, 2**32),
)
def test_every_key_once(
    shapes: list[tuple[str, int]], page: int, short: float, concurrency: int, seed: int
) -> None:
    keys = sorted({key for shape, number in shapes for key in make_keys(shape, number, seed)})
    server = Pages(keys, page=page, seed=seed, short=short)
    found, ranges = asyncio.run(listed(server, concurrency))
    assert sorted(found) == keys
    if not short:
        assert server.requests <= len(keys) // page + 2 * ranges


class Rounds(Pages):
    """Answers all that was asked together, and counts how often."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__(keys, page=1000, seed=1)
        self.waiting = 0
        self.rounds = 0
        self._answer = asyncio.Event()

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        async for page in super().list(prefix, start_after=start_after):
            self.waiting += 1
            await self._answer.wait()
            yield page

    async def answer(self) -> None:
        while True:
            before = -1
            while self.waiting != before or not before:  # until nobody asks any more
                before = self.waiting
                for _ in range(20):
                    await asyncio.sleep(0)
            self.rounds += 1
            self.waiting = 0
            answer, self._answer = self._answer, asyncio.Event()
            answer.set()


@pytest.mark.parametrize(("number", "most"), [(900, 1), (6_000, 8), (20_000, 24), (36_000, 42)])
def test_some_pages_of_digests_take_three_rounds(number: int, most: int) -> None:
    """One, which shows how dense they are; one for all others; and one for what was denser than expected."""

    async def run() -> tuple[Rounds, list[str]]:
        server = Rounds(make_keys("blobs", number, 1))
        answering = asyncio.create_task(server.answer())
        found, _ = await listed(server, 128)
        answering.cancel()
        return server, found

    server, found = asyncio.run(run())
    assert sorted(found) == server.keys
    assert server.rounds <= 3
    assert server.requests <= most


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("concurrency", [1, 8, 32])
def test_requests(shape: str, concurrency: int) -> None:
    keys = sorted(set(make_keys(shape, 40_000, 1)))
    server = Pages(keys, page=1000, seed=1)
    found, ranges = asyncio.run(listed(server, concurrency))
    assert sorted(found) == keys
    assert server.requests <= -(-len(keys) // 1000) + ranges
    if concurrency == 1:
        assert ranges == 1


@settings(max_examples=60)
@given(st.sampled_from(SHAPES), st.integers(1, 20), st.integers(0, 2**32), st.integers(1, 60))
def test_an_error_in_any_range_is_raised(shape: str, concurrency: int, seed: int, fail_at: int) -> None:
    keys = sorted(set(make_keys(shape, 600, seed)))
    whole = Pages(keys, page=20, seed=seed)
    asyncio.run(listed(whole, concurrency))
    fail_at = 1 + fail_at % whole.requests
    with pytest.raises(StorageError, match=f"page {fail_at}"):
        asyncio.run(listed(Pages(keys, page=20, seed=seed, fail_at=fail_at), concurrency))


@settings(max_examples=30)
@given(st.sampled_from(SHAPES), st.integers(1, 20), st.integers(0, 2**32))
def test_an_error_of_the_sink_is_raised(shape: str, concurrency: int, seed: int) -> None:
    keys = sorted(set(make_keys(shape, 300, seed)))

    async def sink(page: Page) -> None:
        if keys[-1] in page.keys:
            raise StorageError("no room")

    with pytest.raises(StorageError, match="no room"):
        server = Pages(keys, page=20, seed=seed)
        asyncio.run(list_in_parallel(server, PREFIX, sink, concurrency=concurrency))  # type: ignore[arg-type]
