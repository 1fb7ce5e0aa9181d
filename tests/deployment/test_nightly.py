"""The nightly job: its file says what was asked, regstore understands it, and it does what it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from regstore.cli.app import app
from regstore.cli.run import run_async
from regstore.demo_registry import build_demo_registry
from regstore.deployment import config_yml, nightly
from regstore.deployment.wanted import CONFIG, Deployment, Form
from regstore.errors import InputError
from tests.deployment.asked import CASES, case
from tests.deployment.test_wanted import deployment


def written(name: str, **changed: Any) -> dict[str, Any]:
    return tomllib.loads(nightly.render(case(name, **changed)))


@pytest.mark.long
def test_without_its_backup_nothing_goes(tmp_path: Path) -> None:
    """The folder of the backups is not there, as when its disk is not mounted."""
    store, folder = tmp_path / "st ore", tmp_path / "d i $r"
    folder.mkdir()
    run_async(build_demo_registry(store, now=datetime.now(UTC)))
    storage = {"filesystem": {"rootdirectory": str(store)}}
    backup = str(tmp_path / "back up")
    asked = deployment(store=str(store), storage=storage, folder=PurePosixPath(folder), backup=backup)
    for file in [*config_yml.files(asked), *nightly.files(asked)]:
        (folder / file.path).write_bytes(file.content)
    before = sorted(store.rglob("*"))
    said = subprocess.run(
        [sys.executable, "-m", "regstore", *nightly.arguments()],
        env={**os.environ, **nightly.job_environment(asked), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert said.returncode == 1, said
    assert "no such folder" in said.stderr
    assert sorted(store.rglob("*")) == before


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", list(Form))
def test_regstore_understands_it(tmp_path: Path, name: str, form: Form) -> None:
    """All options of all steps."""
    asked = case(name, form=form)
    (tmp_path / CONFIG).write_text(config_yml.render(asked))
    file = tmp_path / nightly.REGSTORE_TOML
    line = f"registry_config = {json.dumps(asked.seen(CONFIG), ensure_ascii=False)}"
    text = nightly.render(asked)
    assert line in text
    file.write_text(text.replace(line, f'registry_config = "{CONFIG}"'))
    for command in (["config", "check"], [*nightly.arguments(), "--dry-run"]):
        said = CliRunner().invoke(app, ["--config", str(file), *command])
        assert said.exit_code == 0, said.output
    assert len(said.stdout.splitlines()) == len(nightly.steps(asked))


def test_without_a_backup_there_is_gc_and_verify() -> None:
    found = written("plain")
    assert [step["command"] for step in found["jobs"]["nightly"]["step"]] == ["gc", "verify"]
    assert set(found["stores"]) == {"registry"}


def test_a_backup_that_fails_ends_the_job_and_nothing_else_does() -> None:
    first, *others, last = written("folders")["jobs"]["nightly"]["step"]
    assert (first["command"], first.get("on_failure", "stop")) == ("backup create", "stop")
    assert "on_failure" not in written("folders")["jobs"]["nightly"]
    assert [step["on_failure"] for step in others] == ["continue", "continue"]
    assert last["command"] == "backup check"


def test_nothing_is_done_without_asking_that_gc_does_not_do_by_default() -> None:
    (gc,) = (step for step in written("plain")["jobs"]["nightly"]["step"] if step["command"] == "gc")
    assert gc == {"command": "gc", "store": "registry", "yes": True, "on_failure": "continue"}


def test_a_bucket_for_backups_is_reached_as_the_store_is() -> None:
    assert written("everything")["stores"]["backup"] == {
        "url": "s3://backup.example.org/of/it",
        "region": "eu-central-1",
        "endpoint_url": "https://s3.example.org:7480",
        "path_style": True,
    }
    # A registry on a disk says nothing of buckets.
    assert written("folders", backup="s3://bucket")["stores"]["backup"] == {"url": "s3://bucket"}


def test_what_a_registry_has_forgotten_is_asked_where_it_can_be() -> None:
    asked = written("everything", form=Form.COMPOSE)["stores"]["registry"]
    assert asked["registry_debug_url"] == "http://127.0.0.1:5001"
    assert "registry_debug_url" not in written("everything", form=Form.KUBERNETES)["stores"]["registry"]


def test_a_backup_needs_a_folder_that_means_the_same_everywhere() -> None:
    with pytest.raises(InputError, match="absolute"):
        nightly.render(case("plain", backup="here"))


@settings(max_examples=50)
@example("\x7f\x85\u2028\\\"'\n\U0001f600")
@example("")
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
def test_any_folder_is_named_as_it_is(text: str) -> None:
    asked: Deployment = case("plain", backup=f"/srv/of {text}")
    found = tomllib.loads(nightly.render(asked))["stores"]["backup"]["url"]
    assert found == str(PurePosixPath(f"/srv/of {text}"))
