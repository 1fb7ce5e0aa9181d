"""A cluster for all tests of Spark, one session on it, and an S3 endpoint that driver and executors reach."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.s3_memory import Server
from benchmarks.s3_objects import Object, md5
from regstore.spark.options import SparkOptions
from regstore.spark.session import open_session
from regstore.storage.base import Storage
from regstore.storage.opening import OpenOptions, open_storage
from tests.cli.conftest import run  # noqa: F401 - a fixture of these tests, too
from tests.model.random_registry import example_registry
from tests.model.store import ModelStore
from tests.servers.memory_s3 import memory_s3
from tests.servers.s3 import S3Server
from tests.servers.spark import JAVA_OPTIONS, SparkCluster
from tests.servers.spark import spark_cluster as start_cluster

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SECOND = 1_000_000
_CLUSTER: pytest.StashKey[SparkCluster] = pytest.StashKey()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spark asks distutils for versions, and leaves its sockets to the end of the process."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore:.*distutils.*:DeprecationWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::ResourceWarning"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the cluster said goes with a failure."""
    report = yield
    cluster = item.config.stash.get(_CLUSTER, None)
    if report.failed and cluster is not None:
        report.sections.append(("Spark", cluster.logs()))
    return report


@pytest.fixture(scope="session")
def spark_cluster(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[SparkCluster]:
    if find_spec("pyspark") is None:
        message = "needs pyspark: pip install -e '.[test]'"
        if os.environ.get("CI"):
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    with start_cluster(tmp_path_factory.mktemp("spark")) as cluster:
        request.config.stash[_CLUSTER] = cluster
        yield cluster


@pytest.fixture(scope="session")
def session(spark_cluster: SparkCluster) -> Iterator[SparkSession]:
    """The driver is this process, and its JVM."""
    conf = spark_cluster.folder / "conf"
    conf.mkdir()
    told = {
        "spark.driver.memory": "700m",
        "spark.executor.memory": "700m",
        "spark.driver.extraJavaOptions": JAVA_OPTIONS,
        "spark.executor.extraJavaOptions": f"{JAVA_OPTIONS} -Dlog4j2.configurationFile={conf}/log4j2.properties",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        # No second file of checksums beside each: Parquet has its own.
        "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
        "spark.sql.files.ignoreCorruptFiles": "true",  # as some clusters have it, and no plan may
        "spark.sql.files.ignoreMissingFiles": "true",
        "spark.local.dir": str(spark_cluster.folder / "local"),
        "spark.sql.warehouse.dir": str(spark_cluster.folder / "warehouse"),
        "spark.executorEnv.HOME": str(spark_cluster.folder),
    }
    (conf / "spark-defaults.conf").write_text("".join(f"{name} {value}\n" for name, value in told.items()))
    (conf / "log4j2.properties").write_text(
        "rootLogger.level = error\nrootLogger.appenderRef.stderr.ref = stderr\n"
        "appender.stderr.type = Console\nappender.stderr.name = stderr\nappender.stderr.target = SYSTEM_ERR\n"
        "appender.stderr.layout.type = PatternLayout\nappender.stderr.layout.pattern = %p %c{1}: %m%n\n"
    )
    with (
        _environment(SPARK_CONF_DIR=str(conf), SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable),
        open_session(SparkOptions(master=spark_cluster.master, work="file:///not/used", shards=3)) as session,
    ):
        yield session


@contextmanager
def _environment(**more: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in more.items():
            patch.setenv(name, value)
        yield


@dataclass(frozen=True)
class MemoryStores:
    """Buckets in this process's memory, with any keys and times."""

    server: Server
    s3: S3Server

    def put(self, name: str, store: ModelStore) -> str:
        """A bucket's URL."""
        self.s3.client().create_bucket(Bucket=name)
        objects = (
            (key, Object(body, len(body), md5(body), mtime // SECOND))
            for key, (body, mtime) in store.objects.items()
        )
        self.server.endpoint.buckets[name].load(objects)
        return f"s3://{name}"

    def open(self, url: str) -> Storage:
        return open_storage(
            url,
            OpenOptions(
                endpoint_url=self.s3.endpoint_url, access_key="any", secret_key="thing", region="us-east-1"
            ),
        )


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A folder that all executors reach: they are on this machine."""
    example_registry().on_disk().write_folder(tmp_path / "registry")
    return tmp_path / "registry"


@pytest.fixture(scope="session")
def memory_stores() -> Iterator[MemoryStores]:
    server = Server()
    with memory_s3(server) as s3:
        yield MemoryStores(server, s3)
