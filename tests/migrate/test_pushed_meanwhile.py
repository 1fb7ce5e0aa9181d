"""Clients push to the target while migrate deletes and sets tags there: no tag that they were told of is lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from regstore.digest import Digest
from regstore.errors import StorageError
from regstore.gc.heal import HealOptions, heal_store
from regstore.gc.restore import RestoreOptions, apply_restore, plan_restore
from regstore.layout import TagCurrentKey, TagIndexKey, encode, link_body
from regstore.state.lock import break_locks, hold_lock
from regstore.storage.base import Capabilities, Storage
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage, died
from tests.examples import crossed, points
from tests.gc.clock import until_all_is_older
from tests.migrate.stores import SCANNING, bucket_storage, move
from tests.migrate.test_migrate import Pair
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server

CURRENT = TagCurrentKey("a", "goes")
SECOND = 1_000_000


class Unconditional(ModelStorage):
    """As servers that ignore If-None-Match."""

    async def capabilities(self) -> Capabilities:
        return Capabilities()


@pytest.fixture
async def pair() -> Pair:
    """The target has a tag that the source has no longer, and one that stays."""
    pair = Pair()
    for tag in ("goes", "stays"):
        pair.builder.push("a", pair.image(0), tag)
    await pair.move()
    for key in [key for key in pair.source if "/goes/" in key]:
        del pair.source.objects[key]
    for key, (body, _) in pair.target.objects.items():
        pair.target.objects[key] = (body, NOW - 3600 * SECOND)
    return pair


def push(pair: Pair, digest: Digest, tag: TagCurrentKey = CURRENT, *, at: int = NOW + SECOND) -> None:
    """As a registry does, the manifest being there."""
    pair.target.objects[encode(TagIndexKey(tag.name, tag.tag, digest))] = (link_body(digest), at)
    pair.target.objects[encode(tag)] = (link_body(digest), at)


def once(when: Callable[[str, str], bool], what: Callable[[], None]) -> Callable[[str, str], None]:
    done = False

    def hook(operation: str, key: str) -> None:
        nonlocal done
        if not done and when(operation, key):
            done = True
            what()

    return hook


def is_delete(operation: str, key: str) -> bool:
    return operation == "delete" and key == encode(CURRENT)


def is_journal(operation: str, key: str) -> bool:
    return operation == "put" and key.endswith("000001.jsonl.gz")


def is_look(operation: str, key: str) -> bool:
    """The listing of the tag, before the journal is written."""
    return operation == "list" and key.endswith("/tags/goes/")


@crossed(
    "store, when, image",
    [ModelStorage, Unconditional],
    [is_look, is_journal, is_delete],
    {"the same image": 0, "another image": 1},
)
async def test_a_tag_pushed_while_it_is_deleted_stays(
    pair: Pair, store: type[ModelStorage], when: Callable[[str, str], bool], image: int
) -> None:
    pushed = pair.image(image)
    there = store(pair.target, now=NOW + SECOND)
    result = await move(
        pair.here(), FaultyStorage(there, before=once(when, lambda: push(pair, pushed))), delete=True, max_delete=1
    )
    assert pair.tag("a", "goes") == str(pushed)
    assert encode(TagIndexKey("a", "goes", pushed)) in pair.target
    assert (result.deleted, result.deleted_tags, result.partial) == (0, [], True)
    assert [(one.tag, one.target) for one in result.conflicts] == [("goes", str(pushed))]


async def test_a_tag_that_can_not_be_read_when_its_turn_comes_stays(pair: Pair) -> None:
    """It was pushed meanwhile, and the store does not give it: that ends no run, and takes no tag."""
    there = ModelStorage(pair.target, now=NOW + SECOND)

    def spoil() -> None:
        push(pair, pair.image(1))
        there.unreadable[encode(CURRENT)] = StorageError("Input/output error")

    result = await move(pair.here(), FaultyStorage(there, before=once(is_look, spoil)), delete=True, max_delete=1)
    assert encode(CURRENT) in pair.target
    assert (result.deleted, result.partial) == (0, True)
    assert [one.tag for one in result.conflicts] == ["goes"]


async def test_a_tag_between_its_two_links_stays(pair: Pair) -> None:
    """The index link is written before the look, the current link after all is over."""
    pushed = pair.image(1)
    index = encode(TagIndexKey("a", "goes", pushed))
    pair.target.objects[index] = (link_body(pushed), NOW + SECOND)

    def after_the_look(operation: str, key: str) -> None:
        if is_look(operation, key):
            pair.target.objects[index] = (link_body(pushed), NOW + 2 * SECOND)

    result = await move(pair.here(), FaultyStorage(pair.there(), before=after_the_look), delete=True, max_delete=1)
    assert (result.deleted, len(result.conflicts)) == (0, 1)
    assert pair.tag("a", "goes") == str(pair.image(0)) and index in pair.target


async def test_other_tags_of_the_repository_go_all_the_same(pair: Pair) -> None:
    """With all their history: without current/link a folder would list as a tag."""
    for tag in ("too", "three"):
        pair.builder.push("a", pair.image(2), tag)
    await pair.move()
    for key in [key for key in pair.source if "/too/" in key or "/three/" in key]:
        del pair.source.objects[key]
    hook = once(is_delete, lambda: push(pair, pair.image(1)))
    result = await move(pair.here(), FaultyStorage(pair.there(), before=hook), delete=True, max_delete=1)
    assert result.deleted_tags == ["a:three", "a:too"]
    assert pair.tag("a", "goes") == str(pair.image(1))
    assert not [key for key in pair.target if "/tags/too/" in key or "/tags/three/" in key]


async def undo(storage: Storage) -> tuple[str, ...]:
    """Keys of conflicts."""
    async with hold_lock(storage, command="trash restore") as lock:
        restored = await apply_restore(storage, await plan_restore(storage, RestoreOptions()), lock)
    return tuple(conflict.key for conflict in restored.conflicts)


@pytest.mark.parametrize("killed", [False, True])
async def test_undo_does_not_bring_the_old_image_back(pair: Pair, killed: bool) -> None:
    """Of a tag that was pushed while it went; also where the run was killed before it could give it back."""
    pushed = pair.image(1)
    hook = once(is_delete, lambda: push(pair, pushed))
    faulty = FaultyStorage(pair.there(), before=hook)
    if killed:
        number = 0
        probe = Pair()
        probe.builder, probe.target = pair.builder, type(pair.target)(dict(pair.target.objects))
        counting = FaultyStorage(probe.there())
        await move(probe.here(), counting, delete=True, max_delete=1)
        number = [mutation.key for mutation in counting.mutations].index(encode(CURRENT)) + 1
        faulty = FaultyStorage(pair.there(), before=hook, die_at=number, when="after")
        assert await died(move(pair.here(), faulty, delete=True, max_delete=1))
        assert pair.tag("a", "goes") is None
        await break_locks(pair.there())
        assert encode(CURRENT) in await undo(pair.there())
        assert pair.tag("a", "goes") is None
        async with hold_lock(pair.there(), command="heal") as lock:
            await heal_store(pair.there(), HealOptions(scan=SCANNING), lock)
    else:
        await move(pair.here(), faulty, delete=True, max_delete=1)
        assert encode(CURRENT) in await undo(pair.there())
    assert pair.tag("a", "goes") == str(pushed)


async def test_undo_of_a_delete_brings_the_tag_back(pair: Pair) -> None:
    assert (await pair.move(delete=True, max_delete=1)).deleted == 1
    assert pair.tag("a", "goes") is None
    assert await undo(pair.there()) == ()
    assert pair.tag("a", "goes") == str(pair.image(0))


@pytest.mark.parametrize("point", points(12, 6))
async def test_killed_while_a_tag_is_pushed(pair: Pair, point: int) -> None:
    """Wherever it is killed, the tag stands after the next run, or heal, and names what was pushed."""
    pushed = pair.image(1)
    faulty = FaultyStorage(
        pair.there(), before=once(is_delete, lambda: push(pair, pushed)), die_at=point, when="after"
    )
    was_killed = await died(move(pair.here(), faulty, delete=True, max_delete=1))
    if pair.tag("a", "goes") == str(pair.image(0)):
        push(pair, pushed)  # it had not come to that
    await break_locks(pair.there())
    async with hold_lock(pair.there(), command="heal") as lock:
        await heal_store(pair.there(), HealOptions(scan=SCANNING), lock)
    await pair.move(delete=True, max_delete=1)
    assert pair.tag("a", "goes") == str(pushed), was_killed


# -- setting tags


@crossed(
    "store, present, after",
    [ModelStorage, Unconditional],
    {"moved": True, "new": False},
    ["the listing", "the look"],
)
async def test_a_tag_pushed_while_it_is_set_stays(
    pair: Pair, store: type[ModelStorage], present: bool, after: str
) -> None:
    """Between any two requests of ours."""
    tag = TagCurrentKey("a", "stays" if present else "new")
    ours, theirs = pair.image(2), pair.image(3)
    pair.builder.push("a", ours, tag.tag)

    def is_time(operation: str, key: str) -> bool:
        if after == "the listing":
            return operation == "put" and "/revisions/" in key
        return operation == "put" and key == encode(tag)

    there = store(pair.target, now=NOW + SECOND)
    hook = once(is_time, lambda: push(pair, theirs, tag, at=NOW + 2 * SECOND))
    result = await move(pair.here(), FaultyStorage(there, before=hook))
    assert pair.tag("a", tag.tag) == str(theirs)
    assert [(one.tag, one.target) for one in result.conflicts] == [(tag.tag, str(theirs))]
    assert (await pair.move(overwrite_tags=True)).partial is False
    assert pair.tag("a", tag.tag) == str(ours)


@pytest.mark.parametrize("store", [ModelStorage, Unconditional])
async def test_a_tag_with_a_history_moves_without_a_conflict(pair: Pair, store: type[ModelStorage]) -> None:
    """What the pass writes itself is nobody's push."""
    for number in (2, 3, 4):
        pair.builder.push("a", pair.image(number), "stays")
        if number == 3:
            assert not (await move(pair.here(), store(pair.target, now=NOW + SECOND))).partial
    assert not (await move(pair.here(), store(pair.target, now=NOW + 2 * SECOND))).partial
    assert pair.tag("a", "stays") == str(pair.image(4))


# -- with real stores


async def test_a_push_to_a_folder_while_its_tag_goes(tmp_path: Path) -> None:
    """The registry has made the folder of its current/link, and is about to write into it."""
    pair = Pair()
    pair.builder.push("a", pair.image(0), "goes")
    pair.builder.push("a", pair.image(1), "stays")
    pushed = pair.image(1)
    async with DiskStorage(tmp_path, create=True) as target:
        await move(pair.here(), target)
        for key in [key for key in pair.source if "/goes/" in key]:
            del pair.source.objects[key]
        index, current = tmp_path / encode(TagIndexKey("a", "goes", pushed)), tmp_path / encode(CURRENT)

        def write() -> None:
            for path in (index, current):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(link_body(pushed))
                os.utime(path, ns=((NOW + 10**15) * 1000,) * 2)

        hook = once(is_delete, write)
        result = await move(pair.here(), FaultyStorage(target, before=hook), delete=True, max_delete=1)
        assert (result.deleted, len(result.conflicts)) == (0, 1)
        assert current.read_bytes() == index.read_bytes() == link_body(pushed)
        assert not (await move(pair.here(), target)).conflicts
        assert (await undo(target)) == (encode(CURRENT),)
        assert current.read_bytes() == link_body(pushed)


async def test_a_push_to_a_bucket_while_its_tag_goes(moto: S3Server, moto_bucket: str) -> None:
    pair = Pair()
    pair.builder.push("a", pair.image(0), "goes")
    pair.builder.push("a", pair.image(1), "stays")
    pushed, client = pair.image(1), moto.client()
    with FaultProxy(moto.endpoint_url) as proxy:
        async with bucket_storage(moto.at(proxy.endpoint_url), moto_bucket) as target:
            await move(pair.here(), target)
            for key in [key for key in pair.source if "/goes/" in key]:
                del pair.source.objects[key]
            await until_all_is_older(target)
            gate = proxy.hold(operation=("DeleteObject", "DeleteObjects"), key="current/link$")
            task = asyncio.create_task(move(pair.here(), target, delete=True, max_delete=1))
            await asyncio.to_thread(gate.wait_reached, 60)
            for link in (TagIndexKey("a", "goes", pushed), CURRENT):
                client.put_object(Bucket=moto_bucket, Key=encode(link), Body=link_body(pushed))
            gate.release()
            result = await task
            assert (result.deleted, len(result.conflicts)) == (0, 1)
            assert await target.get(encode(CURRENT)) == link_body(pushed)
