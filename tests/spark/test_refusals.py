"""What is refused before anything of Spark is started; and the file for spark-submit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from regstore.cli.submit import regstore_spark
from regstore.errors import InputError, Refused
from regstore.spark import session as session_module
from regstore.spark.options import SparkOptions
from regstore.spark.session import open_session
from tests.cli.conftest import Run

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name one with --work"),
        (["--offline", "--no-trash", "--state-dir", "x", "--work", "/w"], "leave out --state-dir"),
        (["--dry-run"], "name one with --work"),
        (["--dry-run", "--inventory", "x"], "no one inventory"),
        (["--explain", "a"], "look at one inventory"),
    ],
)
def test_what_it_does_not_do(run: Run, registry: Path, words: list[str], told: str) -> None:
    """Before anything of Spark is started."""
    run("gc", registry, "--engine", "spark", *words).failed(2, told)


def test_engines(run: Run, registry: Path) -> None:
    run("gc", registry, "--dry-run", "--engine", "hadoop").failed(2, "local or spark, not hadoop")
    said = run("gc", registry, "--dry-run", "--shards", "3")
    assert "--shards has no effect: it is about --engine spark" in said.err


def test_verify_and_migrate_by_executors(run: Run, registry: Path, tmp_path: Path) -> None:
    """What no executor can reach is refused before anything of Spark is started."""
    for words in (["verify", "memory://here"], ["migrate", registry, "memory://here", "--create"]):
        run(*words, "--engine", "spark").failed(1, "memory://here can't be opened by other processes")
        run(*words, "--engine", "hadoop").failed(2, "local or spark, not hadoop")
    said = run("verify", registry, "--tasks", "3", "--request-rate", "3")
    assert "--tasks has no effect: it is about --engine spark" in said.err
    assert said.err.count("--request-rate has no effect") == 1
    said = run("gc", registry, "--dry-run", "--engine", "spark", "--request-rate", "3")
    assert "--request-rate has no effect on a folder" in said.err


def test_the_file_for_spark_submit(registry: Path) -> None:
    """Without words it says where it is; with a command it is regstore with Spark. It is run as spark-submit does."""
    script = [sys.executable, regstore_spark.__file__]
    where = subprocess.run(script, capture_output=True, text=True, check=True)
    assert where.stdout == f"{regstore_spark.__file__}\n"
    told = subprocess.run([*script, "gc", str(registry)], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "name one with --work" in told.stderr
    same = subprocess.run([*script, "ls", str(registry), "--json"], capture_output=True, text=True, check=False)
    assert same.returncode == 0


@pytest.mark.parametrize("word", ["true", "True "])
def test_speculation_is_refused(word: str) -> None:
    """In all that Spark takes for it."""
    settings = {"spark.speculation": word}
    fake: Any = SimpleNamespace(sparkContext=SimpleNamespace(getConf=lambda: settings))
    with pytest.raises(Refused, match="speculation is on"):
        session_module._check(fake)


def test_without_pyspark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'regstore\[spark\]'"), open_session(SparkOptions(work="/w")):
        pass
