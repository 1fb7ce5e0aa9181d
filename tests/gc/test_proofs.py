"""What a run proves before it takes anything for good, and what it looks at again before it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.gc.report import GcReport
from regstore.gc.run import GcRunOptions, open_run
from regstore.inventory.scan import ScanOptions
from regstore.layout import (
    REPOSITORIES,
    BlobKey,
    LayerLinkKey,
    RevisionLinkKey,
    TagCurrentKey,
    decode,
    encode,
    link_body,
)
from regstore.state import TRASH
from regstore.state.lock import hold_lock
from regstore.storage.base import Page, Storage
from regstore.storage.s3 import RetryPolicy, S3Storage
from tests.examples import crossed
from tests.gc.actors import Push, World, delete_tag
from tests.gc.scenes import (
    collect,
    copy_of,
    options,
    registry,
    removed_blobs,
    small_registry,
    trash,
    wanted,
    write_long_ago,
)
from tests.gc.stepping import Toolkit
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server

SECOND = 1_000_000


# -- the copy in the trash


class Lying(ModelStorage):
    """Copies of one key into the trash are reported as done: `kept` bytes of them are, or None: nothing is."""

    lies_of = ""
    kept: int | None = None

    async def copy(self, source: str, target: str, *, size: int | None = None) -> None:
        if source != self.lies_of or not target.startswith(TRASH):
            await super().copy(source, target, size=size)
        elif self.kept is not None:
            self.store.objects[target] = (self.store.objects[source][0][: self.kept], self.clock)


@crossed(
    "kept_at, offline",
    {"absent": (None, 0), "empty": (0, 1), "short": (3, -1)},
    {"offline": True, "serving": False},
    meeting=1,
)
async def test_a_blob_stays_whose_copy_was_reported_and_is_not_there(
    offline: bool, kept_at: tuple[int | None, int]
) -> None:
    kept, place = kept_at
    before = small_registry()
    run = options(offline=offline)
    dead = removed_blobs(before, wanted(before, run).dead)
    storage = Lying(copy_of(before), now=NOW)
    storage.lies_of, storage.kept = sorted(dead)[place], kept
    report = await collect(storage, run)
    assert storage.store.body(storage.lies_of) == before.body(storage.lies_of)
    assert [line for line in report.failures if storage.lies_of in line and "it stays" in line]
    assert report.blobs == len(dead) - 1
    others = dead.keys() - {storage.lies_of}
    assert not others & storage.store.objects.keys()
    kept_whole = trash(storage.store)
    assert {key: kept_whole[key] for key in others} == {key: dead[key] for key in others}


async def test_a_server_says_that_a_copy_is_done_and_it_is_not(moto: S3Server, moto_bucket: str) -> None:
    before = small_registry()
    with FaultProxy(moto.endpoint_url) as proxy:
        settings = moto.at(proxy.endpoint_url).settings(moto_bucket, retries=RetryPolicy(base=0.01))
        async with S3Storage(settings) as storage:
            await write_long_ago(before, storage)
            lie = b'<CopyObjectResult><ETag>"0"</ETag><LastModified>2026-11-28</LastModified></CopyObjectResult>'
            proxy.pretend(lie, operation="CopyObject", times=None)
            report = await collect(storage, options(offline=False, grace=0))
            after = await ModelStore.from_storage(storage)
    assert report.blobs == 0 and report.failures and "it stays" in report.failures[0]
    blobs = {key: body for key, body in before.bodies().items() if isinstance(decode(key), BlobKey)}
    assert {key: after.body(key) for key in blobs} == blobs
    assert trash(after) == {}


# -- the look after unlinking


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


async def collect_in(storage: Storage, world_options: GcRunOptions) -> GcReport:
    async with hold_lock(storage, command="gc") as lock, open_run(storage, world_options, lock) as run:
        return await run.apply()


def without_grace(policy: Policy | None = None) -> GcRunOptions:
    return GcRunOptions(
        plan=GcOptions(delete_untagged=True, grace=0, uploads_older_than=10**15, policy=policy),
        scan=ScanOptions(concurrency=1),
        settle=0.0,
        max_delete=1.0,
        untagged_repositories=True,
    )


def until(toolkit: Toolkit, wanted: Callable[[str, tuple[str, ...]], bool]) -> None:
    while not (toolkit.waiting and wanted(*toolkit.waiting)):
        toolkit.step()
        assert not toolkit.done, "it never came to that"


@pytest.mark.parametrize("what", ["layer", "revision"])
def test_a_link_needed_meanwhile_is_back_before_blobs_move(loop: asyncio.AbstractEventLoop, what: str) -> None:
    """The registry had answered a HEAD by it, and writes what needs it while it goes. The run is killed before its
    last look."""
    world = World()
    doc = world.images.index if what == "revision" else world.images.images[1]
    for one, tag in ((doc, "old"), (world.images.images[2], "kept"), (world.images.signature, "other")):
        for _ in Push(world, "a", one, tag).run():
            pass
    delete_tag(world, "a", "old")
    delete_tag(world, "a", "other")  # what really goes
    world.now += 1000 * SECOND
    push = Push(world, "a", doc, "again", only_manifest=True)
    steps = push.run()
    for _ in doc.children or doc.layers:
        next(steps)  # the registry has found all that the manifest names
    toolkit = Toolkit(world, loop, page=1000)
    toolkit.start(collect_in(toolkit, without_grace()))
    part = "/revisions/" if what == "revision" else "/_layers/"
    until(toolkit, lambda operation, keys: operation == "delete" and part in keys[0])
    for _ in steps:
        pass
    assert push.told
    until(toolkit, lambda operation, keys: operation == "copy" and keys[1].startswith(TRASH))
    toolkit.kill()
    needed = doc.links("a") | {encode(TagCurrentKey("a", "again")): link_body(doc.digest)}
    assert {key: world.store.body(key) for key in needed} == needed


# -- the look before unlinking


class Rewriting(ModelStorage):
    """When the repositories are looked at once more, somebody has written a key again."""

    rewritten: tuple[str, bytes, int] | None = None

    def write_again(self, key: str, body: bytes, mtime: int) -> None:
        self.rewritten = (key, body, mtime)

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Page]:
        if prefix.startswith(REPOSITORIES) and prefix != REPOSITORIES and self.rewritten:
            key, body, mtime = self.rewritten
            self.store.objects[key] = (body, mtime)
            self.rewritten = None
        return super().list(prefix, start_after=start_after)


@pytest.mark.parametrize("kind", ["tag", "layer"])
@pytest.mark.parametrize("new", ["content", "time"])
async def test_a_key_that_was_written_again_stays(kind: str, new: str) -> None:
    """Both plans take it; it is not what the first one saw. Its time may be the old one: clocks of whole seconds, and
    copies that keep times."""
    b = Builder(NOW - 30 * DAY)
    kept, other = b.image(b.blob(b"config"), [b.blob(b"layer")]), b.image(b.blob(b"config 2"), [])
    b.push("a", kept, "kept")
    b.push("a", other, "also")
    b.push("a", kept, "old")
    unused = b.blob(b"of no manifest")
    b.link_layer("a", unused)
    key = encode(TagCurrentKey("a", "old")) if kind == "tag" else encode(LayerLinkKey("a", unused))
    body = b.store.objects[key][0]
    another = link_body(other) if kind == "tag" else link_body(b.blob(b"another that no manifest names"))
    storage = Rewriting(b.store, now=NOW)
    expected = (body if new == "time" else another, NOW - 30 * DAY + (0 if new == "content" else SECOND))
    storage.write_again(key, *expected)
    policy = Policy.parse('delete_untagged = true\n[[rule]]\ndrop = ["old"]\n')
    run = GcRunOptions(
        plan=GcOptions(policy=policy, grace=DAY), scan=options(offline=False).scan, settle=0, max_delete=1.0
    )
    report = await collect(storage, run)
    assert storage.rewritten is None
    assert storage.store.objects[key] == expected
    assert report.kept_back
    assert registry(storage.store).body(encode(RevisionLinkKey("a", kept)))
    # Undisturbed, it goes.
    await collect(storage, run)
    assert key not in storage.store
