"""Races between gc and clients, one by one: a client's writes at a chosen point of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from regstore.errors import LockLost
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.gc.run import GcReport, GcRunOptions, open_run
from regstore.inventory.scan import ScanOptions
from regstore.layout import REPOSITORIES, RevisionLinkKey, TagCurrentKey, encode, link_body
from regstore.runs import LOCKS
from regstore.runs import lock as lock_module
from regstore.runs.lock import LEASE, break_locks, hold_lock
from regstore.storage.base import Storage
from tests.gc.actors import Deletion, Push, World, delete_tag
from tests.gc.stepping import Toolkit, WorldStorage

SECOND = 1_000_000
POLICY = Policy.parse('delete_untagged = true\n[[rule]]\ndrop = ["old*"]\n')


def options(**plan: object) -> GcRunOptions:
    defaults = {"grace": 0, "uploads_older_than": 10**15, "delete_untagged": True}
    return GcRunOptions(
        plan=GcOptions(**(defaults | plan)),  # type: ignore[arg-type]
        scan=ScanOptions(concurrency=1),
        settle=0.0,
        max_delete=1.0,
        allow_empty=True,
    )


async def collect(storage: Storage, run_options: GcRunOptions) -> GcReport:
    async with hold_lock(storage, command="gc") as lock, open_run(storage, run_options, lock) as run:
        return await run.apply()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def pushed(world: World, repository: str, number: int, tag: str) -> Push:
    push = Push(world, repository, world.images.images[number], tag)
    for _ in push.run():
        pass
    assert push.told
    return push


def begin(
    world: World, loop: asyncio.AbstractEventLoop, until: Callable[[str, tuple[str, ...]], bool], **plan: object
) -> Toolkit:
    """A run of gc that waits just before the operation that is wanted."""
    world.now += 1000 * SECOND
    toolkit = Toolkit(world, loop, page=1000)
    toolkit.start(collect(toolkit, options(**plan)))
    while not toolkit.done and not (toolkit.waiting and until(*toolkit.waiting)):
        toolkit.step()
    assert not toolkit.done, "it never came to that"
    return toolkit


def finish(toolkit: Toolkit) -> GcReport:
    while not toolkit.done:
        toolkit.step()
    report = toolkit.result()
    assert isinstance(report, GcReport)
    return report


def stands(world: World, push: Push) -> None:
    """All of what was pushed is there, the tag too."""
    current = encode(TagCurrentKey(push.repository, push.tag))
    assert world.store.body(current) == link_body(push.doc.digest)
    missing = [key for key in push.doc.links(push.repository) if key not in world.store]
    missing += [
        str(digest)
        for digest in push.doc.blobs()
        if world.images.content[digest] not in world.store.bodies().values()
    ]
    assert not missing


def deletes(part: str) -> Callable[[str, tuple[str, ...]], bool]:
    return lambda operation, keys: operation == "delete" and part in keys[0]


@pytest.mark.parametrize("part", ["/current/link", "/index/"])
def test_a_tag_pushed_again_as_it_goes(loop: asyncio.AbstractEventLoop, part: str) -> None:
    """All of the push, by the same digest, falls between gc's listing and its delete."""
    world = World()
    pushed(world, "a", 0, "old")
    pushed(world, "a", 1, "kept")
    toolkit = begin(world, loop, deletes(part), policy=POLICY)
    push = pushed(world, "a", 0, "old")
    finish(toolkit)
    stands(world, push)


def test_a_tag_between_its_two_links_when_gc_begins(loop: asyncio.AbstractEventLoop) -> None:
    """Its index link was written before the scan, its current link after the second look."""
    world = World()
    pushed(world, "a", 0, "old")
    pushed(world, "a", 1, "kept")
    world.now += 1000 * SECOND
    push = Push(world, "a", world.images.images[0], "old")
    steps = push.run()
    while not any(
        "/tags/old/index/" in key and at > world.now - SECOND for key, (_, at) in world.store.objects.items()
    ):
        next(steps)
    toolkit = Toolkit(world, loop, page=1000)
    world.now += 2 * SECOND
    toolkit.start(collect(toolkit, options(policy=POLICY)))
    while not toolkit.done and not (toolkit.waiting and deletes("/current/link")(*toolkit.waiting)):
        toolkit.step()
    for _ in steps:
        pass
    assert push.told
    finish(toolkit)
    stands(world, push)


def late_keys(toolkit: Toolkit) -> list[str]:
    """Kill it: what the delete that it was about to make will still take, some time."""
    last = toolkit.kill()
    assert last is not None and last[0] == "delete"
    keys = list(last[1][1:])
    return keys[keys.index(last[1][0]) :]


def run_whole(world: World, loop: asyncio.AbstractEventLoop, **plan: object) -> GcReport:
    world.now += 10 * SECOND
    storage = WorldStorage(world)
    loop.run_until_complete(break_locks(storage))
    return loop.run_until_complete(collect(storage, options(**plan)))


@pytest.mark.parametrize("check", [True, False], ids=["found by HEAD", "written again"])
@pytest.mark.parametrize("part", ["/_layers/", "/revisions/"])
def test_a_delete_that_arrives_late(loop: asyncio.AbstractEventLoop, part: str, check: bool) -> None:
    """A run is killed with a delete under way; another run sees the links stand, clients use them; then they go."""
    world = World()
    pushed(world, "a", 0, "t0")
    pushed(world, "a", 1, "kept")
    delete_tag(world, "a", "t0")
    late = late_keys(begin(world, loop, deletes(part)))
    push = Push(world, "a", world.images.images[0], "t0", check=check)
    for _ in push.run():
        pass
    run_whole(world, loop)
    stands(world, push)
    for key in late:
        del world.store.objects[key]
    run_whole(world, loop)
    stands(world, push)


def test_a_late_delete_of_a_tag(loop: asyncio.AbstractEventLoop) -> None:
    world = World()
    pushed(world, "a", 0, "old")
    pushed(world, "a", 1, "kept")
    late = late_keys(begin(world, loop, deletes("/current/link"), policy=POLICY))
    push = pushed(world, "a", 0, "old")
    run_whole(world, loop)
    stands(world, push)
    for key in late:
        del world.store.objects[key]
    run_whole(world, loop)
    stands(world, push)


def test_what_a_client_deletes_after_a_whole_run_stays_deleted(loop: asyncio.AbstractEventLoop) -> None:
    """A link that stood again has nothing to do with the run that once removed it."""
    world = World()
    index = world.images.index
    for _ in Push(world, "a", index, "t0").run():
        pass
    delete_tag(world, "a", "t0")
    world.now += 1000 * SECOND
    run_whole(world, loop)
    for _ in Push(world, "a", index, "t0").run():
        pass
    run_whole(world, loop)
    for _ in Deletion(world, "a", index.children[0]).run():
        pass
    run_whole(world, loop)
    assert encode(RevisionLinkKey("a", index.children[0].digest)) not in world.store


def test_a_toolkit_that_sleeps_while_it_looks_at_its_lock(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease ends between the question whether the lock stands and the answer: nothing more may change."""
    world = World()
    monkeypatch.setattr(lock_module, "clock", lambda: world.now / SECOND)
    pushed(world, "a", 0, "old")
    pushed(world, "a", 1, "kept")
    last = ""

    def looking_before_a_delete(operation: str, keys: tuple[str, ...]) -> bool:
        nonlocal last
        before, last = last, keys[0]
        return operation == "list" and keys[0].startswith(LOCKS) and before.endswith(".jsonl.gz")

    toolkit = begin(world, loop, looking_before_a_delete, policy=POLICY)
    world.now += int(LEASE + 1) * SECOND
    toolkit.asked.clear()
    with pytest.raises(LockLost):
        finish(toolkit)
    assert not [keys for operation, keys in toolkit.asked if operation == "delete" and "docker/" in keys[0]]


def test_a_push_long_after_the_second_look(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs take longer than a look at the links stands: there is another, and what was pushed meanwhile stays."""
    world = World()
    monkeypatch.setattr("regstore.gc.run._BATCH", 1)
    monkeypatch.setattr("regstore.gc.run.clock", lambda: world.now / SECOND)
    pushed(world, "a", 1, "t0")
    pushed(world, "a", 0, "kept")
    delete_tag(world, "a", "t0")
    toolkit = begin(world, loop, deletes("/blobs/"))
    toolkit.step()
    push = pushed(world, "a", 1, "again")
    world.now += 300 * SECOND
    looks = toolkit.asked.count(("list", (REPOSITORIES,)))
    while not toolkit.done:
        if "/blobs/" in str(toolkit.waiting):
            stands(world, push)
        toolkit.step()
    report = toolkit.result()
    stands(world, push)
    assert toolkit.asked.count(("list", (REPOSITORIES,))) == looks + 2  # that one, and after `settle`
    assert report.blobs == 1 and report.kept_back
