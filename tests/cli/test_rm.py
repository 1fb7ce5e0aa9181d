"""`regstore rm` and `regstore untag`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run
from tests.model.store import ModelStore


def registry(folder: Path) -> dict[str, bytes]:
    bodies = ModelStore.from_folder(folder).bodies()
    return {key: body for key, body in bodies.items() if key.startswith("docker/")}


def digest_of(run: Run, store: Path, tag: str) -> str:
    rows = run("tags", store, "team/app", "--json").json["tags"]
    return next(str(row["digest"]) for row in rows if row["tag"] == tag)


def test_one_tag_and_back(run: Run, demo_copy: Path) -> None:
    before = registry(demo_copy)
    digest = digest_of(run, demo_copy, "1.0")
    plan = run("rm", demo_copy, "team/app:1.0", "--dry-run")
    assert plan.code == 0
    assert "team/app: 1 tag, 0 images to remove" in plan.out and f"team/app:1.0  {digest}" in plan.out
    assert ModelStore.from_folder(demo_copy).bodies().keys() == before.keys()
    said = run("rm", demo_copy, "team/app:1.0", "--yes")
    assert said.code == 0 and "removed 1 tag, 0 images" in said.out
    gone = before.keys() - registry(demo_copy).keys()
    assert len(gone) == 2 and all("/team/app/_manifests/tags/1.0/" in key for key in gone)
    undo = said.out.rpartition("`regstore ")[2].split("`")[0].split()  # as it says
    assert undo[:3] == ["trash", "restore", "--run"]
    assert run(*undo, demo_copy, "--yes").code == 0
    assert registry(demo_copy) == before


def test_untag_has_no_option_that_it_does_not_use(run: Run) -> None:
    said = run("untag", "--help").out
    assert "--dry-run" in said
    for option in ("--settle", "--registry-cache", "--redis-url", "--cache-dir"):
        assert option in run("rm", "--help").out and option not in said


def test_an_image_with_its_tags(run: Run, demo_copy: Path) -> None:
    digest = digest_of(run, demo_copy, "1.1")
    plan = run("rm", demo_copy, f"team/app@{digest}", "--dry-run")
    assert "1 tag, 1 image to remove" in plan.out and "stays, unless it is named, too: 2 manifests" in plan.out
    (one,) = run("rm", demo_copy, f"team/app@{digest}", "--dry-run", "--json").plan["repositories"]
    assert one["tags"] == [{"tag": "1.1", "digest": digest}] and one["revisions"] == [digest]


def test_what_is_asked_first(run: Run, demo_copy: Path) -> None:
    before = registry(demo_copy)
    said = run("rm", demo_copy, "team/app:1.0")
    assert said.code == 4 and "say --yes, or look with --dry-run" in said.err
    run("untag", demo_copy, "team/app:1.0", "--json").failed(4, "with --json")
    assert registry(demo_copy) == before


def test_words(run: Run, demo_copy: Path) -> None:
    run("rm", demo_copy, "team/app", "--yes").failed(2, "--recursive")
    run("rm", demo_copy, "--yes").failed(2, "nothing is named")
    run("rm", demo_copy, "team/app:nothing", "team/app:1.0", "--yes").failed(1, "no tag team/app:nothing")
    digest = digest_of(run, demo_copy, "1.0")
    run("untag", demo_copy, f"team/app@{digest}", "--yes").failed(2, "untag is for tags")
    run("untag", demo_copy, "team/app", "--yes").failed(2, "whole repository")


def test_what_an_index_lists(run: Run, demo_copy: Path) -> None:
    index = digest_of(run, demo_copy, "1.0")
    child = run("inspect", demo_copy, "team/app:1.0", "--json").json["references"][0]["digest"]
    run("rm", demo_copy, f"team/app@{child}", "--yes").failed(4, f"is listed by team/app@{index} (team/app:1.0)")
    said = run("rm", demo_copy, f"team/app@{child}", f"team/app@{index}", "--settle", "0s", "--yes", "--json")
    assert said.code == 0 and said.report["revisions"] == 2


def test_a_whole_repository(run: Run, demo_copy: Path) -> None:
    said = run("rm", demo_copy, "team/worker", "--recursive", "--settle", "0s", "--yes")
    assert said.code == 0 and "team/worker, all of it: 1 tag, 1 image" in said.out
    assert not [key for key in registry(demo_copy) if "/team/worker/_manifests/" in key]
    assert run("gc", demo_copy, "--grace", "0s", "--offline", "--yes").code == 0
    assert not [key for key in registry(demo_copy) if "/team/worker/" in key]
    assert run("verify", demo_copy, "--quiet").code == 0


def test_of_a_configuration(run: Run, demo_copy: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    config.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {demo_copy}\n")
    said = run("untag", "--registry-config", config, "team/app:1.0", "team/app:latest", "--yes")
    assert said.code == 0 and "removed 2 tags" in said.out
