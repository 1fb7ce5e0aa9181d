"""Which process holds something, and whether it is certainly dead: what lets its lock be cleared before its lease ends.

A wrong "dead" means two runs that change one store, so everything that can't be told is "not dead": the lease ends
in any case. What is relied on (Linux; elsewhere nothing is ever dead):

- The boot id is one running kernel's: what another kernel runs can't be looked at. (A virtual machine that was saved
  while it ran and was started twice has one boot id on two kernels. No program can tell these apart.)
- A PID namespace has an inode number that no other namespace has while it lives (namespaces(7)). A number is used
  again, but only once the namespace is gone, and with it every process in it: who finds the number again is right to
  look for the process among its own.
- kill(2) with signal 0 asks the kernel itself, in the caller's own namespace: ESRCH is "no such process", EPERM is "it
  runs, and is another user's". /proc can't say the first: with `hidepid=2` the processes of others are not there
  (proc_pid_stat(5), proc(5)).
- The number of a dead process is used again; then the start time differs. It is read from `/proc/<pid>/stat` only if
  this /proc shows our own namespace (a container may see its host's: then `NSpid` has more numbers than one), and only
  compared within one time namespace (its offset is added to what is shown, time_namespaces(7)).
- A zombie does nothing any more, unless it is the first thread of a process whose others go on.

A process that was saved and brought back (CRIU) in the same namespace has another start time than it wrote down, and
counts as dead: don't do that to a run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
#: No system has higher process numbers (proc_sys_kernel(5), pid_max).
_HIGHEST_PID: Final = 1 << 22


class _Place(NamedTuple):
    """Where a process number and a start time mean one process."""

    boot: str
    pids: str
    times: str


def this_process() -> str:
    """`<boot id>/<PID namespace>/<time namespace>/<pid>/<start time>` of this process; "" where that can't be told."""
    pid = os.getpid()
    place = _place()
    stat = _stat(pid)
    return "/".join([*place, str(pid), stat.started]) if place is not None and stat is not None else ""


def is_certainly_dead(process: str) -> bool:
    """Whether what `this_process` said of itself, here or elsewhere, runs no more. False where that can't be told."""
    boot, *rest = process.split("/")
    here = _place()
    if len(rest) != 4 or here is None:
        return False
    pids, times, number, started = rest
    if (boot, pids) != (here.boot, here.pids) or not (number.isascii() and number.isdigit() and started):
        return False
    pid = int(number[:10])
    if not 0 < pid <= _HIGHEST_PID:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it may not be asked by us; that it is there has been said
    stat = _stat(pid)
    if stat is None:
        return False
    return (times == here.times and stat.started != started) or stat.is_zombie


class _Stat(NamedTuple):
    started: str
    is_zombie: bool


def _stat(pid: int) -> _Stat | None:
    """Of a process of our own namespace; None where /proc does not say."""
    try:
        if not _shows_our_namespace():
            return None
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name may hold anything, also brackets and blanks: what follows is counted from its end (proc_pid_stat(5)).
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or not fields[19].isdigit():
        return None
    return _Stat(started=fields[19], is_zombie=fields[0] in "ZX" and fields[17] in "01")


def _shows_our_namespace() -> bool:
    for line in (_PROC / "self" / "status").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name == "NSpid":
            return value.split() == [str(os.getpid())]
    return False


def _place() -> _Place | None:
    try:
        boot = (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
        pids = (_PROC / "self" / "ns" / "pid").readlink().name
    except OSError:
        return None
    try:
        times = (_PROC / "self" / "ns" / "time").readlink().name
    except OSError:
        times = "none"  # a kernel before 5.6 has one time for all
    return _Place(boot, pids, times) if boot else None
