"""A real cluster, and what is refused about it and its work folder."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from regstore.errors import InputError, Refused
from regstore.spark import session as session_module
from regstore.spark.options import SparkOptions
from regstore.spark.session import check_executors, open_session
from regstore.spark.tasks.executing import StoreWork, look_at, version
from regstore.spark.tasks.rows import DDL
from regstore.spark.work_folder import WorkFolder
from regstore.storage.opening import open_storage
from regstore.storage.optional import OpensElsewhere
from tests.model.random_registry import example_registry
from tests.servers.spark import WORKERS, SparkCluster

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.long


def test_both_workers_take_part(session: SparkSession, spark_cluster: SparkCluster) -> None:
    import os

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
    opened(tmp_path / "new")
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
    assert not (tmp_path / "store").exists()


def test_what_is_committed_is_never_written_again(session: SparkSession, tmp_path: Path) -> None:
    from regstore.errors import RegstoreError

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


def test_speculation_is_refused() -> None:
    settings = {"spark.speculation": "true"}
    fake: Any = SimpleNamespace(sparkContext=SimpleNamespace(getConf=lambda: settings))
    with pytest.raises(Refused, match="speculation is on"):
        session_module._check(fake)


def test_without_pyspark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'regstore\[spark\]'"), open_session(SparkOptions(work="/w")):
        pass
