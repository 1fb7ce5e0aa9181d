"""`regstore init DIR --check` as a user types it, at a registry that runs by what init wrote."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regstore.cli.app import app
from regstore.deployment import users
from tests.cli.conftest import Run
from tests.deployment.fake_registry import FakeRegistry, served
from tests.deployment.running import registry_of
from tests.servers.debian import require
from tests.servers.process import free_port

pytestmark = [pytest.mark.servers, pytest.mark.long]
PASSWORD = "p:a $HOME 'q' ü"
HOST = "registry.example.org"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A deployment that runs; no resolver here knows its name."""
    require("docker-registry")
    home = tmp_path_factory.mktemp("deployed")
    folder = home / "registry"
    ports = ("--port", free_port(), "--debug-port", free_port())
    words = ("init", folder, "--host", HOST, "--name", "127.0.0.1", "--store", home / "store", "--create", *ports)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(users, "COST", 4)
        type_in(patch, f"{PASSWORD}\n")
        made = CliRunner().invoke(app, [str(word) for word in (*words, "--user", "ann", "--password-stdin")])
        assert made.exit_code == 0, made.output
    with registry_of(folder, home):
        yield folder


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """On standard input. CliRunner puts its own in the place of ours."""
    monkeypatch.setattr("regstore.cli.init.passwords.read_input", lambda: text.encode())


def test_green(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, f"{PASSWORD}\n")
    said = run("init", place, "--check", "--address", "127.0.0.1", "--password-stdin")
    assert said.code == 0, said
    first, *lines, empty, last = said.out.splitlines()
    assert first.startswith(f"https://{HOST}:") and last == f"{first}: 17 ok" and empty == ""
    assert all(line.startswith("ok         ") for line in lines)
    assert PASSWORD not in said.out + said.err


def test_red_has_the_cure_below_and_exits_with_1(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, "wrong\n")
    said = run("init", place, "--check", "--address", "127.0.0.1", "--password-stdin", "--without-store")
    assert said.code == 1
    assert "fail       password accepted: the password of ann is refused\n           give the right one" in said.out
    assert "not tried  push: nobody may log in\n" in said.out
    said = run("init", place, "--check")
    assert said.code == 1 and f"name: {HOST} resolves to no address" in said.out


def test_json_and_no_password_is_not_all(run: Run, place: Path) -> None:
    said = run("init", place, "--check", "--address", "127.0.0.1", "--json")
    assert said.code == 3, said
    assert said.json["failed"] == said.json["warnings"] == 0
    outcomes = {line["name"]: line["outcome"] for line in said.json["checks"]}
    assert outcomes["password needed"] == "ok" and outcomes["push"] == "not tried"
    assert sum(outcome == "not tried" for outcome in outcomes.values()) == said.json["not_tried"] == 7
    said = run("init", place, "--check", "--address", "127.0.0.1")
    assert said.code == 3 and "give --user and --password-stdin" in said.err


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--check", "--renew"), "one thing at a time"),
        (("--check", "--port", "1"), "changes nothing else"),
        (("--url", "https://x"), "are of --check"),
        (("--check", "--url", "https://x/y"), "more than a host and a port"),
        (("--check", "--user", "ann"), "the password is missing"),
        (("--check", "--user", "ann", "--user", "bob"), "as one user"),
    ],
)
def test_words_that_do_not_go_together(run: Run, place: Path, words: tuple[str, ...], what: str) -> None:
    run("init", place, *words).failed(2, what)


def test_a_health_check_that_somebody_switched_off(run: Run, place: Path) -> None:
    config = place / "config.yml"
    before = config.read_text()
    config.write_text(before.replace("storagedriver:\n    enabled: true", "storagedriver:\n    enabled: false"))
    try:
        assert config.read_text() != before
        said = run("init", place, "--check", "--address", "127.0.0.1", "--without-store")
    finally:
        config.write_text(before)
    assert "warn       storage health: its storage health check is switched off" in said.out


@pytest.fixture
def plain(run: Run, tmp_path: Path) -> Path:
    """A deployment without TLS, which does not run."""
    folder = tmp_path / "registry"
    words = ("--host", "127.0.0.1", "--tls", "none", "--store", tmp_path / "store", "--create")
    assert run("init", folder, *words).code == 0
    return folder


async def test_interrupted_it_removes_what_it_pushed(plain: Path) -> None:
    async with served(FakeRegistry(hang_at="GET /v2/regstore-check/probe/tags")) as fake:
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "regstore", "init", plain, "--check", "--url", fake.url, "--without-store"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        await asyncio.wait_for(fake.hung.wait(), 60)
        assert len(fake.tags) == 1
        program.send_signal(signal.SIGINT)
        _, said = await asyncio.wait_for(program.communicate(), 60)
    assert (program.returncode, fake.tags) == (130, {}), said
    assert b"interrupted: what was pushed is removed again" in said and b"Traceback" not in said


def test_what_is_no_deployment(run: Run, tmp_path: Path) -> None:
    run("init", tmp_path, "--check").failed(2, "is no deployment")
