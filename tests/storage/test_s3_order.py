"""Listings that are not strictly increasing: what agrees is merged, what differs or goes back is not believed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from regstore.errors import StorageError
from regstore.inventory.listing import list_in_parallel
from regstore.storage.base import ObjectInfo, Page
from regstore.storage.s3 import S3Storage
from regstore.storage.s3.order import Disorder, in_order
from regstore.storage.s3.xml import ListedPage
from regstore.testing.store import listed
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server
from tests.servers.wrong_listings import RepeatsEntries
from tests.storage.fake_s3 import FakeS3, answer, fake_s3, listing
from tests.storage.test_s3_conformance import settings_for

pytestmark = pytest.mark.usefixtures("transport")


@pytest.fixture
async def fake() -> AsyncIterator[FakeS3]:
    async with fake_s3() as server:
        yield server


@pytest.fixture
async def storage(fake: FakeS3) -> AsyncIterator[S3Storage]:
    async with fake.storage() as storage:
        yield storage


def page(*entries: tuple[str, int]) -> ListedPage:
    keys, sizes = [key for key, _ in entries], [size for _, size in entries]
    return ListedPage(keys, sizes, ["e"] * len(keys), [7] * len(keys), False, None, 2)


def test_a_page_in_order_is_the_page_itself() -> None:
    found = page(("a", 1), ("a/b", 1), ("b", 1))
    assert in_order(found, None) is found
    assert in_order(found, ObjectInfo("A", 1, "e", 7)) is found


def test_repeats_that_agree_are_one_entry() -> None:
    found = in_order(page(("a", 1), ("a", 1), ("b", 2), ("b", 2), ("b", 2), ("c", 3)), ObjectInfo("a", 1, "e", 7))
    assert list(zip(found.keys, found.sizes, strict=True)) == [("b", 2), ("c", 3)]


@pytest.mark.parametrize(
    ("entries", "last", "said"),
    [
        ([("a", 1), ("a", 2)], None, "twice, and with different facts: 1 bytes, ETag e, time 7, and 2 bytes"),
        ([("a", 2)], ObjectInfo("a", 1, "e", 7), "twice, and with different facts"),
        ([("a", 1)], ObjectInfo("a", 1, "f", 7), "twice, and with different facts"),
        ([("a", 1)], ObjectInfo("a", 1, "e", 8), "twice, and with different facts"),
        ([("b", 1), ("a", 1)], None, "not in byte order: 'a' comes after 'b'"),
        ([("a", 1)], ObjectInfo("b", 1, "e", 7), "not in byte order: 'a' comes after 'b'"),
        # Not neighbours: what stands between them is not in order.
        ([("a", 1), ("b", 1), ("a", 1)], None, "not in byte order"),
        # In UTF-16, where U+10000 is a pair of surrogates, these two sort the other way round.
        ([("\U00010000", 1), ("\uff0c", 1)], None, "not in byte order"),
    ],
)
def test_what_can_not_be_right(entries: list[tuple[str, int]], last: ObjectInfo | None, said: str) -> None:
    with pytest.raises(Disorder, match=said):
        in_order(page(*entries), last)


def test_the_check_of_a_page_costs_next_to_nothing() -> None:
    """A thousand keys: less than a third of a millisecond on any machine, where parsing the page takes several."""
    found = page(*((f"docker/registry/v2/blobs/sha256/{n:04}", n) for n in range(1000)))
    times = []
    for _ in range(20):
        began = time.perf_counter()
        in_order(found, None)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.0003


@pytest.mark.parametrize(
    "pages",
    [
        [listing("b", "a")],  # the whole of it, as a directory bucket of AWS may list
        [listing("a", "a").replace("71", "70", 1)],
        [listing("a", truncated=True, token="t"), listing("a").replace("abc", "def")],
        [listing("a", truncated=True), listing("a").replace("71", "70")],
    ],
    ids=["no order", "two sizes in a page", "two ETags across pages", "without a token"],
)
async def test_a_listing_that_can_not_be_right_ends_with_an_error(
    fake: FakeS3, storage: S3Storage, pages: list[str]
) -> None:
    fake.answers = [answer(body=body) for body in pages]
    with pytest.raises(
        StorageError, match=r"the server's listing of 'x?' .* it cannot be trusted, .* lists wrongly"
    ):
        await listed(storage)


async def test_entries_repeated_in_a_page_and_across_pages(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [
        answer(body=listing("a", "a", "b", truncated=True, token="one")),
        answer(body=listing("b", truncated=True, token="two")),
        answer(body=listing("b", "c", "c")),
    ]
    assert [info.key for info in await listed(storage)] == ["a", "b", "c"]


async def test_a_server_that_shows_the_key_to_start_after(fake: FakeS3, storage: S3Storage) -> None:
    fake.answers = [answer(body=listing("a", "b"))]
    with pytest.raises(StorageError, match="shows 'a' where it should come after 'a'"):
        await listed(storage, start_after="a")


async def test_multipart_uploads_that_are_listed_twice(fake: FakeS3, storage: S3Storage) -> None:
    one, again, two = uploads("a", "a", following="a"), uploads("a", "b", following="b"), uploads("b")
    parts = "<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>"

    fake.answers = [answer(body=body) for body in (one, again, two)]
    fake.otherwise = answer(body=parts)
    found = [upload.key async for upload in storage.list_multipart_uploads("")]
    assert found == ["a", "b"]

    fake.answers = [answer(body=uploads("a", following="a")), answer(body=uploads("a").replace("10:00", "11:00"))]
    with pytest.raises(StorageError, match="twice, with different starts"):
        [upload async for upload in storage.list_multipart_uploads("")]

    fake.answers = [answer(body=uploads("b", following="b")), answer(body=uploads("a", following="a"))]
    with pytest.raises(StorageError, match="goes backwards, to 'a'"):
        [upload async for upload in storage.list_multipart_uploads("")]


def uploads(*keys: str, following: str = "") -> str:
    entries = "".join(
        f"<Upload><Key>{key}</Key><UploadId>of {key}</UploadId><Initiated>2026-11-23T10:00:00Z</Initiated></Upload>"
        for key in keys
    )
    more = f"<NextKeyMarker>{following}</NextKeyMarker><NextUploadIdMarker>{len(keys)}</NextUploadIdMarker>"
    return (
        f"<ListMultipartUploadsResult><IsTruncated>{str(bool(following)).lower()}</IsTruncated>"
        f"{more if following else ''}{entries}</ListMultipartUploadsResult>"
    )


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_real_listing_in_ranges_through_a_server_that_repeats(
    moto: S3Server, moto_bucket: str, concurrency: int
) -> None:
    names = sorted(f"x/{number % 3}/{number:03}" for number in range(120))
    for name in names:
        moto.write(moto_bucket, name, name.encode())
    shown: list[str] = []

    async def sink(page: Page) -> None:
        shown.extend(page.keys)

    with FaultProxy(moto.endpoint_url) as proxy:
        repeats = RepeatsEntries(3)
        proxy.edit(repeats, operation="ListObjectsV2", times=None)
        async with S3Storage(settings_for(moto.at(proxy.endpoint_url), moto_bucket, page_size=10)) as storage:
            assert [info.key for info in await listed(storage)] == names
            await list_in_parallel(storage, "x/", sink, concurrency=concurrency)
        assert repeats.repeated > len(names) // 3
        proxy.clear()
        proxy.edit(RepeatsEntries(3, resized=True), operation="ListObjectsV2", times=None)
        async with S3Storage(settings_for(moto.at(proxy.endpoint_url), moto_bucket, page_size=10)) as storage:
            with pytest.raises(StorageError, match="twice, and with different facts"):
                await listed(storage)
    assert sorted(shown) == names
