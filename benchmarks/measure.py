"""What the comparisons share: the endpoint, a command run under measure, and words about machine and results."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of one command."""

    wall: float  # seconds
    cpu: float  # seconds, user and system, of the process and those it waited for
    memory: int  # bytes: of all of them at one time, or the largest resident set of any
    exit_code: int
    stdout: str
    stderr: str
    counters: dict[str, Any] = field(default_factory=dict)  # the endpoint's, for this run alone

    @property
    def operations(self) -> dict[str, int]:
        return dict(self.counters.get("operations", {}))


class Endpoint:
    """`benchmarks.s3_memory` in a process of its own; a context manager."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.s3_memory", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("listening on "):
            self._process.wait()
            raise RuntimeError("the S3 endpoint did not start; its words are above")
        self.url = line.split()[-1]

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, method=method)
        with urllib.request.urlopen(request) as answer:
            return dict(json.load(answer))

    def counters(self) -> dict[str, Any]:
        return self._ask("GET", "/_counters")

    def reset(self) -> dict[str, Any]:
        return self._ask("POST", "/_reset")

    def set_delay(self, milliseconds: float) -> None:
        self._ask("POST", f"/_delay?ms={milliseconds}")

    def empty(self, bucket: str) -> None:
        """Makes a bucket, or takes all out of it."""
        self._ask("POST", f"/_empty?bucket={bucket}")


def environment(**more: str) -> dict[str, str]:
    """This process's environment with credentials for the endpoint, and without settings meant for others."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "REGISTRY_", "RCLONE_"))
    }
    return kept | {
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench-secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        **more,
    }


def run(command: Sequence[str], env: Mapping[str, str], endpoint: Endpoint | None = None) -> Run:
    """Runs a command to its end. Its output goes to files, so that reading it costs the command nothing.

    A child's peak memory is never below that of the process that started it: keep this one small.
    """
    if endpoint is not None:
        before = float(endpoint.reset()["cpu_seconds"])
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, env=dict(env), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
        try:
            with _Together(process.pid) as together:
                _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        output, errors = (stream.read().decode(errors="replace") for stream in (out, err))
    counters = endpoint.counters() if endpoint is not None else {}
    if endpoint is not None:
        counters["cpu_seconds"] -= before
    return Run(
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        memory=max(usage.ru_maxrss * 1_024, together.memory),
        exit_code=process.returncode,
        stdout=output,
        stderr=errors,
        counters=counters,
    )


class _Together:
    """Looks, five times a second, what a process and those that it started hold of memory, what they share divided
    among them (Pss of /proc/PID/smaps_rollup). A process alone is not looked at: the kernel knows its peak."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.memory = 0

    def __enter__(self) -> _Together:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.2):
            everybody = _with_children(self._process)
            if len(everybody) > 1:
                self.memory = max(self.memory, sum(map(_share_of_memory, everybody)))


def _with_children(process: int) -> list[int]:
    found = [process]
    for each in found:
        with suppress(OSError):
            for thread in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def _share_of_memory(process: int) -> int:
    with suppress(OSError):
        match = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
        return int(match[1]) * 1_024 if match else 0
    return 0


def median(runs: Iterable[Run], of: str) -> float:
    return float(statistics.median(getattr(run, of) for run in runs))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def megabytes(value: float) -> str:
    return f"{value / 1e6:.0f} MB"


def version(*command: str) -> str:
    """The version number in what a command says, or that it is not installed."""
    if shutil.which(command[0]) is None:
        return f"{Path(command[0]).name}: not installed"
    with suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(r"v?\d+\.\d+[^\s,]*", done.stdout + done.stderr)
        if found:
            return f"{Path(command[0]).name} {found[0]}"
    return f"{Path(command[0]).name}: version unknown"


def machine(*versions: str) -> str:
    """One line: processor, cores, memory, kernel, Python, and the versions given."""
    model = platform.machine()
    with suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        model = found[1] if found else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    load = os.getloadavg()[0]
    parts = [
        f"{os.cpu_count()} cores ({model})",
        f"{memory:.0f} GB",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        *versions,
        f"load average before: {load:.2f}",
    ]
    return ", ".join(parts)
