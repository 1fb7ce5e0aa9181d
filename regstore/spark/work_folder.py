"""The work folder: stages of a run, each a folder of Parquet that is read only once it is whole.

Spark writes each task's rows aside and puts them in place when the task has ended; `_SUCCESS` comes last. An attempt
that is repeated writes aside anew, and nothing that is committed is ever written again: a stage's folder must not be
there before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regstore import layout
from regstore.errors import InputError, RegstoreError
from regstore.spark.session import first_line, is_local, run_tasks
from regstore.spark.tasks.executing import SharedTask
from regstore.spark.tasks.rows import DDL, SCHEMA

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

Task = Callable[[Iterable["pa.RecordBatch"]], Iterator["pa.RecordBatch"]]

MARKER: Final = "regstore-work.json"
_SUCCESS: Final = "_SUCCESS"
#: Of each run: a file by which executors know the folder. Spark passes over such names.
_HERE: Final = "_here"
#: The first commits when the whole job has ended; the second (of some clusters) would leave rows of failed attempts.
_COMMIT: Final = {"mapreduce.fileoutputcommitter.algorithm.version": "1"}
#: What a run left that was killed, after so many seconds.
_ABANDONED: Final = 7 * 24 * 3600
#: Pages have checksums, and what is read decides what is deleted.
_VERIFY: Final = {"parquet.page.verify-checksum.enabled": "true"}


class WorkFolder:
    """Made with `open`. run: names what is this run's alone."""

    def __init__(self, session: SparkSession, url: str, run: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._run = run
        self._files = _Files(session)
        #: What a task that writes must find; none where the folder is the same for all by its nature.
        self._shared: SharedTask | None = None

    @classmethod
    def open(cls, session: SparkSession, url: str, run: str, *, store: str) -> WorkFolder:
        """InputError where it is in a registry, or holds what is not ours, or can't be written."""
        _refuse_registry(url, store)
        folder = cls(session, url, run)
        folder._claim()
        return folder

    def _claim(self) -> None:
        from py4j.protocol import Py4JError

        marker = f"{self._url}/{MARKER}"
        try:
            if self._files.exists(marker):
                self._files.remove_old(f"{self._url}/runs", _ABANDONED)
            elif self._files.names(self._url):
                raise InputError(
                    f"{self._url} is not empty, and no work folder of regstore: name an empty or a new one (--work)"
                )
            else:
                self._files.write(marker, json.dumps({"version": 1}).encode())
            self._mark()
        except Py4JError as error:
            raise InputError(f"Spark can't use {self._url} as a work folder: {first_line(error)}") from error

    def _mark(self) -> None:
        """Folders of one name on several computers: each executor would write to its own, Spark would call the stage
        whole, and what is read of it would lack rows."""
        here = f"{self._url}/runs/{self._run}/{_HERE}"
        path = self._files.local_path(here)
        if path is not None and not is_local(self._session):
            self._files.write(here, b"", again=True)
            self._shared = SharedTask(url=self._url, mark=path)

    def stage(self, name: str, frame: DataFrame, task: Task | None = None) -> DataFrame:
        """Compute rows, or what a task makes of them, and commit these; what is returned reads that only."""
        return self._commit(f"{self._url}/runs/{self._run}/{name}", frame, task)

    def keep(self, kept: str, name: str, frame: DataFrame, task: Task | None = None) -> DataFrame:
        """The same where a later run finds it by `kept`."""
        return self._commit(f"{self._url}/{kept}/{self._run}-{name}", frame, task)

    def kept(self, kept: str) -> DataFrame | None:
        """What earlier runs committed, None where none did; not what one of them was killed over."""
        folders = [f"{self._url}/{kept}/{name}" for name in self._files.names(f"{self._url}/{kept}")]
        whole = [folder for folder in folders if self._files.exists(f"{folder}/{_SUCCESS}")]
        return union(self._session, [self._read(folder) for folder in whole]) if whole else None

    def _commit(self, path: str, frame: DataFrame, task: Task | None) -> DataFrame:
        if self._shared is not None:  # one process of Python does both
            task = replace(self._shared, task=task).__call__
        if task is not None:
            frame = frame.select(*SCHEMA).mapInArrow(task, DDL)
        writer = frame.write.mode("errorifexists").options(**_COMMIT).partitionBy("relation")
        run_tasks(lambda: writer.parquet(path))
        return self._read(path)

    def _read(self, path: str) -> DataFrame:
        return self._session.read.schema(DDL).options(basePath=path, **_VERIFY).parquet(path)

    def close(self) -> None:
        """This run's stages go; what is kept stays."""
        self._files.remove(f"{self._url}/runs/{self._run}")


def refuse_lost(wanted: Collection[object], told: Iterable[object], stage: str) -> None:
    """RegstoreError where of these parts of a stage not each has told that its rows are there: what is not seen of the
    links is garbage to a plan."""
    lost = len(set(wanted) - set(told))
    if lost:
        raise RegstoreError(
            f"of {len(wanted):,} parts of the stage {stage} {lost:,} are not in the work folder (--work): it must be "
            "one place for the driver and all executors, and nothing else may remove files there; then run this again"
        )


def one_each(session: SparkSession, rows: Sequence[Mapping[str, object]]) -> DataFrame:
    """Rows, by their columns, in a partition each: what each names is a task of its own."""
    tuples = [tuple(row.get(name) for name in SCHEMA) for row in rows]
    return session.createDataFrame(session.sparkContext.parallelize(tuples, len(tuples)), DDL)


def union(session: SparkSession, frames: Sequence[DataFrame]) -> DataFrame:
    """Rows of all; none where there is no frame."""
    if not frames:
        return session.createDataFrame([], DDL)
    whole = frames[0]
    for frame in frames[1:]:
        whole = whole.unionByName(frame)
    return whole


def _refuse_registry(url: str, store: str) -> None:
    """store: the URL of the store that is worked on."""

    def inside(url: str, other: str) -> bool:
        return f"{url.rstrip('/')}/".startswith(f"{other.rstrip('/')}/")

    plain = url.replace("s3a://", "s3://").removeprefix("file://")
    if f"/{layout.PREFIX}" in f"{plain.rstrip('/')}/":
        raise InputError(f"the work folder {url} is in a registry; name one elsewhere (--work)")
    beside = [plain]
    if "://" not in plain:
        path = Path(plain)
        if any((parent / "docker" / "registry" / "v2").is_dir() for parent in (path, *path.parents)):
            raise InputError(f"the work folder {url} is in a registry; name one elsewhere (--work)")
        beside.append(str(path.resolve()))
    if any(inside(each, store) for each in beside):
        raise InputError(f"the work folder {url} is in the store {store}; name one elsewhere (--work)")


class _Files:
    """The few files that Spark does not write itself, by Hadoop's file systems."""

    def __init__(self, session: SparkSession) -> None:
        self._jvm: Any = session._jvm
        self._conf: Any = session._jsc.hadoopConfiguration()

    def _at(self, url: str) -> tuple[Any, Any]:
        path = self._jvm.org.apache.hadoop.fs.Path(url)
        return path.getFileSystem(self._conf), path

    def exists(self, url: str) -> bool:
        system, path = self._at(url)
        return bool(system.exists(path))

    def names(self, url: str) -> list[str]:
        system, path = self._at(url)
        if not system.exists(path):
            return []
        return [str(each.getPath().getName()) for each in system.listStatus(path)]

    def local_path(self, url: str) -> str | None:
        """Of a file of a computer's own file system."""
        system, path = self._at(url)
        return str(path.toUri().getPath()) if str(system.getUri().getScheme()) == "file" else None

    def write(self, url: str, content: bytes, *, again: bool = False) -> None:
        """again: also over one that is there."""
        system, path = self._at(url)
        stream = system.create(path, again)
        stream.write(bytearray(content))
        stream.close()

    def remove_old(self, url: str, seconds: int) -> None:
        """Of what is in a folder, what was not changed for so long, where that is known."""
        system, path = self._at(url)
        before = (time.time() - seconds) * 1000
        for each in system.listStatus(path) if system.exists(path) else ():
            if 0 < each.getModificationTime() < before:
                system.delete(each.getPath(), True)

    def remove(self, url: str) -> None:
        system, path = self._at(url)
        system.delete(path, True)
