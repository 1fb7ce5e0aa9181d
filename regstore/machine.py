"""What this process may use of the machine, and how it looks for garbage."""

from __future__ import annotations

import atexit
import gc
import os
from contextlib import suppress
from pathlib import Path


def usable_cores() -> int:
    """By the process's affinity and its control group's quota, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, _, period = Path("/sys/fs/cgroup/cpu.max").read_text().partition(" ")
        cores = min(cores, max(1, -(-int(quota) // int(period))))
    return cores


def usable_memory() -> int:
    """In bytes: the machine's, or the control group's where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            total = min(total, int(Path(limit).read_text()))
    return total


def collect_seldom() -> None:
    """For a process that is ours from its start to its end. What it imports lives to the end, and looking through that
    for garbage again and again takes a tenth of a run. The interpreter's last looks take 50 ms and more; what they find
    is gone with the process anyhow."""
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)  # what is registered first runs last
