"""What gc says and leaves behind, beyond the trash and the tags."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from regstore.cli import output
from regstore.errors import AccessDenied
from regstore.events import Event, Progress
from regstore.layout import COUNTS, REPOSITORIES
from regstore.state import RUNS
from regstore.storage.disk import DiskStorage
from tests.cli.conftest import Run
from tests.model.store import ModelStore

PARTIAL = 3
NOTHING = (
    "--drop-tag",
    "no-such-tag",
    "--yes",
    "--settle",
    "0s",
    "--uploads-older-than",
    "9999d",
    "--grace",
    "9999d",
)


@pytest.fixture
def store(demo_registry: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_registry, tmp_path / "registry")


def runs(store: Path) -> list[str]:
    return [key for key in ModelStore.from_folder(store) if key.startswith(RUNS)]


def test_a_folder_that_is_no_registry_stays_as_it_was(run: Run, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear mum")
    run("gc", tmp_path, "--yes").failed(1, "holds no registry")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_where_nothing_is_to_do_no_run_is_written(run: Run, store: Path) -> None:
    assert "nothing to remove" in run("gc", store, *NOTHING).out
    said = run("gc", store, *NOTHING, "--json")
    assert said.code == PARTIAL  # the damaged repository
    assert said.report["run"] == "" and said.report["blobs"] == 0
    assert not runs(store)


def test_a_run_with_nothing_to_do_remembers_what_stands(run: Run, store: Path) -> None:
    """So that the next one misses what has gone; a yes to that is remembered likewise."""
    assert "nothing to remove" in run("gc", store, *NOTHING).out
    counts = (store / COUNTS).stat().st_mtime_ns
    run("gc", store, *NOTHING)
    assert (store / COUNTS).stat().st_mtime_ns == counts, "nothing has changed, and nothing was written"
    shutil.rmtree(store / REPOSITORIES / "team/worker")
    run("gc", store, "--dry-run").failed(4, "team/worker (1 tag)", "not mounted", "--allow-gone team/worker")
    run("gc", store, *NOTHING).failed(4, "--allow-gone team/worker")
    run("gc", store, *NOTHING, "--allow-gone", "team/*")
    assert "nothing to remove" in run("gc", store, *NOTHING).out


def test_json_shows_no_plan_to_agree_to(run: Run, store: Path) -> None:
    run("gc", store, "--delete-untagged", "--json").failed(4, "--json", "--yes", "--dry-run")
    assert not runs(store)


def test_multipart_uploads_that_are_not_known(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: DiskStorage, prefix: str) -> Any:
        raise AccessDenied("ListMultipartUploads: Access Denied")

    monkeypatch.setattr(DiskStorage, "list_multipart_uploads", denied)
    shutil.rmtree(store / "docker/registry/v2/repositories/legacy")  # what is damaged ends with the same code
    said = run("gc", store, "--dry-run")
    assert said.code == PARTIAL
    assert "no upload is removed, for the store does not list multipart uploads: ListMultipart" in said.out
    said = run("gc", store, "--dry-run", "--json")
    assert said.code == PARTIAL
    assert "ListMultipartUploads" in said.json["plan"]["uploads_blocked"]


def test_a_lock_that_stays_is_said(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delete_many = DiskStorage.delete_many

    async def stubborn(self: DiskStorage, keys: Any) -> Any:
        locks = [key for key in keys if "/locks/" in key]
        return await delete_many(self, [key for key in keys if key not in locks]) | {
            key: AccessDenied("no") for key in locks
        }

    monkeypatch.setattr(DiskStorage, "delete_many", stubborn)
    said = run("gc", store, *NOTHING)
    assert "the lock of run" in said.err and "could not be deleted" in said.err


def test_the_bar_is_gone_before_anything_is_printed(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bar:
        is_open = False
        shown = 0

        def __enter__(self) -> Any:
            return self.show

        def __exit__(self, *exc: object) -> None:
            self.clear()

        def show(self, event: Event) -> None:
            if isinstance(event, Progress):
                self.is_open, self.shown = True, self.shown + 1

        def clear(self) -> None:
            self.is_open = False

    bar = Bar()

    def emit(text: str = "") -> None:
        assert not bar.is_open
        output.emit(text)

    monkeypatch.setattr("regstore.cli.gc.progress", lambda **_: bar)
    monkeypatch.setattr("regstore.cli.gc.emit", emit)
    monkeypatch.setattr("regstore.cli.gc_report.emit", emit)
    monkeypatch.setattr("regstore.cli.retention.emit", emit)
    for options in (["--dry-run"], ["--explain", "team/app"], ["--yes", "--settle", "0s"]):
        said = run("gc", store, "--delete-untagged", *options)
        assert said.out and "Traceback" not in said.err and "AssertionError" not in said.err, said
    assert bar.shown
