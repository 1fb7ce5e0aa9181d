"""Copying a registry's tree: `regstore migrate` against s5cmd, rclone and aws-cli, to the same server.

    python -m benchmarks.migrate [--trees small,large] [--ways upload,again,copy] [--delays 0,20] [--repeat 3]
                                 [--tools regstore,s5cmd,rclone,aws] [--s5cmd PATH] [--rclone PATH] [--aws PATH]

Trees: `small`, a registry of about 10,000 keys of at most 8 kB; `large`, 3 GB in 40 layers. Ways: `upload` from a
folder to an empty bucket; `again`, the same command with nothing left to do; `copy` from bucket to bucket on the
server. A tool that is not installed is left out, and so is regstore as long as it has no `migrate`.

The tools take turns; wall time, processor time, peak memory and requests are of one command, medians in a Markdown
table. After each run the number of keys that arrived is held against the tree's. With the large tree the endpoint
throws the bodies of an upload away as they come (`--sink`), or it would spend more on them than the tools do.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.generate import Shape, generate, write_large, write_tree
from benchmarks.measure import (
    ROOT,
    Endpoint,
    Run,
    environment,
    machine,
    median,
    megabytes,
    run,
    seconds,
    table,
    version,
)

#: Requests at once that the peers are told to make. s5cmd's own is 256; aws-cli's default is 10, rclone's 4.
CONCURRENCY = 128
_AWS_CONFIG = f"[default]\ns3 =\n  max_concurrent_requests = {CONCURRENCY}\n  addressing_style = path\n"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a command is to do: copy everything from the one place to the other."""

    url: str  # of the endpoint
    folder: Path | None  # the source, or None: the bucket `source`
    way: str


@dataclass(frozen=True, kw_only=True)
class Tool:
    name: str
    program: str
    command: Callable[[str, Job], list[str]]
    version: tuple[str, ...] = ("--version",)


def _s5cmd(program: str, job: Job) -> list[str]:
    # `cp` does not look at what is there; `sync` does, and is the one to run again.
    verb = "sync" if job.way == "again" else "cp"
    source = f"{job.folder}/" if job.folder else "s3://source/*"
    return [program, "--endpoint-url", job.url, "--log", "error", verb, source, "s3://bench/"]


def _rclone(program: str, job: Job) -> list[str]:
    many = ["--transfers", str(CONCURRENCY), "--checkers", str(CONCURRENCY), "--fast-list", "--s3-no-check-bucket"]
    return [program, "copy", *many, str(job.folder) if job.folder else "bench:source", "bench:bench"]


def _aws(program: str, job: Job) -> list[str]:
    source = str(job.folder) if job.folder else "s3://source"
    return [program, "--endpoint-url", job.url, "s3", "sync", "--only-show-errors", source, "s3://bench"]


def _regstore(program: str, job: Job) -> list[str]:
    source = str(job.folder) if job.folder else "s3://source"
    return [program, "-m", "regstore", "migrate", source, "s3://bench", "--endpoint-url", job.url, "--all", "--yes"]


def tools(arguments: argparse.Namespace) -> list[Tool]:
    known = [
        Tool(name="regstore", program=sys.executable, command=_regstore),
        Tool(name="s5cmd", program=arguments.s5cmd, command=_s5cmd, version=("version",)),
        Tool(name="rclone", program=arguments.rclone, command=_rclone, version=("version",)),
        Tool(name="aws", program=arguments.aws, command=_aws),
    ]
    chosen = []
    for tool in known:
        if tool.name not in arguments.tools.split(","):
            continue
        if tool.name == "regstore":
            asked = [sys.executable, "-m", "regstore", "migrate", "--help"]
            missing = subprocess.run(asked, cwd=ROOT, capture_output=True, check=False).returncode != 0
        else:
            missing = shutil.which(tool.program) is None
        if missing:
            print(f"{tool.name}: not there, left out", file=sys.stderr)
        else:
            chosen.append(tool)
    return chosen


@dataclass
class Row:
    tool: str
    tree: str
    way: str
    delay: float
    objects: int
    size: int
    runs: list[Run] = field(default_factory=list)
    failure: str = ""

    def cells(self) -> list[str]:
        first = [f"{self.tool}, {self.tree}, {self.way}", f"{self.delay:g} ms"]
        if self.failure or not self.runs:
            return [*first, self.failure or "not run", *[""] * 5]
        wall, cpu = median(self.runs, "wall"), median(self.runs, "cpu")
        rate = f"{self.size / 1e6 / wall:,.0f} MB/s" if self.tree == "large" else f"{self.objects / wall:,.0f}/s"
        return [
            *first,
            seconds(wall),
            seconds(cpu),
            megabytes(median(self.runs, "memory")),
            f"{self.runs[-1].counters['requests']:,}",
            rate,
            f"{self.objects / cpu:,.0f}",
        ]


def tool_environment(endpoint: Endpoint, folder: Path) -> dict[str, str]:
    config = folder / "aws-config"
    config.write_text(_AWS_CONFIG)
    return environment(
        HOME=str(folder),
        XDG_CACHE_HOME=str(folder / "cache"),
        AWS_CONFIG_FILE=str(config),
        RCLONE_CONFIG=os.devnull,
        RCLONE_CONFIG_BENCH_TYPE="s3",
        RCLONE_CONFIG_BENCH_PROVIDER="Other",
        RCLONE_CONFIG_BENCH_ENV_AUTH="true",
        RCLONE_CONFIG_BENCH_ENDPOINT=endpoint.url,
        RCLONE_CONFIG_BENCH_REGION="us-east-1",
        RCLONE_CONFIG_BENCH_FORCE_PATH_STYLE="true",
    )


def measure(endpoint: Endpoint, tool: Tool, row: Row, tree: Path) -> None:
    """One run. What comes before it (a first upload, for `again`) is not measured, and not held back either."""
    folder = None if row.way == "copy" else tree
    job = Job(url=endpoint.url, folder=folder, way=row.way)
    endpoint.empty("bench")
    with tempfile.TemporaryDirectory() as home:
        env = tool_environment(endpoint, Path(home))
        if row.way == "again":
            endpoint.set_delay(0)
            run(tool.command(tool.program, Job(url=endpoint.url, folder=folder, way="upload")), env)
        endpoint.set_delay(row.delay)
        done = run(tool.command(tool.program, job), env, endpoint)
    arrived = done.counters["keys"]["bench"]
    if done.exit_code or arrived < row.objects:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        row.failure = f"exit code {done.exit_code}, {arrived:,} of {row.objects:,} keys"
        print(f"{row.tool}: {row.failure}: {words[-1] if words else 'no output'}", file=sys.stderr)
    else:
        row.runs.append(done)


def write(tree: str, folder: Path) -> None:
    if tree == "small":
        write_tree(generate(Shape(keys=10_000, copyable=True)), folder)
    else:
        write_large(folder)


def compare(tree: str, folder: Path, chosen: list[Tool], arguments: argparse.Namespace) -> list[Row]:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    rows: list[Row] = []
    for way in arguments.ways.split(","):
        options = ["--tree", str(folder), "--bucket", "source"] if way == "copy" else []
        options += ["--sink"] if tree == "large" and way != "copy" else []
        with Endpoint(*options) as endpoint:
            for delay in (float(text) for text in arguments.delays.split(",")):
                group = [Row(tool.name, tree, way, delay, len(sizes), sum(sizes)) for tool in chosen]
                turns = list(zip(chosen, group, strict=True))
                for number in range(arguments.repeat):
                    for tool, row in turns if number % 2 == 0 else reversed(turns):
                        measure(endpoint, tool, row, folder)
                rows += group
    return rows


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", default="small,large")
    parser.add_argument("--ways", default="upload,again,copy")
    parser.add_argument("--delays", default="0,20", metavar="MS,MS", help="milliseconds a request, each in turn")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tools", default="regstore,s5cmd,rclone,aws")
    for name in ("s5cmd", "rclone", "aws"):
        parser.add_argument(f"--{name}", default=name, metavar="PATH")
    arguments = parser.parse_args()
    chosen = tools(arguments)
    described = machine(*(version(tool.program, *tool.version) for tool in chosen if tool.name != "regstore"))
    rows: list[Row] = []
    with ExitStack() as stack:
        for tree in arguments.trees.split(","):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"regstore-{tree}-")))
            # In a process of its own: what this one holds would count as memory of those it starts.
            code = f"from benchmarks.migrate import *; write({tree!r}, Path({str(folder)!r}))"
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
            rows += compare(tree, folder, chosen, arguments)
    print(f"{described}. Median of {arguments.repeat} runs.\n")
    header = ("", "delay", "wall", "CPU", "peak memory", "requests", "rate", "objects a CPU second")
    print(table(header, [row.cells() for row in rows]))
    print(f"\nRepeat: `{shlex.join(['python', '-m', 'benchmarks.migrate', *sys.argv[1:]])}`")
    return int(any(row.failure for row in rows))


if __name__ == "__main__":
    sys.exit(main())
