"""gc on a real cluster. All tests of one are in this file: what runs tests side by side then starts one."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from regstore.cli.submit import regstore_spark
from regstore.digest import Digest
from regstore.errors import InputError, LockLost, NoSuchBucket, Refused, RegstoreError
from regstore.events import Event, Progress, ignore
from regstore.gc.plan import GcOptions
from regstore.gc.policy import BrokenScope
from regstore.gc.run import GcRun, open_run
from regstore.gc.run_options import GcRunOptions
from regstore.inventory.inventory import Inventory
from regstore.inventory.scan import ScanOptions
from regstore.layout import BLOBS, REPOSITORIES, LitterKey, MarkerKey, RevisionLinkKey, blob_key, decode
from regstore.migrate import MigrateOptions, migrate
from regstore.proving.read_data import ReadData
from regstore.spark.cluster import open_cluster
from regstore.spark.looks import look_at_all
from regstore.spark.options import ClusterOptions, SparkOptions
from regstore.spark.run import SparkRun, open_spark_run
from regstore.spark.runner import SparkRunner
from regstore.spark.session import check_executors, run_tasks
from regstore.spark.tasks.executing import StoreWork, look_at, version
from regstore.spark.tasks.rows import DDL
from regstore.spark.work_folder import WorkFolder
from regstore.state import LOCKS
from regstore.state.lock import Lock, hold_lock
from regstore.storage.base import TEMPORARY, Storage
from regstore.storage.disk import DiskStorage
from regstore.storage.opening import open_storage
from regstore.storage.optional import OpensElsewhere
from regstore.tasks.hashing import HashBlobs, hash_blobs
from regstore.tasks.listing import ListRange, list_range
from regstore.testing.faulty import FaultyStorage
from regstore.verify.fault import FaultKind
from regstore.verify.options import VerifyOptions
from regstore.verify.run import verify
from tests.cli.conftest import Run, Said
from tests.examples import any_seed, examples
from tests.gc.fire import FireOptions, fire_on
from tests.gc.test_trash import restore
from tests.migrate.stores import contents, dangling
from tests.model.builder import Builder
from tests.model.random_registry import DAY, NOW, example_registry
from tests.model.store import ModelStore
from tests.servers import images
from tests.servers.distribution import Registry
from tests.servers.process import clean_environment
from tests.servers.s3 import S3Root, S3Server
from tests.servers.spark import WORKERS, SparkCluster, home
from tests.spark.applying import (
    Bucket,
    Watch,
    collect,
    collect_by_spark,
    fates_of,
    plain,
    refuse_lost_files,
    run_options,
)
from tests.spark.comparing import POLICY, compare, not_blocked, some_registries, together
from tests.spark.conftest import MemoryStores

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.long


def test_both_workers_take_part(session: SparkSession, spark_cluster: SparkCluster) -> None:
    context = session.sparkContext
    assert context.master == spark_cluster.master
    assert context.defaultParallelism == WORKERS
    found = (
        context.parallelize(range(8), 8).map(lambda _: (os.environ["SPARK_EXECUTOR_DIRS"], os.getpid())).collect()
    )
    assert len(found) == 8
    assert os.getpid() not in {pid for _, pid in found}


async def work_on(folder: Path) -> StoreWork:
    example_registry().on_disk().write_folder(folder)
    async with open_storage(folder) as storage:
        assert isinstance(storage, OpensElsewhere)
        place = await look_at(storage)
        return StoreWork(address=storage.address(), url=storage.url, place=place, version=version(), concurrency=2)


async def test_executors_of_another_version_or_with_another_store(session: SparkSession, tmp_path: Path) -> None:
    store = await work_on(tmp_path / "registry")
    check_executors(session, store)
    with pytest.raises(Refused, match=r"the driver is regstore 0\.0\.1.*, and an executor regstore"):
        check_executors(session, replace(store, version="regstore 0.0.1 on Python 3.11"))
    with pytest.raises(Refused, match="not the same store for all executors"):
        check_executors(session, replace(store, place="elsewhere"))


def test_work_folders(session: SparkSession, tmp_path: Path) -> None:
    def opened(folder: Path, store: str = "s3://bucket/registry") -> WorkFolder:
        return WorkFolder.open(session, f"file://{folder}", "run", store=store)

    opened(tmp_path / "new")
    left = [tmp_path / "new" / "runs" / name for name in ("killed", "under-way")]
    for folder in left:
        (folder / "blobs-0").mkdir(parents=True)
    os.utime(left[0], (time.time() - 8 * 24 * 3600,) * 2)
    opened(tmp_path / "new")
    assert [folder.exists() for folder in left] == [False, True]
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty, and no work folder of regstore"):
        opened(tmp_path / "foreign")
    (tmp_path / "other" / "docker" / "registry" / "v2").mkdir(parents=True)
    with pytest.raises(InputError, match="is in a registry"):
        opened(tmp_path / "other" / "work")
    with pytest.raises(InputError, match="is in the store"):
        opened(tmp_path / "store" / "work", str(tmp_path / "store"))
    with pytest.raises(InputError, match="is in the store"):
        WorkFolder.open(session, "s3a://bucket/registry/work", "run", store="s3://bucket/registry")
    with pytest.raises(InputError, match="is in a registry"):
        WorkFolder.open(session, "s3a://other/docker/registry/v2/work", "run", store="s3://bucket/registry")
    assert not (tmp_path / "store").exists()


def test_what_is_committed_is_never_written_again(session: SparkSession, tmp_path: Path) -> None:
    work = WorkFolder.open(session, f"file://{tmp_path / 'work'}", "run", store="s3://bucket")
    rows = session.createDataFrame([("blob", 1, b"x", None, 5, 6, None, None, None, None, None, None)], DDL)
    assert work.stage("one", rows).count() == 1
    with pytest.raises(RegstoreError, match="already exists"):
        work.stage("one", rows)
    assert work.kept("manifests") is None
    work.keep("manifests", "0", rows)
    (tmp_path / "work" / "manifests" / "killed-0").mkdir()
    kept = work.kept("manifests")
    assert kept is not None and kept.count() == 1


def test_a_work_folder_that_an_executor_lacks(session: SparkSession, tmp_path: Path) -> None:
    """A computer that has another folder of that name would keep its rows, and what is in use would look like
    garbage: Spark says nothing of it."""
    work = WorkFolder.open(session, f"file://{tmp_path / 'a work'}", "run", store="s3://bucket")
    rows = session.createDataFrame([("blob", 1, b"x", None, 5, 6, None, None, None, None, None, None)], DDL)
    assert [row.digest for row in work.stage("one", rows).collect()] == [b"x"]
    (tmp_path / "a work" / "runs" / "run" / "_here").unlink()
    with pytest.raises(Refused, match="is not the same one for all executors"):
        work.stage("two", rows)
    with pytest.raises(Refused, match="is not the same one for all executors"):
        work.keep("manifests", "0", rows)


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_a_file_of_a_stage_is_not_passed_over(session: SparkSession, tmp_path: Path, how: str) -> None:
    """Whatever the cluster says of such files: without these rows, what is in use would look like garbage."""
    work = WorkFolder.open(session, f"file://{tmp_path / 'work'}", "run", store="s3://bucket")
    rows = session.createDataFrame([("blob", 1, b"x", None, 5, 6, None, None, None, None, None, None)], DDL)
    stage = work.stage("one", rows)
    for file in (tmp_path / "work" / "runs" / "run" / "one" / "relation=blob").glob("*.parquet"):
        file.unlink() if how == "lost" else file.write_bytes(b"no Parquet")
    with pytest.raises(RegstoreError):
        run_tasks(stage.count if how == "lost" else stage.collect)


def with_a_broken_revision() -> ModelStore:
    """Of a tag whose manifest is lost: what it names is not known, so that no blob goes."""
    b = Builder(NOW - 9 * DAY)
    manifest = b.image(b.blob(b"broken config"), [b.blob(b"broken layer")])
    b.link_revision("broken", manifest)
    b.tag("broken", "latest", manifest)
    del b.store.objects[blob_key(manifest)]
    return b.store


@pytest.mark.parametrize("kind", [pytest.param("free", marks=pytest.mark.slow), "blocked"])
async def test_random_registries(
    session: SparkSession, memory_stores: MemoryStores, tmp_path: Path, kind: str
) -> None:
    """Of such as let blobs go also `test_offline_the_same_goes_as_by_one_process`."""
    number = any_seed()
    print("seed", number)
    group = [*some_registries(examples(20), number), with_a_broken_revision()]
    options = GcOptions(policy=POLICY)
    if kind == "free":
        options = GcOptions(delete_untagged=True, drop_broken=(BrokenScope(),))
        group = await not_blocked(group, options)
    url = memory_stores.put(f"{kind}-{number}", together(group))
    plan = await compare(session, memory_stores, url, options, tmp_path / "work", shards=3)
    assert bool(plan.summary.sweep_blocked) == (kind == "blocked")
    assert plan.summary.protected
    assert plan.summary.blobs.dead or kind == "blocked"


@pytest.mark.parametrize(
    ("stage", "relation"),
    [
        ("links-0", "listed"),
        ("given", "manifest"),
        pytest.param("load", "loaded", marks=pytest.mark.slow),
        pytest.param("plan-links", "facts", marks=pytest.mark.slow),
    ],
)
async def test_what_a_task_wrote_is_lost(
    session: SparkSession,
    memory_stores: MemoryStores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    relation: str,
) -> None:
    """All files of one task, before they are read: links that are not seen would make garbage of what they keep."""
    url = memory_stores.put(f"lost-{stage}", example_registry())

    def of_one_task(folder: Path) -> list[Path]:
        part = next((folder / f"relation={relation}").glob("part-*")).name[: len("part-00000")]
        return list(folder.glob(f"*/{part}-*"))

    options = run_options(GcOptions(), offline=True)
    async with memory_stores.open(url) as storage:
        await refuse_lost_files(monkeypatch, session, storage, options, tmp_path / "work", stage, of_one_task)


async def test_manifests_are_read_once(session: SparkSession, memory_stores: MemoryStores, tmp_path: Path) -> None:
    """The second run finds them in the work folder, and reads what it could not before. Where a bucket's rules have
    removed files from there, so that manifests are left without what they name, these are read again."""
    url = memory_stores.put("example", example_registry())
    counts = memory_stores.server.endpoint.counts
    options, spark = GcOptions(delete_untagged=True), SparkOptions(work=f"file://{tmp_path / 'work'}", shards=2)
    reads = []
    for _ in range(2):
        before = counts["GetObject"]
        async with (
            memory_stores.open(url) as storage,
            open_cluster(session, storage, run_options(options, offline=True), spark, ignore) as cluster,
        ):
            with Inventory() as whole:
                listed = await look_at_all(cluster, cluster.flow, storage, whole)
            await cluster.run(partial(cluster.flow.read_manifests, listed))
        reads.append(counts["GetObject"] - before)
    edges = list((tmp_path / "work").glob("manifests-*/*/relation=edge/*.parquet"))
    assert edges
    for file in edges:
        file.unlink()
    before = counts["GetObject"]
    plan = await compare(session, memory_stores, url, options, tmp_path / "work", shards=2)
    reads.append(counts["GetObject"] - before)
    assert plan.summary.blobs.dead > 0
    assert reads[1] < reads[0]
    assert reads[2] > reads[1]
    assert not list((tmp_path / "work" / "runs").iterdir())


@pytest.mark.slow
async def test_killed_executors(
    session: SparkSession,
    spark_cluster: SparkCluster,
    memory_stores: MemoryStores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = memory_stores.put("lost", example_registry())
    endpoint = memory_stores.server.endpoint
    serve, asked = endpoint.serve, list[str]()

    def noting(method: str, target: str, *more: Any) -> Any:
        asked.append(f"{method} {unquote(target)}")
        return serve(method, target, *more)

    monkeypatch.setattr(endpoint, "serve", noting)
    killed: dict[str, int] = {}
    begun: dict[str, int] = {}

    def kill_one(event: Event) -> None:
        if isinstance(event, Progress):
            begun[event.phase] = len(asked)
            if event.phase in ("reading links", "planning"):
                pid = spark_cluster.executors()[0]
                os.kill(pid, signal.SIGKILL)
                killed[event.phase] = pid

    ago = time.time_ns() // 1000 - NOW
    options = GcRunOptions(
        plan=GcOptions(delete_untagged=True, grace=ago + DAY // 2, uploads_older_than=ago + 3 * DAY),
        scan=ScanOptions(cache_dir=None),
    )
    spark = SparkOptions(work=f"file://{tmp_path / 'work'}", shards=2)
    async with (
        memory_stores.open(url) as storage,
        open_spark_run(session, storage, options, spark, on_event=kill_one) as plan,
    ):
        seen = list(asked)
        async with open_run(storage, options) as one:
            assert replace(plan.summary, sweep_blocked="") == replace(one.summary, sweep_blocked="")
    assert len(set(killed.values())) == 2
    blobs = [number for number, line in enumerate(seen) if f"prefix={BLOBS}" in line]
    links = [
        number for number, line in enumerate(seen) if f"prefix={REPOSITORIES}" in line and "list-type=2" in line
    ]
    assert blobs and links
    assert max(blobs) < min(links)
    assert max(links) < begun["reading links"]
    assert not [line for line in seen[begun["planning"] :] if line.startswith("GET")]


async def test_offline_the_same_goes_as_by_one_process(
    session: SparkSession, memory_stores: MemoryStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of random registries: the same plan, store, trash and report; the next run knows what was left; undone, all is
    back."""
    number = any_seed()
    print("seed", number)
    plan = GcOptions(policy=POLICY, drop_broken=(BrokenScope(),))
    before = together([example_registry(), *await not_blocked(some_registries(examples(12), number), plan)])
    one, many = (Bucket(memory_stores, memory_stores.put(f"{name}-{number}", before)) for name in ("one", "many"))
    options = run_options(plan, offline=True)
    async with memory_stores.open(one.url) as storage:
        report = await collect(storage, options)
    watch = Watch(many)
    watch.watch(monkeypatch)
    async with memory_stores.open(many.url) as storage:
        found: list[dict[str, list[str]]] = []
        by_spark = await collect_by_spark(
            *(session, storage, options, tmp_path / "work"),
            look=lambda run: found.append(fates_of(run)),
            compared=True,
        )
        assert many.registry().keys() == one.registry().keys()
        assert many.registry() == one.registry()
        assert plain(by_spark) == plain(report)
        assert report.blobs and report.tags and report.layer_links
        assert many.trash() == one.trash()
        assert not watch.unjournaled
        # Litter that stands in no repository's own folders goes by the driver.
        assert not [
            key
            for key in watch.deleted.keys() - found[0].keys()
            if not isinstance(decode(key), LitterKey | MarkerKey)
        ]
        assert {tuple(fates) for fates in found[0].values()} == {("taken",)}
        counts = [bucket.json("counts") for bucket in (one, many)]
        assert {**counts[0], "runs": []} == {**counts[1], "runs": []}
        assert many.json("done.json", by_spark.run)["repeated_deletes"] == 0
        undone = await restore(storage)
    async with memory_stores.open(one.url) as storage:
        undone_there = await restore(storage)
    assert many.registry() == one.registry()
    assert [each.key for each in undone.conflicts] == [each.key for each in undone_there.conflicts]
    assert len(many.registry()) > len(before) - len(found[0])


@pytest.mark.parametrize("late", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_whoever_is_killed_the_same_goes(
    session: SparkSession,
    spark_cluster: SparkCluster,
    memory_stores: MemoryStores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    late: bool,
) -> None:
    """Pythons as links go, executors as blobs go, each when a delete is done and its answer on the way. The run is
    not settled; the next one finds all done. late: the first look stands no time at all, so blobs go by another."""
    one, many = (
        Bucket(memory_stores, memory_stores.put(f"{name}-{late}".lower(), example_registry()))
        for name in ("whole", "killed")
    )
    options = run_options(GcOptions(policy=replace(POLICY, delete_untagged=True)), offline=False)
    async with memory_stores.open(one.url) as storage:
        report = await collect(storage, options)
    killed: dict[str, list[int]] = {}

    def kill(keys: set[str]) -> None:
        what = "blobs" if any(key.startswith(BLOBS) for key in keys) else "links"
        if keys and what not in killed:
            killed[what] = spark_cluster.executors() if what == "blobs" else spark_cluster.pythons()
            for pid in killed[what]:
                os.kill(pid, signal.SIGKILL)

    watch = Watch(many, kill)
    watch.watch(monkeypatch)
    looks: list[float] = []

    def stands(seconds: float) -> float:
        looks.append(seconds)
        return 300.0 if len(looks) > 1 or not late else -seconds - 60

    monkeypatch.setattr("regstore.spark.looks.stands_for", stands)
    found: list[dict[str, list[str]]] = []
    async with memory_stores.open(many.url) as storage:
        by_spark = await collect_by_spark(
            session, storage, options, tmp_path / "work", look=lambda run: found.append(fates_of(run))
        )
        assert killed["links"] and len(killed["blobs"]) == WORKERS
        assert len(looks) == (3 if late else 2)
        assert not watch.unjournaled
        assert many.registry() == one.registry()
        assert many.trash() == one.trash()
        done = many.json("done.json", by_spark.run)
        assert done["repeated_deletes"] > 0
        names = ("blobs", "blob_bytes", "tags", "revisions", "layer_links", "failures", "vanished")
        assert [getattr(by_spark, name) for name in names] == [getattr(report, name) for name in names]
        ends = {key: fates[-1] for key, fates in found[0].items()}
        assert set(ends.values()) == {"taken"}
        assert {tuple(fates) for key, fates in found[0].items() if key.startswith(BLOBS)} == {
            ("late", "taken") if late else ("taken",)
        }
        assert {len(fates) for key, fates in found[0].items() if not key.startswith(BLOBS)} == {1}
        async with hold_lock(storage, command="gc") as lock, open_run(storage, options, lock) as run:
            assert run.summary.nothing_to_do and run.healed.nothing


@pytest.mark.servers
@pytest.mark.filterwarnings("default")
async def test_under_pushes_by_a_real_registry(
    session: SparkSession, ceph: S3Server, ceph_bucket: str, tmp_path: Path
) -> None:
    """The first run is the cluster's, without any grace; those after it are of one process."""
    reports: list[SparkRun] = []

    @asynccontextmanager
    async def open_gc(storage: Storage, options: GcRunOptions, lock: Lock) -> AsyncIterator[GcRun]:
        if reports:
            async with open_run(storage, options, lock) as one:
                yield one
            return
        await asyncio.sleep(3)  # there is something to remove then
        assert isinstance(storage, FaultyStorage)
        spark = SparkOptions(work=f"file://{tmp_path / 'work'}", shards=2)
        async with open_spark_run(session, storage.inner, options, spark, lock) as run:
            reports.append(run)
            yield run

    options = FireOptions(seconds=3, runs=1, patience=200, writers=2)  # they and the cluster share the cores
    fire = await fire_on(S3Root(ceph, ceph_bucket, "/reg"), options, open_gc=open_gc)
    print(fire)
    assert not fire.broken and not fire.failed and not fire.failures, str(fire)
    assert fire.tags_checked >= 5 and fire.blobs_checked
    assert reports[0].hands is not None
    assert reports[0].summary.layer_links.dead and reports[0].summary.blobs.dead


@pytest.mark.parametrize("next_by", ["one process", pytest.param("cluster", marks=pytest.mark.slow)])
async def test_a_run_that_lost_its_lock_stops_and_the_next_one_heals(
    session: SparkSession,
    memory_stores: MemoryStores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    next_by: str,
) -> None:
    """The lock goes as the first blobs do. Then somebody pushes what one of these was, and the tag that names it."""
    before = example_registry()
    bucket = Bucket(memory_stores, memory_stores.put(f"unlocked-{next_by[:3]}", before))
    options = run_options(GcOptions(delete_untagged=True), offline=True)
    swept: list[set[str]] = []

    def unlock(keys: set[str]) -> None:
        blobs = {key for key in keys if key.startswith(BLOBS)}
        if blobs:
            swept.append(blobs)
            bucket.remove(LOCKS)

    watch = Watch(bucket, unlock)
    watch.watch(monkeypatch)
    async with memory_stores.open(bucket.url) as storage:
        with pytest.raises(LockLost):
            await collect_by_spark(session, storage, options, tmp_path / "work", shards=4)
        watch.on_delete = lambda keys: None
        assert 1 <= len(swept) <= WORKERS
        assert not watch.unjournaled
        assert not [key for key in bucket.objects if key.endswith("/done.json")]
        gone = sorted(set.union(*swept))
        manifest = next(key for key in gone if b"mediaType" in before.objects[key][0])
        links = [
            key
            for key in before
            if key not in bucket.objects
            and isinstance(decode(key), RevisionLinkKey)
            and manifest.split("/")[-2] in key
        ]
        assert links
        for key in links:
            bucket.put(key, before.objects[key][0])
        if next_by == "cluster":
            healed = await collect_by_spark(session, storage, options, tmp_path / "work")
        else:
            healed = await collect(storage, options)
        assert manifest in {blob_key(Digest.parse(digest)) for digest in healed.healed.blobs}
        assert bucket.objects[manifest].body == before.objects[manifest][0]
        named = re.findall(rb"sha256:[0-9a-f]{64}", before.objects[manifest][0])
        parts = {blob_key(Digest.parse(digest.decode())) for digest in named} & before.objects.keys()
        assert parts and parts <= bucket.objects.keys()
        async with open_run(storage, options) as run:
            assert run.summary.nothing_to_do


@pytest.mark.slow
async def test_where_the_driver_is_killed_the_next_run_ends_the_same(
    memory_stores: MemoryStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cluster in its own JVM. It is killed as the first blobs go; nobody needs to break its lock."""
    one, many = (Bucket(memory_stores, memory_stores.put(name, example_registry())) for name in ("alone", "driven"))
    plan = GcOptions(delete_untagged=True)
    options = replace(run_options(plan, offline=True), plan=plan)
    async with memory_stores.open(one.url) as storage:
        await collect(storage, options)
    drivers: list[subprocess.Popen[bytes]] = []

    def kill(keys: set[str]) -> None:
        if any(key.startswith(BLOBS) for key in keys):
            drivers[0].kill()

    watch = Watch(many, kill)
    watch.watch(monkeypatch)
    words = ["--yes", "--offline", "--max-delete", "100%", "--delete-untagged", "--untagged-repositories"]
    words += ["--unlinked-blobs", "--engine", "spark", "--master", "local[2]", "--shards", "2"]
    words += ["--work", str(tmp_path / "work")]
    environment = clean_environment(
        tmp_path, **memory_stores.s3.environment(), SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable
    )
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "regstore", "gc", many.url, *words]
        drivers.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        code = await asyncio.to_thread(drivers[0].wait)
    assert code == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert not watch.unjournaled
    assert [key for key in many.objects if key.startswith(LOCKS)]
    assert not [key for key in many.objects if key.endswith("/done.json")]
    async with memory_stores.open(many.url) as storage:
        await collect(storage, options)
    assert many.registry() == one.registry()
    assert many.trash() == one.trash()


def test_it_says_and_does_what_one_process_does(
    session: SparkSession, run: Run, registry: Path, tmp_path: Path
) -> None:
    """By the command, in a folder: the same JSON but for times and names, and the same files and folders are left."""
    other = tmp_path / "other"
    shutil.copytree(registry, other)
    words = ["--json", "--yes", "--offline", "--max-delete", "100%", "--delete-untagged", "--keep-newest", "1"]
    words += ["--drop-tag", "*"]
    one = run("gc", other, *words)
    more = ["--engine", "spark", "--work", tmp_path / "work", "--shards", 2, "--request-rate", 500]
    said = run("gc", registry, *words, *more)
    assert said.code == one.code, said
    assert said.json["plan"] == one.json["plan"]
    assert said.json["plan"]["dropped_tags"] and said.json["plan"]["blobs"]["dead"]
    differs = {"run", "seconds", "not_freed"}
    reports = [{name: value for name, value in each.report.items() if name not in differs} for each in (said, one)]
    assert reports[0] == reports[1]
    assert reports[0]["blobs"] and reports[0]["folders"]
    trees = [
        sorted(str(path.relative_to(root)) for path in (root / "docker").rglob("*")) for root in (registry, other)
    ]
    assert trees[0] == trees[1]
    assert not session.sparkContext._jsc.sc().isStopped()
    assert "nothing to remove" in run("gc", registry, "--dry-run", "--delete-untagged").out


def kill_at(
    monkeypatch: pytest.MonkeyPatch, cluster: SparkCluster, stores: MemoryStores, what: str
) -> tuple[list[int], Counter[str]]:
    """Kill all executors as soon as one that is to do this asks for a blob. The processes that were killed, and how
    often each blob was asked for, the one of that moment first."""
    endpoint, asked, killed, begun = stores.server.endpoint, Counter[str](), list[int](), list[str]()
    serve, in_spark = endpoint.serve, SparkRunner._in_spark

    async def noting(runner: SparkRunner, name: str, jobs: Callable[[], Any]) -> Any:
        begun.extend([name] * (name == what))
        return await in_spark(runner, name, jobs)

    def serving(method: str, target: str, *more: Any) -> Any:
        if begun and method == "GET" and "/data" in target:
            asked[unquote(target)] += 1
            if not killed:
                killed.extend(cluster.executors())
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)
        return serve(method, target, *more)

    monkeypatch.setattr(SparkRunner, "_in_spark", noting)
    monkeypatch.setattr(endpoint, "serve", serving)
    return killed, asked


async def test_verify_with_executors_killed(
    session: SparkSession,
    spark_cluster: SparkCluster,
    memory_stores: MemoryStores,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Damaged registries of all kinds: what is found, and what was read, is the same."""
    number = any_seed()
    print("seed", number)
    store = together(some_registries(examples(20), number))
    image = images.image("sure", [images.layer(f"sure {each}") for each in range(9)])
    store.objects |= {key: (body, NOW) for key, body in images.registry_keys("sure", image, "t").items()}
    store.objects[images.blob_key(image.blobs[1].digest)] = (b"other bytes", NOW)
    url = memory_stores.put(f"verify-{number}", store)
    reports = []
    async with memory_stores.open(url) as storage:
        options = VerifyOptions(read=ReadData.parse("all"), scan=ScanOptions(cache_dir=None))
        reports.append(await verify(storage, options))
        killed, asked = kill_at(monkeypatch, spark_cluster, memory_stores, "hash blobs")
        async with SparkRunner(session, ClusterOptions()) as runner:
            by_cluster = replace(options, scan=replace(options.scan, runner=runner))
            reports.append(await verify(storage, by_cluster))
    assert killed and asked[next(iter(asked))] > 1  # it is hashed again
    one, other = reports
    assert other.findings == one.findings
    assert one.findings.counts[FaultKind.BLOB_DAMAGED] and one.reading and other.reading
    assert replace(other.reading, seconds=0.0) == replace(one.reading, seconds=0.0)


async def test_migrate_with_executors_killed(
    session: SparkSession,
    spark_cluster: SparkCluster,
    memory_stores: MemoryStores,
    monkeypatch: pytest.MonkeyPatch,
    start_registry: Callable[..., Registry],
    tmp_path: Path,
) -> None:
    """Each blob is there whole, and what stands there is what one process makes; a registry serves it."""
    keys: dict[str, bytes] = {}
    pushed = []
    for number in range(12):
        pushed.append(
            images.image(f"image {number}", [images.layer(f"layer {number} {each}") for each in range(8)])
        )
        keys |= images.registry_keys(f"team/{number % 3}", pushed[-1], f"t{number}")
    url = memory_stores.put("moved", ModelStore({key: (body, NOW) for key, body in keys.items()}))
    options, scanning = MigrateOptions(), ScanOptions(cache_dir=None)
    async with memory_stores.open(url) as source, DiskStorage(tmp_path / "one", create=True) as target:
        await migrate(source, target, options, scanning=scanning)
        expected = await contents(target)
    killed, asked = kill_at(monkeypatch, spark_cluster, memory_stores, "copy blobs")
    async with (
        memory_stores.open(url) as source,
        DiskStorage(tmp_path / "cluster", create=True) as target,
        SparkRunner(session, ClusterOptions()) as runner,
        runner.marked(target),
    ):
        scanning = replace(scanning, runner=runner)
        result = await migrate(source, target, options, scanning=scanning)
        assert not result.partial
        found = await contents(target)
        assert {key: body for key, body in found.items() if f"/{TEMPORARY}" not in key} == expected
        assert not (await migrate(source, target, options, scanning=scanning)).objects
    assert killed and asked[next(iter(asked))] > 1
    assert not dangling(expected)
    assert not list((tmp_path / "cluster" / "regstore").glob("probe-*"))
    served = start_registry(tmp_path / "cluster")
    for number, image in enumerate(pushed):
        place, accept = f"/v2/team/{number % 3}", {"accept": image.media_type}
        assert served.request("GET", f"{place}/manifests/t{number}", headers=accept)[2] == image.data
        for blob in image.blobs:
            assert served.request("GET", f"{place}/blobs/{blob.digest}")[2] == blob.data


async def test_a_task_that_is_cancelled_or_fails(session: SparkSession, memory_stores: MemoryStores) -> None:
    url = memory_stores.put("cancelled", example_registry())
    async with (
        memory_stores.open(url) as storage,
        SparkRunner(session, ClusterOptions(tasks=2, request_rate=1)) as runner,
    ):
        blobs = [(f"{BLOBS}{number}", "sha256", 1) for number in range(1000)]
        hashing = asyncio.create_task(runner.run(hash_blobs, HashBlobs(blobs=blobs), storage))
        await asyncio.sleep(3)
        assert not hashing.done()
        hashing.cancel()
        begun = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await hashing
        assert time.monotonic() - begun < 20
        page = await runner.run(list_range, ListRange(prefix=BLOBS, pages=1), storage)
        assert page.keys
        del memory_stores.server.endpoint.buckets["cancelled"]
        with pytest.raises(NoSuchBucket):
            await runner.run(list_range, ListRange(prefix=BLOBS, pages=1), storage)


def test_verify_and_migrate_say_what_one_process_says(
    session: SparkSession, run: Run, registry: Path, tmp_path: Path
) -> None:
    told = ["--engine", "spark"]
    words = ["verify", registry, "--read-data", "all", "--json", "--no-pull-through"]
    one, said = run(*words, "--cache-dir", tmp_path / "a"), run(*words, *told, "--cache-dir", tmp_path / "b")
    assert (said.code, said.err) == (one.code, one.err)
    found = [each.json["found"] for each in (one, said)]
    for each in found:
        assert each["read"].pop("seconds") > 0
    assert found[1] == found[0]
    moved = []
    for name, more in (("one", []), ("cluster", [*told, "--tasks", 3])):
        moved.append(run("migrate", registry, tmp_path / name, "--create", "--json", *more))
    one, said = moved
    assert (said.code, said.report["blobs"]) == (one.code, one.report["blobs"])
    assert said.report["blobs"]
    assert files(tmp_path / "cluster") == files(tmp_path / "one")


def files(folder: Path) -> dict[str, bytes]:
    """Of the registry."""
    below = folder / "docker"
    return {str(path.relative_to(below)): path.read_bytes() for path in below.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_spark_submit(spark_cluster: SparkCluster, run: Run, registry: Path, tmp_path: Path) -> None:
    """The same words, output and exit code; it starts a driver of its own."""
    words = ["gc", registry, "--dry-run", "--json", "--delete-untagged"]
    one = run(*words)
    program = str(home() / "bin" / "spark-submit")
    environment = clean_environment(tmp_path, SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable)
    said = subprocess.run(
        [
            *(
                program,
                "--master",
                spark_cluster.master,
                "--conf",
                "spark.ui.enabled=false",
                "--executor-memory",
                "700m",
            ),
            *(regstore_spark.__file__, *map(str, words), "--work", str(tmp_path / "work"), "--shards", "2"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert said.returncode == one.code
    assert Said(said.returncode, said.stdout, said.stderr).plan == one.plan
