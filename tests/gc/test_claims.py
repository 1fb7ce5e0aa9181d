"""What heal gives back is what we took and nobody else removed since: no right to read is made."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from regstore.digest import Digest
from regstore.gc.caches import NoCache
from regstore.gc.heal import HealOptions, heal_store
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.gc.report import GcReport
from regstore.gc.restore import RestoreOptions, apply_restore, plan_restore
from regstore.gc.run import GcRunOptions, open_run
from regstore.inventory.scan import ScanOptions
from regstore.layout import LayerLinkKey, RevisionLinkKey, encode
from regstore.state.lock import break_locks, hold_lock
from regstore.state.registry_state import CacheKind
from regstore.storage.base import Storage
from tests.gc.actors import Deletion, Doc, Push, World, delete_layer, delete_tag
from tests.gc.scenes import collect as collect_model
from tests.gc.scenes import options as model_options
from tests.gc.stepping import Toolkit, WorldStorage
from tests.model.builder import FOREIGN, Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore

SECOND = 1_000_000
HOUR = 3600 * SECOND
MONTH = 30 * 24 * HOUR
DROP_OLD = Policy.parse('delete_untagged = true\n[[rule]]\ndrop = ["old"]\n')


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def without_grace(policy: Policy | None = None) -> GcRunOptions:
    return GcRunOptions(
        plan=GcOptions(delete_untagged=True, grace=0, uploads_older_than=10**15, policy=policy),
        scan=ScanOptions(concurrency=1),
        settle=0.0,
        max_delete=1.0,
        allow_empty=True,
    )


class Forgetful(NoCache):
    """One that was reached, and holds nothing of what went."""

    in_reach = True


async def collect(storage: Storage, options: GcRunOptions, cache: CacheKind = "none") -> GcReport:
    async with (
        hold_lock(storage, command="gc") as lock,
        open_run(storage, options, lock, cache=(Forgetful if cache == "redis" else NoCache)(cache)) as run,
    ):
        return await run.apply()


def push(world: World, doc: Doc, tag: str, *, only_manifest: bool = False) -> None:
    pushed = Push(world, "a", doc, tag, only_manifest=only_manifest)
    for _ in pushed.run():
        pass
    assert pushed.told


def run_whole(
    world: World, loop: asyncio.AbstractEventLoop, policy: Policy | None = None, cache: CacheKind = "none"
) -> GcReport:
    world.now += 10 * SECOND
    storage = WorldStorage(world)
    loop.run_until_complete(break_locks(storage))
    return loop.run_until_complete(collect(storage, without_grace(policy), cache))


def kill_before_deletes(world: World, loop: asyncio.AbstractEventLoop, policy: Policy | None = None) -> None:
    """A run that has journaled what it is about to take, and took nothing."""
    world.now += 1000 * SECOND
    before = {key for key in world.store if key.startswith("docker/")}
    toolkit = Toolkit(world, loop, page=1000)
    toolkit.start(collect(toolkit, without_grace(policy)))
    while not (toolkit.waiting and toolkit.waiting[0] == "delete" and "docker/" in toolkit.waiting[1][0]):
        toolkit.step()
        assert not toolkit.done
    toolkit.kill()
    assert {key for key in world.store if key.startswith("docker/")} == before


def delete_last_layer(world: World, doc: Doc) -> str:
    """By a client. No other image here has it."""
    assert encode(LayerLinkKey("a", doc.layers[-1])) in world.store
    return delete_layer(world, "a", doc.layers[-1])


@pytest.mark.parametrize(
    ("hours", "cache", "comes_back"),
    [(2, "none", False), (2, "redis", False), (0, "none", True), (2, "unknown", True), (2, "inmemory", True)],
)
def test_a_layer_that_a_client_pushed_again_and_deleted(
    loop: asyncio.AbstractEventLoop, hours: int, cache: CacheKind, comes_back: bool
) -> None:
    """No run saw it stand between. That it did is proved by the manifest that a registry took long after the run; soon
    after, the push may have found it before, and a cache may have answered for it: a link that the push needs and that
    we surely took is given back then."""
    world = World()
    image = world.images.images[2]
    push(world, world.images.images[0], "kept")
    push(world, image, "t0")
    delete_tag(world, "a", "t0")
    run_whole(world, loop, cache=cache)
    world.now += hours * HOUR
    push(world, image, "t0")
    key = delete_last_layer(world, image)
    run_whole(world, loop, cache=cache)
    assert (key in world.store) == comes_back


@pytest.mark.parametrize("what", ["layer", "revision"])
def test_what_a_killed_run_never_took_is_not_given_back_months_later(
    loop: asyncio.AbstractEventLoop, what: str
) -> None:
    world = World()
    doc = world.images.index if what == "revision" else world.images.images[2]
    push(world, world.images.signature if what == "revision" else world.images.images[0], "kept")
    push(world, doc, "t0")
    delete_tag(world, "a", "t0")
    kill_before_deletes(world, loop)
    world.now += MONTH
    push(world, doc, "t0")
    world.now += MONTH
    if what == "layer":
        key = delete_last_layer(world, doc)
    else:
        key = encode(RevisionLinkKey("a", doc.children[0].digest))
        for _ in Deletion(world, "a", doc.children[0]).run():
            pass
    run_whole(world, loop)
    assert key not in world.store


def test_a_killed_run_had_not_come_to_it(loop: asyncio.AbstractEventLoop) -> None:
    """What was needed again at once, and deleted by a client much later. A tag that was to go first stands as it
    was."""
    world = World()
    image = world.images.images[2]
    push(world, world.images.images[0], "kept")
    push(world, image, "old")
    kill_before_deletes(world, loop, DROP_OLD)
    push(world, image, "again")
    world.now += MONTH
    key = delete_last_layer(world, image)
    run_whole(world, loop)
    assert key not in world.store


@pytest.mark.parametrize("command", ["gc", "heal"])
def test_what_heal_gave_back_and_a_client_deleted_stays_deleted(
    loop: asyncio.AbstractEventLoop, command: str
) -> None:
    world = World()
    image = world.images.images[2]
    push(world, world.images.images[0], "kept")
    push(world, image, "t0")
    delete_tag(world, "a", "t0")
    stalled = Push(world, "a", image, "again", only_manifest=True)
    steps = stalled.run()
    for _ in image.layers:
        next(steps)
    run_whole(world, loop)
    for _ in steps:
        pass
    assert stalled.told
    if command == "gc":
        run_whole(world, loop)
    else:
        loop.run_until_complete(heal(WorldStorage(world)))
    key = delete_last_layer(world, image)
    run_whole(world, loop)
    assert key not in world.store


def test_what_a_run_gave_back_itself_and_a_client_deleted_stays_deleted(loop: asyncio.AbstractEventLoop) -> None:
    world = World()
    image = world.images.images[2]
    push(world, world.images.images[0], "kept")
    push(world, image, "t0")
    delete_tag(world, "a", "t0")
    world.now += 1000 * SECOND
    stalled = Push(world, "a", image, "again", only_manifest=True)
    steps = stalled.run()
    for _ in image.layers:
        next(steps)
    toolkit = Toolkit(world, loop, page=1000)
    toolkit.start(collect(toolkit, without_grace()))
    while not (toolkit.waiting and toolkit.waiting[0] == "delete" and "/_layers/" in toolkit.waiting[1][0]):
        toolkit.step()
    for _ in steps:
        pass
    while not toolkit.done:
        toolkit.step()
    assert encode(LayerLinkKey("a", image.layers[-1])) in toolkit.result().healed.links
    key = delete_last_layer(world, image)
    run_whole(world, loop)
    assert key not in world.store


def test_what_the_last_look_gave_back_of_an_older_run_and_a_client_deleted_stays_deleted(
    loop: asyncio.AbstractEventLoop,
) -> None:
    world = World()
    image, garbage = world.images.images[2], world.images.images[1]
    push(world, world.images.images[0], "kept")
    push(world, image, "t0")
    delete_tag(world, "a", "t0")
    stalled = Push(world, "a", image, "again", only_manifest=True)
    steps = stalled.run()
    for _ in image.layers:
        next(steps)
    run_whole(world, loop)
    push(world, garbage, "t1")
    delete_tag(world, "a", "t1")
    world.now += 1000 * SECOND
    toolkit = Toolkit(world, loop, page=1000)
    toolkit.start(collect(toolkit, without_grace()))
    while not (toolkit.waiting and toolkit.waiting[0] == "copy"):
        toolkit.step()
    for _ in steps:
        pass
    while not toolkit.done:
        toolkit.step()
    assert encode(LayerLinkKey("a", image.layers[-1])) in toolkit.result().healed.links
    key = delete_last_layer(world, image)
    run_whole(world, loop)
    assert key not in world.store


def test_an_undo_is_no_registry_that_found_all(loop: asyncio.AbstractEventLoop) -> None:
    """The index comes back by an undo of the run that took it, its child had been taken by a later one: that the tag's
    link is young says nothing of the child."""
    world = World()
    index = world.images.index
    push(world, world.images.signature, "kept")
    push(world, index, "old")
    push(world, index.children[0], "child")
    world.now += 1000 * SECOND
    first = run_whole(world, loop, DROP_OLD).run
    delete_tag(world, "a", "child")
    world.now += HOUR
    run_whole(world, loop)
    assert encode(RevisionLinkKey("a", index.children[0].digest)) not in world.store
    world.now += 3 * HOUR

    async def undo() -> None:
        storage = WorldStorage(world)
        async with hold_lock(storage, command="trash restore") as lock:
            plan = await plan_restore(storage, RestoreOptions(run=first, concurrency=1))
            await apply_restore(storage, plan, lock, concurrency=1)

    loop.run_until_complete(undo())
    run_whole(world, loop)
    assert not index.links("a").keys() - world.store.objects.keys()


# -- what needs it must be there by right


async def heal(storage: Storage) -> tuple[str, ...]:
    async with hold_lock(storage, command="heal") as lock:
        return (await heal_store(storage, HealOptions(scan=ScanOptions(cache_dir=None)), lock)).links


async def taken(b: Builder, *gone: Digest) -> ModelStorage:
    """A whole run took the layer links."""
    storage = ModelStorage(b.store, now=NOW)
    await collect_model(storage, model_options(offline=False))
    for digest in gone:
        assert encode(LayerLinkKey("a", digest)) not in storage.store
    storage.clock += DAY
    return storage


def written_now(store: ModelStore) -> Builder:
    b = Builder(NOW + DAY // 2)
    b.store = store
    return b


async def test_a_foreign_layer_gives_no_right() -> None:
    """A registry takes a manifest that names it without looking for it."""
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "kept")
    secret = b.blob(b"secret")
    b.link_layer("a", secret)
    b.push("other", b.image(b.blob(b"config of other"), [secret]), "1")
    storage = await taken(b, secret)
    b = written_now(storage.store)
    foreign = b.image(b.blob(b"config"), [secret], layer_type=FOREIGN)
    b.link_revision("a", foreign)
    b.tag("a", "foreign", foreign)
    assert await heal(storage) == ()
    assert encode(LayerLinkKey("a", secret)) not in storage.store
    # One that a registry does look for is given back.
    named = b.image(b.blob(b"config"), [secret])
    b.link_revision("a", named)
    storage.store.objects[encode(RevisionLinkKey("a", named))] = (str(named).encode(), NOW)
    assert await heal(storage) == (encode(LayerLinkKey("a", secret)),)


@pytest.mark.parametrize("by", ["index", "tag"])
async def test_a_manifest_that_the_repository_does_not_link_gives_no_right(by: str) -> None:
    """It was deleted there, or never pushed: a sparse index, or a tag that 2.8.3 left behind, names it all the same."""
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "kept")
    secret, config = b.blob(b"secret"), b.blob(b"config of other")
    b.link_layer("a", secret)
    other = b.image(config, [secret])
    b.push("other", other, "1")
    storage = await taken(b, secret)
    b = written_now(storage.store)
    if by == "index":
        sparse = b.index([other])
        b.link_revision("a", sparse)
        b.tag("a", "sparse", sparse)
    else:
        b.tag("a", "left", other)
    assert await heal(storage) == ()
    assert encode(LayerLinkKey("a", secret)) not in storage.store


async def test_a_child_comes_back_with_its_layers() -> None:
    """The index is there, what it lists was taken by us: all of it, at once."""
    b = Builder(NOW - 30 * DAY)
    b.push("a", b.image(b.blob(b"config"), [b.blob(b"layer")]), "kept")
    layer = b.blob(b"layer of the child")
    child = b.image(b.blob(b"config of the child"), [layer])
    b.push("a", child)
    storage = await taken(b, layer)
    b = written_now(storage.store)
    index = b.index([child])
    b.link_revision("a", index)
    back = await heal(storage)
    assert {encode(RevisionLinkKey("a", child)), encode(LayerLinkKey("a", layer))} < set(back)
