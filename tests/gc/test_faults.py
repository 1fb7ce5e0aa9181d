"""A store that fails under a run: either the right end state or a clear stop, never a wrong deletion."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Literal

import pytest

from regstore.errors import AccessDenied, AuthenticationFailed, StorageError, StorageFull, Unreachable
from regstore.gc.trash import empty_runs
from regstore.layout import BlobKey, LayerLinkKey, RevisionLinkKey, TagCurrentKey, decode
from regstore.state.lock import hold_lock
from regstore.state.trashed import find_trash
from regstore.storage.s3 import RetryPolicy, S3Storage
from regstore.testing.faulty import FaultyStorage, Mutation
from tests.examples import points
from tests.gc.scenes import (
    Watch,
    both,
    collect,
    collect_again,
    model_storage,
    options,
    registry,
    removed_blobs,
    serving,
    small_registry,
    trash,
    wanted,
    write_long_ago,
)
from tests.gc.test_costs import images
from tests.model.random_registry import DAY
from tests.model.store import ModelStore
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server


def no_dangling_links(before: ModelStore, after: ModelStore) -> None:
    """What is linked and had a blob has it still."""
    for key in registry(after):
        decoded = decode(key)
        if isinstance(decoded, RevisionLinkKey | LayerLinkKey) and decoded.digest.algorithm == "sha256":
            blob = f"docker/registry/v2/blobs/sha256/{decoded.digest.encoded[:2]}/{decoded.digest.encoded}/data"
            assert blob in after or blob not in before, f"{key} names nothing any more"


@serving
async def test_each_mutation_fails_once(offline: bool, request: pytest.FixtureRequest) -> None:
    """One kind of error after the other; with --slow each at every point."""
    before = small_registry()
    run = options(offline=offline, concurrency=1)
    dead, watch = wanted(before, run).dead, Watch(before)
    whole = FaultyStorage(model_storage(before))
    await collect(whole, run)
    total = len(whole.mutations)
    every = request.config.getoption("--slow")
    errors: list[Callable[[str], StorageError]] = [StorageError, StorageFull, AccessDenied]
    whens: tuple[Literal["before", "after"], ...] = ("before", "after") if every else ("before",)
    for place, number in enumerate(points(total, 5)):
        for when, error in product(whens, errors if every else [errors[place % 3]]):
            storage = model_storage(before)
            faulty = FaultyStorage(storage, fail_at=number, when=when, error=error)
            try:
                report = await collect(faulty, run)
            except StorageError as raised:
                assert type(raised) is error and "fault" in str(raised)
            else:
                # The lock's own removal, or one blob that could not be copied, is no reason to stop.
                assert report.failures or number == len(faulty.mutations)
            watch.check(storage.store)
            await collect_again(storage, run)
            assert registry(storage.store).bodies() == before.without(dead).bodies()


KINDS = {"tag": TagCurrentKey, "revision": RevisionLinkKey, "layer": LayerLinkKey, "blob": BlobKey}


@serving
@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_that_can_not_be_deleted(offline: bool, kind: str) -> None:
    """The later steps of its repository are left out, its blobs stay, the others go on, and the report names it."""
    before = small_registry()
    run = options(offline=offline)
    dead = wanted(before, run).dead
    stuck = min(key for key in dead if isinstance(decode(key), KINDS[kind]))
    storage = model_storage(before)
    faulty = FaultyStorage(storage, delete_errors={stuck: AccessDenied("no")})
    report = await collect(faulty, run)
    assert [failure for failure in report.failures if stuck in failure]
    after = storage.store
    Watch(before).check(after)
    no_dangling_links(before, after)
    assert stuck in after
    if kind in ("tag", "revision"):
        name = decode(stuck).name  # type: ignore[union-attr]
        links = [key for key in dead if isinstance(decode(key), LayerLinkKey)]
        of_it = [key for key in links if decode(key).name == name]  # type: ignore[union-attr]
        assert of_it and all(key in after for key in of_it)
        assert not any(key in after for key in links if key not in of_it)
    assert registry(after).objects.keys() >= before.without(dead).objects.keys()
    # A child of the index that would not go was given back, as young as a push: it goes after the grace.
    storage.clock += 2 * DAY
    await collect(storage, run)
    assert registry(storage.store).bodies() == before.without(dead).bodies()


@both
async def test_a_store_that_permits_no_deletes(offline: bool) -> None:
    """One sentence, before anything is copied."""
    storage = model_storage(small_registry())
    faulty = FaultyStorage(storage, delete_denied="")
    with pytest.raises(
        AccessDenied, match=r"model does not permit DELETE, so nothing was changed: .*Access Denied"
    ):
        await collect(faulty, options(offline=offline))
    assert [mutation for mutation in faulty.mutations if mutation.operation != "delete"] == [
        Mutation("put", key) for key in storage.store if key.startswith("regstore/locks/")
    ]
    assert registry(storage.store) == small_registry()


@pytest.mark.parametrize("area", ["blobs", "repositories"])
@both
async def test_a_store_that_permits_no_deletes_of_its_own(offline: bool, area: str) -> None:
    """The first whole batch that is refused is the last."""
    before = images(30, layers=2, tagged=30)
    faulty = FaultyStorage(model_storage(before), delete_denied=f"docker/registry/v2/{area}/")
    with pytest.raises(AccessDenied, match="permits none of"):
        await collect(faulty, options(offline=offline))
    refused = [one.key for one in faulty.mutations if one.operation == "delete" and f"/{area}/" in one.key]
    assert len(refused) == (29 * 4 if area == "blobs" else 29)  # all the blobs, or the revisions


async def test_a_trash_that_may_not_be_emptied() -> None:
    storage = model_storage(images(30, layers=2, tagged=30))
    await collect(storage, options(offline=True))
    storage.clock += 2 * DAY
    faulty = FaultyStorage(storage, delete_denied="regstore/trash/")
    async with hold_lock(faulty, command="trash empty") as lock:
        with pytest.raises(
            AccessDenied, match=r"model permits none of 116 changes, so the run stopped: .*Access Denied"
        ):
            await empty_runs(faulty, lock, await find_trash(faulty))
    assert len(trash(storage.store)) == 116


async def test_failures_are_told_by_reason() -> None:
    before = images(30, layers=2, tagged=30)
    dead = wanted(before, options(offline=True)).dead
    blobs = sorted(key for key in dead if isinstance(decode(key), BlobKey))
    refused = {key: AccessDenied(f"{key}: no") for key in blobs[:-2]} | {blobs[-1]: StorageError("odd")}
    storage = FaultyStorage(model_storage(before), delete_errors=refused)
    report = await collect(storage, options(offline=True))
    assert report.failures == (
        f"{len(blobs) - 2} keys, such as {blobs[0]}: {blobs[0]}: no",
        f"{blobs[-1]}: odd",
    )


@serving
async def test_a_listing_that_fails_on_any_page(offline: bool) -> None:
    before = small_registry()
    run = options(offline=offline, concurrency=1)
    dead = wanted(before, run).dead
    whole = FaultyStorage(model_storage(before, page=5))
    await collect(whole, run)
    assert whole.pages > 20
    for number in points(whole.pages, 4):
        storage = model_storage(before, page=5)
        at_fault: list[int] = []

        def fault(text: str, storage=storage, at_fault=at_fault) -> StorageError:  # type: ignore[no-untyped-def]
            at_fault.append(len(registry(storage.store)))
            return Unreachable(text)

        faulty = FaultyStorage(storage, fail_list_page=number, error=fault)
        with pytest.raises(StorageError, match="fault in page"):
            await collect(faulty, run)
        after = storage.store
        assert len(registry(after)) == at_fault[0], "something went after a listing had failed"
        Watch(before).check(after)
        assert registry(after).objects.keys() >= before.without(dead).objects.keys()


@pytest.mark.parametrize("area", ["docker/registry/v2/blobs/", "docker/registry/v2/repositories/"])
async def test_a_failed_page_of_the_scan_makes_nothing_dead(area: str) -> None:
    before = small_registry()
    pages = FaultyStorage(model_storage(before, page=3), fail_list_prefix=area)
    await collect(pages, options(offline=True))
    for number in range(1, min(pages.pages, 15)):
        storage = model_storage(before, page=3)
        with pytest.raises(StorageError):
            await collect(
                FaultyStorage(storage, fail_list_prefix=area, fail_list_page=number), options(offline=True)
            )
        assert registry(storage.store) == before
        assert trash(storage.store) == {}


@serving
async def test_credentials_that_expire_half_way(offline: bool) -> None:
    before = small_registry()
    run = options(offline=offline, concurrency=2)
    dead, watch = wanted(before, run).dead, Watch(before)
    calls = 0
    last = 10**9

    def expire(operation: str, key: str) -> None:
        nonlocal calls
        calls += 1
        if calls > last:
            raise AuthenticationFailed("ExpiredToken")

    await collect(FaultyStorage(model_storage(before), before=expire), run)
    total = calls
    for moment in points(total - 1, 3):
        last = moment
        calls = 0
        storage = model_storage(before)
        with pytest.raises(AuthenticationFailed, match="ExpiredToken"):
            await collect(FaultyStorage(storage, before=expire), run)
        watch.check(storage.store)
        await collect_again(storage, run)
        assert registry(storage.store).bodies() == before.without(dead).bodies()


@serving
async def test_a_manifest_that_can_not_be_read_is_none_that_is_missing(offline: bool) -> None:
    """A GET that fails keeps what the manifest may name, in every repository that has it; the rest is collected."""
    before = small_registry()
    blobs = [key for key in before if isinstance(decode(key), BlobKey)]
    read: list[str] = []
    await collect(
        FaultyStorage(model_storage(before), before=lambda what, key: read.append(key) if what == "get" else None),
        options(offline=offline),
    )
    manifests = sorted({key for key in read if key in blobs})
    assert len(manifests) > 5
    dead = wanted(before, options(offline=offline)).dead
    for broken in manifests:

        def fail(operation: str, key: str, broken: str = broken) -> None:
            if operation == "get" and key == broken:
                raise Unreachable("connection reset")

        storage = model_storage(before)
        await collect(FaultyStorage(storage, before=fail), options(offline=offline))
        gone = before.objects.keys() - registry(storage.store).objects.keys()
        assert gone <= dead and broken not in gone


@serving
@pytest.mark.parametrize("fault", ["reset", "truncate", "slow down", "internal error", "copy error"])
async def test_faults_on_the_wire(ceph: S3Server, ceph_bucket: str, offline: bool, fault: str) -> None:
    before = small_registry()
    run = options(offline=offline, grace=0)
    dead = wanted(before, options(offline=offline, delete_untagged=True)).dead
    dead = frozenset(key for key in dead if "/_uploads/" not in key)  # as young as the bucket
    with FaultProxy(ceph.endpoint_url) as proxy:
        settings = ceph.at(proxy.endpoint_url).settings(ceph_bucket, retries=RetryPolicy(base=0.01))
        async with S3Storage(settings) as storage:
            await write_long_ago(before, storage)
            match fault:
                case "reset":
                    for operation in ("ListObjectsV2", "GetObject", "DeleteObjects", "CopyObject"):
                        proxy.reset(operation=operation, times=2)
                case "truncate":
                    proxy.truncate(40, operation="ListObjectsV2", times=2)
                    proxy.truncate(20, operation="GetObject", times=3)
                    proxy.truncate(10, operation="DeleteObjects", times=1)
                case "slow down":
                    proxy.answer(503, "SlowDown", times=8)
                case "internal error":
                    proxy.answer(500, operation="DeleteObjects", times=2)
                    proxy.answer(500, operation="CopyObject", times=2)
                case "copy error":
                    proxy.answer(403, "AccessDenied", operation="CopyObject", times=1)
            try:
                report = await collect(storage, run)
                assert bool(report.failures) == (fault == "copy error")
            except StorageError:
                assert fault != "copy error"
            proxy.clear()
            after = await ModelStore.from_storage(storage)
            Watch(before).check(after)
            assert registry(after).objects.keys() >= before.without(dead).objects.keys()
            await collect_again(storage, run)
            after = await ModelStore.from_storage(storage)
    assert registry(after).bodies() == before.without(dead).bodies()
    assert trash(after).keys() == removed_blobs(before, dead).keys()
