"""Removal while clients push, and cut short: between any two of its requests, and after any of its changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regstore.errors import AccessDenied, RegistryError, StorageError, StorageFull
from regstore.gc.removal.named import Named
from regstore.gc.removal.run import RemovalReport, open_removal
from regstore.gc.restore import RestoreOptions, apply_restore, plan_restore
from regstore.layout import RevisionLinkKey, TagCurrentKey, TagIndexKey, decode, encode, link_body
from regstore.state.journal import find_runs
from regstore.state.lock import break_locks, hold_lock
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.testing.faulty import FaultyStorage, died
from tests.examples import points
from tests.gc.actors import Doc, Push, World
from tests.gc.scenes import Watch, collect, collect_again, model_storage, options, registry
from tests.gc.stepping import Toolkit, WorldStorage
from tests.gc.test_races import SECOND, pushed, stands
from tests.gc.test_removal import OPTIONS, Scene, remove, scene
from tests.model.memory import ModelStorage
from tests.model.store import ModelStore

__all__ = ["scene"]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


async def remove_words(storage: Storage, *words: str, recursive: bool = False) -> RemovalReport:
    named = Named.parse(words, recursive=recursive)
    async with hold_lock(storage, command="rm") as lock, open_removal(storage, named, OPTIONS, lock) as removal:
        return await removal.apply()


def a_world() -> World:
    """`a`: an image with two tags, an index of it and another, tagged; another image."""
    world = World()
    for number, tag in ((0, "old"), (0, "older"), (2, "kept")):
        pushed(world, "a", number, tag)
    world.now += 1000 * SECOND
    return world


def push(world: World, doc: Doc, tag: str) -> Push:
    return Push(world, "a", doc, tag)


#: What a client pushes meanwhile, of a world.
PUSHES: dict[str, Callable[[World], Push]] = {
    "the same tag": lambda world: push(world, world.images.images[0], "old"),
    "the tag, another image": lambda world: push(world, world.images.images[1], "old"),
    "another tag": lambda world: push(world, world.images.images[0], "new"),
    "an index of it": lambda world: push(world, world.images.index, "multi"),
}


def words_of(world: World, what: str) -> tuple[list[str], bool]:
    digest = world.images.images[0].digest
    return {
        "tag": (["a:old"], False),
        "image": ([f"a@{digest}"], False),
        "repository": (["a"], True),
    }[what]


def steps_of(loop: asyncio.AbstractEventLoop, what: str) -> int:
    world = a_world()
    words, recursive = words_of(world, what)
    toolkit = Toolkit(world, loop, page=1000)
    toolkit.start(remove_words(toolkit, *words, recursive=recursive))
    number = 0
    while not toolkit.done:
        toolkit.step()
        number += 1
    toolkit.result()
    return number


@pytest.mark.parametrize("what", ["tag", "image", "repository"])
@pytest.mark.parametrize("pushing", PUSHES)
def test_what_is_pushed_between_any_two_requests_stands(
    loop: asyncio.AbstractEventLoop, what: str, pushing: str
) -> None:
    for number in points(steps_of(loop, what), 3):
        world = a_world()
        words, recursive = words_of(world, what)
        toolkit = Toolkit(world, loop, page=1000)
        toolkit.start(remove_words(toolkit, *words, recursive=recursive))
        for _ in range(number):
            toolkit.step()
        client = PUSHES[pushing](world)
        for _ in client.run():
            pass
        assert client.told, number
        while not toolkit.done:
            toolkit.step()
        toolkit.result()
        try:
            stands(world, client)
        except AssertionError as error:
            raise AssertionError(f"pushed after step {number}") from error


@pytest.mark.slow
@pytest.mark.parametrize("what", ["tag", "image", "repository"])
@pytest.mark.parametrize("pushing", PUSHES)
def test_a_push_that_takes_all_the_time_stands_after_the_next_gc(
    loop: asyncio.AbstractEventLoop, what: str, pushing: str
) -> None:
    """Its requests one by one between those of the removal, from any point on; what it found before and lost meanwhile
    comes back with the next gc at the latest."""
    for number in points(steps_of(loop, what), 3):
        for rate in (2,):
            world = a_world()
            words, recursive = words_of(world, what)
            toolkit = Toolkit(world, loop, page=1000)
            toolkit.start(remove_words(toolkit, *words, recursive=recursive))
            for _ in range(number):
                toolkit.step()
            client = PUSHES[pushing](world)
            for _ in client.run():
                for _ in range(rate):
                    toolkit.step()
            while not toolkit.done:
                toolkit.step()
            toolkit.result()
            if not client.told:
                continue
            run = options(offline=False, delete_untagged=False, allow_gone=(), max_lost=1.0)
            loop.run_until_complete(collect(WorldStorage(world), run))
            try:
                stands(world, client)
            except AssertionError as error:
                raise AssertionError(f"begun after step {number}, {rate} steps a request") from error


async def test_a_push_of_another_tag_holds_up_no_tag(scene: Scene) -> None:
    """What was to go with an image stays, and is told."""
    storage = model_storage(scene.store)
    await storage.put(encode(TagIndexKey("a", "other", scene.older)), link_body(scene.older))
    await storage.put(encode(TagCurrentKey("a", "other")), link_body(scene.older))
    storage.clock += SECOND
    await storage.put(encode(TagIndexKey("a", "other", scene.image)), link_body(scene.image))
    report = await remove(storage, f"a@{scene.index}", "a:1")
    assert (report.tags, report.revisions) == (0, 0)
    assert report.kept == ("a:1", "a:multi", f"a@{scene.index}")
    report = await remove(storage, "a:1")
    assert (report.tags, report.kept) == (1, ())
    report = await remove(storage, "a:other")
    assert (report.tags, report.kept) == (0, ("a:other",))


async def test_what_stays_for_a_tag_that_is_pushed_as_it_goes_is_told(scene: Scene) -> None:
    storage = model_storage(scene.store)
    key = encode(TagCurrentKey("a", "multi"))

    async def push_again(operation: str, first: str) -> None:
        if operation == "delete" and first == key:
            storage.clock += SECOND
            for link in (TagIndexKey("a", "multi", scene.index), TagCurrentKey("a", "multi")):
                await storage.put(encode(link), link_body(scene.index))

    report = await remove(FaultyStorage(storage, after=push_again), f"a@{scene.index}")
    assert (report.tags, report.revisions) == (1, 0)
    assert report.kept == ("a:multi", f"a@{scene.index}")
    assert storage.store.body(key) == link_body(scene.index)


# Cut short


async def fault_free(before: ModelStore, *words: str, recursive: bool) -> tuple[ModelStore, int]:
    storage = model_storage(before)
    faulty = FaultyStorage(storage)
    await remove(faulty, *words, recursive=recursive)
    return storage.store, len(faulty.mutations)


def cases(scene: Scene) -> list[tuple[list[str], bool]]:
    return [(["a:latest"], False), ([f"a@{scene.index}", f"a@{scene.amd}", "a:1.0"], False), (["a"], True)]


async def undo_all(storage: Storage) -> None:
    """The runs of a store, the newest first."""
    for record in reversed(await find_runs(storage)):
        if record.parts:
            async with hold_lock(storage, command="trash restore") as lock:
                plan = await plan_restore(storage, RestoreOptions(run=record.run))
                assert not (await apply_restore(storage, plan, lock)).conflicts


@pytest.mark.parametrize("case", [0, 1, 2])
async def test_killed_after_any_change(case: int) -> None:
    scene = Scene()
    before, watch = scene.store, Watch(scene.store)
    words, recursive = cases(scene)[case]
    end, total = await fault_free(before, *words, recursive=recursive)
    for number in points(total, 3):
        storage = model_storage(before)
        assert await died(remove(FaultyStorage(storage, die_at=number, when="after"), *words, recursive=recursive))
        watch.check(storage.store)
        await break_locks(storage)
        # Undone,
        undone = ModelStorage(ModelStore(dict(storage.store.objects)), now=storage.clock)
        await undo_all(undone)
        assert registry(undone.store).bodies() == before.bodies(), number
        # or a gc comes by, which gives nothing back and breaks nothing,
        met = ModelStorage(ModelStore(dict(storage.store.objects)), now=storage.clock)
        report = await collect_again(met, options(offline=False, delete_untagged=False))
        assert report.healed.nothing
        Watch(before).check(met.store)
        # or it is asked for again: what is named and gone already is left away.
        try:
            await remove(storage, *words, recursive=recursive)
        except RegistryError:
            left = [word for word in words if word in await still_there(storage, words)]
            if left:
                await remove(storage, *left, recursive=recursive)
        assert registry(storage.store).bodies() == registry(end).bodies(), number
        assert not [key for key in storage.store if key.startswith("regstore/locks/")]


async def still_there(storage: Storage, words: list[str]) -> list[str]:
    found = []
    for word in words:
        try:
            async with open_removal(storage, Named.parse([word], recursive=True), OPTIONS):
                found.append(word)
        except RegistryError:
            pass
        except Exception:
            found.append(word)
    return found


@pytest.mark.parametrize("case", [0, 1, 2])
async def test_each_change_fails_once(case: int, request: pytest.FixtureRequest) -> None:
    """One kind of error after the other; with --slow each at every point."""
    errors: list[Callable[[str], StorageError]] = [StorageError, StorageFull, AccessDenied]
    every = request.config.getoption("--slow")
    scene = Scene()
    before, watch = scene.store, Watch(scene.store)
    words, recursive = cases(scene)[case]
    _, total = await fault_free(before, *words, recursive=recursive)
    failing = [
        (number, error)
        for place, number in enumerate(points(total, 4))
        for error in (errors if every else [errors[place % 3]])
    ]
    for number, error in failing:
        storage = model_storage(before)
        faulty = FaultyStorage(storage, fail_at=number, when="before", error=error)
        try:
            report = await remove(faulty, *words, recursive=recursive)
        except StorageError as raised:
            assert "fault" in str(raised)
        else:
            assert report.failures or number == len(faulty.mutations)
        watch.check(storage.store)
        no_tag_without_its_revision(before, storage.store)
        await break_locks(storage)
        await undo_all(storage)
        assert registry(storage.store).bodies() == before.bodies(), number


def no_tag_without_its_revision(before: ModelStore, after: ModelStore) -> None:
    for key in registry(after):
        place = decode(key)
        if isinstance(place, TagCurrentKey):
            for digest in (each for each in before if isinstance(decode(each), RevisionLinkKey)):
                revision = decode(digest)
                assert isinstance(revision, RevisionLinkKey)
                if revision.name == place.name and after.body(key) == link_body(revision.digest):
                    assert encode(revision) in after, f"{key} names what is gone"


async def test_killed_on_disk(tmp_path: Path) -> None:
    scene = Scene()
    before = scene.store.on_disk()
    words = [f"a@{scene.index}", f"a@{scene.amd}", "a:1.0"]
    for number in (4, 6, 8, 10):
        root = tmp_path / str(number)
        before.write_folder(root)
        async with DiskStorage(root) as storage:
            assert await died(remove(FaultyStorage(storage, die_at=number, when="after"), *words))
            Watch(before).check(ModelStore.from_folder(root))
            await break_locks(storage)
            await undo_all(storage)
        assert registry(ModelStore.from_folder(root)).bodies() == before.bodies(), number
