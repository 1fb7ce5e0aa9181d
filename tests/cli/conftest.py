"""The program, in this process and as a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from typer.testing import CliRunner

from regstore.cli.app import app
from regstore.cli.run import run_async
from regstore.demo_registry import build_demo_registry
from tests.schema import FILE


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(orjson.loads(FILE.read_bytes()))


def hold_to_schema(document: dict[str, Any]) -> None:
    """What any test sees of --json is as the published schema says it."""
    error = best_match(_validator().iter_errors(document))
    assert error is None, f"{error.json_path}: {error.message}"


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def envelope(self) -> dict[str, Any]:
        """The object of --json."""
        document: dict[str, Any] = orjson.loads(self.out)
        assert document["exit_code"] == self.code
        hold_to_schema(document)
        return document

    @property
    def json(self) -> dict[str, Any]:
        """The result in it."""
        result: dict[str, Any] = self.envelope["result"]
        assert result is not None, self
        return result

    @property
    def plan(self) -> dict[str, Any]:
        """Of a command that has plans, one that was shown only: nothing is reported."""
        assert self.json["report"] is None, self
        plan: dict[str, Any] = self.json["plan"]
        return plan

    @property
    def report(self) -> dict[str, Any]:
        """Of a command that has plans: what it did."""
        report: dict[str, Any] = self.json["report"]
        return report

    def failed(self, code: int, *words: str) -> None:
        """One line on stderr that has the words, nothing else on stdout, and this exit code."""
        assert self.code == code, self
        if self.out:  # with --json
            assert self.envelope["result"] is None
            assert self.err.endswith(f"regstore: {self.envelope['error']['message']}\n")
        assert self.err.startswith("regstore: ")
        assert self.out or self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        for word in words:
            assert word in self.err


Run = Callable[..., Said]


@pytest.fixture
def run() -> Run:
    """`run("ls", folder)`: the command in this process."""

    def run(*arguments: object) -> Said:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="regstore")
        return Said(result.exit_code, result.stdout, result.stderr)

    return run


Start = Callable[..., "subprocess.Popen[str]"]


@contextmanager
def programs() -> Iterator[Start]:
    """`start("ls", folder)`: the program as its own process; killed at the end where it still runs."""
    processes = []

    def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "regstore", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "error", **options.pop("env", {})},
            **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
        )
        processes.append(process)
        return process

    try:
        yield start
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def start() -> Iterator[Start]:
    """As `programs`, for a test."""
    with programs() as start:
        yield start


@pytest.fixture(scope="session")
def built_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "registry"
    run_async(build_demo_registry(folder, now=datetime.now(UTC)))
    return folder


@pytest.fixture
def demo_registry(built_demo: Path) -> Iterator[Path]:
    """The demo's registry, one for all tests: what changes it, or is killed while it looks at it, takes a copy."""

    def files() -> dict[str, int]:
        return {str(path): path.lstat().st_mtime_ns for path in built_demo.rglob("*") if not path.is_dir()}

    before = files()
    yield built_demo
    changed = sorted(dict(before.items() ^ files().items()))
    for path in set(changed) - before.keys():
        Path(path).unlink(missing_ok=True)
    assert not changed, f"this test changed the registry that all tests share; give it a copy: {changed}"


@pytest.fixture
def demo_copy(demo_registry: Path, tmp_path: Path) -> Path:
    """A copy of the demo's registry, without what is damaged there, to be changed."""
    copy = Path(shutil.copytree(demo_registry, tmp_path / "registry"))
    shutil.rmtree(copy / "docker/registry/v2/repositories/legacy")
    return copy


class Monitor(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str | None]] = []
        self.answers: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Monitor

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    monkeypatch.setattr("regstore.cli.ping.PAUSE", 0.0)
    with Monitor() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
