"""What executors run, without an engine: the rows that tasks give, round by round."""

from __future__ import annotations

import asyncio
import base64
import importlib
import os
import pickle
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from regstore.errors import AccessDenied, NotFound, Outage, Refused, RegstoreError, StorageError
from regstore.events import Event, Notice, ignore
from regstore.layout import BLOBS, REPOSITORIES, BlobKey, encode
from regstore.spark.cluster import _in_spark
from regstore.spark.listing_rounds import digest_ranges
from regstore.spark.options import ClusterOptions
from regstore.spark.runner import SparkRunner
from regstore.spark.session import _stop
from regstore.spark.tasks.executing import StoreWork, TaskFailed, store_work, telling, told_error, version
from regstore.spark.tasks.listing import LISTED, PAGE, REST, ListTask, shard_of
from regstore.spark.tasks.loading import _page
from regstore.spark.tasks.reading import ReadTask
from regstore.spark.tasks.rows import row_batch
from regstore.spark.tasks.running import TaskWork, do_nothing, packed_work, run_packed
from regstore.storage.base import Storage
from regstore.storage.disk import DiskStorage
from regstore.storage.optional import OpensElsewhere
from regstore.tasks.packing import unpack
from regstore.tasks.runner import Context
from regstore.testing.faulty import FaultyStorage
from tests.model.builder import Builder
from tests.model.memory import ModelStorage
from tests.model.random_registry import NOW, example_registry
from tests.model.store import ModelStore
from tests.spark.by_hand import work_on
from tests.spark.conftest import MemoryStores


@pytest.fixture(autouse=True)
def any_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look_at(storage: Storage) -> str:
        return storage.url

    monkeypatch.setattr("regstore.spark.tasks.executing.look_at", look_at)


def many_links() -> ModelStore:
    """Some 4,000 keys below one name, which sorts between others."""
    store = example_registry()
    store.objects |= {
        f"{REPOSITORIES}many/_layers/sha256/{number * 2**240 // 4000:064x}/link": (b"", NOW)
        for number in range(4000)
    }
    return store


@pytest.mark.parametrize("pages", [2, 1000])
def test_a_listing_in_rounds_has_every_key_once(pages: int) -> None:
    """Whatever is handed back, and wherever it is cut: a link that is missed is an image that is lost."""
    storage = ModelStorage(many_links(), now=NOW, page=13)
    listed: list[str] = []
    left, rounds = [("", "")], 0
    while left:
        task = ListTask(store=work_on(storage), prefix=REPOSITORIES, pages=pages, shards=5)
        rows = list(task([row_batch(REST, {"text": [one for one, _ in left], "why": [end for _, end in left]})]))
        asked, left, told = left, [], []
        for batch in rows:
            for row in batch.to_pylist():
                if row["relation"] == REST:
                    left.append((row["text"], row["why"]))
                elif row["relation"] == LISTED:
                    told.append((row["text"], row["why"]))
                else:
                    assert row["relation"] == PAGE
                    keys = _page(row["rows"]).keys
                    assert {shard_of(key, 5) for key in keys} == {row["shard"]}
                    listed += keys
        assert told == asked
        rounds += 1
        assert rounds < 1000
    assert sorted(listed) == [key for key in storage.store if key.startswith(REPOSITORIES)]
    assert (rounds > 1) == (pages < 1000)


@pytest.mark.parametrize("ranges", [1, 2, 7])
def test_ranges_of_digests_have_every_blob_once(ranges: int) -> None:
    store = example_registry()
    storage = ModelStorage(store, now=NOW)
    task = ListTask(store=work_on(storage), prefix=BLOBS, pages=8, shards=0)
    begun = digest_ranges(ranges)
    assert len(begun) == ranges
    rows = task([row_batch(REST, {"text": [one for one, _ in begun], "why": [end for _, end in begun]})])
    found = sorted(raw for batch in rows for raw in batch.column("digest").to_pylist() if raw is not None)
    keys = [key for key in store if key.startswith(BLOBS) and key.endswith("/data")]
    assert found == sorted(bytes.fromhex(key.split("/")[-2]) for key in keys)


def test_a_rate_is_kept(memory_stores: MemoryStores) -> None:
    """Whatever is asked for: each request has its turn."""
    url = memory_stores.put("rate", example_registry())
    storage = memory_stores.open(url)
    assert isinstance(storage, OpensElsewhere)
    work = StoreWork(address=storage.address(), url=url, place=url, version=version(), concurrency=4, rate=50)

    async def ask(storage: Storage) -> None:
        asking = [storage.stat("no/such/key"), storage.delete_many(["nor/this"])]
        asking += [storage.get("no/such/key") for _ in range(8)]
        await asyncio.gather(*asking, return_exceptions=True)

    begun = time.monotonic()
    work.run(ask)
    assert time.monotonic() - begun >= 9 / 50


def test_a_store_that_lacks_the_mark_is_another_one(tmp_path: Path) -> None:
    """Whatever it looks like: two computers may have two folders of one name, and what is written to the wrong one
    would count as written."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "probe").touch()

    async def work(name: str) -> StoreWork:
        return await store_work(DiskStorage(tmp_path / name), concurrency=1, mark="probe")

    for name, refused in (("one", False), ("other", True)):
        task = TaskWork(task=put_one, work="key", stores=(asyncio.run(work(name)),), concurrency=1)
        answer = pickle.loads(run_packed(packed_work(task), attempt=0))
        assert (tmp_path / name / "key").exists() is not refused
        if refused:
            assert isinstance(unpack(answer.error), Refused)
            assert "not the same store for all executors" in str(unpack(answer.error))


async def test_no_mark_stays_whose_answer_was_lost() -> None:
    """It may have been written all the same."""
    store = ModelStore()
    storage = FaultyStorage(ModelStorage(store, now=NOW), fail_at=1, when="after")
    session = MagicMock()
    session.sparkContext.defaultParallelism = 2
    session._jsc.sc().getExecutorMemoryStatus().size.return_value = 3
    async with SparkRunner(session, ClusterOptions()) as runner:
        with pytest.raises(StorageError, match="fault after mutation 1"):
            await runner.marked(storage).__aenter__()
    assert [mutation.operation for mutation in storage.mutations] == ["put", "delete"]
    assert not store.objects


async def test_what_is_cancelled_between_two_jobs_begins_no_other() -> None:
    """Nor does it go on unseen where it is cancelled twice, as by an impatient ^C."""
    cancels, done = threading.Semaphore(0), threading.Event()
    session: Any = SimpleNamespace(sparkContext=SimpleNamespace(cancelAllJobs=cancels.release))

    def two_jobs() -> None:
        assert cancels.acquire(timeout=5)  # told when the first has ended, and the next has not begun
        if cancels.acquire(timeout=5):
            time.sleep(0.2)
            done.set()
            raise RegstoreError("the job was cancelled")

    running = asyncio.create_task(_in_spark(session, two_jobs, ignore))
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert done.is_set()


@pytest.mark.parametrize(
    ("master", "there", "is_told"), [("spark://a", 0, 1), ("spark://a", 2, 0), ("local[2]", 0, 0)]
)
async def test_who_waits_for_executors_is_told(
    monkeypatch: pytest.MonkeyPatch, master: str, there: int, is_told: bool
) -> None:
    """A run that the cluster has no room for waits for ever, and may hold the store's lock."""
    monkeypatch.setattr("regstore.spark.session._ALONE", 0.01)
    session, go_on, said = MagicMock(), threading.Event(), list[Event]()
    session.sparkContext.master = master
    looked = threading.Semaphore(0)

    def size() -> int:
        looked.release()
        return there + 1

    session._jsc.sc().getExecutorMemoryStatus().size.side_effect = size
    running = asyncio.create_task(_in_spark(session, lambda: go_on.wait(30), said.append))
    await asyncio.to_thread(looked.acquire, timeout=0.2 if master == "local[2]" else 30)
    await asyncio.sleep(0.05)
    go_on.set()
    assert await running is True
    assert bool(said) == is_told
    assert all(isinstance(event, Notice) and "has no executor" in event.message for event in said)


async def test_spark_that_has_ended_is_told_so() -> None:
    """It is no mistake of regstore, which would ask for a report."""
    py4j = pytest.importorskip("py4j.protocol")
    session = MagicMock()
    session.sparkContext.defaultParallelism = 2
    session._jsc.sc().getExecutorMemoryStatus().size.return_value = 3
    async with SparkRunner(session, ClusterOptions()) as runner:
        for kind in (ConnectionRefusedError, py4j.Py4JNetworkError, py4j.Py4JError):
            session.sparkContext.setJobGroup.side_effect = session.stop.side_effect = kind("refused")
            with pytest.raises(RegstoreError, match=r"has ended or does not answer \(refused\)"):
                await runner.run(do_nothing, None, DiskStorage(Path("/")))
            _stop(session)


def test_a_task_for_another_version_is_not_even_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = packed_work(TaskWork(task=put_one, work="key", stores=(), concurrency=1))
    monkeypatch.delattr(f"{put_one.__module__}.put_one")
    monkeypatch.setattr("regstore.spark.tasks.running.version", lambda: "regstore 9 on Python 3.99")
    answer = pickle.loads(run_packed(packed, attempt=0))
    assert isinstance(unpack(answer.error), Refused)
    assert "and an executor regstore 9 on Python 3.99" in str(unpack(answer.error))


async def put_one(context: Context, work: str) -> None:
    await context.store.put(work, b"")


def test_manifests_that_are_not_given() -> None:
    """One is damage; all of many, with the others, an outage."""
    b = Builder(NOW)
    config = b.blob(b"{}")
    digests = [b.image(config, [b.blob(b"layer %d" % number)]) for number in range(30)]
    storage = ModelStorage(b.store, now=NOW)
    keys = [encode(BlobKey(digest)) for digest in digests]
    sample = (encode(BlobKey(config)), *keys)
    asked = [row_batch("wanted", {"digest": [digest.raw for digest in digests], "size": [None] * len(digests)})]
    storage.unreadable[keys[0]] = AccessDenied("not this one")
    rows = [row for batch in ReadTask(store=work_on(storage), sample=sample)(asked) for row in batch.to_pylist()]
    states = [row["text"] for row in rows if row["relation"] == "manifest"]
    assert (states.count("ok"), states.count("unreadable")) == (29, 1)
    assert sum(row["relation"] == "edge" for row in rows) == 58
    storage.unreadable |= {key: AccessDenied("none") for key in sample}
    with pytest.raises(TaskFailed) as failed:
        list(ReadTask(store=work_on(storage), sample=sample)(asked))
    assert isinstance(told_error(f"Job aborted: {failed.value} at line 5"), Outage)


def test_what_a_server_says_is_never_run(tmp_path: Path) -> None:
    """A text that looks like an error of ours: words of a server, or a key."""

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "owned",)

    evil = base64.b64encode(pickle.dumps(Evil())).decode()

    def fail() -> Iterator[None]:
        yield
        raise Outage(f"the server says [regstore-error:{evil}]")

    with pytest.raises(TaskFailed) as failed:
        list(telling(fail))
    assert isinstance(told_error(str(failed.value)), Outage)
    assert not list(tmp_path.iterdir())


def test_an_error_comes_through_the_engine_as_it_was() -> None:
    def fail() -> Iterator[None]:
        yield
        raise NotFound("a/key", "s3://bucket")

    with pytest.raises(TaskFailed) as failed:
        list(telling(fail))
    told = told_error(str(failed.value))
    assert isinstance(told, NotFound)
    assert str(told) == str(NotFound("a/key", "s3://bucket"))
    assert told_error("something else") is None


def test_archives_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that this process began with; they can be imported from as before."""
    archives = [tmp_path / name for name in ("given.zip", "added.zip")]
    for archive in archives:
        with zipfile.ZipFile(archive, "w") as file:
            for module in ("one", "other"):
                file.writestr(f"{archive.stem}_{module}/__init__.py", "")
                file.writestr(f"{archive.stem}_{module}/inner.py", "value = 7")
        monkeypatch.syspath_prepend(archive)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(archives[0])]))
    importlib.import_module("given_one.inner")
    importlib.import_module("added_one.inner")

    def known(archive: Path) -> set[str]:
        return {place for place in sys.path_importer_cache if place.startswith(str(archive))}

    assert len(known(archives[0])) == len(known(archives[1])) == 2
    assert list(telling(lambda: iter("ab"))) == ["a", "b"]
    assert not known(archives[0])
    assert len(known(archives[1])) == 2
    assert importlib.import_module("given_other.inner").value == 7
