"""A deployment of systemd units without systemd: what their lines say is started, and nothing else."""

from __future__ import annotations

import base64
import http.client
import os
import pwd
import re
import shlex
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.servers.containers import apart
from tests.servers.process import Child, ServerError, clean_environment, tail, wait_until

_ATTEMPTS: Final = 5
PROGRAM: Final = (sys.executable, "-m", "regstore")


@dataclass(frozen=True)
class Unit:
    """Settings of a unit, each as often as it stands there."""

    path: Path
    settings: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, path: Path) -> Unit:
        lines = (line.partition("=") for line in path.read_text().splitlines() if not line.startswith(("#", "[")))
        return cls(path, tuple((name, value) for name, sign, value in lines if sign))

    def all(self, name: str) -> list[str]:
        return [value for known, value in self.settings if known == name]

    @property
    def command(self) -> list[str]:
        (line,) = self.all("ExecStart")
        return [word.replace("$$", "$").replace("%%", "%") for word in shlex.split(line)]

    def environment(self, home: Path) -> dict[str, str]:
        """As systemd gives it: nothing of the caller's, then `Environment`, then the files."""
        found = clean_environment(home)
        for line in self.all("Environment"):
            name, _, value = shlex.split(line)[0].replace("%%", "%").partition("=")
            found[name] = value
        for path in self.all("EnvironmentFile"):
            for line in Path(re.sub(r"\\(.)", r"\1", path.replace("%%", "%"))).read_text().splitlines():
                name, sign, value = line.partition("=")
                if sign and not line.startswith("#"):
                    found[name] = value
        if found.get("XDG_CACHE_HOME") == "/var/cache":  # the folder that systemd would make
            assert self.all("CacheDirectory") == ["regstore"]
            found["XDG_CACHE_HOME"] = str(home / "cache")
        return found

    @contextmanager
    def started(self, home: Path) -> Iterator[Child]:
        (user,) = self.all("User")
        found = pwd.getpwnam(user)
        who = [] if found.pw_uid == os.geteuid() else ["setpriv", f"--reuid={user}", f"--regid={found.pw_gid}"]
        if who:
            who += ["--clear-groups", "--bounding-set=-all", "--no-new-privs"]
        child = Child([*who, *self.command], home / f"{self.path.name}.log", self.environment(home))
        try:
            yield child
        finally:
            child.stop()

    def run(self, home: Path, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
        """To its end."""
        return subprocess.run(
            self.command,
            env=self.environment(home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def install(home: Path) -> str:
    """A program `regstore`, as pip would put it somewhere; the PATH with it."""
    folder = home / "bin"
    folder.mkdir()
    source = Path(__file__).parent.parent.parent
    program = folder / "regstore"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={source} exec {sys.executable} -m regstore "$@"\n')
    program.chmod(0o755)
    return f"{folder}:{clean_environment(home)['PATH']}"


def regstore(*words: object, home: Path, input: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The program, as a process of its own."""
    return subprocess.run(
        [*PROGRAM, *map(str, words)],
        env=clean_environment(home, **environment),
        input=input,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@dataclass(frozen=True)
class Registry:
    """One that runs from a deployment's folder."""

    folder: Path
    host: str
    port: int
    debug_port: int
    child: Child

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def status(self, user: str = "", password: str = "", *, path: str = "/v2/") -> int:
        """Over TLS by the deployment's own authority alone."""
        context = ssl.create_default_context(cafile=str(self.folder / "tls/ca.crt"))
        connection = http.client.HTTPSConnection(self.host.strip("[]"), self.port, context=context, timeout=60)
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        try:
            connection.request("GET", path, headers={"Authorization": f"Basic {token}"} if user else {})
            return connection.getresponse().status
        finally:
            connection.close()

    def answers(self) -> bool:
        """ServerError, with what it said, where it has ended."""
        if not self.child.running:
            raise ServerError(tail(self.child.log))
        try:
            return self.status() == 401
        except ConnectionError:
            return False

    def health(self) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.debug_port, timeout=60)
        try:
            connection.request("GET", "/debug/health")
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextmanager
def registry_of(folder: Path, home: Path, host: str = "127.0.0.1") -> Iterator[Registry]:
    """The registry of a deployment, started from its unit, and answering."""
    (path,) = (each for each in (folder / "systemd").glob("*.service") if not re.search("nightly|serve", each.name))
    config = (folder / "config.yml").read_text()
    port = int(re.search(r"addr: '?:(\d+)", config)[1])  # type: ignore[index]
    debug_port = int(re.search(r"addr: 127\.0\.0\.1:(\d+)", config)[1])  # type: ignore[index]
    unit = Unit.read(path)
    with ExitStack() as stack:
        for _ in range(_ATTEMPTS):
            child = stack.enter_context(unit.started(home))
            registry = Registry(folder, host, port, debug_port, child)
            try:
                wait_until(registry.answers, f"{registry.address} to answer", 30)
                break
            except ServerError as error:
                # Others have ports, too, for a moment; systemd would start it again as well.
                if "address already in use" not in str(error):
                    raise
                time.sleep(1)
        else:
            raise ServerError(tail(child.log))
        yield registry


@dataclass(frozen=True)
class Client:
    """skopeo and podman with a home of their own, in which an authority is trusted as README.txt says, or not."""

    home: Path

    def trust(self, registry: Registry) -> None:
        folder = self.home / ".config/containers/certs.d" / registry.address
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes((registry.folder / "tls/ca.crt").read_bytes())

    def __post_init__(self) -> None:
        (self.home / "auth.json").write_text("{}")

    def run(self, program: str, *words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        options, environment = apart(self.home)
        return subprocess.run(
            [program, *(["--insecure-policy"] if program == "skopeo" else options), *words],
            env=environment | {"REGISTRY_AUTH_FILE": str(self.home / "auth.json")},
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def login(self, program: str, registry: Registry, user: str, password: str) -> subprocess.CompletedProcess[str]:
        return self.run(program, "login", "--username", user, "--password-stdin", registry.address, input=password)


@contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """Those of all that this process starts, and what these start, as whoever is logged in sees them, until the end."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            parents, lines = {}, {}
            for path in Path("/proc").glob("[0-9]*"):
                with suppress(OSError, IndexError):
                    parents[path.name] = (path / "stat").read_text().rpartition(")")[2].split()[1]
                    lines[path.name] = (path / "cmdline").read_bytes()
            ours = {str(os.getpid())}
            while more := {each for each, parent in parents.items() if parent in ours} - ours:
                ours |= more
            seen.update(line for each, line in lines.items() if each in ours)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
