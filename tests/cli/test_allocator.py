"""Freed memory is kept for the next piece, unless the environment says otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

#: Page faults of twelve pieces of 1 MiB at a time, thirty times over, in a thread as those that read.
PROGRAM = """
import resource, sys, threading
from regstore.cli.allocator import keep_freed_memory

def pieces():
    with open("/dev/zero", "rb", buffering=0) as zeros:
        for _ in range(30):
            held = [zeros.read(1024 * 1024) for _ in range(12)]
            held.clear()

print(keep_freed_memory())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=pieces)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def measured(**environment: str) -> tuple[str, int]:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    out = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    kept, faults = out.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_is_used_again(isolated_environment: Path) -> None:
    kept, faults = measured()
    assert kept == "True"
    assert faults < 3 * 12 * 256, "as many as all pages, not thirty times as many"


def test_what_the_environment_says_counts(isolated_environment: Path) -> None:
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        kept, _ = measured(**{name: "1" if name.startswith("MALLOC") else "glibc.malloc.arena_max=1"})
        assert kept == "False"
