"""Whether the process that holds a lock is dead: never said of one that runs, whatever /proc shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from regstore.state import process as process_module
from regstore.state.process import is_certainly_dead, this_process

ROOT = Path(process_module.__file__).parents[2]
_IDENTITY = "from regstore.state.process import this_process; print(this_process(), flush=True)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]


@contextmanager
def running(*, before: Sequence[str] = (), then: str = "input()") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Another process, and what it says of itself; it ends with its standard input."""
    with subprocess.Popen(
        [*before, *python(f"{_IDENTITY}; {then}")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        try:
            yield other.stdout.readline().strip(), other
        finally:
            if not other.stdin.closed:
                other.stdin.close()


def judged(process: str, *, by: Sequence[str]) -> bool:
    """What another process, begun this way, says of it."""
    code = f"from regstore.state.process import is_certainly_dead; print(is_certainly_dead({process!r}))"
    said = subprocess.run([*by, *python(code)], capture_output=True, text=True, check=True)
    return {"True": True, "False": False}[said.stdout.strip()]


def unshared(*options: str) -> list[str]:
    command = [shutil.which("unshare") or "", *options]
    if not command[0] or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("this machine permits no namespaces")
    return command


def test_of_this_machine() -> None:
    assert not is_certainly_dead(this_process())
    with running() as (process, other):
        assert not is_certainly_dead(process)
        assert other.stdin is not None
        other.stdin.close()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert is_certainly_dead(process), "a zombie"
    assert is_certainly_dead(process)


def test_a_number_that_another_process_has_now() -> None:
    head, _, started = this_process().rpartition("/")
    assert is_certainly_dead(f"{head}/{int(started) - 1}")


def test_of_a_process_that_proc_hides() -> None:
    """`hidepid=2`, the hardening that CIS and others tell: /proc/<pid> of another user's process is not there."""
    hidden = unshared("--mount")
    by = [
        *hidden,
        "sh",
        "-c",
        'mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"',
        "sh",
    ]
    with running() as (process, _):
        seen = [*by, "test", "-e", f"/proc/{process.split('/')[3]}"]
        if subprocess.run([*by, "true"]).returncode or not subprocess.run(seen).returncode:
            pytest.skip("this machine's /proc can't be hidden")
        assert not judged(process, by=by)
    assert judged(process, by=by), "the kernel says so, and /proc needs not"


@pytest.mark.parametrize("proc", [(), ("--mount-proc",)], ids=["the host's proc", "its own proc"])
def test_of_another_pid_namespace(proc: Sequence[str]) -> None:
    """Each container has its process 1."""
    container = unshared("--pid", "--fork", *proc)
    with running(before=container) as (process, _):
        if proc:
            assert process.split("/")[3] == "1"
            assert not is_certainly_dead(process)
        else:
            assert process == "", "the host's /proc does not show when it began"
        assert not judged(this_process(), by=container)
    assert not is_certainly_dead(process), "its namespace is gone, which we can't know"


def test_of_another_time_namespace() -> None:
    """It shows other start times, of processes that run."""
    elsewhere = unshared("--time", "--boottime", "86400", "--fork")
    assert not judged(this_process(), by=elsewhere)


BOOT = "8b5c3d1e-0000-4000-8000-000000000001"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc of which a test takes what it likes."""
    monkeypatch.setattr(process_module, "_PROC", tmp_path)
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text(BOOT + "\n")
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").symlink_to("pid:[1]")
    (tmp_path / "self/ns/time").symlink_to("time:[2]")
    (tmp_path / "self/status").write_text(f"Name:\tpython\nNSpid:\t{os.getpid()}\n")
    return tmp_path


def write_stat(proc: Path, pid: int, *, state: str = "S", threads: int = 1, started: int = 500) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    rest = f"{state} 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 {started} 0 0"
    (proc / str(pid) / "stat").write_text(f"{pid} (a) b (c) {rest}\n")


def test_what_proc_may_show(proc: Path) -> None:
    pid = os.getpid()
    recorded = f"{BOOT}/pid:[1]/time:[2]/{pid}/500"
    assert not is_certainly_dead(recorded), "nothing to read, and the kernel knows the number"
    assert this_process() == ""
    write_stat(proc, pid)
    assert this_process() == recorded
    assert not is_certainly_dead(recorded)
    write_stat(proc, pid, started=501)
    assert is_certainly_dead(recorded)
    assert not is_certainly_dead(recorded.replace("time:[2]", "time:[3]"))
    (proc / "self/status").write_text(f"NSpid:\t4711\t{pid}\n")
    assert not is_certainly_dead(recorded), "a /proc of the host shows another process of that number"
    (proc / "self/status").write_text(f"NSpid:\t{pid}\n")
    write_stat(proc, pid, state="Z")
    assert is_certainly_dead(recorded)
    write_stat(proc, pid, state="Z", threads=2)
    assert not is_certainly_dead(recorded), "its first thread has ended, and others go on"
    (proc / str(pid) / "stat").write_text("")
    assert not is_certainly_dead(recorded)


@pytest.mark.parametrize(
    "recorded",
    [
        "",
        "?",
        f"{BOOT}/pid:[1]/500",
        f"{BOOT}/pid:[1]/4194303/500",  # as earlier versions wrote it, without the time namespace
        f"{BOOT}/pid:[1]/time:[2]/4194303/",
        f"{BOOT}/pid:[1]/time:[2]/0/500",
        f"{BOOT}/pid:[1]/time:[2]/-1/500",
        f"{BOOT}/pid:[1]/time:[2]/99999999999999999999999/500",
        f"{BOOT}/pid:[1]/time:[2]/\u0664/500",
        f"{BOOT}/pid:[2]/time:[2]/4194303/500",
        "8b5c3d1e-0000-4000-8000-000000000002/pid:[1]/time:[2]/4194303/500",
    ],
)
def test_what_says_nothing_is_not_dead(proc: Path, recorded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def kill(pid: int, signal: int) -> None:
        asked.append(pid)
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    assert not is_certainly_dead(recorded)
    assert not asked
    assert is_certainly_dead(f"{BOOT}/pid:[1]/time:[2]/4194303/500"), "this one is"
