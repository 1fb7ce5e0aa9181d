"""A registry's backup: `regstore backup create`, first and again, against rclone, aws-cli and restic; and the drill.

    python -m benchmarks.backup [--trees small,large] [--delays 0,20] [--repeat 3]
                                [--tools regstore,rclone,aws,restic] [--rclone PATH] [--aws PATH] [--restic PATH]

Trees: `small`, a registry of about 10,000 keys of at most 8 kB; `large`, 3 GB in 40 layers. Each tool backs the
tree up from a folder to an empty bucket (`first`), then again with nothing new (`second`); regstore also restores it
to another empty bucket (`drill`). rclone and aws-cli only mirror: they keep no snapshots, verify nothing, and copy a
registry that serves in whatever order they list it.

The tools take turns; wall time, processor time, peak memory and requests are of one command, medians in a Markdown
table. A tool that is not installed is left out.
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

from benchmarks.measure import (
    ROOT,
    Endpoint,
    Run,
    machine,
    median,
    megabytes,
    run,
    seconds,
    table,
    version,
)
from benchmarks.migrate import CONCURRENCY, tool_environment

WAYS = ("first", "second", "drill")


@dataclass(frozen=True, kw_only=True)
class Tool:
    """prepare: a command that comes before the first backup and is not measured. drill: restores to `s3://drill`."""

    name: str
    program: str
    command: Callable[[str, str, Path], list[str]]
    prepare: Callable[[str, str], list[str]] | None = None
    drill: Callable[[str, str], list[str]] | None = None
    version: tuple[str, ...] = ("--version",)


def _regstore(program: str, url: str, folder: Path) -> list[str]:
    return [program, "-m", "regstore", "backup", "create", str(folder), "s3://bench", "--endpoint-url", url]


def _drill(program: str, url: str) -> list[str]:
    return [program, "-m", "regstore", "restore", "s3://bench", "s3://drill", "--endpoint-url", url]


def _rclone(program: str, url: str, folder: Path) -> list[str]:
    many = ["--transfers", str(CONCURRENCY), "--checkers", str(CONCURRENCY), "--fast-list", "--s3-no-check-bucket"]
    return [program, "sync", *many, str(folder), "bench:bench"]


def _aws(program: str, url: str, folder: Path) -> list[str]:
    return [
        program, "--endpoint-url", url, "s3", "sync", "--delete", "--only-show-errors", str(folder), "s3://bench"
    ]  # fmt: skip


def _restic(program: str, url: str, folder: Path) -> list[str]:
    connections = ["-o", f"s3.connections={CONCURRENCY}"]
    return [program, "-r", f"s3:{url}/bench", *connections, "backup", "-q", str(folder)]


def _restic_init(program: str, url: str) -> list[str]:
    return [program, "-r", f"s3:{url}/bench", "init", "-q"]


def tools(arguments: argparse.Namespace) -> list[Tool]:
    known = [
        Tool(name="regstore", program=sys.executable, command=_regstore, drill=_drill),
        Tool(name="rclone", program=arguments.rclone, command=_rclone),
        Tool(name="aws", program=arguments.aws, command=_aws),
        Tool(name="restic", program=arguments.restic, command=_restic, prepare=_restic_init, version=("version",)),
    ]
    chosen = []
    for tool in known:
        if tool.name not in arguments.tools.split(","):
            continue
        if shutil.which(tool.program) is None:
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
    runs: list[Run] = field(default_factory=list)
    failure: str = ""

    def cells(self) -> list[str]:
        first = [f"{self.tool}, {self.tree}, {self.way}", f"{self.delay:g} ms"]
        if self.failure or not self.runs:
            return [*first, self.failure or "not run", *[""] * 4]
        counters = self.runs[-1].counters
        return [
            *first,
            seconds(median(self.runs, "wall")),
            seconds(median(self.runs, "cpu")),
            megabytes(median(self.runs, "memory")),
            f"{counters['requests']:,}",
            f"{counters['keys'].get('bench', 0):,}",
        ]


def measure(endpoint: Endpoint, tool: Tool, rows: dict[str, Row], folder: Path, delay: float) -> None:
    """First, second and drill, one after the other."""
    endpoint.set_delay(0)
    for bucket in ("bench", "drill"):
        endpoint.empty(bucket)
    with tempfile.TemporaryDirectory() as home:
        env = tool_environment(endpoint, Path(home)) | {"RESTIC_PASSWORD": "bench"}
        if tool.prepare is not None:
            run(tool.prepare(tool.program, endpoint.url), env)
        endpoint.set_delay(delay)
        commands = {way: tool.command(tool.program, endpoint.url, folder) for way in ("first", "second")}
        if tool.drill is not None:
            commands["drill"] = tool.drill(tool.program, endpoint.url)
        for way, command in commands.items():
            done = run(command, env, endpoint)
            if done.exit_code:
                words = (done.stderr.strip() or done.stdout.strip()).splitlines()
                rows[way].failure = f"exit code {done.exit_code}"
                print(f"{tool.name}, {way}: {words[-1] if words else 'no output'}", file=sys.stderr)
                return
            rows[way].runs.append(done)


def compare(tree: str, folder: Path, chosen: list[Tool], arguments: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    with Endpoint() as endpoint:
        for delay in (float(text) for text in arguments.delays.split(",")):
            group = {
                tool.name: {way: Row(tool.name, tree, way, delay) for way in WAYS if way != "drill" or tool.drill}
                for tool in chosen
            }
            for number in range(arguments.repeat):
                for tool in chosen if number % 2 == 0 else reversed(chosen):
                    measure(endpoint, tool, group[tool.name], folder, delay)
            rows += [group[tool.name][way] for way in WAYS for tool in chosen if way in group[tool.name]]
    return rows


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", default="small,large")
    parser.add_argument("--delays", default="0,20", metavar="MS,MS", help="milliseconds a request, each in turn")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tools", default="regstore,rclone,aws,restic")
    for name in ("rclone", "aws", "restic"):
        parser.add_argument(f"--{name}", default=name, metavar="PATH")
    arguments = parser.parse_args()
    chosen = tools(arguments)
    described = machine(*(version(tool.program, *tool.version) for tool in chosen if tool.name != "regstore"))
    rows: list[Row] = []
    with ExitStack() as stack:
        for tree in arguments.trees.split(","):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"regstore-{tree}-")))
            # In a process of its own: what this one holds would count as memory of those it starts.
            code = f"from benchmarks.migrate import *; write({tree!r}, Path({os.fspath(folder)!r}))"
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
            rows += compare(tree, folder, chosen, arguments)
    print(f"{described}. Median of {arguments.repeat} runs.\n")
    print(table(("", "delay", "wall", "CPU", "peak memory", "requests", "objects"), [row.cells() for row in rows]))
    print(f"\nRepeat: `{shlex.join(['python', '-m', 'benchmarks.backup', *sys.argv[1:]])}`")
    return int(any(row.failure for row in rows))


if __name__ == "__main__":
    sys.exit(main())
