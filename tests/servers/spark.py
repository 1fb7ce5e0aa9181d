"""A standalone Spark cluster on loopback: a master and two workers of one core each, processes of their own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.servers.process import Child, ServerError, clean_environment, tail, wait_until

PROGRAM: Final = "java"
WORKERS: Final = 2
#: Short runs: no time for the optimizing compiler, and no threads of collectors on two cores. Hadoop starts `chmod` for
#: each file and folder, here without a helper's start before it.
JAVA_OPTIONS: Final = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xss512k -Djdk.lang.Process.launchMechanism=VFORK"
_LISTENS: Final = re.compile(r"Starting Spark master at (spark://127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class SparkCluster:
    """master: its URL. folder: of its logs, and of what workers write."""

    master: str
    folder: Path
    workers: tuple[Child, ...]

    def executors(self) -> list[int]:
        """Processes of the JVMs in which tasks run."""
        workers = {worker.pid for worker in self.workers}
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                name, _, rest = status.read_text().rpartition(")")
                if int(rest.split()[1]) in workers and name.partition("(")[2] == "java":
                    found.append(int(status.parent.name))
        return sorted(found)

    def pythons(self) -> list[int]:
        """Processes of Python that run tasks, or wait for some."""
        daemons: dict[int, int] = {}
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if b"pyspark.daemon" in (status.parent / "cmdline").read_bytes():
                    daemons[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        executors = set(self.executors())
        return sorted(pid for pid, parent in daemons.items() if daemons.get(parent) in executors)

    def logs(self) -> str:
        """The ends of what the daemons and the executors said."""
        files = [*sorted(self.folder.glob("*.log")), *sorted(self.folder.glob("work-*/app-*/*/stderr"))[-2:]]
        return "\n".join(f"== {file}\n{tail(file)}" for file in files)


def home() -> Path:
    """Of the Spark that came with pyspark."""
    found = find_spec("pyspark")
    if found is None or found.origin is None:
        raise ServerError("pyspark is not installed")
    return Path(found.origin).parent


@contextlib.contextmanager
def spark_cluster(folder: Path) -> Iterator[SparkCluster]:
    """Its processes, and all that they started, are gone at the end."""
    environment = clean_environment(
        folder,
        SPARK_HOME=str(home()),
        SPARK_LOCAL_IP="127.0.0.1",
        SPARK_LOCAL_DIRS=str(folder / "local"),
        SPARK_DAEMON_MEMORY="256m",
        SPARK_DAEMON_JAVA_OPTS=JAVA_OPTIONS,
        PYSPARK_PYTHON=sys.executable,
    )
    program = str(home() / "bin" / "spark-class")
    started: list[Child] = []

    def start(name: str, *command: str) -> Child:
        daemon = f"org.apache.spark.deploy.{command[0]}"
        child = Child([program, daemon, "--host", "127.0.0.1", *command[1:]], folder / f"{name}.log", environment)
        started.append(child)
        return child

    try:
        master = start("master", "master.Master", "--port", "0", "--webui-port", "0")
        wait_until(lambda: bool(_LISTENS.search(_log(master))) or not master.running, "Spark's master", 120)
        found = _LISTENS.search(_log(master))
        if found is None:
            raise ServerError(f"Spark's master ended: {tail(master.log)}")
        workers = tuple(
            start(
                f"worker-{number}",
                *("worker.Worker", "--port", "0", "--webui-port", "0", "--cores", "1", "--memory", "900m"),
                *("--work-dir", str(folder / f"work-{number}"), found[1]),
            )
            for number in range(WORKERS)
        )
        wait_until(lambda: _log(master).count("Registering worker") == WORKERS, "Spark's workers", 120)
        yield SparkCluster(found[1], folder, workers)
    finally:
        for child in reversed(started):
            child.stop()
            with contextlib.suppress(ProcessLookupError):  # executors, and the Pythons that they started
                os.killpg(child.pid, signal.SIGKILL)


def _log(child: Child) -> str:
    return tail(child.log, 1_000_000)
