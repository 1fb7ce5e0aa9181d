"""Races between gc and clients, one by one: a client's writes at a chosen point of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from regstore.errors import LockLost, Refused, StorageError
from regstore.gc.caches import NoCache
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.gc.report import GcReport
from regstore.gc.restore import RestoreOptions, apply_restore, plan_restore
from regstore.gc.run import GcRunOptions, open_run
from regstore.gc.trash import Emptied, EmptyOptions, empty_trash
from regstore.inventory.scan import ScanOptions
from regstore.layout import REPOSITORIES, RevisionLinkKey, TagCurrentKey, encode, link_body
from regstore.state import LOCKS
from regstore.state import lock as lock_module
from regstore.state.holder import LEASE
from regstore.state.lock import break_locks, hold_lock
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
        untagged_repositories=True,
    )


async def collect(storage: Storage, run_options: GcRunOptions, cache: NoCache | None = None) -> GcReport:
    async with hold_lock(storage, command="gc") as lock, open_run(storage, run_options, lock, cache=cache) as run:
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


def test_nothing_more_goes_where_a_tag_was_pushed_again_as_it_went(loop: asyncio.AbstractEventLoop) -> None:
    """Not even for a moment, until a look gives it back."""
    world = World()
    pushed(world, "a", 0, "old")
    pushed(world, "a", 1, "kept")
    toolkit = begin(world, loop, deletes("/current/link"), policy=POLICY)
    push = pushed(world, "a", 0, "old")
    toolkit.step()
    while not toolkit.done:
        operation, keys = toolkit.waiting or ("", ())
        assert operation != "delete" or not [key for key in keys if "/repositories/a/" in key]
        toolkit.step()
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


def run_whole(
    world: World, loop: asyncio.AbstractEventLoop, *, trash_older_than: int | None = None, **plan: object
) -> GcReport:
    world.now += 10 * SECOND
    storage = WorldStorage(world)
    loop.run_until_complete(break_locks(storage))
    wanted = replace(options(**plan), trash_older_than=trash_older_than)
    return loop.run_until_complete(collect(storage, wanted, cache=NoCache("none")))


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
    monkeypatch.setattr("regstore.gc.apply.sweep.BATCH", 1)
    monkeypatch.setattr("regstore.gc.apply.looks.clock", lambda: world.now / SECOND)
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


@pytest.mark.parametrize("when", ["before the copy", "before the delete"])
def test_a_push_as_its_blobs_go(loop: asyncio.AbstractEventLoop, when: str) -> None:
    """It finds the layer that goes next, and writes only links: the last look of the very run gives the layer back."""
    world = World()
    pushed(world, "a", 1, "t0")
    pushed(world, "a", 0, "kept")
    delete_tag(world, "a", "t0")
    until = deletes("/blobs/") if when == "before the delete" else lambda operation, _: operation == "copy"
    toolkit = begin(world, loop, until)
    push = pushed(world, "a", 1, "again")
    report = finish(toolkit)
    stands(world, push)
    assert report.blobs and report.healed.blobs and not report.healed.links


# -- after a run


HOUR = 3600 * SECOND
DAY = 24 * HOUR


async def empty(storage: Storage, **more: bool) -> Emptied:
    async with hold_lock(storage, command="trash empty") as lock:
        wanted = EmptyOptions(scan=ScanOptions(concurrency=1), settle=0, **more)  # type: ignore[arg-type]
        return await empty_trash(storage, wanted, lock, cache=NoCache("none"))


async def restore(storage: Storage) -> None:
    async with hold_lock(storage, command="trash restore") as lock:
        await apply_restore(
            storage, await plan_restore(storage, RestoreOptions(concurrency=1)), lock, concurrency=1
        )


def test_the_trash_of_a_killed_run_stays_while_its_deletes_may_arrive(loop: asyncio.AbstractEventLoop) -> None:
    """Its blobs are pushed again; then its last delete takes effect."""
    world = World()
    pushed(world, "a", 0, "t0")
    pushed(world, "a", 1, "kept")
    delete_tag(world, "a", "t0")
    late = late_keys(begin(world, loop, deletes("/blobs/")))
    storage = WorldStorage(world)
    loop.run_until_complete(break_locks(storage))
    world.now += 2 * HOUR
    for offline in (False, True):
        with pytest.raises(Refused, match=r"was cut short.* can go from 2023-"):
            loop.run_until_complete(empty(storage, offline=offline))
    push = pushed(world, "b", 0, "live")
    for key in late:
        del world.store.objects[key]
    run_whole(world, loop)
    stands(world, push)
    world.now += DAY + HOUR
    assert len(loop.run_until_complete(empty(storage)).runs) == 2
    stands(world, push)


def test_the_trash_stays_for_a_push_that_stalls(loop: asyncio.AbstractEventLoop) -> None:
    """The registry had found every layer when a whole run took them; it writes the manifest after that."""
    world = World()
    pushed(world, "a", 1, "t0")
    pushed(world, "a", 2, "kept")
    delete_tag(world, "a", "t0")
    doc = world.images.docs[1]
    push = Push(world, "a", doc, "again", only_manifest=True)
    world.now += 1000 * SECOND
    steps = push.run()
    for _ in doc.layers:
        next(steps)
    storage = WorldStorage(world)
    report = run_whole(world, loop)
    with pytest.raises(Refused, match=r"less than an hour ago.* can go from 2023-.* --offline"):
        loop.run_until_complete(empty(storage))
    assert not run_whole(world, loop, trash_older_than=0).emptied.runs
    for _ in steps:
        pass
    world.now += HOUR + 10 * SECOND
    assert report.run in run_whole(world, loop, trash_older_than=0).emptied.runs
    stands(world, push)


def test_an_offline_registry_has_no_push_that_stalls(loop: asyncio.AbstractEventLoop) -> None:
    world = World()
    pushed(world, "a", 1, "t0")
    pushed(world, "a", 2, "kept")
    delete_tag(world, "a", "t0")
    report = run_whole(world, loop)
    assert loop.run_until_complete(empty(WorldStorage(world), offline=True)).runs == (report.run,)


class _Repeats(WorldStorage):
    """The first delete of such keys is sent, not answered, and sent again; the first one is left over."""

    def __init__(self, world: World, part: str) -> None:
        super().__init__(world)
        self._part = part
        self.late: list[str] = []

    async def delete_many(self, keys: Sequence[str]) -> dict[str, StorageError | None]:
        if not self.late and any(self._part in key for key in keys):
            self.late = list(keys)
            self.world.now += 70 * SECOND
            self.counters.repeated_deletes += 1
        return await super().delete_many(keys)


@pytest.mark.parametrize("part", ["/current/link", "/revisions/", "/_layers/"])
def test_a_repeated_delete_that_arrives_late(loop: asyncio.AbstractEventLoop, part: str) -> None:
    """The run came to its end, and knows of no failure."""
    world = World()
    pushed(world, "a", 0, "old")
    pushed(world, "a", 1, "kept")
    storage = _Repeats(world, part)
    world.now += 1000 * SECOND
    assert not loop.run_until_complete(collect(storage, options(policy=POLICY))).failures
    push = pushed(world, "a", 0, "old")
    run_whole(world, loop)
    with pytest.raises(Refused, match="not told the outcome"):
        loop.run_until_complete(empty(storage))
    for key in storage.late:
        del world.store.objects[key]
    run_whole(world, loop)
    stands(world, push)


@pytest.mark.parametrize("hours", [1, 30])
@pytest.mark.parametrize("part", ["/_layers/", "/revisions/"])
def test_a_late_delete_takes_what_was_restored(loop: asyncio.AbstractEventLoop, part: str, hours: int) -> None:
    """A part of what a killed run deletes is put back by hand, and used; then the rest of the delete arrives."""
    world = World()
    pushed(world, "a", 0, "t0")
    pushed(world, "a", 1, "kept")
    delete_tag(world, "a", "t0")
    late = late_keys(begin(world, loop, deletes(part)))
    del world.store.objects[late[0]]
    storage = WorldStorage(world)
    loop.run_until_complete(break_locks(storage))
    loop.run_until_complete(restore(storage))
    push = Push(world, "a", world.images.images[0], "live", only_manifest=True)
    for _ in push.run():
        pass
    assert push.told
    for key in late:
        del world.store.objects[key]
    world.now += hours * HOUR
    run_whole(world, loop, grace=DAY)
    stands(world, push)


@pytest.mark.parametrize("hours", [23, 25, 1000])
def test_a_tag_that_a_killed_run_took_comes_back_at_the_next_run(
    loop: asyncio.AbstractEventLoop, hours: int
) -> None:
    """It had been pushed again just before; the run was killed before it looked for that."""
    world = World()
    pushed(world, "a", 0, "old")
    pushed(world, "a", 1, "kept")
    toolkit = begin(world, loop, deletes("/current/link"), policy=POLICY)
    push = pushed(world, "a", 0, "old")
    toolkit.step()
    toolkit.kill()
    world.now += hours * HOUR
    run_whole(world, loop, delete_untagged=False)
    stands(world, push)


def test_a_tag_that_comes_back_keeps_what_it_names(loop: asyncio.AbstractEventLoop) -> None:
    """In the very run that gives it back, though nothing is looked at again there."""
    world = World()
    pushed(world, "a", 0, "old")
    pushed(world, "a", 1, "kept")
    toolkit = begin(world, loop, deletes("/current/link"), policy=POLICY)
    push = pushed(world, "a", 0, "old")
    toolkit.step()
    toolkit.kill()
    world.now += HOUR
    storage = WorldStorage(world)
    loop.run_until_complete(break_locks(storage))
    report = loop.run_until_complete(collect(storage, replace(options(), offline=True)))
    assert report.healed.links == (encode(TagCurrentKey("a", "old")),)
    stands(world, push)


def test_a_tag_of_long_ago_is_not_looked_for_for_ever(loop: asyncio.AbstractEventLoop) -> None:
    """Once a run that began when nothing could be under way any more has ended, a tag without current/link is left."""
    world = World()
    pushed(world, "a", 0, "old")
    pushed(world, "a", 1, "kept")
    begin(world, loop, deletes("/current/link"), policy=POLICY).kill()
    world.now += 25 * HOUR
    run_whole(world, loop)
    push = pushed(world, "a", 0, "old")
    current = encode(TagCurrentKey(push.repository, push.tag))
    del world.store.objects[current]
    run_whole(world, loop)
    assert current not in world.store


def test_a_newer_tag_is_not_written_over_where_no_put_is_conditional(loop: asyncio.AbstractEventLoop) -> None:
    world = World(conditional=False)
    pushed(world, "a", 0, "old")
    pushed(world, "a", 1, "kept")
    toolkit = begin(world, loop, deletes("/current/link"), policy=POLICY)
    pushed(world, "a", 0, "old")
    until(toolkit, puts("/current/link"))
    push = pushed(world, "a", 2, "old")
    toolkit.step()
    until(toolkit, puts("/current/link"))
    push = pushed(world, "a", 1, "old")
    finish(toolkit)
    stands(world, push)
    run_whole(world, loop)
    stands(world, push)


def puts(part: str) -> Callable[[str, tuple[str, ...]], bool]:
    return lambda operation, keys: operation == "put" and part in keys[0]


def until(toolkit: Toolkit, wanted: Callable[[str, tuple[str, ...]], bool]) -> None:
    while not (toolkit.waiting and wanted(*toolkit.waiting)):
        toolkit.step()
        assert not toolkit.done, "it never came to that"


@pytest.mark.parametrize("hours", [0, 2])
def test_what_a_client_deletes_of_a_later_push_stays_deleted(loop: asyncio.AbstractEventLoop, hours: int) -> None:
    """No run saw the links stand again. That they did is proved by the tag: its push was accepted after the run. Soon
    after, it may have been accepted before."""
    world = World()
    index = world.images.index
    for _ in Push(world, "a", index, "t0").run():
        pass
    pushed(world, "a", 2, "kept")
    delete_tag(world, "a", "t0")
    run_whole(world, loop, grace=0)
    world.now += hours * HOUR
    for _ in Push(world, "a", index, "t0").run():
        pass
    for _ in Deletion(world, "a", index.children[0]).run():
        pass
    run_whole(world, loop)
    assert (encode(RevisionLinkKey("a", index.children[0].digest)) in world.store) == (hours == 0)
