"""The program as a whole: help, exit codes, what is imported, signals, pipes, bugs."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regstore import errors
from regstore.cli.app import COMMANDS, EPILOG
from regstore.cli.settings import StoreSettings
from regstore.errors import RegstoreError, Unreachable
from tests.cli.conftest import Run, Start
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server

HEAVY = (
    "aioboto3",
    "aiohttp",
    "asyncio",
    "boto3",
    "botocore",
    "duckdb",
    "lxml",
    "orjson",
    "pydantic",
    "rich",
    "tqdm",
    "yaml",
)


# -- help


def test_help_names_every_command_and_exit_code(run: Run) -> None:
    said = run("--help")
    assert said.code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", said.out, re.MULTILINE), name
    assert "--install-completion" in said.out
    documented = {int(code) for code in re.findall(r"\b(\d+) ", " ".join(EPILOG.split()))}
    assert documented - {129, 143} == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    said = run(command, "--help")
    assert said.code == 0
    assert f"Usage: regstore {command}" in said.out


def test_no_command_shows_the_help(run: Run) -> None:
    said = run()
    assert "Clean up:" in said.out + said.err


def test_version(run: Run) -> None:
    from regstore import __version__

    assert run("--version").out == f"regstore {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom regstore.cli import main\nsys.argv = ['regstore', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == "[]\n"


@pytest.mark.long
def test_the_end_looks_for_no_garbage() -> None:
    code = (
        "import atexit, gc, sys\natexit.register(lambda: print(gc.get_freeze_count() > 1000, file=sys.stderr))\n"
        "from regstore.cli import main\nsys.argv = ['regstore', '--version']\nmain()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == "True\n"


# -- usage


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("ls", "--nonsense"), ("ls", "a", "b", "c"), ("ls", ".", "--concurrency", "0")]
)
def test_usage_errors_are_2(run: Run, arguments: tuple[str, ...]) -> None:
    said = run(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert "Usage:" in said.err


def test_a_store_is_needed_once(run: Run, tmp_path: Path) -> None:
    run("ls").failed(2, "no store", "--registry-config")
    config = tmp_path / "config.yml"
    config.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path}\n")
    run("ls", tmp_path, "--registry-config", config).failed(2, "two stores")


# -- errors of every kind, at one command


@pytest.fixture
def broken_open(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """What is put into the list is raised where a command opens its store."""
    raised: list[BaseException] = []

    def fail(self: StoreSettings, *, read_only: bool = False) -> None:
        raise raised[0]

    monkeypatch.setattr(StoreSettings, "open_with_config", fail)
    yield raised


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, type)])
def test_an_error_of_ours_is_one_line_and_its_exit_code(
    run: Run, broken_open: list[BaseException], kind: type[RegstoreError]
) -> None:
    broken_open.append(kind("what went\nwrong"))
    run("ls", "x").failed(kind.exit_code, "wrong")


def test_a_group_shows_its_first_error_of_ours(run: Run, broken_open: list[BaseException]) -> None:
    inner = ExceptionGroup("workers", [Unreachable("no answer")])
    broken_open.append(ExceptionGroup("all", [ValueError("other"), inner]))
    run("ls", "x").failed(1, "no answer")


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/cache/x"), "no space left on the device: /cache/x"),
        (PermissionError(errno.EACCES, "Permission denied", "/cache/x"), "Permission denied: /cache/x"),
        (KeyError("x"), "please report"),
    ],
)
def test_other_errors_are_one_sentence(
    run: Run, broken_open: list[BaseException], error: BaseException, word: str
) -> None:
    broken_open.append(error)
    run("ls", "x").failed(1, word)


def test_the_traceback_is_for_those_who_ask(
    run: Run, broken_open: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_open.append(KeyError("x"))
    assert "Traceback" in run("ls", "x", "--debug").err
    monkeypatch.setenv("REGSTORE_DEBUG", "1")
    assert "Traceback" in run("ls", "x").err


def test_a_keyboard_interrupt_is_130(run: Run, broken_open: list[BaseException]) -> None:
    broken_open.append(KeyboardInterrupt())
    run("ls", "x").failed(130, "interrupted")


def test_control_characters_do_not_reach_the_terminal(run: Run, broken_open: list[BaseException]) -> None:
    broken_open.append(Unreachable("key \x1b[31mred\x07"))
    assert run("ls", "x").err == "regstore: key \\x1b[31mred\\x07\n"


# -- a process of its own


SIGNALS = [
    (signal.SIGINT, 130, "interrupted"),
    (signal.SIGTERM, 143, "terminated"),
    (signal.SIGHUP, 129, "hung up"),
]


@pytest.mark.parametrize(("number", "code", "word"), SIGNALS)
def test_a_signal_ends_it_cleanly(
    start: Start,
    moto: S3Server,
    moto_bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
    word: str,
) -> None:
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    with FaultProxy(moto.endpoint_url) as proxy:
        gate = proxy.hold(times=None)
        process = start("ls", f"s3://{moto_bucket}", "--endpoint-url", proxy.endpoint_url)
        gate.wait_reached()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", f"regstore: {word}\n")


#: Runs `ls` of a folder, and sends itself a signal: when asyncio is imported, when the loop gets its sockets, when the
#: loop runs the command's first line, or when the loop is closed again after the work.
EARLY = """
import os, socket, sys
folder, number, moment = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def send(*ignored):
    os.kill(os.getpid(), number)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {"import": "asyncio", "first line": "regstore.registry"}.get(moment):
            send()

def profile(frame, event, argument):
    if event == "call" and frame.f_code.co_name == {"loop": "socketpair", "end": "shutdown_asyncgens"}.get(moment):
        sys.setprofile(None)
        send()

sys.meta_path.insert(0, Finder())
from regstore.cli import main
import regstore.cli.app
sys.argv[1:] = ["ls", folder]
sys.setprofile(profile)
main()
"""


@pytest.mark.parametrize(
    ("moment", "number", "code", "word"),
    [
        ("import", *SIGNALS[0]),
        ("import", *SIGNALS[2]),
        ("loop", *SIGNALS[0]),
        ("first line", *SIGNALS[1]),
    ],
)
def test_a_signal_ends_it_cleanly_before_the_loop_runs(
    demo_registry: Path, moment: str, number: signal.Signals, code: int, word: str
) -> None:
    command = [sys.executable, "-W", "error", "-c", EARLY, str(demo_registry), str(int(number)), moment]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"regstore: {word}\n")


def test_a_signal_after_the_work_does_no_harm(demo_registry: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", EARLY, str(demo_registry), str(int(signal.SIGINT)), "end"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "team/app" in done.stdout


def test_a_dropped_session_ends_it_cleanly(
    start: Start, moto: S3Server, moto_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    master, terminal = os.openpty()
    with FaultProxy(moto.endpoint_url) as proxy:
        gate = proxy.hold(times=None)
        arguments = ("ls", f"s3://{moto_bucket}", "--endpoint-url", proxy.endpoint_url)
        process = start(*arguments, stdout=terminal, stderr=terminal)
        os.close(terminal)
        gate.wait_reached()
        os.close(master)
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 129


def test_nohup_is_obeyed() -> None:
    code = (
        "import os, signal\nfrom regstore.cli.run import run_async\n"
        "async def work():\n    os.kill(os.getpid(), signal.SIGHUP)\n    return 'done'\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nprint(run_async(work()))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "done\n"


def test_a_second_signal_ends_it_at_once() -> None:
    code = (
        "import asyncio, sys\nfrom regstore.cli.run import run_async\n"
        "async def stubborn():\n"
        "    while True:\n"
        "        try:\n"
        "            print('ready', flush=True)\n"
        "            await asyncio.Event().wait()\n"
        "        except asyncio.CancelledError:\n"
        "            pass\n"
        "run_async(stubborn())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT


def test_a_closed_pipe_ends_it_silently(start: Start, demo_registry: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start("ls", demo_registry, stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + signal.SIGPIPE, "")


def test_a_full_device_is_told(start: Start, demo_registry: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = start("ls", demo_registry, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "regstore: no space left on the device\n"


@pytest.mark.parametrize("arguments", [["--help"], ["gc", "--help"], ["--version"]])
def test_a_full_device_is_told_of_help(start: Start, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(*arguments, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "regstore: no space left on the device\n"


@pytest.mark.parametrize(
    ("closed", "out", "err"),
    [(">&-", False, False), ("2>&-", True, False), ("<&-", True, False), (">&- 2>&- <&-", False, False)],
)
def test_closed_streams_do_no_harm(demo_registry: Path, closed: str, out: bool, err: bool) -> None:
    command = f'"$0" -m regstore ls "$1" {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable, demo_registry], capture_output=True, timeout=60)
    assert (done.returncode, bool(done.stdout), bool(done.stderr)) == (0, out, err)


def test_a_pipe_gets_no_progress(start: Start, demo_registry: Path) -> None:
    process = start("tags", demo_registry, "team/app")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("TAG")
