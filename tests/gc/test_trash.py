"""The trash: undo gives back what was, and emptying takes only what nothing refers to; killed anywhere or not."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.errors import AccessDenied, InputError, InvalidManifest, LockHeld, NotARegistry, Refused
from regstore.gc.caches import NoCache
from regstore.gc.heal import HealOptions, heal_store, plan_heal
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.gc.report import GcReport
from regstore.gc.restore import Restored, RestoreOptions, apply_restore, plan_restore
from regstore.gc.run import GcRunOptions, open_run
from regstore.gc.trash import Emptied, EmptyOptions, empty_trash
from regstore.gc.trash_list import count_links
from regstore.inventory.scan import ScanOptions
from regstore.layout import (
    COUNTS,
    BlobKey,
    LayerLinkKey,
    LitterKey,
    MarkerKey,
    RevisionLinkKey,
    TagCurrentKey,
    UploadKey,
    decode,
    encode,
    link_body,
    parse_link,
)
from regstore.manifest import EdgeKind, parse_manifest
from regstore.state import RUNS, TRASH
from regstore.state.lock import break_locks, hold_lock
from regstore.state.trashed import find_trash
from regstore.storage.base import Capabilities, Storage
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage, died
from tests.examples import examples, points
from tests.gc.scenes import write_long_ago
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW, example_registry, registries
from tests.model.store import ModelStore
from tests.servers.s3 import S3Server

SCAN = ScanOptions(cache_dir=None, concurrency=4)
SECOND = 1_000_000
WHENS: tuple[Literal["before", "after"], ...] = ("before", "after")


async def collect(storage: Storage, *, cache: str = "none", untagged: bool = True, **more: Any) -> GcReport:
    options = GcRunOptions(
        plan=GcOptions(delete_untagged=untagged, grace=more.pop("grace", DAY)),
        scan=SCAN,
        settle=0,
        max_delete=1.0,
        untagged_repositories=True,
        unlinked_blobs=True,
        **more,
    )
    async with (
        hold_lock(storage, command="gc") as lock,
        open_run(storage, options, lock, cache=NoCache(cache)) as run,  # type: ignore[arg-type]
    ):
        return await run.apply()


async def restore(storage: Storage, **options: Any) -> Restored:
    async with hold_lock(storage, command="trash restore") as lock:
        plan = await plan_restore(storage, RestoreOptions(concurrency=4, **options))
        return await apply_restore(storage, plan, lock, concurrency=4)


async def empty(storage: Storage, *, cache: str = "none", **options: Any) -> Emptied:
    async with hold_lock(storage, command="trash empty") as lock:
        return await empty_trash(
            storage,
            EmptyOptions(scan=SCAN, settle=0, **options),
            lock,
            cache=NoCache(cache),  # type: ignore[arg-type]
        )


def registry_part(store: ModelStore) -> dict[str, bytes]:
    """Every body below docker/ that is no upload's, and no litter, which goes for good."""
    return {
        key: body
        for key, body in store.bodies().items()
        if key.startswith("docker/") and not isinstance(decode(key), UploadKey | MarkerKey | LitterKey)
    }


def keys_below(store: ModelStore, prefix: str) -> list[str]:
    return [key for key in store if key.startswith(prefix)]


def is_whole(store: ModelStore, name: str, digest: Digest) -> bool:
    """The repository links the manifest, and all it names is there."""
    body = store.body(encode(BlobKey(digest)))
    if body is None or encode(RevisionLinkKey(name, digest)) not in store:
        return False
    for edge in parse_manifest(body).edges:
        target = edge.target.digest
        if edge.kind is EdgeKind.MANIFEST:
            if not is_whole(store, name, target):
                return False
        elif edge.kind is not EdgeKind.SUBJECT and (
            encode(BlobKey(target)) not in store or encode(LayerLinkKey(name, target)) not in store
        ):
            return False
    return True


def whole_tags(store: ModelStore) -> set[str]:
    found = set()
    for text in store:
        key = decode(text)
        target = parse_link(store.body(text) or b"") if isinstance(key, TagCurrentKey) else None
        if isinstance(key, TagCurrentKey) and target is not None and is_whole(store, key.name, target):
            found.add(text)
    return found


def tags_of(store: ModelStore) -> set[str]:
    return {key for key in store if isinstance(decode(key), TagCurrentKey)}


def expect_undone(before: dict[str, bytes], after: dict[str, bytes], restored: Restored) -> None:
    """As before, but for markers and litter, which nobody needs, and blobs that had rotted before they went, with what
    needs them."""
    before = {
        key: body
        for key, body in before.items()
        if key in after or not isinstance(decode(key), MarkerKey | LitterKey)
    }
    missing = before.keys() - after.keys()
    assert after == {key: body for key, body in before.items() if key not in missing}
    assert {conflict.key for conflict in restored.conflicts} == missing
    rotted = {
        str(blob.digest)
        for key in missing
        if isinstance(blob := decode(key), BlobKey) and not blob.digest.matches(before[key])
    }
    for conflict in restored.conflicts:
        blob = decode(conflict.key)
        wanted = str(blob.digest) if isinstance(blob, BlobKey) else conflict.reason.split(",")[0].split()[-1]
        assert wanted in rotted, conflict


class Small:
    """team/app: `1` on a base layer, and an older index of two images without a tag."""

    def __init__(self) -> None:
        b = self.builder = Builder(NOW - 30 * DAY)
        base, config = b.blob(b"base layer"), b.blob(b'{"config":1}')
        self.kept = b.image(config, [base])
        self.layer = b.blob(b"old layer")
        self.child = b.image(b.blob(b'{"config":2}'), [base, self.layer])
        self.other = b.image(b.blob(b'{"config":3}'), [b.blob(b"other layer")])
        self.index = b.index([self.child, self.other])
        b.push("team/app", self.index, "1")
        b.push("team/app", self.kept, "1")
        b.push("team/else", self.kept, "1")
        b.blob(b"garbage")

    def storage(self) -> ModelStorage:
        return ModelStorage(copy.deepcopy(self.builder.store), now=NOW)

    def push_by_stale_cache(self, store: ModelStore, tag: str = "again") -> None:
        """What a registry writes whose cache answers for blobs that are gone: revisions and a tag, nothing else."""
        b = Builder(NOW)
        b.store = store
        for digest in (self.child, self.other, self.index):
            b.link_revision("team/app", digest)
        b.tag("team/app", tag, self.index)


# -- undo: as before


@settings(max_examples=examples(6), deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(registries(disk=False), st.booleans(), st.booleans())
def test_undo_makes_every_registry_as_it_was(store: ModelStore, untagged: bool, etags: bool) -> None:
    before = registry_part(store)
    storage = ModelStorage(store, now=NOW, etags=etags)

    async def work() -> None:
        try:
            await collect(storage, untagged=untagged)
        except NotARegistry:
            return
        if not any(run.record and run.record.parts for run in await find_trash(storage)):
            assert registry_part(store) == before
            return
        restored = await restore(storage)
        expect_undone(before, registry_part(store), restored)
        again = await restore(storage)
        assert (again.blobs, again.links) == (0, 0)

    asyncio.run(work())


async def test_undo_on_disk(tmp_path: Path) -> None:
    example_registry().on_disk().write_folder(tmp_path)
    before = registry_part(ModelStore.from_folder(tmp_path))
    storage = DiskStorage(tmp_path)
    report = await collect(storage)
    assert report.blobs > 5
    assert registry_part(ModelStore.from_folder(tmp_path)) != before
    restored = await restore(storage)
    expect_undone(before, registry_part(ModelStore.from_folder(tmp_path)), restored)


@asynccontextmanager
async def s3(server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Storage]:
    from regstore.storage import open_storage

    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    async with open_storage(f"s3://{bucket}/reg") as storage:
        yield storage


async def test_undo_on_s3(moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Small()
    async with s3(moto, moto_bucket, monkeypatch) as storage:
        await write_long_ago(small.builder.store, storage)
        before = registry_part(await ModelStore.from_storage(storage))
        report = await collect(storage, grace=0)
        assert report.blobs == 8
        restored = await restore(storage)
        assert (restored.blobs, restored.conflicts) == (8, ())
        assert registry_part(await ModelStore.from_storage(storage)) == before
        assert (await empty(storage, offline=True)).blobs == 8
        store = await ModelStore.from_storage(storage)
        assert registry_part(store) == before
        assert set(keys_below(store, "regstore/")) <= {COUNTS}


async def test_an_index_comes_after_what_it_lists_and_tags_come_last() -> None:
    small = Small()
    storage = FaultyStorage(small.storage())
    await collect(storage)
    start = len(storage.mutations)
    await restore(storage)
    puts = [each.key for each in storage.mutations[start:] if each.operation == "put"]
    kinds = [type(decode(key)).__name__ for key in puts if key.startswith("docker/")]
    assert list(dict.fromkeys(kinds)) == ["LayerLinkKey", "RevisionLinkKey", "TagIndexKey"]
    revisions = [key.digest for text in puts if isinstance(key := decode(text), RevisionLinkKey)]
    assert revisions[-1] == small.index
    assert set(revisions) == {small.child, small.other, small.index}
    copies = [number for number, each in enumerate(storage.mutations[start:]) if each.operation == "copy"]
    links = [number for number, each in enumerate(storage.mutations[start:]) if each.key in puts[1:]]
    assert max(copies) < min(links)


# -- undo: a part


async def test_undo_of_a_repository_takes_only_what_it_needs() -> None:
    b = Builder(NOW - 30 * DAY)
    for name in ("a", "b"):
        image = b.image(b.blob(b"config " + name.encode()), [b.blob(b"layer " + name.encode())])
        b.push(name, image)
        b.push(name, b.image(b.blob(b"kept"), []), "1")
    before = registry_part(b.store)
    storage = ModelStorage(b.store, now=NOW)
    await collect(storage)
    restored = await restore(storage, repository="a")
    assert (restored.blobs, restored.links) == (3, 3)
    after = registry_part(b.store)
    assert {key for key in before if "/repositories/a/" in key} <= after.keys()
    assert encode(LayerLinkKey("b", Digest.of(b"layer b"))) not in after
    assert encode(BlobKey(Digest.of(b"layer b"))) not in after


async def test_undo_of_a_manifest_takes_its_closure_and_referrers() -> None:
    small = Small()
    b = small.builder
    signature = b.image(b.blob(b"sig config"), [b.blob(b"sig payload")], subject=small.index)
    b.push("team/app", signature)
    b.push("team/app", b.index([signature]), f"sha256-{small.index.encoded}")
    b.push("team/app", b.image(b.blob(b"unrelated"), []))
    before = registry_part(b.store)
    storage = small.storage()
    await collect(storage)
    assert encode(RevisionLinkKey("team/app", signature)) not in storage.store
    restored = await restore(storage, digest=small.index)
    assert not restored.conflicts
    after = registry_part(storage.store)
    missing = before.keys() - after.keys()
    assert is_whole(storage.store, "team/app", small.index)
    assert is_whole(storage.store, "team/app", signature)
    assert encode(TagCurrentKey("team/app", f"sha256-{small.index.encoded}")) in after
    assert {type(decode(key)) for key in missing} == {BlobKey, RevisionLinkKey, LayerLinkKey}
    assert len(missing) == 5  # unrelated: manifest, config, two links; and the garbage


async def test_undo_of_a_layer() -> None:
    small = Small()
    storage = small.storage()
    await collect(storage)
    restored = await restore(storage, digest=small.layer)
    assert (restored.blobs, restored.links) == (1, 1)
    assert encode(LayerLinkKey("team/app", small.layer)) in storage.store


# -- undo: conflicts


async def test_nothing_that_differs_is_written_over() -> None:
    small = Small()
    storage = small.storage()
    await collect(storage)
    link, blob = encode(LayerLinkKey("team/app", small.layer)), encode(BlobKey(small.other))
    storage.store.objects[link] = (link_body(small.kept), NOW)
    storage.store.objects[blob] = (b"cut off", NOW)
    restored = await restore(storage)
    assert {conflict.key for conflict in restored.conflicts} == {link, blob}
    assert storage.store.body(link) == link_body(small.kept)
    assert storage.store.body(blob) == b"cut off"


async def test_what_needs_something_lost_stays_away() -> None:
    small = Small()
    storage = small.storage()
    report = await collect(storage)
    del storage.store.objects[f"{TRASH}{report.run}/{encode(BlobKey(small.layer))}"]
    restored = await restore(storage)
    refused = {conflict.key for conflict in restored.conflicts}
    revisions = {encode(RevisionLinkKey("team/app", each)) for each in (small.child, small.index)}
    assert revisions < refused
    assert not revisions & storage.store.objects.keys()
    assert encode(RevisionLinkKey("team/app", small.other)) in storage.store


async def test_a_link_that_came_back_and_was_deleted_by_a_client_stays_away() -> None:
    small = Small()
    storage = small.storage()
    report = await collect(storage)
    link = encode(LayerLinkKey("team/app", small.layer))
    storage.store.objects[link] = (link_body(small.layer), NOW)
    async with hold_lock(storage, command="heal") as lock:
        await heal_store(storage, HealOptions(scan=SCAN), lock)
    del storage.store.objects[link]
    restored = await restore(storage, run=report.run)
    assert [conflict.key for conflict in restored.conflicts] == [link]
    assert link not in storage.store


async def test_a_restored_link_is_not_given_back_once_more() -> None:
    small = Small()
    storage = small.storage()
    report = await collect(storage)
    await restore(storage)
    link = encode(LayerLinkKey("team/app", small.layer))
    del storage.store.objects[link]  # a client deletes it
    restored = await restore(storage, run=report.run)
    assert [conflict.key for conflict in restored.conflicts] == [link]
    async with hold_lock(storage, command="heal") as lock:
        healed = await heal_store(storage, HealOptions(scan=SCAN), lock)
    assert healed.nothing


async def test_undo_of_nothing() -> None:
    storage = Small().storage()
    with pytest.raises(InputError, match="no run to undo"):
        await restore(storage)
    await collect(storage)
    with pytest.raises(InputError, match="no journal of a run 20200101T000000Z-00000000"):
        await restore(storage, run="20200101T000000Z-00000000")


async def test_a_blob_that_a_later_run_took_comes_back_with_its_link() -> None:
    """A young layer survives the run that unlinks its image; the next one takes it."""
    small = Small()
    storage = small.storage()
    storage.store.objects[encode(BlobKey(small.layer))] = (b"old layer", NOW - DAY // 2)
    first = await collect(storage)
    assert encode(BlobKey(small.layer)) in storage.store
    storage.clock += DAY
    second = await collect(storage)
    assert (first.run < second.run, second.blobs) == (True, 1)
    await restore(storage, run=first.run)
    assert is_whole(storage.store, "team/app", small.index)


# -- undo: killed anywhere


async def test_undo_killed_at_any_mutation() -> None:
    store = example_registry()
    healthy = whole_tags(store)
    assert len(healthy) >= 3
    start = registry_part(store)
    gone = ModelStorage(store, now=NOW)
    await collect(gone)
    whole = FaultyStorage(ModelStorage(copy.deepcopy(store), now=NOW))
    restored = await restore(whole)
    before = registry_part(whole.inner.store)  # type: ignore[attr-defined]
    expect_undone(start, before, restored)
    assert len(whole.mutations) >= 18
    for number in points(len(whole.mutations), 4):
        for when in WHENS:
            storage = ModelStorage(copy.deepcopy(store), now=NOW)
            assert await died(restore(FaultyStorage(storage, die_at=number, when=when)))
            assert whole_tags(storage.store) >= tags_of(storage.store) & healthy, f"killed {when} {number}"
            await break_locks(storage)
            await restore(storage)
            assert registry_part(storage.store) == before, f"killed {when} {number}"


async def test_undo_of_a_run_that_was_killed() -> None:
    start = Small().storage()
    before = registry_part(start.store)
    counting = FaultyStorage(Small().storage())
    await collect(counting)
    for number in points(len(counting.mutations), 4):
        storage = Small().storage()
        assert await died(collect(FaultyStorage(storage, die_at=number, when=WHENS[number // 4 % 2])))
        await break_locks(storage)
        try:
            assert not (await restore(storage)).conflicts
        except InputError:  # it had taken nothing yet
            pass
        assert registry_part(storage.store) == before, f"killed at {number}"


async def test_tags_that_a_policy_took_come_back_but_not_to_what_was_deleted() -> None:
    small = Small()
    b = small.builder
    b.tag("team/app", "old", small.kept)
    b.tag("team/else", "old", small.kept)
    before = registry_part(b.store)
    storage = small.storage()
    options = GcRunOptions(
        plan=GcOptions(policy=Policy.parse('[[rule]]\ndrop = ["old"]\n')), scan=SCAN, settle=0, max_delete=1.0
    )
    async with hold_lock(storage, command="gc") as lock, open_run(storage, options, lock, cache=NoCache()) as run:
        assert (await run.apply()).tags == 2
    # A client deletes the image of one of them: its revision, and the tags that name it.
    for key in (RevisionLinkKey("team/else", small.kept), TagCurrentKey("team/else", "1")):
        del storage.store.objects[encode(key)]
    restored = await restore(storage)
    lost = encode(TagCurrentKey("team/else", "old"))
    assert [conflict.key for conflict in restored.conflicts] == [lost]
    assert "no longer links" in restored.conflicts[0].reason
    assert lost not in storage.store
    assert encode(TagCurrentKey("team/app", "old")) in storage.store
    assert registry_part(storage.store).items() <= before.items()


# -- emptying


async def test_emptying_frees_what_nothing_needs() -> None:
    storage = Small().storage()
    report = await collect(storage)
    (run,) = await find_trash(storage)
    assert (run.run, run.blobs, run.complete, run.command) == (report.run, report.blobs, True, "gc")
    assert run.blob_bytes == report.blob_bytes
    assert (await count_links(storage, [run]))[run.run] == len(
        keys_below(Small().storage().store, "docker/")
    ) - len(keys_below(storage.store, "docker/")) - report.blobs
    before = registry_part(storage.store)
    emptied = await empty(storage, offline=True)
    assert (emptied.runs, emptied.blobs, emptied.blob_bytes) == ((report.run,), report.blobs, report.blob_bytes)
    assert registry_part(storage.store) == before
    assert set(keys_below(storage.store, "regstore/")) <= {COUNTS}


async def test_emptying_heals_first() -> None:
    small = Small()
    storage = small.storage()
    await collect(storage, cache="inmemory")
    small.push_by_stale_cache(storage.store)
    assert not is_whole(storage.store, "team/app", small.index)
    storage.clock += 60 * SECOND
    emptied = await empty(storage, cache="inmemory", restarted_after=storage.clock)
    assert len(emptied.healed.blobs) == 7  # all but the garbage
    assert encode(LayerLinkKey("team/app", small.layer)) in emptied.healed.links
    assert is_whole(storage.store, "team/app", small.index)
    assert not keys_below(storage.store, TRASH)


async def test_emptying_killed_at_any_mutation() -> None:
    small = Small()
    start = small.storage()
    await collect(start)
    small.push_by_stale_cache(start.store)
    counting = FaultyStorage(ModelStorage(copy.deepcopy(start.store), now=NOW))
    await empty(counting, offline=True)
    end = registry_part(counting.inner.store)  # type: ignore[attr-defined]
    assert len(counting.mutations) > 20
    for number in points(len(counting.mutations), 4):
        storage = ModelStorage(copy.deepcopy(start.store), now=NOW)
        when = WHENS[number % 2]
        assert await died(empty(FaultyStorage(storage, die_at=number, when=when), offline=True))
        await break_locks(storage)
        if keys_below(storage.store, TRASH) or keys_below(storage.store, RUNS):
            emptied = await empty(storage, offline=True)
            assert not emptied.failures
        assert is_whole(storage.store, "team/app", small.index), f"killed {when} {number}"
        assert registry_part(storage.store) == end
        assert set(keys_below(storage.store, "regstore/")) <= {COUNTS}


def named_blobs(before: ModelStore, after: ModelStore) -> set[str]:
    """Blobs, of those that were there before, that the revisions of `after` need, said naively."""
    found: set[str] = set()
    links = [link for text in after if isinstance(link := decode(text), RevisionLinkKey)]
    for revision in links:
        pending, seen = [revision.digest], set[Digest]()
        while pending:
            digest = pending.pop()
            if digest in seen:
                continue
            seen.add(digest)
            key = encode(BlobKey(digest))
            body = before.body(key)
            if body is None or not digest.matches(body):
                continue
            found.add(key)
            try:
                edges = parse_manifest(body).edges
            except InvalidManifest:
                continue
            for edge in edges:
                target = edge.target.digest
                if edge.kind is EdgeKind.SUBJECT:
                    continue
                if edge.kind is EdgeKind.MANIFEST or encode(RevisionLinkKey(revision.name, target)) in after:
                    pending.append(target)
                elif (named := encode(BlobKey(target))) in before:
                    found.add(named)
    return found


@settings(max_examples=examples(6), deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(registries(disk=False), st.data())
def test_emptying_keeps_all_that_any_revision_needs(store: ModelStore, data: st.DataObject) -> None:
    """Whatever was linked again since, as a stale cache lets registries do: by a revision's link alone."""
    before = copy.deepcopy(store)
    storage = ModelStorage(store, now=NOW)

    async def work() -> None:
        try:
            await collect(storage)
        except NotARegistry:
            return
        gone = [key for key in before if key not in store and isinstance(decode(key), RevisionLinkKey)]
        again = data.draw(st.lists(st.sampled_from(gone), unique=True)) if gone else []
        for key in again:
            store.objects[key] = before.objects[key]
        emptied = await empty(storage, offline=True)
        assert not keys_below(store, TRASH)
        assert not named_blobs(before, store) - store.objects.keys(), (again, emptied)

    asyncio.run(work())


async def test_what_cannot_be_deleted_keeps_its_journal() -> None:
    storage = Small().storage()
    report = await collect(storage)
    stubborn = keys_below(storage.store, TRASH)[0]
    faulty = FaultyStorage(storage, delete_errors={stubborn: AccessDenied("no")})
    emptied = await empty(faulty, offline=True)
    assert emptied.runs == ()
    assert emptied.failures == (f"{stubborn}: no",)
    assert emptied.blobs == report.blobs - 1
    assert keys_below(storage.store, f"{RUNS}{report.run}/")
    assert (await empty(storage, offline=True)).runs == (report.run,)
    assert set(keys_below(storage.store, "regstore/")) <= {COUNTS}


@pytest.mark.parametrize("cache", ["inmemory", "unknown"])
async def test_emptying_waits_for_the_registrys_memory(cache: str) -> None:
    storage = Small().storage()
    await collect(storage, cache=cache)
    (run,) = await find_trash(storage)
    kept = copy.deepcopy(storage.store.bodies())
    with pytest.raises(Refused, match="--restarted-after TIME; or say --registry-cache none"):
        await empty(storage, cache=cache)
    with pytest.raises(Refused, match="later than the run's end"):
        await empty(storage, cache=cache, restarted_after=run.ended)
    with pytest.raises(InputError, match="has not come"):
        await empty(storage, cache=cache, restarted_after=NOW + 1)
    assert storage.store.bodies() == kept
    storage.clock += SECOND
    assert (await empty(storage, cache=cache, restarted_after=run.ended + 1)).runs == (run.run,)


async def test_a_run_that_was_cut_short_has_ended_a_lease_later() -> None:
    storage = Small().storage()
    assert await died(collect(FaultyStorage(storage, die_at=15)))
    (run,) = await find_trash(storage)
    assert not run.complete
    assert run.ended == NOW + 600 * SECOND


async def test_which_runs_are_emptied() -> None:
    storage = Small().storage()
    first = await collect(storage)
    storage.clock += 10 * DAY
    storage.store.objects[encode(BlobKey(Digest.of(b"new garbage")))] = (b"new garbage", NOW)
    second = await collect(storage)
    assert [run.run for run in await find_trash(storage)] == [first.run, second.run]
    with pytest.raises(InputError, match="no run 20200101T000000Z-00000000"):
        await empty(storage, run="20200101T000000Z-00000000")
    with pytest.raises(InputError, match="exclude"):
        EmptyOptions(run=first.run, older_than=1)
    assert (await empty(storage, older_than=7 * DAY)).runs == (first.run,)
    assert (await empty(storage, older_than=7 * DAY)).runs == ()
    storage.clock += 3600 * SECOND
    with pytest.raises(Refused):
        await empty(storage, cache="unknown")
    assert (await empty(storage, run=second.run)).runs == (second.run,)
    assert (await empty(storage)).runs == ()


async def test_some_runs_may_go_and_some_must_stay() -> None:
    storage = Small().storage()
    first = await collect(storage)
    storage.clock += 10 * DAY
    storage.store.objects[encode(BlobKey(Digest.of(b"new garbage")))] = (b"new garbage", NOW)
    second = await collect(storage)
    emptied = await empty(storage, cache="inmemory", restarted_after=NOW + DAY)
    assert emptied.runs == (first.run,)
    assert [(kept.run, "cache" in kept.reason) for kept in emptied.kept] == [(second.run, True)]
    assert len(keys_below(storage.store, TRASH)) == 1


async def test_the_lock_is_held() -> None:
    storage = Small().storage()
    await collect(storage)
    calls: tuple[Callable[[Storage], Awaitable[object]], ...] = (restore, empty)
    async with hold_lock(storage, command="gc"):
        for call in calls:
            with pytest.raises(LockHeld):
                await call(storage)


# -- gc and its older runs


async def test_gc_empties_older_trash() -> None:
    storage = Small().storage()
    first = await collect(storage, trash_older_than=7 * DAY)
    storage.clock += 6 * DAY
    assert (await collect(storage, trash_older_than=7 * DAY)).emptied.runs == ()
    storage.clock += DAY
    report = await collect(storage, trash_older_than=7 * DAY)
    assert report.emptied.runs == (first.run,)
    assert report.emptied.blobs == first.blobs
    assert not keys_below(storage.store, f"{TRASH}{first.run}/")


async def test_gc_looks_once_more_before_it_empties() -> None:
    """A push that a stale Redis misled, after the scan: it is seen before anything goes."""
    small = Small()
    storage = small.storage()
    first = await collect(storage)
    storage.clock += 8 * DAY
    options = GcRunOptions(
        plan=GcOptions(delete_untagged=True), scan=SCAN, settle=0, max_delete=1.0, trash_older_than=7 * DAY
    )
    async with (
        hold_lock(storage, command="gc") as lock,
        open_run(storage, options, lock, cache=NoCache()) as run,
    ):
        assert [each.run for each in run.expired] == [first.run]
        small.push_by_stale_cache(storage.store)
        report = await run.apply()
    assert report.emptied.runs == (first.run,)
    assert is_whole(storage.store, "team/app", small.index)


async def test_gc_keeps_older_trash_that_the_cache_may_answer_for() -> None:
    storage = Small().storage()
    first = await collect(storage, trash_older_than=7 * DAY)
    storage.clock += 8 * DAY
    report = await collect(storage, cache="unknown", trash_older_than=7 * DAY)
    assert (report.emptied.runs, report.overdue) == ((), (first.run,))
    assert len(keys_below(storage.store, f"{TRASH}{first.run}/")) == first.blobs


async def test_gc_says_where_versions_keep_the_space(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Small().storage()

    async def versioned(self: ModelStorage) -> Capabilities:
        return Capabilities(conditional_put=True, versioned=True)

    monkeypatch.setattr(ModelStorage, "capabilities", versioned)
    assert (await collect(storage)).versioned is True


# -- heal alone


async def test_a_dry_heal_says_what_heal_does_and_writes_nothing() -> None:
    small = Small()
    storage = small.storage()
    await collect(storage)
    small.push_by_stale_cache(storage.store)
    kept = storage.store.bodies()
    planned = await plan_heal(storage, HealOptions(scan=SCAN))
    assert storage.store.bodies() == kept
    assert len(planned.blobs) == 7
    async with hold_lock(storage, command="heal") as lock:
        healed = await heal_store(storage, HealOptions(scan=SCAN), lock)
    assert (sorted(healed.blobs), sorted(healed.links)) == (sorted(planned.blobs), sorted(planned.links))
    assert is_whole(storage.store, "team/app", small.index)
    assert (await plan_heal(storage, HealOptions(scan=SCAN))).nothing
