"""rm, untag and tag in a loop, some killed, some undone, while clients push and pull on the real registry.

What must hold of a tag in the end follows from its last push that was accepted, and from what was done since:

- what had looked before that push began neither takes the tag away nor moves it;
- what began when it was over has its effect, unless it says that it kept something back;
- what went on beside it, was killed or undone may have its effect or not.

Whatever a tag names is complete: at the latest after the next gc, which here takes nothing.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from regstore.errors import InputError, Refused, RegistryError
from regstore.gc.removal.named import Named
from regstore.gc.removal.run import RemovalOptions, open_removal
from regstore.gc.restore import RestoreOptions, apply_restore, plan_restore
from regstore.gc.set_tag import apply_tag, plan_tag
from regstore.inventory.scan import ScanOptions
from regstore.reference import Reference
from regstore.state.lock import break_locks, hold_lock
from regstore.storage.base import Storage
from regstore.testing.faulty import FaultyStorage, died
from tests.gc.fire import FireOptions, open_root, stalling
from tests.gc.scenes import collect, options
from tests.servers import images, skopeo
from tests.servers.api import Api, ApiError, pull_complete, push_api
from tests.servers.distribution import Registry
from tests.servers.images import Document
from tests.servers.s3 import S3Root, S3Server

pytestmark = [pytest.mark.servers, pytest.mark.long, pytest.mark.usefixtures("with_skopeo")]

REPOSITORIES: Final = ("team/app", "team/app/nested")
TAGS: Final = 3
CLIENTS: Final = 2
#: A tag: its repository, and its name.
Place = tuple[str, str]


@dataclass(frozen=True)
class Pushed:
    """Accepted. Times by `time.monotonic`."""

    place: Place
    digest: str
    began: float
    ended: float


@dataclass
class Done:
    """Something that was done to the store. touches: whether a tag that names this digest is meant; gives: what such a
    tag may name then, None: it is gone. sure: it came to its end, and kept nothing back. looked: when it had."""

    touches: Callable[[Place, str | None], bool]
    gives: str | None
    began: float = field(default_factory=time.monotonic)
    looked: float = 0.0
    sure: bool = False
    undo: bool = False


class Client:
    """Pushes what others push, too, each to tags of its own, and pulls what nobody takes away."""

    def __init__(self, number: int, host: str, layout: Path, pool: dict[str, Document]) -> None:
        self._number = number
        self._host = host
        self._layout = layout
        self._pool = pool
        self._random = random.Random(number)
        self.pushed: list[Pushed] = []
        #: Tags of which an answer was lost.
        self.unsure: set[Place] = set()

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            name = self._random.choice(sorted(self._pool))
            repository = self._random.choice(REPOSITORIES)
            self._push((repository, f"w{self._number}t{self._random.randrange(TAGS)}"), name)
            pull_complete(self._host, "team/kept", self._random.choice(sorted(self._pool)))
            time.sleep(self._random.random() * 0.2)

    def _push(self, place: Place, name: str) -> None:
        document = self._pool[name]
        for _ in range(10):
            began = time.monotonic()
            try:
                if self._random.random() < 0.1:
                    skopeo.push(self._layout, name, self._host, *place)
                else:
                    push_api(self._host, place[0], document, place[1], check_first=self._random.random() < 0.7)
            except (ApiError, skopeo.SkopeoError):  # a child of its index was removed meanwhile
                self.unsure.add(place)
                continue
            self.unsure.discard(place)
            self.pushed.append(Pushed(place, document.digest, began, time.monotonic()))
            return
        raise AssertionError(f"{place} could not be pushed")


class Operator:
    """Removes, sets and gives back, one after the other."""

    def __init__(self, storage: Storage, pool: dict[str, Document], tags: list[Place], seed: int) -> None:
        self._random = random.Random(seed)
        self._storage = storage
        self._pool = pool
        self._tags = tags
        self.done: list[Done] = []
        self.went = self.kept = self.killed = self.undone = self.moved = 0

    @property
    def has_done_all(self) -> bool:
        return bool(self.went and self.kept and self.killed and self.undone and self.moved)

    async def act(self) -> None:
        action = self._random.choices(
            (self._rm_tag, self._rm_image, self._rm_repository, self._tag, self._undo), (4, 4, 1, 4, 2)
        )[0]
        if action == self._undo or self._random.random() > 0.35:
            await self._quietly(action, self._stalled())
            return
        self.killed += await died(self._quietly(action, self._stalled(die_at=self._random.randrange(2, 9))))
        await break_locks(self._storage)

    async def _quietly(self, action: Callable[[Storage], object], storage: Storage) -> None:
        try:
            await action(storage)  # type: ignore[misc]
        except (RegistryError, Refused, InputError):
            pass  # it is not there, is needed, was set meanwhile, or there is nothing to undo

    def _stalled(self, die_at: int = 0) -> Storage:
        async def stall(operation: str, key: str) -> None:
            if self._random.random() < 0.1:
                await asyncio.sleep(self._random.random() * 0.1)

        return FaultyStorage(self._storage, before=stall, die_at=die_at, when="after")

    def _image(self) -> Document:
        return self._pool[self._random.choice(sorted(self._pool))]

    async def _rm_tag(self, storage: Storage) -> None:
        place = self._random.choice(self._tags)
        await self._remove(storage, "{}:{}".format(*place), lambda found, _: found == place)

    async def _rm_image(self, storage: Storage) -> None:
        repository, digest = self._random.choice(REPOSITORIES), self._image().digest
        await self._remove(
            storage, f"{repository}@{digest}", lambda found, named: found[0] == repository and named == digest
        )

    async def _rm_repository(self, storage: Storage) -> None:
        repository = self._random.choice(REPOSITORIES)
        await self._remove(storage, repository, lambda found, _: found[0] == repository)

    async def _remove(self, storage: Storage, word: str, touches: Callable[[Place, str | None], bool]) -> None:
        scan = ScanOptions(cache_dir=None)
        named, how = Named.parse([word], recursive=True), RemovalOptions(scan=scan, settle=0.2)
        done = Done(touches, None)
        async with hold_lock(storage, command="rm") as lock, open_removal(storage, named, how, lock) as removal:
            done.looked = time.monotonic()
            self.done.append(done)
            report = await removal.apply()
        assert not report.failures
        done.sure = not (report.kept_back or report.given_back)
        self.went += report.tags + report.revisions
        self.kept += report.kept_back + len(report.given_back)

    async def _tag(self, storage: Storage) -> None:
        place, digest = self._random.choice(self._tags), self._image().digest
        done = Done(lambda found, _: found == place, digest)
        async with hold_lock(storage, command="tag") as lock:
            plan = await plan_tag(storage, Reference.parse(f"{place[0]}@{digest}"), place[1], force=True)
            done.looked = time.monotonic()
            self.done.append(done)
            if not plan.nothing_to_do:
                await apply_tag(storage, plan, lock)
        done.sure = True
        self.moved += 1

    async def _undo(self, storage: Storage) -> None:
        done = Done(lambda *_: True, None, undo=True)
        async with hold_lock(storage, command="trash restore") as lock:
            plan = await plan_restore(storage, RestoreOptions())
            done.looked = time.monotonic()
            self.done.append(done)
            self.undone += (await apply_restore(storage, plan, lock)).links


def may_name(last: Pushed, done: list[Done], ever: set[str]) -> set[str | None]:
    """What the tag may name in the end; None: it is gone. ever: all that it was ever to name."""
    names: set[str | None] = {last.digest}
    for each in done:
        if last.began > each.looked:
            continue
        hit = {name for name in names if each.touches(last.place, name)}
        after = {*ever, None} if each.undo else {each.gives}
        certain = each.sure and not each.undo and last.ended < each.began
        names = (names - hit if certain else names) | (after if hit else set())
    return names


@contextmanager
def at_work(clients: list[Client]) -> Iterator[None]:
    stop = threading.Event()
    with ThreadPoolExecutor(len(clients)) as pool:
        running = [pool.submit(each.run, stop) for each in clients]
        try:
            yield
        finally:
            stop.set()
        for each in running:
            each.result()


async def burn(root: Path | S3Root, folder: Path, *, actions: int, seed: int) -> None:
    parts = {f"i{number}": images.image(f"fire {number}") for number in range(4)}
    pool = {**parts, "index": images.index([parts["i0"], parts["i1"]])}
    layout = images.write_oci_layout(folder, pool)
    with stalling(root, FireOptions(seed=seed)) as place, Registry(place, cache="inmemory") as registry:
        for name, document in pool.items():
            push_api(registry.host, "team/kept", document, name)
        clients = [Client(number, registry.host, layout, pool) for number in range(CLIENTS)]
        tags = [
            (name, f"w{number}t{each}")
            for name in REPOSITORIES
            for number in range(CLIENTS)
            for each in range(TAGS)
        ]
        async with open_root(root) as storage:
            operator = Operator(storage, pool, tags, seed)
            with at_work(clients):
                number = 0
                while number < actions or not (operator.has_done_all or number > 10 * actions):
                    await operator.act()
                    number += 1
            await collect(storage, options(offline=False, delete_untagged=False, max_lost=1.0))
        print({name: value for name, value in vars(operator).items() if isinstance(value, int)})
        for client in clients:
            check(registry.host, client, operator.done)
    assert operator.has_done_all


def check(host: str, client: Client, done: list[Done]) -> None:
    for place in {each.place for each in client.pushed} - client.unsure:
        pushes = [each for each in client.pushed if each.place == place]
        ever = {each.digest for each in pushes}
        ever |= {each.gives for each in done if each.gives is not None and each.touches(place, None)}
        with Api(host) as api:
            found = api.head_manifest(*place)
        assert found in may_name(pushes[-1], done, ever), place
        if found is not None:
            pull_complete(host, *place)


async def test_on_disk(tmp_path: Path) -> None:
    await burn(tmp_path / "registry", tmp_path / "oci", actions=15, seed=1)


async def test_on_ceph(ceph: S3Server, ceph_bucket: str, tmp_path: Path) -> None:
    await burn(S3Root(ceph, ceph_bucket, "/reg"), tmp_path / "oci", actions=15, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
async def test_with_many(ceph: S3Server, ceph_bucket: str, tmp_path: Path, seed: int) -> None:
    await burn(S3Root(ceph, ceph_bucket, "/reg"), tmp_path / "oci", actions=150, seed=seed)
    await burn(tmp_path / "registry", tmp_path / "oci", actions=150, seed=seed)
