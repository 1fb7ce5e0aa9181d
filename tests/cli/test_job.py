"""`regstore run`: the steps of a job, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from prometheus_client.parser import text_string_to_metric_families

from regstore.cli.config.current import load
from regstore.cli.config.model import Step, parse
from regstore.cli.config.place import Place
from regstore.cli.job import GRAVEST, _Running
from tests.cli.conftest import Monitor, Run, hold_to_schema
from tests.cli.terminal import on_terminal
from tests.deployment.running import Unit

pytestmark = pytest.mark.long

USAGE, PARTIAL, REFUSED, DAMAGE, INTERRUPTED = 2, 3, 4, 6, 130


@pytest.fixture
def folder(tmp_path: Path, demo_copy: Path) -> Path:
    """A folder of a job's own, beside a registry."""
    folder = tmp_path / "night"
    folder.mkdir()
    (folder / "cache").mkdir()
    return folder


def job_file(folder: Path, steps: str, job: str = "") -> Path:
    path = folder / "night.toml"
    head = "[stores.prod]\nurl = '../registry'\n[stores.backups]\nurl = 'backup'\n[options]\ncache_dir = 'cache'\n"
    path.write_text(f"{head}[jobs.nightly]\n{job}\n{steps}")
    path.chmod(0o600)
    return path


def step(command: str, **options: Any) -> str:
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in options.items()]
    return f"[[jobs.nightly.step]]\ncommand = '{command}'\n{''.join(lines)}"


NIGHT = "".join(
    [
        step("backup create", store="prod", backup="backups", create=True),
        step("gc", store="prod", settle="0s", registry_cache="none", yes=True),
        step("backup check", backup="backups", read_data="50%"),
        step("backup prune", backup="backups", keep_last=1, grace="0s", yes=True),
        step("verify", store="prod", read_data="50%"),
    ]
)


def bare(path: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """As cron starts it: nothing in the environment, in a folder of its own."""
    command = [sys.executable, "-m", "regstore", "--config", str(path), "run", *words]
    environ = {"PATH": "/usr/bin:/bin", **more}
    return subprocess.run(
        ["env", "-i", *(f"{name}={value}" for name, value in environ.items()), *command],
        capture_output=True,
        text=True,
        cwd="/",
        stdin=subprocess.DEVNULL,
        check=False,
    )


README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_readmes_night_and_the_next(tmp_path: Path, demo_copy: Path, run: Run, monitor: Monitor) -> None:
    """README's file, with its places here, started by the line of its unit."""
    shown = README.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "config.yml").write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {demo_copy}\n")
    for there, name in (
        ("/etc/docker/registry/config.yml", "config.yml"),
        ("/srv/backup", "backup"),
        ("/var/cache/regstore", "cache"),
        ("/var/lib/node_exporter/regstore.prom", "regstore.prom"),
    ):
        assert there in shown
        shown = shown.replace(there, name)
    path = tmp_path / "regstore.toml"
    # A minute and a half is long.
    path.write_text(shown.replace("yes = true", 'yes = true\nsettle = "0s"', 1))
    path.chmod(0o644)
    ping = {"NIGHTLY_PING_URL": f"{monitor.url}/uuid"}
    with mock.patch.dict(os.environ, ping):
        assert run("--config", path, "config", "check").out == f"{path}: 2 stores, 1 policy, 1 job; nothing wrong\n"
        # What anybody looks at is not the night.
        assert run("--config", path, "ls", "prod").code == 0
        assert run("--config", path, "run", "nightly", "--step", "5").code == 0
    assert monitor.asked == []
    assert not (tmp_path / "regstore.prom").exists()
    first = bare(path, "nightly", **ping)
    assert (first.returncode, samples(tmp_path / "regstore.prom")["regstore_run_exit_code"]) == (0, 0), first
    assert "cache: none, as " in first.stdout
    assert "step 5 of 5: regstore verify @prod --read-data 5%" in first.stdout
    assert [line.split()[0] for line in first.stdout.splitlines()[-6:-1]] == list("12345")
    assert first.stdout.splitlines()[-1].startswith("job nightly: exit code 0, in ")
    second = bare(path, "nightly", "--json", "--log-format", "json", **ping)
    assert second.returncode == 0, second
    document = json.loads(second.stdout)
    hold_to_schema(document)
    hold_to_schema(document)
    steps = document["result"]["report"]["steps"]
    commands = ["backup create", "gc", "backup check", "backup prune", "verify"]
    assert [(each["command"], each["exit_code"]) for each in steps] == [(command, 0) for command in commands]
    assert all(each["result"] for each in steps)
    assert all(json.loads(line)["event"] for line in second.stderr.splitlines())
    assert "team/app" in run("--config", path, "backup", "show", "backups").out
    assert [each for each, _ in monitor.asked] == ["/uuid/start", "/uuid"] * 2


def samples(path: Path) -> dict[str, float]:
    """As Prometheus' own parser reads them; of two of one name that of the job itself, which is last."""
    families = text_string_to_metric_families(path.read_text())
    found = [sample for family in families for sample in family.samples]
    assert all(sample.labels["job"] == "nightly" for sample in found)
    assert found[0].labels["command"] != "run"
    return {sample.name: sample.value for sample in found}


def test_the_readmes_unit_is_one(folder: Path, run: Run) -> None:
    text = README.partition("For a timer of systemd's")[2].partition("\n\n## ")[0]
    path = folder / "regstore-nightly.service"
    path.write_text("".join(f"{line.strip()}\n" for line in text.splitlines() if line.startswith("    ")))
    unit = Unit.read(path)
    assert unit.all("Type") == ["oneshot"]
    assert unit.all("SuccessExitStatus") == ["3"]
    program, *words = unit.command
    assert program == "/opt/regstore/bin/regstore"
    file = job_file(folder, step("ls", store="prod"))
    said = run(*(word.replace("/etc/regstore.toml", str(file)) for word in words), "--dry-run")
    assert said.out == "regstore ls @prod\n"


def test_what_fails_ends_it_or_not_as_said(folder: Path, monitor: Monitor) -> None:
    refused = step("gc", store="prod", settle="0s")  # without yes
    look = step("ls", store="prod")
    stopped = bare(job_file(folder, refused + look), "nightly", "--json")
    assert stopped.returncode == REFUSED
    assert [each["exit_code"] for each in json.loads(stopped.stdout)["result"]["report"]["steps"]] == [
        REFUSED,
        None,
    ]
    blob = next((folder.parent / "registry/docker/registry/v2/blobs").rglob("data"))
    blob.write_bytes(b"x" * blob.stat().st_size)
    by_step = step("gc", store="prod", settle="0s", on_failure="continue")
    # A job's name is a label, so that two have their own metrics.
    telling = f"metrics_file = 'night.prom'\nping_url = '{monitor.url}/uuid'"
    path = job_file(folder, by_step + step("verify", store="prod", read_data="all") + look, telling)
    went_on = bare(path, "nightly")
    assert went_on.returncode == DAMAGE  # graver than refused
    assert "say --yes" in went_on.stderr
    assert "not begun" in went_on.stdout
    told = samples(folder / "night.prom")
    names = (
        "regstore_run_exit_code",
        "regstore_run_steps",
        "regstore_run_begun_steps",
        "regstore_run_failed_steps",
    )
    assert [told[name] for name in names] == [DAMAGE, 3, 2, 2]
    text = (folder / "night.prom").read_text()
    assert f'regstore_run_exit_code{{command="gc",store="{folder}/../registry",job="nightly"}} {REFUSED}' in text
    assert told["regstore_verify_faults"] == 1
    assert [each for each, _ in monitor.asked] == ["/uuid/start", f"/uuid/{DAMAGE}"]
    went_on = bare(job_file(folder, refused + look, "on_failure = 'continue'"), "nightly")
    assert went_on.returncode == REFUSED
    assert "team/app" in went_on.stdout


def test_all_steps_are_looked_at_before_the_first_begins(folder: Path, run: Run) -> None:
    wrong = step("backup create", store="prod", backup="backups") + step("verify", store="prod", read_data="most")
    path = job_file(folder, wrong)
    said = run("--config", path, "run", "nightly")
    assert said.code == USAGE
    assert "--read-data" in said.err
    assert "[jobs.nightly], step 2" in said.err
    assert not (folder / "backup").exists()
    assert run("--config", path, "config", "check").code == USAGE
    for words, text in (
        (("nigthly",), "did you mean nightly?"),
        ((), "no job"),
        (("nightly", "--step", "3"), "no step 3"),
    ):
        said = run("--config", path, "run", *words)
        assert (said.code, text in said.err) == (USAGE, True), said


def test_a_dry_run_shows_command_lines(folder: Path, run: Run) -> None:
    path = job_file(folder, NIGHT)
    said = run("--config", path, "run", "nightly", "--dry-run")
    assert said.out.splitlines()[1] == "regstore gc @prod --yes --settle 0s --registry-cache none"
    assert not (folder / "backup").exists()


def test_a_step_alone_runs_here(folder: Path, run: Run) -> None:
    path = job_file(folder, step("ls", store="prod") + step("gc", store="prod", settle="0s"))
    assert run("--config", path, "run", "nightly", "--step", "1").out == run("ls", folder.parent / "registry").out
    assert run("--config", path, "run", "nightly", "--step", "2").code == REFUSED
    # A number may be another step's once the file has changed.
    found = load(path, {})
    assert found is not None
    same = ("--config", path, "run", "nightly", "--step", "1", "--unchanged", found.digest)
    assert run(*same).code == 0
    path.write_text(path.read_text() + "\n")
    run(*same).failed(USAGE, "was changed since the job began")
    assert "--unchanged" not in run("run", "--help").out
    assert found.digest in _Running(found.jobs["nightly"], found)._words(found.jobs["nightly"].steps[0])


@pytest.mark.parametrize(
    ("number", "whom"),
    [(signal.SIGINT, "its group"), (signal.SIGTERM, "it alone"), (signal.SIGTERM, "each process")],
)
def test_a_signal_ends_it_in_order(number: int, whom: str, folder: Path) -> None:
    """As a terminal sends it, as who started it does, and as systemd: the step tidies up, and no other begins."""
    path = job_file(folder, step("gc", store="prod", settle="600s", yes=True) + step("ls", store="prod"))
    process = subprocess.Popen(
        [sys.executable, "-m", "regstore", "--config", str(path), "run", "nightly"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    locks = folder.parent / "registry/regstore/locks"
    deadline = time.monotonic() + 60
    while not (locks.is_dir() and any(locks.iterdir())):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    if whom == "its group":
        os.killpg(process.pid, number)
    else:
        for each in (process.pid, *(int(child) for child in children if whom == "each process")):
            os.kill(each, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (INTERRUPTED if number == signal.SIGINT else 128 + number)
    assert "interrupted: 1 step of 2 began" in err
    assert "was ended by" not in err
    assert "not begun" in out
    assert not any(locks.iterdir())


def test_a_step_that_is_killed_ends_alone(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from regstore.cli import job

    monkeypatch.setattr(
        job._Running, "_words", lambda self, step: ["sh", "-c", "kill -9 $$" if step.number == 1 else "exit 3"]
    )
    path = job_file(folder, step("ls", store="prod") * 2, "on_failure = 'continue'")
    said = run("--config", path, "run", "nightly", "--json")
    assert [each["exit_code"] for each in said.report["steps"]] == [137, PARTIAL]
    assert said.code == 1
    assert "SIGKILL" in said.err


def test_on_a_terminal(folder: Path) -> None:
    path = job_file(folder, step("verify", store="prod", read_data="all") + step("ls", store="prod"))
    shown = on_terminal("--config", path, "run", "nightly")
    assert shown.code == 0
    assert "\r" in shown.raw.replace("\r\n", "")  # a step's bar moves
    assert "\nstep 2 of 2: regstore ls @prod\n" in shown.text
    *_, head, first, second, last, _ = shown.text.split("\n")
    assert [line.split()[:3] for line in (first, second)] == [["1", "verify", "0"], ["2", "ls", "0"]]
    assert max(map(len, (head, first, second, last))) <= 80
    wide = on_terminal("--config", path, "config", "show", "verify", "--store", "prod")
    assert wide.code == 0
    assert max(len(line) for line in wide.text.split("\n") if str(folder) not in line) <= 80  # no path is cut


def test_the_gravest_code_is_that_of_the_job() -> None:
    assert set(GRAVEST) == {0, 1, 2, 3, 4, 5, 6}
    assert GRAVEST[-2:] == (3, 0)


def test_a_file_in_the_current_folder_runs_no_command(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = job_file(folder, step("gc", store="prod", restart_command="touch ran", yes=True))
    path.rename(folder / "regstore.toml")
    monkeypatch.chdir(folder)
    said = run("run", "nightly")
    assert said.code == USAGE
    assert "restart_command is not run" in said.err
    found = parse((folder / "regstore.toml").read_text(), Place(path=path, how="named"), ["gc"])
    assert isinstance(found.jobs["nightly"].steps[0], Step)
    assert run("--config", folder / "regstore.toml", "run", "nightly", "--dry-run").code == 0


def test_quiet_prints_problems_only(folder: Path) -> None:
    refused = bare(job_file(folder, step("gc", store="prod", settle="0s")), "nightly", "-q")
    assert refused.stdout.splitlines()[-1].startswith("job nightly: exit code 4")
    assert "say --yes" in refused.stderr
    steps = step("ls", store="prod") + step("gc", store="prod", settle="0s", yes=True)
    fine = bare(job_file(folder, steps), "nightly", "-q")
    assert (fine.returncode, fine.stderr) == (0, "")
    assert "team/app" in fine.stdout  # what was asked for
    assert "moved to the trash" not in fine.stdout
    assert "job nightly" not in fine.stdout
