"""The nightly script: what it runs, in which order, what a failure keeps from running, and what it says at the end."""

from __future__ import annotations

import os
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from typer.testing import CliRunner

from regstore.cli.app import app
from regstore.cli.run import run_async
from regstore.demo_registry import build_demo_registry
from regstore.deployment import config_yml, nightly
from regstore.deployment.wanted import Form
from regstore.errors import InputError
from tests.deployment.asked import case
from tests.deployment.test_wanted import deployment
from tests.servers.process import wait_until

#: Writes its arguments down, and ends with the code that stands in a file named after its first words.
FAKE = """#!/bin/sh
echo "$@" >>"{log}"
[ "$1" != backup ] || set -- "$1-$2"
if [ -e "{folder}/wait-$1" ]; then
  trap 'echo "$1 stopped" >>"{log}"; exit 143' TERM
  : >"{folder}/waits"
  while :; do sleep 0.05; done
fi
exit "$(cat "{folder}/$1" 2>/dev/null || echo 0)"
"""


class Night:
    def __init__(self, folder: Path, **changed: Any) -> None:
        self.folder = folder
        self.log = folder / "log"
        program = folder / "reg store's"
        program.write_text(FAKE.format(log=self.log, folder=folder))
        program.chmod(0o755)
        asked = case("folders", form=Form.SYSTEMD, regstore_program=str(program), **changed)
        (folder / nightly.NIGHTLY).write_text(nightly.script(asked))

    def start(self) -> subprocess.Popen[str]:
        command = ["/bin/sh", str(self.folder / nightly.NIGHTLY)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, **codes: int) -> tuple[int, list[str], str]:
        """Exit code, what was run, what was said. codes: of the steps, by name (`backup_create`)."""
        for name, code in codes.items():
            (self.folder / name.replace("_", "-")).write_text(str(code))
        process = self.start()
        said, _ = process.communicate(timeout=30)
        return process.returncode, self.ran(), said

    def ran(self) -> list[str]:
        lines = self.log.read_text().splitlines()
        return [" ".join(line.split()[: 2 if line.startswith("backup") else 1]) for line in lines]


ALL = ["backup create", "gc", "verify", "backup check"]


def test_all_in_order(tmp_path: Path) -> None:
    code, ran, said = Night(tmp_path).run()
    assert (code, ran) == (0, ALL)
    assert [line.split(":")[0] for line in said.splitlines()] == [f"== {name}" for name in ALL]


def test_without_a_backup_there_is_gc_and_verify(tmp_path: Path) -> None:
    assert Night(tmp_path, backup=None).run()[1] == ["gc", "verify"]


@pytest.mark.parametrize(
    ("codes", "code", "ran"),
    [
        # Some of the store could not be saved, and was named: gc goes on.
        ({"backup_create": 3}, 3, ALL),
        ({"backup_create": 1}, 1, ["backup create", "verify", "backup check"]),
        ({"gc": 4}, 4, ALL),
        # The graver one is told.
        ({"gc": 3, "verify": 6, "backup_check": 1}, 6, ALL),
    ],
)
def test_a_failure_keeps_back_only_what_relies_on_it(
    tmp_path: Path, codes: dict[str, int], code: int, ran: list[str]
) -> None:
    found, done, said = Night(tmp_path).run(**codes)
    assert (found, done) == (code, ran)
    assert ("gc: left out, because backup create failed" in said) == ("gc" not in ran)


def test_a_stop_reaches_the_step_and_no_other_begins(tmp_path: Path) -> None:
    night = Night(tmp_path)
    (tmp_path / "wait-gc").touch()
    process = night.start()
    wait_until(lambda: (tmp_path / "waits").exists(), "gc to run")
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert night.log.read_text().splitlines()[-1] == "gc stopped"
    assert night.ran()[:2] == ["backup create", "gc"]


def test_regstore_runs_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a registry that has garbage and, for backup and verify, damage: what is sound is saved, and all goes on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store, folder = tmp_path / "st ore", tmp_path / "d i r"
    folder.mkdir()
    run_async(build_demo_registry(store, now=datetime.now(UTC)))
    storage = {"filesystem": {"rootdirectory": str(store)}}
    asked = deployment(
        store=str(store), storage=storage, folder=PurePosixPath(folder), backup=str(tmp_path / "back up")
    )
    for file in config_yml.files(asked):
        (folder / file.path).write_bytes(file.content)
    codes = {}
    for step in nightly.steps(asked):
        arguments = [*step.arguments, *(["--settle", "0s"] if step.name == "gc" else [])]
        codes[step.name] = CliRunner().invoke(app, arguments).exit_code
    assert codes == {"backup create": 3, "gc": 3, "verify": 6, "backup check": 0}
    assert (tmp_path / "cache" / "regstore").is_dir()


def test_a_bucket_for_backups_is_reached_as_the_store_is() -> None:
    found = {step.name: step.arguments for step in nightly.steps(case("everything", form=Form.COMPOSE))}
    there = (
        "--dst-region",
        "eu-central-1",
        "--dst-endpoint-url",
        "https://s3.example.org:7480",
        "--dst-path-style",
    )
    assert found["backup create"][-5:] == there
    assert found["backup create"][-7:-5] == ("s3://backup.example.org/of/it", "--create")
    here = tuple(each.replace("--dst-", "--") for each in there)
    assert found["backup check"][2:8] == ("s3://backup.example.org/of/it", *here)


def test_nothing_is_done_without_asking_that_gc_does_not_do_by_default() -> None:
    gc = next(step for step in nightly.steps(case("plain", form=Form.COMPOSE)) if step.name == "gc")
    assert gc.arguments == ("gc", "--registry-config", "/etc/registry/config.yml", "--yes")


def test_a_backup_needs_a_folder_that_means_the_same_everywhere() -> None:
    with pytest.raises(InputError, match="absolute"):
        nightly.steps(case("plain", backup="here"))
