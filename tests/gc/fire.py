"""gc under fire: writers on a real registry, gc in a loop on its storage, and a look at every promise afterwards.

    python -m tests.gc.fire --minutes 5 --writers 4 --grace 0s

Writers push new images over a small pool of layers, push dead images again, mount layers from other repositories,
tag what nothing tags any more, push indexes over old manifests, sign, move tags, delete manifests. Each notes what
the registry answered. At the end, after the last gc, what they were told must be so: every tag pulls completely,
no deleted tag is back, every blob of the store has its digest.

A push that fails with "unknown blob" or "unknown manifest" is repeated, as clients do: it relied on something
that had been garbage before. It must succeed within `attempts`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.gc.report import GcReport
from regstore.gc.run import GcRun, GcRunOptions, open_run
from regstore.inventory.scan import ScanOptions
from regstore.state.lock import Lock, hold_lock
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.storage.s3 import S3Storage
from regstore.testing.faulty import FaultyStorage
from tests.gc.promises import Promises
from tests.servers import images, skopeo
from tests.servers.api import Api, ApiError, Incomplete, pull_complete, push_api
from tests.servers.ceph import ceph_server
from tests.servers.distribution import Registry
from tests.servers.fault_proxy import FaultProxy
from tests.servers.images import Document
from tests.servers.s3 import S3Root

_PASSING: Final = Policy.parse('delete_untagged = true\n[[rule]]\ndrop = ["w?passing?"]\n')
_REPEATABLE: Final = ("MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "NAME_UNKNOWN")


@dataclass(frozen=True, kw_only=True)
class FireOptions:
    """Durations in seconds. It burns for `seconds`, and on until `runs` of gc have ended and one has moved something,
    for `patience` at most. passing: some pushes go to tags that a policy drops once they are older than the grace.
    settle: what gc waits before its last look. stall: how long the registry's writes of manifests, revisions and tags
    are held up now and then; gc_stall: the same for gc's own requests."""

    seconds: float = 20.0
    runs: int = 3
    patience: float = 60.0
    passing: bool = False
    writers: int = 4
    grace: float = 0.0
    settle: float = 0.3
    stall: float = 0.4
    gc_stall: float = 0.1
    attempts: int = 8
    repositories: int = 3
    tags: int = 4
    seed: int = 1


@dataclass
class Fire:
    """What happened. `broken` must be empty."""

    pushes: int = 0
    repeated: int = 0
    attempts_failed: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    fresh: int = 0
    fresh_failed: list[str] = field(default_factory=list)
    deletes: int = 0
    runs: int = 0
    moved: int = 0
    unlinked: int = 0
    kept_back: int = 0
    healed_blobs: int = 0
    healed_links: int = 0
    failures: list[str] = field(default_factory=list)
    last_scan: int = 0
    tags_dropped: int = 0
    tags_checked: int = 0
    tags_gone_checked: int = 0
    blobs_checked: int = 0
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"pushes {self.pushes}: {self.repeated} succeeded when repeated, {len(self.failed)} failed for good",
            f"failed attempts: {dict(self.attempts_failed)}",
            f"pushes of all new blobs {self.fresh}, of these {len(self.fresh_failed)} had to be repeated",
            f"deletes {self.deletes}",
            f"gc runs {self.runs}: {self.unlinked} links removed, {self.tags_dropped} tags of these, {self.moved} blobs"
            f" moved, {self.kept_back} kept back, healed {self.healed_blobs} blobs and {self.healed_links} links,"
            f" {len(self.failures)} failures",
            f"promised tags pulled {self.tags_checked}, deleted tags looked for {self.tags_gone_checked},"
            f" blobs verified {self.blobs_checked}, broken {len(self.broken)}",
        ]
        return "\n".join([*lines, *self.broken, *self.failed, *self.fresh_failed, *self.failures])


class Writer:
    """One client, in a thread of its own."""

    def __init__(self, number: int, host: str, options: FireOptions, promises: Promises, fire: Fire) -> None:
        self._number = number
        self._host = host
        self._options = options
        self._promises = promises
        self._fire = fire
        self._random = random.Random(options.seed * 1000 + number)
        self._count = 0
        self._pool = [images.layer(f"pool {n}") for n in range(8)]
        self._images = [
            images.image(f"pool image {n}", [self._pool[n % 8], self._pool[(n * 3 + 1) % 8]]) for n in range(8)
        ]
        self._children = [
            images.image(f"child {n}", [self._pool[n % 8], images.layer(f"child {n}")], architecture=f"arch{n}")
            for n in range(6)
        ]
        #: Only these are ever deleted by digest; a child of an index is not.
        self._deletable = {document.digest for document in self._images}

    def run(self, until: Callable[[], bool]) -> None:
        actions = (
            (4, self._new_image),
            (4, self._old_image),
            (3, self._index),
            (3, self._retag),
            (2, self._all_new),
            (2, self._signed),
            (3, self._delete),
        )
        weights = [weight for weight, _ in actions]
        while not until():
            self._random.choices([action for _, action in actions], weights)[0]()

    # -- what clients do

    def _new_image(self) -> None:
        self._count += 1
        parts = self._random.sample(self._pool, 2)
        document = images.image(f"new {self._options.seed} {self._number} {self._count}", parts)
        self._deletable.add(document.digest)
        self._push(document, mount=self._random.random() < 0.5)

    def _all_new(self) -> None:
        """Not one of its links has ever been in the store."""
        self._count += 1
        document = images.image(f"fresh {self._options.seed} {self._number} {self._count}", 2)
        self._deletable.add(document.digest)
        self._push(document, fresh=True)

    def _old_image(self) -> None:
        self._push(
            self._random.choice(self._images), mount=self._random.random() < 0.3, check=self._random.random() < 0.7
        )

    def _index(self) -> None:
        """An index over children, of which those that the registry has are not pushed again."""
        document = images.index(self._random.sample(self._children, 2))
        repository, tag = self._place()
        if self._random.random() < 0.5:
            self._push(document, repository, tag)
            return

        def push() -> None:
            with Api(self._host) as api:
                for child in document.children:
                    if api.head_manifest(repository, child.digest) is None:
                        push_api(self._host, repository, child)
                api.put_manifest(repository, tag, document.data, document.media_type)

        self._repeat(repository, tag, document, push)

    def _retag(self) -> None:
        """Give a tag to a manifest that was pushed some time, looking at nothing but whether it is there."""
        document = self._random.choice([*self._images, *self._children])
        repository, tag = self._place()

        def push() -> None:
            with Api(self._host) as api:
                if api.head_manifest(repository, document.digest) is None:
                    push_api(self._host, repository, document)
                else:
                    api.put_manifest(repository, tag, document.data, document.media_type)
                    return
                api.put_manifest(repository, tag, document.data, document.media_type)

        self._repeat(
            repository, tag, document, push, repeat=lambda: push_api(self._host, repository, document, tag)
        )

    def _signed(self) -> None:
        """An image, and its signature under the tag that names it."""
        document = self._random.choice(self._images)
        repository, tag = self._place()
        self._push(document, repository, tag)
        name, signature = images.cosign(document)
        self._push(signature, repository, name)

    def _delete(self) -> None:
        repository = self._repository()
        candidates = sorted(self._promises.tagged(repository) & self._deletable)
        if not candidates:
            return
        digest = self._random.choice(candidates)
        with self._promises.deleting(repository, digest), Api(self._host) as api:
            status, _, _ = api.request("DELETE", f"/v2/{repository}/manifests/{digest}")
            if status == 202:
                self._promises.gone(repository, digest)
                self._fire.deletes += 1
                return
            self._fire.attempts_failed[f"DELETE {status}"] += 1
            if status >= 500:
                self._promises.perhaps_gone(repository, digest)
            # 404: a revision that was tagged while gc removed it comes back with the next heal.

    # -- how they do it

    def _repository(self) -> str:
        return f"team/r{self._random.randrange(self._options.repositories)}"

    def _place(self) -> tuple[str, str]:
        return self._repository(), f"w{self._number}t{self._random.randrange(self._options.tags)}"

    def _push(
        self,
        document: Document,
        repository: str = "",
        tag: str = "",
        *,
        mount: bool = False,
        check: bool = True,
        fresh: bool = False,
    ) -> None:
        if not repository:
            repository, tag = self._place()
            if self._options.passing and self._random.random() < 0.4:
                tag = f"w{self._number}passing{self._random.randrange(2)}"
        source = self._repository() if mount else ""
        self._repeat(
            repository,
            tag,
            document,
            lambda: push_api(
                self._host,
                repository,
                document,
                tag,
                mount_from=source if source != repository else "",
                check_first=check,
            ),
            fresh=fresh,
        )

    def _repeat(
        self,
        repository: str,
        tag: str,
        document: Document,
        push: Callable[[], object],
        *,
        repeat: Callable[[], object] | None = None,
        fresh: bool = False,
    ) -> None:
        before = self._promises.current(repository, tag)
        held = [document.digest, *([before.digest] if before else [])]
        self._fire.pushes += 1
        self._fire.fresh += fresh
        what = f"{repository}:{tag} {document.digest[:15]}"
        with self._promises.pushing(repository, *held):
            for attempt in range(1, self._options.attempts + 1):
                began = time.time()
                try:
                    push() if attempt == 1 or repeat is None else repeat()
                except ApiError as error:
                    self._fire.attempts_failed[f"{error.status} {error.code}"] += 1
                    if fresh and attempt == 1:
                        self._fire.fresh_failed.append(f"{what}: {error}")
                    if error.code not in _REPEATABLE:
                        self._promises.unknown(repository, tag)
                    last = error
                    continue
                self._fire.repeated += attempt > 1
                if "passing" in tag:
                    self._promises.passes(repository, tag, document, began)
                else:
                    self._promises.stands(repository, tag, document)
                return
        self._fire.failed.append(f"{what} failed {attempt} times: {last}")


# -- gc


#: `open_run`, or what stands for it.
OpenGc = Callable[[Storage, GcRunOptions, Lock], AbstractAsyncContextManager[GcRun]]


async def _gc_loop(
    storage: Storage, options: FireOptions, fire: Fire, open_gc: OpenGc, until: Callable[[], bool]
) -> None:
    while not until():
        await _gc_once(storage, options, fire, open_gc)


async def _gc_once(storage: Storage, options: FireOptions, fire: Fire, open_gc: OpenGc) -> GcReport:
    with tempfile.TemporaryDirectory(prefix="regstore-cache-") as folder:
        run_options = GcRunOptions(
            plan=GcOptions(
                delete_untagged=True,
                grace=int(options.grace * 1e6),
                uploads_older_than=int(3600 * 1e6),
                policy=_PASSING if options.passing else None,
            ),
            scan=ScanOptions(cache_dir=Path(folder)),
            settle=options.settle,
            max_delete=1.0,
            untagged_repositories=True,
        )
        async with hold_lock(storage, command="gc") as lock, open_gc(storage, run_options, lock) as run:
            report = await run.apply()
            fire.last_scan = run.inventory.scanned_at
    fire.runs += 1
    fire.tags_dropped += report.tags
    fire.moved += report.blobs
    fire.unlinked += report.tags + report.revisions + report.layer_links
    fire.kept_back += report.kept_back
    fire.healed_blobs += len(report.healed.blobs)
    fire.healed_links += len(report.healed.links)
    fire.failures += report.failures
    return report


# -- the look afterwards


async def _check(
    registry: Registry, storage: Storage, promises: Promises, fire: Fire, options: FireOptions, *, pulls: int
) -> None:
    host = registry.host
    for number, ((repository, tag), document) in enumerate(sorted(promises.tags.items(), key=lambda item: item[0])):
        if (repository, tag) in promises.uncertain:
            continue
        try:
            found = await asyncio.to_thread(pull_complete, host, repository, tag)
            if document.digest not in found or found.keys() != document.closure().keys():
                fire.broken.append(f"{repository}:{tag} is not {document.digest}")
            if number < pulls:
                await asyncio.to_thread(skopeo.pull, host, repository, tag)
        except (Incomplete, skopeo.SkopeoError) as error:
            fire.broken.append(f"{repository}:{tag} {document.digest}: {error}")
        fire.tags_checked += 1
    for (repository, tag), (document, began) in sorted(promises.passing.items(), key=lambda item: item[0]):
        if (repository, tag) in promises.uncertain:
            continue
        with Api(host) as api:
            stands = api.head_manifest(repository, tag) is not None
        # A store's times may be of whole seconds.
        if not stands and began - 1 > fire.last_scan / 1e6 - options.grace:
            fire.broken.append(f"{repository}:{tag} was dropped before its grace was over")
        if stands:
            try:
                found = await asyncio.to_thread(pull_complete, host, repository, tag)
            except Incomplete as error:
                fire.broken.append(f"{repository}:{tag} {document.digest}: {error}")
            else:
                if document.digest not in found:
                    fire.broken.append(f"{repository}:{tag} is not {document.digest}")
    for repository, tag in sorted(promises.deleted - promises.uncertain):
        with Api(host) as api:
            if (digest := api.head_manifest(repository, tag)) is not None:
                fire.broken.append(f"{repository}:{tag} was deleted, and names {digest}")
        fire.tags_gone_checked += 1
    async for page in storage.list("docker/registry/v2/blobs/"):
        for key in page.keys:
            if hashlib.sha256(await storage.get(key)).hexdigest() != key.split("/")[-2]:
                fire.broken.append(f"{key} has other bytes")
            fire.blobs_checked += 1


# -- all of it


async def set_fire(
    registry: Registry, storage: Storage, options: FireOptions, *, pulls: int = 2, open_gc: OpenGc = open_run
) -> Fire:
    """Burn as the options say, let gc run twice more, restart the registry where it caches, and look. open_gc: by
    which it runs."""
    fire, promises = Fire(), Promises()
    writers = [Writer(number, registry.host, options, promises, fire) for number in range(options.writers)]
    end = time.monotonic() + options.seconds
    last = end + options.patience
    stop = threading.Event()
    noise = random.Random(options.seed)

    async def stall(operation: str, key: str) -> None:
        if options.gc_stall and noise.random() < 0.05:
            await asyncio.sleep(noise.random() * options.gc_stall)

    def burning() -> bool:
        """Whether to stop."""
        now = time.monotonic()
        enough = fire.runs >= options.runs and fire.moved
        return stop.is_set() or now > last or (now > end and bool(enough))

    writers[0]._new_image()
    stalled = FaultyStorage(storage, before=stall)
    # Not the loop's own threads: gc needs those.
    pool = ThreadPoolExecutor(len(writers))
    loop = asyncio.get_running_loop()
    threads = [loop.run_in_executor(pool, writer.run, burning) for writer in writers]
    try:
        await _gc_loop(stalled, options, fire, open_gc, lambda: all(thread.done() for thread in threads))
    finally:
        stop.set()
        await asyncio.gather(*threads)
        pool.shutdown()
    await _gc_once(storage, options, fire, open_gc)
    if registry.cache == "inmemory":
        registry.restart()
    await _check(registry, storage, promises, fire, options, pulls=pulls)
    return fire


@contextlib.contextmanager
def stalling(root: Path | S3Root, options: FireOptions) -> Iterator[Path | S3Root]:
    """The way to a bucket on which a registry's writes of links and manifests are held up now and then."""
    if isinstance(root, Path) or not options.stall:
        yield root
        return
    noise = random.Random(options.seed)
    with FaultProxy(root.server.endpoint_url) as proxy:
        for seconds, share in ((options.stall, 0.03), (options.stall / 8, 0.1)):
            proxy.slow(
                seconds, method="PUT", key="repositories/", when=lambda _, s=share: noise.random() < s, times=None
            )
        yield S3Root(root.server.at(proxy.endpoint_url), root.bucket, root.rootdirectory)


def open_root(root: Path | S3Root) -> Storage:
    if isinstance(root, Path):
        return DiskStorage(root, create=True)
    return S3Storage(root.settings())


async def fire_on(
    root: Path | S3Root,
    options: FireOptions,
    *,
    cache: str = "none",
    pulls: int = 2,
    open_gc: OpenGc = open_run,
) -> Fire:
    with stalling(root, options) as place, Registry(place, cache=cache) as registry:  # type: ignore[arg-type]
        async with open_root(root) as storage:
            return await set_fire(registry, storage, options, pulls=pulls, open_gc=open_gc)


def _seconds(text: str) -> float:
    return float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def main() -> int:
    parser = argparse.ArgumentParser(description="gc in a loop against writers on a real registry")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--grace", type=_seconds, default=0.0, metavar="DURATION")
    parser.add_argument("--settle", type=_seconds, default=0.3, metavar="DURATION")
    parser.add_argument("--cache", choices=("none", "inmemory"), default="none")
    parser.add_argument("--disk", action="store_true", help="on a folder instead of the Ceph gateway")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    options = FireOptions(
        seconds=arguments.minutes * 60,
        writers=arguments.writers,
        grace=arguments.grace,
        settle=arguments.settle,
        seed=arguments.seed,
    )
    with contextlib.ExitStack() as stack:
        if arguments.disk:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="regstore-fire-"))
            root: Path | S3Root = Path(folder)
        else:
            server = stack.enter_context(ceph_server())
            root = S3Root(server, server.create_bucket(), "/reg")
        fire = asyncio.run(fire_on(root, options, cache=arguments.cache, pulls=1000))
    print(fire)
    return 1 if fire.broken or fire.failed or fire.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
