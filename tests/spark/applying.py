"""Runs that a cluster applies, and what must hold of them."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import unescape

import pytest

from benchmarks.s3_objects import Object, md5
from regstore.digest import Digest
from regstore.errors import RegstoreError
from regstore.events import OnEvent, ignore
from regstore.gc.plan import GcOptions
from regstore.gc.report import GcReport
from regstore.gc.run import open_run
from regstore.gc.run_options import GcRunOptions
from regstore.inventory.scan import ScanOptions
from regstore.layout import COUNTS, blob_key
from regstore.spark.options import SparkOptions
from regstore.spark.run import SparkRun, open_spark_run
from regstore.spark.work_folder import WorkFolder
from regstore.state import RUNS
from regstore.state.lock import hold_lock
from regstore.storage.base import Storage
from tests.gc.scenes import REGISTRY, trash
from tests.model.random_registry import DAY, NOW
from tests.model.store import ModelStore
from tests.spark.comparing import GRACE, same_plan
from tests.spark.conftest import SECOND, MemoryStores

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_KEY = re.compile("<Key>([^<]*)</Key>")


def run_options(plan: GcOptions, *, offline: bool, **more: Any) -> GcRunOptions:
    """For registries as of NOW."""
    ago = time.time_ns() // 1000 - NOW
    return GcRunOptions(
        plan=replace(plan, grace=ago + GRACE, uploads_older_than=ago + 3 * DAY),
        scan=ScanOptions(cache_dir=None),
        offline=offline,
        settle=0,
        max_delete=1.0,
        allow_empty=True,
        untagged_repositories=True,
        unlinked_blobs=True,
        unmatched=True,
        copied_times=True,
        **more,
    )


async def collect(storage: Storage, options: GcRunOptions) -> GcReport:
    """By one process."""
    async with hold_lock(storage, command="gc") as lock, open_run(storage, options, lock) as run:
        return await run.apply()


async def collect_by_spark(
    session: SparkSession,
    storage: Storage,
    options: GcRunOptions,
    work: Path,
    *,
    shards: int = 2,
    on_event: OnEvent = ignore,
    look: Callable[[SparkRun], None] = lambda run: None,
    compared: bool = False,
) -> GcReport:
    """look: at the run, when it has ended, and its stages are there yet. compared: its plan is, before."""
    spark = SparkOptions(work=f"file://{work}", shards=shards)
    async with (
        hold_lock(storage, command="gc") as lock,
        open_spark_run(session, storage, options, spark, lock, on_event=on_event) as run,
    ):
        if compared:
            async with open_run(storage, options) as one:
                same_plan(run, one)
        report = await run.apply()
        look(run)
        return report


async def refuse_lost_files(
    monkeypatch: pytest.MonkeyPatch,
    session: SparkSession,
    storage: Storage,
    options: GcRunOptions,
    work: Path,
    stage: str,
    files: Callable[[Path], Iterable[Path]],
) -> None:
    """A run is refused that has lost files of a stage before they are read. files: of the stage's folder."""
    read = WorkFolder._read

    def lose(folder: WorkFolder, path: str) -> DataFrame:
        if path.endswith(f"/{stage}"):
            for file in files(Path(path.removeprefix("file://"))):
                file.unlink()
        return read(folder, path)

    monkeypatch.setattr(WorkFolder, "_read", lose)
    with pytest.raises(RegstoreError, match=r"work folder \(--work\)"):
        async with open_spark_run(session, storage, options, SparkOptions(work=f"file://{work}", shards=2)):
            pass


def plain(report: GcReport) -> GcReport:
    """Without what differs from run to run."""
    return replace(report, run="", seconds=0.0, not_freed=replace(report.not_freed, parts=()))


@dataclass
class Bucket:
    """A store in this process's memory, from behind."""

    stores: MemoryStores
    url: str

    @property
    def objects(self) -> dict[str, Any]:
        found: dict[str, Any] = self.stores.server.endpoint.buckets[self.url.removeprefix("s3://")].objects
        return found

    def store(self) -> ModelStore:
        return ModelStore({key: (one.body, 0) for key, one in self.objects.items()})

    def registry(self) -> dict[str, bytes]:
        return {key: one.body for key, one in self.objects.items() if key.startswith(REGISTRY)}

    def trash(self) -> dict[str, bytes]:
        return trash(self.store())

    def put(self, key: str, body: bytes, mtime: int | None = None) -> None:
        """mtime: in microseconds; None for now."""
        bucket = self.stores.server.endpoint.buckets[self.url.removeprefix("s3://")]
        at = int(time.time()) if mtime is None else mtime // SECOND
        bucket.put(key, Object(body, len(body), md5(body), at))

    def remove(self, prefix: str) -> None:
        bucket = self.stores.server.endpoint.buckets[self.url.removeprefix("s3://")]
        for key in [key for key in bucket.objects if key.startswith(prefix)]:
            bucket.delete(key)

    def json(self, name: str, run: str = "") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.objects[f"{RUNS}{run}/{name}" if run else COUNTS].body)
        return found

    def journaled(self, run: str) -> set[str]:
        """Keys that its journal, or any, names by now."""
        found: set[str] = set()
        for key, one in list(self.objects.items()):
            if key.startswith(f"{RUNS}{run}") and key.endswith(".jsonl.gz") and "/seen-" not in key:
                found |= {json.loads(line)["key"] for line in gzip.decompress(one.body).splitlines()}
        return found


@dataclass
class Watch:
    """Every delete in a bucket: journaled before, and of what. on_delete: gets the keys of each request that was
    answered, before the answer goes out."""

    bucket: Bucket
    on_delete: Callable[[set[str]], None] = lambda keys: None
    deleted: Counter[str] = field(default_factory=Counter)
    unjournaled: set[str] = field(default_factory=set)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        endpoint = self.bucket.stores.server.endpoint
        serve, name = endpoint.serve, self.bucket.url.removeprefix("s3://")

        def watching(method: str, target: str, headers: Any, body: bytes, *more: Any) -> Any:
            path, _, query = target.partition("?")
            if method != "POST" or "delete" not in query.split("&") or not path.startswith(f"/{name}"):
                return serve(method, target, headers, body, *more)
            keys = {unescape(key) for key in _KEY.findall(bytes(body).decode()) if key.startswith(REGISTRY)}
            standing = {key for key in keys if key in self.bucket.objects}
            if keys:
                self.unjournaled |= keys - self.bucket.journaled("")
            answer = serve(method, target, headers, body, *more)
            self.deleted.update(standing)
            self.on_delete(keys)
            return answer

        monkeypatch.setattr(endpoint, "serve", watching)


def fates_of(run: SparkRun) -> dict[str, list[str]]:
    """The last fate of each key and each blob, with those that came before it."""
    assert run.hands is not None
    found: dict[str, list[str]] = {}
    for frame in run.hands.fates:
        for row in frame.collect():
            key = row.text if row.digest is None else blob_key(Digest.from_raw(bytes(row.digest)))
            found.setdefault(key, []).append(row.why if row.digest is None else row.text)
    return found
