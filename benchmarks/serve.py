"""`regstore serve` against `docker-registry serve` on the same store: pulls, and the pages.

    python -m benchmarks.serve [--large 1000] [--small 2000] [--seconds 6] [--repeat 3] [--tags 100000]
                               [--keys 1000000] [--only pulls|pages]

Pulls: one blob of `--large` MB from a folder and from `benchmarks.s3_memory` (by curl, thrown away), first while the
pages' index is being made, which docker-registry has not, and again when it is there; `--small`
manifests and as many blobs of 200 bytes from a folder by 32 clients (by wrk, Debian's), requests a second and processor
time a request of the server; and the largest resident set while 200 clients pull the first 100 MB of the large blob (20
MB from S3). The sides take turns.

Pages: a folder with `--tags` tags in one repository, and a generated registry of `--keys` keys in `s3_memory`: the time
until the first page can be shown, with an empty cache and again, and then that of each page, medians of ten.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT, Endpoint, environment, machine, megabytes, seconds, table, version

_NAME = "team/app"
_TICKS = os.sysconf("SC_CLK_TCK")
_PORT = 15_000
_TYPE = "application/vnd.oci.image.manifest.v1+json"
_ACCEPT = f"Accept: {_TYPE}"


@dataclass(frozen=True)
class Server:
    """A server that answers at `url`."""

    name: str
    url: str
    process: subprocess.Popen[str]

    @property
    def cpu(self) -> float:
        """Seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    @property
    def peak(self) -> int:
        """Bytes, the largest resident set so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def get(url: str, seconds_left: float = 600.0) -> bytes:
    with urllib.request.urlopen(url, timeout=seconds_left) as answer:
        return bytes(answer.read())


def wait_for(url: str, process: subprocess.Popen[str]) -> None:
    while True:
        try:
            get(url)
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(f"the server for {url} ended") from None
            time.sleep(0.02)
        else:
            return


@contextmanager
def regstore(store: str, *options: str, cache: Path | None = None, wait: str = "/v2/") -> Iterator[Server]:
    env = environment(XDG_CACHE_HOME=str(cache or tempfile.gettempdir()))
    command = [sys.executable, "-m", "regstore", "serve", store, "--listen", f"127.0.0.1:{_PORT}", "-q", *options]
    process = subprocess.Popen(command, env=env, cwd=ROOT, text=True)
    try:
        wait_for(f"http://127.0.0.1:{_PORT}{wait}", process)
        yield Server("regstore serve", f"http://127.0.0.1:{_PORT}", process)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def registry(binary: str, storage: dict[str, object]) -> Iterator[Server]:
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {**storage, "redirect": {"disable": True}},
        "http": {"addr": f"127.0.0.1:{_PORT}"},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump(config, file)  # YAML has JSON in it
        file.flush()
        process = subprocess.Popen(
            [binary, "serve", file.name],
            env=environment(),
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(f"http://127.0.0.1:{_PORT}/v2/", process)
            yield Server("docker-registry serve", f"http://127.0.0.1:{_PORT}", process)
        finally:
            process.terminate()
            process.wait()


# -- what is served


def write(folder: Path, key: str, data: bytes) -> None:
    path = folder / "docker/registry/v2" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put_blob(folder: Path, data: bytes) -> str:
    encoded = hashlib.sha256(data).hexdigest()
    write(folder, f"blobs/sha256/{encoded[:2]}/{encoded}/data", data)
    write(folder, f"repositories/{_NAME}/_layers/sha256/{encoded}/link", f"sha256:{encoded}".encode())
    return encoded


def put_manifest(folder: Path, config: str, tags: Sequence[str]) -> str:
    """An image of one config, under these tags."""
    document = {
        "schemaVersion": 2,
        "mediaType": _TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": f"sha256:{config}",
            "size": 200,
        },
        "layers": [],
    }
    data = json.dumps(document).encode()
    encoded = hashlib.sha256(data).hexdigest()
    link = f"sha256:{encoded}".encode()
    write(folder, f"blobs/sha256/{encoded[:2]}/{encoded}/data", data)
    write(folder, f"repositories/{_NAME}/_manifests/revisions/sha256/{encoded}/link", link)
    for tag in tags:
        write(folder, f"repositories/{_NAME}/_manifests/tags/{tag}/current/link", link)
        write(folder, f"repositories/{_NAME}/_manifests/tags/{tag}/index/sha256/{encoded}/link", link)
    return encoded


def fill(folder: Path, large: int, small: int) -> tuple[str, list[str]]:
    """The large blob's digest, and the paths of the small manifests and blobs in turn."""
    block = os.urandom(1_000_000)
    digest = hashlib.sha256()
    part = folder / "large"
    folder.mkdir(parents=True)
    with part.open("wb") as file:
        for number in range(large):
            chunk = number.to_bytes(8, "big") + block[8:]
            digest.update(chunk)
            file.write(chunk)
    encoded = digest.hexdigest()
    target = folder / f"docker/registry/v2/blobs/sha256/{encoded[:2]}/{encoded}/data"
    target.parent.mkdir(parents=True)
    part.rename(target)
    write(folder, f"repositories/{_NAME}/_layers/sha256/{encoded}/link", f"sha256:{encoded}".encode())
    paths = []
    for number in range(small):
        config = put_blob(folder, f"{number:200}".encode())
        manifest = put_manifest(folder, config, [f"v{number}"])
        paths += [f"/v2/{_NAME}/manifests/sha256:{manifest}", f"/v2/{_NAME}/blobs/sha256:{config}"]
    return encoded, paths


# -- pulls


def pull(server: Server, path: str) -> tuple[float, float]:
    """Wall and processor seconds of one GET by curl, which throws the body away."""
    before, begun = server.cpu, time.perf_counter()
    subprocess.run(["curl", "-sf", "-o", "/dev/null", "-H", _ACCEPT, server.url + path], check=True)
    return time.perf_counter() - begun, server.cpu - before


def load(server: Server, paths: Sequence[str], length: int) -> tuple[float, float]:
    """Requests a second of 32 clients, and the server's processor microseconds a request."""
    listed = ",".join(f'"{path}"' for path in paths)
    script = (
        f"local p = {{{listed}}}\nlocal n = 0\n"
        "request = function() n = n % #p + 1;"
        f' return wrk.format("GET", p[n], {{["Accept"]="{_TYPE}"}}) end\n'
        'done = function(s) io.write(string.format("DONE %d %d %d\\n", s.requests, s.duration,'
        " s.errors.status + s.errors.read + s.errors.timeout)) end\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        before = server.cpu
        command = ["wrk", "-t1", "-c32", f"-d{length}s", "-s", file.name, server.url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        spent = server.cpu - before
    requests, microseconds, errors = map(
        int, next(line for line in said.splitlines() if line.startswith("DONE")).split()[1:]
    )
    if errors:
        raise RuntimeError(f"{server.name}: {errors} answers were wrong")
    return requests / microseconds * 1e6, spent / requests * 1e6


def crowd(server: Server, path: str, size: int, clients: int = 200) -> int:
    """The largest resident set while so many pull the first `size` bytes at once."""
    command = ["curl", "-sf", "-o", "/dev/null", "-r", f"0-{size - 1}", server.url + path]
    running = [subprocess.Popen(command) for _ in range(clients)]
    failed = [one for one in running if one.wait() != 0]
    if failed:
        raise RuntimeError(f"{server.name}: {len(failed)} of {clients} pulls failed")
    return server.peak


def pulls(arguments: argparse.Namespace) -> str:
    rows: dict[str, dict[str, list[float]]] = {}

    def note(what: str, side: str, number: float) -> None:
        rows.setdefault(what, {}).setdefault(side, []).append(number)

    with tempfile.TemporaryDirectory() as top, ExitStack() as stack:
        folder = Path(top) / "store"
        large, paths = fill(folder, arguments.large, arguments.small)
        endpoint = stack.enter_context(Endpoint())
        endpoint.empty("bench")
        there = ["s3://bench", "--endpoint-url", endpoint.url]
        copying = [sys.executable, "-m", "regstore", "migrate", str(folder), *there, "-q"]
        subprocess.run(copying, env=environment(), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        s3 = {
            "accesskey": "bench", "secretkey": "bench-secret", "region": "us-east-1", "regionendpoint": endpoint.url,
            "bucket": "bench", "secure": False, "v4auth": True, "forcepathstyle": True,
        }  # fmt: skip
        disk: list[Callable[[], object]] = [
            lambda: regstore(str(folder)),
            lambda: registry(arguments.registry, {"filesystem": {"rootdirectory": str(folder)}}),
        ]
        cloud: list[Callable[[], object]] = [
            lambda: regstore(*there),
            lambda: registry(arguments.registry, {"s3": s3}),
        ]
        blob = f"/v2/{_NAME}/blobs/sha256:{large}"
        for number in range(arguments.repeat):
            for where, sides in (("folder", disk), ("S3", cloud)):
                for side in sides if number % 2 == 0 else reversed(sides):
                    with side() as server:  # type: ignore[attr-defined]
                        pull(server, paths[0])
                        note(f"{arguments.large} MB from {where}, just begun", server.name, pull(server, blob)[0])
                        wait_for_index(server)
                        wall, cpu = pull(server, blob)
                        note(f"{arguments.large} MB from {where}", server.name, wall)
                        note(f"  its processor time, {where}", server.name, cpu)
                        if where == "folder":
                            rate, each = load(server, paths, arguments.seconds)
                            note("small requests a second", server.name, rate)
                            note("  processor us a request", server.name, each)
                        if number == 0:
                            size = 100_000_000 if where == "folder" else 20_000_000
                            note(f"peak memory, 200 pulls at once, {where}", server.name, crowd(server, blob, size))
    shown = {"peak": megabytes, "small": "{:,.0f}".format, "  proc": "{:.0f}".format}
    sides_shown = ["regstore serve", "docker-registry serve"]
    lines = []
    for what, found in rows.items():
        form = next((form for sign, form in shown.items() if what.startswith(sign)), seconds)
        lines.append([what, *(form(statistics.median(found[side])) for side in sides_shown)])
    return table(["", *sides_shown], lines)


# -- pages


def pages(arguments: argparse.Namespace) -> str:
    lines = []
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "tags"
        config = put_blob(folder, b"{}".ljust(200))
        put_manifest(folder, config, [f"build-{number:06}" for number in range(arguments.tags)])
        what = f"{arguments.tags:,} tags in one repository"
        with regstore(str(folder), cache=Path(top) / "cache") as server:
            name = f"/repositories/{_NAME}"
            lines += page_times(server, what, ["/", name, f"{name}?sort=-pushed&page=500", f"{name}?q=0999"])
        shutil.rmtree(folder)
        with Endpoint("--generate", str(arguments.keys)) as endpoint:
            where = ["--endpoint-url", endpoint.url]
            for cold in (True, False):
                begun = time.perf_counter()
                with regstore("s3://bench", *where, cache=Path(top) / "million") as server:
                    while b"is being listed" in get(server.url + "/"):
                        time.sleep(0.1)
                    first = time.perf_counter() - begun
                    name = f"{arguments.keys:,} keys, {'cold' if cold else 'warm'}"
                    lines.append([name, "the first page", seconds(first)])
                    lines.append([name, "its peak memory", megabytes(server.peak)])
                    if not cold:
                        lines += page_times(server, name, ["/", "/?q=a&sort=-size", "/search?q=a", "/space"])
    return table(["store", "page", ""], lines)


def wait_for_index(server: Server) -> None:
    """Until the pages have all that they show, the garbage of `/metrics` too. docker-registry has no pages."""
    if server.name.startswith("regstore"):
        while b"regstore_reclaimable_bytes" not in get(server.url + "/metrics"):
            time.sleep(0.5)


def page_times(server: Server, what: str, paths: Sequence[str]) -> list[list[str]]:
    wait_for_index(server)
    lines = []
    for path in paths:
        times = []
        for _ in range(10):
            begun = time.perf_counter()
            get(server.url + path)
            times.append(time.perf_counter() - begun)
        lines.append([what, f"`{path}`", f"{statistics.median(times) * 1000:.0f} ms"])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", type=int, default=1000, metavar="MB")
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tags", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--registry", default="docker-registry", metavar="BINARY")
    parser.add_argument("--only", choices=("pulls", "pages"))
    arguments = parser.parse_args()
    described = machine(version(arguments.registry, "--version"))
    if arguments.only != "pages":
        print(pulls(arguments), end="\n\n", flush=True)
    if arguments.only != "pulls":
        print(pages(arguments), end="\n\n", flush=True)
    print(described)
    print(shlex.join(["python", "-m", "benchmarks.serve", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
