"""Hashing every blob: `regstore verify --read-data all` against openssl and sha256sum, on the same bytes on disk.

    python -m benchmarks.verify [--blobs 40] [--size 75000000] [--small 20000] [--repeat 5] [--keep FOLDER] [--s3 1,2]

Two trees: `large`, layers of 75 MB; `small`, a registry's worth of keys with blobs of 8 kB. Of the peers as many
processes run as there are cores (`xargs -P`). The tools take turns, on a page cache that the first, uncounted round
has filled: what is compared is hashing, not the disk. `of the cores` is against `openssl speed -evp sha256` on all
cores at once, taken in the same round. regstore also lists the store, reads each manifest, and checks every link.

With `--s3` the same trees lie in an S3 endpoint in memory (`benchmarks.s3_memory`), and regstore reads them by so many
worker processes, in turn. The endpoint is one process, on the same cores: what counts is the processor time.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.generate import write_large
from benchmarks.measure import Endpoint, Run, environment, machine, median, megabytes, run, seconds, table, version

CORES = os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Tool:
    name: str
    command: Callable[[Path], list[str]]


def _regstore(folder: Path) -> list[str]:
    return [sys.executable, "-m", "regstore", "verify", str(folder), "--read-data", "all", "--json", "--quiet"]


def _by_xargs(*words: str) -> Callable[[Path], list[str]]:
    def command(folder: Path) -> list[str]:
        blobs = shlex.quote(str(folder / "docker/registry/v2/blobs"))
        # Handfuls, so that no process is left with the last of the work.
        return [
            "sh",
            "-c",
            f"find {blobs} -name data -print0 | xargs -0 -P {CORES} -n 8 {shlex.join(words)} | wc -l",
        ]

    return command


TOOLS = [
    Tool(name="regstore verify", command=_regstore),
    Tool(name="openssl dgst", command=_by_xargs("openssl", "dgst", "-sha256")),
    Tool(name="sha256sum", command=_by_xargs("sha256sum")),
]


def write_small(folder: Path, blobs: int) -> None:
    """Images of five small layers each."""
    write_large(folder, blobs=blobs, size=8_000, seed=2)


def speed() -> float:
    """Bytes a second of all cores, by openssl's own measure."""
    done = subprocess.run(
        ["openssl", "speed", "-seconds", "3", "-multi", str(CORES), "-bytes", "16384", "-evp", "sha256"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"([\d.]+)k\s*$", done.stdout, re.MULTILINE)
    return float(found[-1]) * 1_000


def measure(folder: Path, repeat: int) -> tuple[dict[str, list[Run]], list[float]]:
    env = environment()
    runs: dict[str, list[Run]] = {tool.name: [] for tool in TOOLS}
    speeds = []
    for number in range(repeat + 1):
        for tool in TOOLS:
            if shutil.which(tool.name.split()[0]) is None and tool.name != "regstore verify":
                continue
            done = run(tool.command(folder), env)
            if done.exit_code:
                raise RuntimeError(f"{tool.name} failed: {done.stderr[-2000:]}")
            if number:  # the first fills the page cache
                runs[tool.name].append(done)
        if number:
            speeds.append(speed())
    return runs, speeds


def report(name: str, folder: Path, repeat: int) -> None:
    files = [path for path in folder.rglob("data") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    runs, speeds = measure(folder, repeat)
    cores = sorted(speeds)[len(speeds) // 2]
    rows = [
        [
            tool,
            seconds(median(done, "wall")),
            f"{size / median(done, 'wall') / 1e6:,.0f} MB/s",
            f"{size / median(done, 'wall') / cores:.0%}",
            seconds(median(done, "cpu")),
            megabytes(median(done, "memory")),
        ]
        for tool, done in runs.items()
        if done
    ]
    print(
        f"\n{name}: {len(files):,} blobs, {size / 1e6:,.0f} MB; openssl speed on all cores {cores / 1e6:,.0f} MB/s\n"
    )
    print(table(["", "wall", "rate", "of the cores", "processor", "memory"], rows), flush=True)


def report_s3(name: str, folder: Path, repeat: int, workers: list[str]) -> None:
    runs: dict[str, list[Run]] = {number: [] for number in workers}
    with Endpoint("--tree", str(folder)) as endpoint:
        for _ in range(repeat):
            for number, done in runs.items():
                command = [sys.executable, "-m", "regstore", "verify", "s3://bench", "--endpoint-url", endpoint.url]
                command += ["--read-data", "all", "--json", "--quiet", "--workers", number]
                done.append(run(command, environment(), endpoint))
                if done[-1].exit_code:
                    raise RuntimeError(f"regstore failed: {done[-1].stderr[-2000:]}")
    rows = [
        [
            number,
            seconds(median(done, "wall")),
            seconds(median(done, "cpu")),
            seconds(statistics.median(each.counters["cpu_seconds"] for each in done)),
            megabytes(median(done, "memory")),
        ]
        for number, done in runs.items()
    ]
    print(f"\n{name}, in an S3 endpoint\n")
    print(table(["workers", "wall", "processor", "the endpoint's", "memory"], rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blobs", type=int, default=40)
    parser.add_argument("--size", type=int, default=75_000_000)
    parser.add_argument("--small", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="write the trees here, and use them if they are there"
    )
    parser.add_argument("--s3", default="", metavar="N,N", help="in an S3 endpoint, by so many workers in turn")
    arguments = parser.parse_args()
    print(machine(version("openssl", "version"), version("sha256sum", "--version")))
    print(f"`python -m benchmarks.verify {shlex.join(sys.argv[1:])}`")
    place = arguments.keep or Path(tempfile.mkdtemp(prefix="regstore-bench-"))
    try:
        stores: dict[str, Callable[[Path], None]] = {
            "large": lambda folder: write_large(folder, arguments.blobs, arguments.size),
            "small": lambda folder: write_small(folder, arguments.small),
        }
        for name, write in stores.items():
            folder = place / name
            if not folder.exists():
                write(folder)
            if arguments.s3:
                report_s3(name, folder, arguments.repeat, arguments.s3.split(","))
            else:
                report(name, folder, arguments.repeat)
    finally:
        if arguments.keep is None:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
