"""`regstore gc --dry-run` against `docker-registry garbage-collect --dry-run`, on the same generated registry.

    python -m benchmarks.gc_dry_run [--keys 13000] [--delays 0,10] [--repeat 3] [--delete-untagged]
        [--workers 1,2] [--before /elsewhere/.venv/bin/python] [--spark local[2]]

Each side is a process of its own, with the store in `benchmarks.s3_memory`: wall time, processor time, peak memory,
and the requests that the endpoint counted. regstore runs cold (an empty cache folder) and warm (the same again).
The sides take turns; medians are printed as a Markdown table. Both sides' counts of dead blobs are held against the
generator's truth. Exit code 1 when regstore differs from it, or when the registry does where it should not (with
untagged revisions, it deletes children of indexes and signatures: that difference is shown, not an error).
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

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

_CONFIG = """\
version: 0.1
log:
  level: error
storage:
  s3:
    accesskey: bench
    secretkey: bench-secret
    region: us-east-1
    regionendpoint: {url}
    bucket: bench
    secure: false
    v4auth: true
    forcepathstyle: true
  delete:
    enabled: true
http:
  addr: 127.0.0.1:0
"""
_ELIGIBLE = re.compile(r"(\d+) blobs marked, (\d+) blobs and (\d+) manifests eligible for deletion")


@dataclass
class Side:
    name: str
    delay: float  # milliseconds a request
    runs: list[Run] = field(default_factory=list)
    dead: int | None = None  # blobs; None until a run has succeeded
    failure: str = ""
    counts_time: bool = True

    def row(self) -> list[str]:
        if not self.runs:
            return [self.name, f"{self.delay:g} ms", self.failure or "not run", *[""] * 6]
        operations = self.runs[-1].operations
        gets = operations.get("GetObject", 0)
        lists = operations.get("ListObjectsV2", 0) + operations.get("ListObjects", 0)
        total = sum(count for name, count in operations.items() if not name.startswith("error "))
        return [
            self.name,
            f"{self.delay:g} ms",
            seconds(median(self.runs, "wall")),
            seconds(median(self.runs, "cpu")) if self.counts_time else "",
            megabytes(median(self.runs, "memory")),
            f"{lists:,}",
            f"{gets:,}",
            f"{total - gets - lists:,}",
            "?" if self.dead is None else f"{self.dead:,}",
        ]


@dataclass(frozen=True, kw_only=True)
class Way:
    """How regstore runs. python: of the environment that has it. workers: "" for as many as it takes by itself. spark:
    a cluster's master that does it instead, "" for none; its processes' time is not counted."""

    name: str = "regstore gc"
    python: str = sys.executable
    workers: str = ""
    spark: str = ""


def ways(arguments: argparse.Namespace) -> list[Way]:
    numbers = [text for text in arguments.workers.split(",") if text]
    found = [Way(name=f"regstore gc, {text} workers", workers=text) for text in numbers] or [Way()]
    if arguments.before:
        found.append(Way(name="regstore gc before", python=arguments.before))
    if arguments.spark:
        found.append(Way(name=f"regstore gc, Spark {arguments.spark}", spark=arguments.spark))
    return found


def regstore(endpoint: Endpoint, way: Way, cache: Path, delete_untagged: bool) -> Run:
    # Not from this folder, for what stands there would be run.
    command = [way.python, "-P", "-m", "regstore", "gc", "s3://bench", "--endpoint-url", endpoint.url]
    command += ["--dry-run", "--json", *(["--delete-untagged"] if delete_untagged else [])]
    command += ["--workers", way.workers] if way.workers else []
    if way.spark:
        command += ["--engine", "spark", "--master", way.spark, "--work", str(cache / "work")]
    return run(command, environment(XDG_CACHE_HOME=str(cache)), endpoint)


def registry(endpoint: Endpoint, binary: str, delete_untagged: bool) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yml"
        config.write_text(_CONFIG.format(url=endpoint.url))
        command = [binary, "garbage-collect", "-d", *(["-m"] if delete_untagged else []), str(config)]
        return run(command, environment(), endpoint)


def dead_of_regstore(done: Run) -> int:
    return int(json.loads(done.stdout)["result"]["plan"]["blobs"]["dead"])


def dead_of_registry(done: Run) -> int:
    found = _ELIGIBLE.search(done.stdout)
    if found is None:
        raise ValueError("no summary line")
    return int(found[2])


def record(side: Side, done: Run, dead_of: Any) -> None:
    try:
        if done.exit_code:
            raise ValueError(f"exit code {done.exit_code}")
        side.dead = dead_of(done)
        side.runs.append(done)
    except (ValueError, KeyError) as error:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        side.failure = f"failed: {error}"
        print(f"{side.name}: {error}: {words[-1] if words else 'no output'}", file=sys.stderr)


def measure(
    endpoint: Endpoint, delay: float, arguments: argparse.Namespace, with_regstore: bool, with_registry: bool
) -> list[Side]:
    endpoint.set_delay(delay)
    ours = {
        way: [Side(f"{way.name}, {state}", delay, counts_time=not way.spark) for state in ("cold", "warm")]
        for way in (ways(arguments) if with_regstore else [])
    }
    peer = Side("docker-registry garbage-collect", delay)

    def one(way: Way) -> None:
        with tempfile.TemporaryDirectory() as cache:
            for side in ours[way]:
                record(side, regstore(endpoint, way, Path(cache), arguments.delete_untagged), dead_of_regstore)

    def theirs() -> None:
        record(peer, registry(endpoint, arguments.registry, arguments.delete_untagged), dead_of_registry)

    for number in range(arguments.repeat):
        turns = [partial(one, way) for way in ours]
        if with_registry and number < arguments.registry_repeat:
            turns.append(partial(theirs))
        for turn in turns if number % 2 == 0 else reversed(turns):
            turn()
    return [*(side for sides in ours.values() for side in sides), *([peer] if with_registry else [])]


def truth_of(keys: int, seed: int) -> dict[str, Any]:
    # In a process of its own: what this one holds would count as memory of those it starts.
    command = [sys.executable, "-m", "benchmarks.generate", "--keys", str(keys), "--seed", str(seed)]
    return dict(json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout))


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=13_000, help="of the generated registry")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--delays", default="0,10", metavar="MS,MS", help="milliseconds a request, each measured in turn"
    )
    parser.add_argument("--repeat", type=int, default=3, help="runs of regstore, cold and warm")
    parser.add_argument(
        "--registry-repeat", type=int, default=1, help="runs of the registry, which is slow and steady"
    )
    parser.add_argument("--delete-untagged", action="store_true", help="regstore --delete-untagged against -m")
    parser.add_argument("--registry", default="docker-registry", metavar="BINARY")
    parser.add_argument("--workers", default="", metavar="N,N", help="regstore with so many, in turn")
    parser.add_argument("--before", metavar="PYTHON", help="of an environment that has another regstore, in turn")
    parser.add_argument(
        "--spark", default="", metavar="MASTER", help="regstore on Spark, such as local[2], in turn"
    )
    parser.add_argument("--only", choices=("regstore", "registry"), help="measure one side")
    arguments = parser.parse_args()
    with_regstore = arguments.only != "registry"
    # The registry reads and asks one after the other: a million keys would take it hours.
    with_registry = arguments.only == "registry" or (arguments.only is None and arguments.keys <= 50_000)
    if with_registry and shutil.which(arguments.registry) is None:
        print(f"{arguments.registry} is not installed; regstore is measured alone", file=sys.stderr)
        with_registry = False
    described = machine(version(arguments.registry, "--version"))
    truth = truth_of(arguments.keys, arguments.seed)
    mode = "delete_untagged" if arguments.delete_untagged else "default"
    expected = truth[mode]["blobs"]["dead"]
    sides: list[Side] = []
    with Endpoint("--generate", str(arguments.keys), "--seed", str(arguments.seed)) as endpoint:
        for delay in (float(text) for text in arguments.delays.split(",")):
            sides += measure(endpoint, delay, arguments, with_regstore, with_registry)

    print(
        f"{truth['keys']:,} keys, {truth['manifests']:,} manifests, {expected:,} dead blobs ({mode}). {described}."
    )
    print(f"Median of {arguments.repeat} runs ({arguments.registry_repeat} of the registry).\n")
    header = ("", "delay", "wall", "CPU", "peak memory", "LIST", "GET", "other", "dead blobs")
    print(table(header, [side.row() for side in sides]))
    print(f"\nRepeat: `{shlex.join(['python', '-m', 'benchmarks.gc_dry_run', *sys.argv[1:]])}`")
    return verdict(sides, expected, arguments.delete_untagged)


def verdict(sides: list[Side], expected: int, delete_untagged: bool) -> int:
    code = 0
    for side in sides:
        if side.dead is None:
            code = 1
        elif side.dead != expected:
            excused = delete_untagged and side.name.startswith("docker-registry")
            print(
                f"{side.name}: {side.dead:,} dead blobs; the truth is {expected:,}{', as known' if excused else ''}"
            )
            code = code if excused else 1
    return code


if __name__ == "__main__":
    sys.exit(main())
