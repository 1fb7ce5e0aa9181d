"""What `--fast` leaves out, and what it does not let pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import fast
from tests.servers.moto_server import moto_server

TESTS = Path(__file__).parent
STARTS_A_PROGRAM = """
import subprocess, sys, pytest
from tests import fast
fast.watch()
try:
    with fast.held():
        try:
            subprocess.run([sys.executable, "--version"])
        except AssertionError:
            pass  # a test may swallow it
except pytest.fail.Exception as error:
    print(error)
"""


def test_the_long_ones_are_files() -> None:
    assert sorted(set(fast.LONG)) == list(fast.LONG)
    assert [name for name in fast.LONG if not (TESTS / name).is_file()] == []


@pytest.mark.long
def test_a_test_that_starts_a_program_fails() -> None:
    """In a process of its own: an audit hook stays until the end, and where one runs, two threads that begin to be
    traced at once (coverage does so) break each other."""
    done = subprocess.run(
        [sys.executable, "-c", STARTS_A_PROGRAM], cwd=TESTS.parent, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert "started a program (subprocess.Popen: " in done.stdout
    assert "mark it @pytest.mark.long" in done.stdout


def test_a_test_that_starts_moto_fails() -> None:
    with pytest.raises(AssertionError, match=r"started moto's S3: mark it"):
        with fast.held(), moto_server():
            pass


def test_a_test_that_takes_long_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"more than the -1 of --fast"):
        with fast.held(seconds=-1):
            pass


@pytest.mark.long
def test_outside_of_it_nothing_is_refused() -> None:
    fast.refuse("anything")
