"""`regstore gc --engine spark`, and the file for spark-submit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from regstore.cli import spark_submit
from tests.cli.conftest import Run, run  # noqa: F401 - a fixture
from tests.model.random_registry import example_registry

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.long


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    example_registry().on_disk().write_folder(tmp_path / "registry")
    return tmp_path / "registry"


def test_it_says_what_one_process_says(session: SparkSession, run: Run, registry: Path, tmp_path: Path) -> None:  # noqa: F811
    words = ["gc", registry, "--dry-run", "--json", "--delete-untagged", "--keep-newest", "1", "--drop-tag", "*"]
    one = run(*words)
    said = run(*words, "--engine", "spark", "--work", tmp_path / "work", "--shards", 2, "--request-rate", 500)
    assert said.code == one.code
    assert said.plan == one.plan
    assert said.plan["dropped_tags"] and said.plan["blobs"]["dead"]
    assert not session.sparkContext._jsc.sc().isStopped()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "only plans as yet"),
        (["--dry-run"], "name one with --work"),
        (["--dry-run", "--inventory", "x"], "no one inventory"),
        (["--explain", "a"], "look at one inventory"),
        (["--dry-run", "--work", "/w", "--drop-broken-revisions", "all"], "works on one machine"),
        (["--dry-run", "--work", "/w", "--keep-newest", "1", "--newest-by", "created"], "work on one machine"),
    ],
)
def test_what_it_does_not_do(run: Run, registry: Path, words: list[str], told: str) -> None:  # noqa: F811
    """Before anything of Spark is started."""
    run("gc", registry, "--engine", "spark", *words).failed(2, told)


def test_engines(run: Run, registry: Path) -> None:  # noqa: F811
    run("gc", registry, "--dry-run", "--engine", "hadoop").failed(2, "local or spark, not hadoop")
    said = run("gc", registry, "--dry-run", "--shards", "3")
    assert "--shards has no effect: it is about --engine spark" in said.err


def test_the_file_for_spark_submit(registry: Path) -> None:
    """Without words it says where it is; with a command it is regstore with Spark."""
    script = [sys.executable, "-m", "regstore.cli.spark_submit"]
    where = subprocess.run(script, capture_output=True, text=True, check=True)
    assert where.stdout == f"{spark_submit.__file__}\n"
    told = subprocess.run([*script, "gc", str(registry)], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "with --engine spark gc only plans as yet" in told.stderr
    same = subprocess.run([*script, "ls", str(registry), "--json"], capture_output=True, text=True, check=False)
    assert same.returncode == 0
