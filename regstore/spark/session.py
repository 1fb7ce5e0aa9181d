"""Spark's session: opened, or that of spark-submit; and what is refused about it and its executors."""

from __future__ import annotations

import asyncio
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from regstore.concurrency import in_thread
from regstore.errors import InputError, Refused, RegstoreError
from regstore.events import Notice, OnEvent
from regstore.spark.options import ClusterOptions
from regstore.spark.tasks.executing import StoreWork, told_error, version
from regstore.spark.tasks.running import Answer, TaskWork, do_nothing, packed_work, run_packed
from regstore.tasks.packing import unpack

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = TypeVar("T")

#: What a session that is opened here is told, where nothing else says so.
_DEFAULTS: Final = {
    "spark.app.name": "regstore",
    "spark.ui.showConsoleProgress": "false",
}
#: What must be so, whoever opened it. Rows that travel whole are up to some 200 KB each. A file of a stage that is lost
#: or damaged is an error: without its rows, what is in use looks like garbage.
_NEEDED: Final = {
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "1000",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
}
_NO_REGSTORE: Final = "No module named 'regstore"
#: Tasks of the first look at the executors, for each core.
_LOOKS: Final = 3
#: Seconds in which no executor more has come, and all are there; and in which they may come at all.
_QUIET: Final = 1.0
_COMING: Final = 15.0
#: Seconds after which it is looked whether any executor is there for what runs.
_ALONE: Final = 60.0
_NO_EXECUTOR: Final = (
    "the cluster has no executor for this run, which waits for one: look at the cluster whether cores and memory are "
    "free, or whether executors fail as they start"
)
#: Seconds after which jobs that are to end are told so again: they may not have begun.
_TELL_AGAIN: Final = 0.5


@contextmanager
def open_session(options: ClusterOptions) -> Iterator[SparkSession]:
    """The one that runs already, as in a notebook, is left running. InputError without pyspark, or where none can be
    started; Refused where it would run a task twice at a time."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Spark 3.5 asks distutils for versions
            import pandas  # noqa: F401 - mapInArrow wants it, though it makes no use of it
            import pyarrow  # noqa: F401
            from pyspark import SparkContext
            from pyspark.sql import SparkSession
            from pyspark.sql.pandas.utils import require_minimum_pandas_version

            require_minimum_pandas_version()
    except ImportError as error:
        raise InputError(
            f"--engine spark needs what is not installed here ({error}): pip install 'regstore[spark]'"
        ) from error
    is_running = SparkContext._active_spark_context is not None
    session = _start(SparkSession, options)
    try:
        _check(session)
        for name, value in _NEEDED.items():
            session.conf.set(name, value)
        if not is_running:
            _wait_for_executors(session)
        yield session
    finally:
        if not is_running:
            _stop(session)


def _start(kind: type[SparkSession], options: ClusterOptions) -> SparkSession:
    from py4j.protocol import Py4JError

    builder = kind.builder
    for name, value in _DEFAULTS.items():
        builder = builder.config(name, value)
    if options.master:
        builder = builder.master(options.master)
    try:
        session = builder.getOrCreate()
    except (Py4JError, RuntimeError, OSError) as error:
        raise InputError(
            f"Spark does not start with the master {options.master or 'of its configuration'}: {first_line(error)}"
        ) from error
    session.sparkContext.setLogLevel("ERROR")
    return session


def _stop(session: SparkSession) -> None:
    from py4j.protocol import Py4JError

    with suppress(Py4JError, OSError), warnings.catch_warnings():  # it may have ended by itself
        warnings.simplefilter("ignore", RuntimeWarning)
        session.stop()


def _wait_for_executors(session: SparkSession) -> None:
    """A cluster gives them one after the other, and what is cut into parts is cut by how many cores there are. Where
    they come as jobs are waiting (dynamic allocation), nobody knows how many there will be."""
    if is_local(session) or _is_on(session, "spark.dynamicAllocation.enabled"):
        return
    end = time.monotonic() + _COMING
    known, since = executors(session), time.monotonic()
    while (now := time.monotonic()) < end and not (known and now >= since + _QUIET):
        if (there := executors(session)) != known:
            known, since = there, now
        time.sleep(_QUIET / 5)


def executors(session: SparkSession) -> int:
    """That there are now, beside the driver."""
    known: int = session._jsc.sc().getExecutorMemoryStatus().size()
    return known - 1


def is_local(session: SparkSession) -> bool:
    """Whether tasks run in the driver: there is no cluster."""
    return (session.sparkContext.master or "").startswith("local")


def _is_alone(session: SparkSession) -> bool:
    """Whether no executor is there, of a cluster; False where Spark does not tell."""
    from py4j.protocol import Py4JError

    try:
        return not is_local(session) and not executors(session)
    except (Py4JError, OSError):  # it has ended, which its jobs say
        return False


def _is_on(session: SparkSession, setting: str) -> bool:
    return session.sparkContext.getConf().get(setting, "false").strip().lower() == "true"


def _check(session: SparkSession) -> None:
    if _is_on(session, "spark.speculation"):
        raise Refused(
            "Spark's speculation is on (spark.speculation): it runs a task twice at a time, and both would change the "
            "store; turn it off"
        )


def check_executors(session: SparkSession, store: StoreWork, tasks: int = 0) -> None:
    """Refused where any has another version, or sees another store; each task looks again. tasks: that run at the same
    time; 0 for as many as there are cores."""
    looks = _LOOKS * max(2, tasks or session.sparkContext.defaultParallelism)
    packed = packed_work(TaskWork(task=do_nothing, work=None, stores=(store,), concurrency=1))
    for answer in ask(session, [packed] * looks):
        if answer.error is not None:
            raise unpack(answer.error)


def ask(session: SparkSession, packed: Sequence[bytes]) -> list[Answer]:
    """What came of each task (`packed_work`), in one job."""
    context = session.sparkContext
    answers = run_tasks(lambda: context.parallelize(packed, len(packed)).map(_answer).collect())
    return [pickle.loads(answer) for answer in answers]


def _answer(packed: bytes) -> bytes:
    """In an executor."""
    from pyspark import TaskContext

    context = TaskContext.get()
    return run_packed(packed, attempt=0 if context is None else context.attemptNumber())


def run_tasks(job: Callable[[], T]) -> T:
    """The result of a job of Spark's. An error of a task comes out as it was raised there."""
    from py4j.protocol import Py4JError, Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        return job()
    except (PySparkException, Py4JJavaError) as error:
        told = told_error(str(error))
        if told is not None:
            raise told from None
        if _NO_REGSTORE in str(error):
            raise Refused(
                f"an executor has no regstore: each needs {version()} (PYSPARK_PYTHON says which Python they start, "
                "and --archives of spark-submit can bring one along)"
            ) from error
        raise RegstoreError(f"Spark failed: {first_line(error)}") from error
    except (Py4JError, OSError) as error:
        raise gone(error) from error


def gone(error: Exception) -> RegstoreError:
    """What is said where the driver's side of Spark can't be asked any more."""
    return RegstoreError(
        f"Spark's driver, a Java process of this computer, has ended or does not answer ({first_line(error)}): what it "
        "said may tell why (want of memory ends it, too); then run this again"
    )


async def result_of(
    session: SparkSession, running: asyncio.Future[T], cancel: Callable[[], object], on_event: OnEvent
) -> T:
    """Of what runs in Spark. Where no executor is there for it, that is said: Spark itself waits for ever, and its own
    words are no errors, which it was asked to be silent of. Cancelled, this returns when what runs has ended, by
    `cancel` or otherwise, however often it is cancelled once more."""
    try:
        while not (await asyncio.wait([running], timeout=_ALONE))[0]:
            if await in_thread(_is_alone, session):
                on_event(Notice(message=_NO_EXECUTOR))
        return running.result()
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError, Exception):
                await in_thread(cancel)
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running], timeout=_TELL_AGAIN)
        if not running.cancelled():
            running.exception()  # seen
        raise


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by:")]
    return (causes or lines or [type(error).__name__])[-1 if causes else 0]
