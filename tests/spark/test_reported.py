"""gc by a cluster with a report in place of the listing of blobs: what goes is what goes by one process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from regstore.digest import Digest
from regstore.errors import IntegrityError, Refused
from regstore.events import ignore
from regstore.gc.plan import GcOptions
from regstore.gc.policy import BrokenScope
from regstore.gc.run import GcRunOptions, open_run
from regstore.inventory.inventory import Inventory, ReportedAt
from regstore.inventory.reported.again import Way
from regstore.inventory.reported.report import BlobsFrom, parse_report
from regstore.inventory.scan import ScanOptions, scan
from regstore.layout import BlobKey, decode, encode
from regstore.migrate import MigrateOptions, migrate
from regstore.proving.read_data import ReadData
from regstore.spark.cluster import open_cluster
from regstore.spark.manifest_rounds import KEPT
from regstore.spark.options import ClusterOptions, SparkOptions
from regstore.spark.reported import ReportedBlobs
from regstore.spark.runner import SparkRunner
from regstore.spark.tasks.executing import TaskFailed, told_error
from regstore.spark.tasks.reporting import ABSENT, OTHERWISE, READ, TO_LOOK_AT, LookAgainTask, ReportTask
from regstore.spark.tasks.rows import DDL, row_batch
from regstore.spark.work_folder import WorkFolder
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.verify.options import VerifyOptions
from regstore.verify.run import verify
from tests.examples import any_seed, examples
from tests.gc.test_reported import changed, scene
from tests.inventory.reports import FORMATS, InBucket, MadeReport, Row, make_report, rows_of
from tests.migrate.stores import contents
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import DAY, HOUR, NOW, example_registry
from tests.model.store import ModelStore
from tests.spark.applying import Bucket, Watch, collect, collect_by_spark, plain, refuse_lost_files, run_options
from tests.spark.by_hand import HandLook, work_on
from tests.spark.comparing import GRACE, POLICY, compare, some_registries, together
from tests.spark.conftest import MemoryStores

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

CREATED = NOW - 2 * DAY
on_cluster = pytest.mark.long


async def at_its_url(storage: Storage) -> str:
    return storage.url


@pytest.fixture
def any_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regstore.spark.tasks.executing.look_at", at_its_url)


# -- tasks, without an engine


def task_of(made: MadeReport, folder: Path | None = None) -> ReportTask:
    """Of a report in a bucket, or in a folder."""
    report = parse_report(made.objects[made.manifest], "the report")
    if folder is not None:
        there = BlobsFrom(manifest=str(folder / made.manifest))
        return ReportTask(blobs_from=there, bucket=None, report=report, root="")
    bucket = work_on(ModelStorage(ModelStore.from_dict(made.objects), now=0))
    return ReportTask(blobs_from=made.blobs_from(), bucket=bucket, report=report, root="")


def read(task: ReportTask) -> list[dict[str, Any]]:
    files = task.report.files
    columns: dict[str, list[Any]] = {
        "text": [file.key for file in files],
        "size": [file.size for file in files],
        "why": [file.md5 for file in files],
    }
    return [row for batch in task([row_batch("file", columns)]) for row in batch.to_pylist()]


def blobs_of(store: ModelStore) -> dict[bytes, tuple[int, int]]:
    keys = {key: decode(key) for key in store}
    return {
        key.digest.raw: (len(store.objects[text][0]), store.objects[text][1])
        for text, key in keys.items()
        if isinstance(key, BlobKey)
    }


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("where", ["bucket", "folder"])
def test_files_give_the_blobs_that_they_show(any_place: None, tmp_path: Path, format: str, where: str) -> None:
    store = example_registry()
    store.objects["docker/registry/v2/blobs/odd"] = b"x", NOW - DAY
    made = make_report(rows_of(store), created=CREATED, format=format, files=3)
    made.write_folder(tmp_path)
    rows = read(task_of(made, tmp_path if where == "folder" else None))
    found = {row["digest"]: (row["size"], row["mtime"]) for row in rows if row["relation"] == "blob"}
    assert found == blobs_of(store)
    told = {row["text"]: row["size"] for row in rows if row["relation"] == READ}
    assert told.keys() == set(made.data) and sum(told.values()) == len(found)
    assert sum(row["relation"] == "unknown" for row in rows) == 1


@pytest.mark.parametrize("how", ["lost", "damaged", "short", "unseen"])
def test_a_file_that_is_not_what_the_manifest_says(any_place: None, tmp_path: Path, how: str) -> None:
    made = make_report(rows_of(example_registry()), created=CREATED, files=2)
    data = made.objects[made.data[1]]
    spoilt, words = {
        "lost": (made.without(made.data[1]), "is not whole"),
        "damaged": (made.with_data(1, bytes(len(data)), told=False), "has the MD5"),
        "short": (made.with_data(1, data[:-9], told=False), "bytes, not the"),
        "unseen": (made, "does not see"),
    }[how]
    with pytest.raises(TaskFailed) as failed:
        read(task_of(spoilt, tmp_path if how == "unseen" else None))
    told = told_error(str(failed.value))
    assert isinstance(told, Refused if how == "unseen" else IntegrityError)
    assert words in str(told)


@pytest.mark.parametrize("blobs", [3000, 10**6], ids=["listed", "one by one"])
def test_blobs_looked_at_again(any_place: None, blobs: int) -> None:
    """By whichever way, and whatever was known of them."""
    b = Builder(NOW - 9 * DAY)
    digests = [b.blob(b"blob %d" % number).raw for number in range(120)]
    known = {raw: found for raw, found in blobs_of(b.store).items() if raw not in digests[100:]}
    for raw in digests[:10]:
        del b.store.objects[encode(BlobKey(Digest.from_raw(raw)))]
    for raw in digests[10:20]:
        b.store.objects[encode(BlobKey(Digest.from_raw(raw)))] = b"other bytes", NOW - DAY
    nowhere = Digest.of(b"nowhere").raw
    wanted = [*digests, nowhere]
    columns: dict[str, list[Any]] = {
        "shard": [raw[0] // 128 for raw in sorted(wanted)],
        "digest": sorted(wanted),
        "size": [known.get(raw, (None, None))[0] for raw in sorted(wanted)],
        "mtime": [known.get(raw, (None, None))[1] for raw in sorted(wanted)],
    }
    storage = ModelStorage(b.store, now=NOW, page=50)
    task = LookAgainTask(store=work_on(storage), way=Way(wanted=len(wanted), blobs=blobs))
    rows = [row for batch in task([row_batch(TO_LOOK_AT, columns)]) for row in batch.to_pylist()]
    assert len(rows) == len(wanted)
    there = {row["digest"]: (row["size"], row["mtime"] // 10**6) for row in rows if row["relation"] == "blob"}
    assert there == {raw: (size, mtime // 10**6) for raw, (size, mtime) in blobs_of(b.store).items()}
    assert {row["digest"] for row in rows if row["relation"] == ABSENT} == {*digests[:10], nowhere}
    assert {row["digest"] for row in rows if row["why"] == OTHERWISE} == {*digests[:20], *digests[100:]}
    assert ("stat" in storage.counters.requests) == (blobs > 3000)


# -- by a cluster


def report_of(stores: MemoryStores, url: str, rows: Sequence[Row], **more: Any) -> BlobsFrom:
    """Of a bucket, in another one."""
    name = url.removeprefix("s3://")
    made = make_report(rows, created=CREATED, bucket=name, **more)
    reports = stores.put(f"reports-of-{name}", ModelStore.from_dict(made.objects))
    return BlobsFrom.parse(
        f"s3-inventory:{reports}/{made.manifest}", lambda location: stores.open(f"s3://{location.bucket}")
    )


@on_cluster
async def test_what_is_known_of_blobs(session: SparkSession, memory_stores: MemoryStores, tmp_path: Path) -> None:
    """By a report, and by looks from then on."""
    said, came = ("same", "other", "gone", "lost", "unseen", "missing"), ("late", "later")
    bodies = {name: f"blob {name}".encode() for name in (*said, *came)}
    raws = {name: Digest.of(body).raw for name, body in bodies.items()}
    names = {raw: name for name, raw in raws.items()}
    keys = {name: key_of(Digest.of(body)) for name, body in bodies.items()}
    stand = {keys[name]: (bodies[name], 0) for name in ("same", "unseen", "missing", "late")}
    bucket = Bucket(
        memory_stores, memory_stores.put("known", ModelStore(stand | {keys["other"]: (b"longer" * 9, 0)}))
    )
    spark = SparkOptions(work=f"file://{tmp_path / 'work'}", shards=1)
    async with (
        memory_stores.open(bucket.url) as storage,
        open_cluster(session, storage, run_options(GcOptions(), offline=True), spark, ignore) as cluster,
    ):
        flow = cluster.flow
        columns: dict[str, list[Any]] = {"digest": [raws[name] for name in said], "mtime": [0] * len(said)}
        report = flow.small("blob", columns | {"size": [len(bodies[name]) for name in said]})
        at = ReportedAt(where="", created=0, age_seconds=0, blobs=len(said))
        blobs = ReportedBlobs(report, report.filter("false"), at, 0)

        def frame(*some: str) -> DataFrame:
            return flow.small("asked", {"digest": [raws[name] for name in some]})

        def known() -> dict[str, int]:
            rows = blobs.rows.collect()
            assert len({bytes(row.digest) for row in rows}) == len(rows)
            return {names[bytes(row.digest)]: row.size for row in rows}

        def look() -> None:
            assert blobs.look(flow, frame("same", "other", "gone", "lost", "late", "later")) == 4
            for name in ("gone", "later"):
                bucket.put(keys[name], bodies[name])
            asked = frame("gone", "later", "same")
            blobs.complete(flow, asked)  # what was looked at is known
            seen = {name: len(bodies[name]) for name in ("same", "unseen", "missing", "late")} | {"other": 54}
            assert known() == seen
            blobs.look_anew()
            blobs.complete(flow, asked)  # "lost" is not asked for again, and does not come back by the report
            states: dict[str, list[Any]] = {"digest": [raws["missing"], raws["late"]], "text": ["missing", "ok"]}
            blobs.note(flow.small("manifest", states))
            with Inventory() as inventory:
                inventory.execute("create table trash (digest blob)")
                inventory.insert("trash", {"digest": ("binary", [raws["other"], raws["unseen"]])})
                blobs.leave_trashed(flow, inventory)
            assert known().keys() == {"same", "other", "late", "gone", "later"}

        await cluster.run(look)


def later(then: ModelStore, pushed: ModelStore, chance: random.Random) -> ModelStore:
    kinds = ("blob gone", "blob gone", "key gone", "written again", "other bytes")
    what = [(chance.choice(kinds), chance.randrange(100)) for _ in range(4)]
    return changed(then, pushed, what, chance.choice((HOUR, DAY, 9 * DAY)))


async def free_of_what_blocks(
    pairs: Sequence[tuple[ModelStore, ModelStore]], options: GcOptions
) -> list[tuple[ModelStore, ModelStore]]:
    """Those that let blobs go, all together, by a report of what they were."""
    kept = [(example_registry(), example_registry())]
    for pair in pairs:
        then, now = (together(stores) for stores in zip(*kept, pair, strict=True))
        blobs_from = make_report(rows_of(then), created=CREATED).blobs_from()
        scanning = ScanOptions(cache_dir=None, blobs_from=blobs_from)
        run = GcRunOptions(plan=replace(options, grace=GRACE), scan=scanning)
        async with open_run(InBucket(now, now=NOW), run) as one:
            if not one.summary.sweep_blocked:
                kept.append(pair)
    return kept


def keep_manifests(session: SparkSession, work: Path, store: ModelStore) -> None:
    """In a work folder, as a run on the store does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("regstore.spark.tasks.executing.look_at", at_its_url)
        look = HandLook(ModelStorage(store, now=NOW), shards=1)
    rows = [tuple(row.values()) for row in look.tables if row["relation"] in ("manifest", "edge")]
    assert rows
    folder = WorkFolder.open(session, f"file://{work}", "before", store="s3://elsewhere")
    folder.keep(KEPT, "0", session.createDataFrame(rows, DDL))
    folder.close()


@on_cluster
@pytest.mark.slow
@pytest.mark.parametrize("which", ["free", "by rules"])
async def test_the_plan_is_that_of_one_process(
    session: SparkSession, memory_stores: MemoryStores, tmp_path: Path, which: str
) -> None:
    """By a report that is stale in every way; and manifests that an earlier run has read are known to both, also such
    as are lost by now."""
    number = any_seed()
    print("seed", number)
    chance = random.Random(number)
    found = some_registries(2 * examples(12), number)
    pairs = [(then, later(then, pushed, chance)) for then, pushed in zip(found[::2], found[1::2], strict=True)]
    options = GcOptions(policy=POLICY)
    if which == "free":
        options = GcOptions(delete_untagged=True, drop_broken=(BrokenScope(),))
        pairs = await free_of_what_blocks(pairs, options)
    then, now = (together(stores) for stores in zip(*pairs, strict=True))
    url = memory_stores.put(f"now-{number}", now)
    remembered = ScanOptions(cache_dir=tmp_path / "cache")
    async with scan(ModelStorage(then, now=NOW), remembered):
        await asyncio.to_thread(keep_manifests, session, tmp_path / "work", then)
    by_report = replace(remembered, blobs_from=report_of(memory_stores, url, rows_of(then), files=2))
    plan = await compare(session, memory_stores, url, options, tmp_path / "work", shards=3, scan=by_report)
    assert plan.inventory.reported is not None
    assert plan.summary.layer_links.dead
    assert plan.summary.blobs.dead or which != "free"


@on_cluster
@pytest.mark.parametrize("offline", [True, pytest.param(False, marks=pytest.mark.slow)])
async def test_the_same_goes_as_by_one_process(
    session: SparkSession,
    memory_stores: MemoryStores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    offline: bool,
) -> None:
    """After a run that took what is needed again by now, or stands again. The report shows all of that; it has keys
    twice, by their versions, and parts of seconds."""
    b, names = scene()
    then = ModelStore(dict(b.store.objects))
    rows = [replace(row, mtime=row.mtime + 123_000) for row in rows_of(then)]
    rows += [replace(row, mtime=row.mtime - DAY, size=1) for row in rows[::3]]
    stores: list[Bucket] = []
    reports = []
    plan = run_options(GcOptions(delete_untagged=True), offline=offline)
    for name in ("one", "many"):
        bucket = Bucket(memory_stores, memory_stores.put(f"{name}-reported-{offline}".lower(), then))
        stores.append(bucket)
        async with memory_stores.open(bucket.url) as storage:
            await collect(storage, replace(plan, offline=True))
        taken = bucket.trash()
        assert key_of(names["old"]) in taken
    garbage = Builder(NOW - 20 * DAY)  # since that run, and before the report
    garbage.push(
        "more", garbage.image(garbage.blob(b"more config"), [garbage.blob(b"more"), garbage.blob(b"layer")])
    )
    rows += [replace(row, mtime=row.mtime + 456_000) for row in rows_of(garbage.store)]
    late = Builder(NOW - DAY)  # and after it; of the image only its index tells
    index = late.index([late.image(late.blob(b"late config"), [garbage.blob(b"more")])])
    late.link_revision("late", index)
    late.tag("late", "latest", index)
    for bucket in stores:
        for key, (body, mtime) in garbage.store.objects.items() | late.store.objects.items():
            bucket.put(key, body, mtime)
        for key, (body, _) in then.objects.items():
            if not isinstance(decode(key), BlobKey) and key not in bucket.objects:
                bucket.put(key, body)  # linked again, by a registry whose cache still had it
        bucket.put(key_of(names["orphan"]), then.objects[key_of(names["orphan"])][0])
    one, many = stores
    for bucket in stores:
        blobs_from = report_of(memory_stores, bucket.url, rows, format="Parquet", files=2)
        options = replace(plan, scan=replace(plan.scan, blobs_from=blobs_from))
        async with memory_stores.open(bucket.url) as storage:
            if bucket is one:
                reports.append(await collect(storage, options))
                continue
            watch = Watch(many)
            watch.watch(monkeypatch)
            reports.append(await collect_by_spark(session, storage, options, tmp_path / "work"))
    assert str(names["old"]) in reports[0].healed.blobs and reports[0].blobs == 2 and not reports[0].failures
    assert plain(reports[1]) == plain(reports[0])
    assert many.registry() == one.registry()
    assert many.trash() == one.trash()
    assert not watch.unjournaled
    counts = [bucket.json("counts") for bucket in (one, many)]
    assert {**counts[0], "runs": []} == {**counts[1], "runs": []}


def key_of(digest: Digest) -> str:
    return encode(BlobKey(digest))


@on_cluster
@pytest.mark.slow
@pytest.mark.parametrize(("stage", "relation"), [("report", "blob"), ("report", READ), ("again-1", "blob")])
async def test_what_a_task_wrote_is_lost(
    session: SparkSession,
    memory_stores: MemoryStores,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    relation: str,
) -> None:
    url = memory_stores.put(f"lost-{stage}-{relation.replace('_', '-')}", store := example_registry())

    def one(folder: Path) -> list[Path]:
        return [sorted((folder / f"relation={relation}").glob("part-*"))[0]]

    plan = run_options(GcOptions(delete_untagged=True), offline=True)
    blobs_from = report_of(memory_stores, url, rows_of(store), files=2)
    options = replace(plan, scan=replace(plan.scan, blobs_from=blobs_from))
    async with memory_stores.open(url) as storage:
        await refuse_lost_files(monkeypatch, session, storage, options, tmp_path / "work", stage, one)


@on_cluster
async def test_verify_and_migrate_take_one_too(
    session: SparkSession, memory_stores: MemoryStores, tmp_path: Path
) -> None:
    """The driver reads it."""
    store = example_registry()
    url = memory_stores.put("reported-elsewhere", store)
    blobs_from = report_of(memory_stores, url, rows_of(store)[::2])
    found, moved = [], []
    async with memory_stores.open(url) as storage, SparkRunner(session, ClusterOptions()) as runner:
        one = ScanOptions(cache_dir=None, blobs_from=blobs_from)
        for number, scanning in enumerate((one, replace(one, runner=runner))):
            found.append(await verify(storage, VerifyOptions(read=ReadData.parse("all"), scan=scanning)))
            async with DiskStorage(tmp_path / str(number), create=True) as target:
                await migrate(storage, target, MigrateOptions(), scanning=scanning)
                moved.append(await contents(target))
    assert found[1].findings == found[0].findings and found[1].reported is not None
    assert moved[1] == moved[0] != {}
