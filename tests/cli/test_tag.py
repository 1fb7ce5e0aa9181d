"""`regstore tag`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run
from tests.cli.test_rm import digest_of, registry


def test_a_new_tag(run: Run, demo_copy: Path) -> None:
    before, digest = registry(demo_copy), digest_of(run, demo_copy, "1.1")
    said = run("tag", demo_copy, "team/app:1.1", "stable", "--dry-run")
    assert said.code == 0 and f"team/app:stable would name {digest}" in said.out
    assert registry(demo_copy) == before
    said = run("tag", demo_copy, f"team/app@{digest}", "stable")
    assert said.code == 0 and f"team/app:stable names {digest}" in said.out
    assert digest_of(run, demo_copy, "stable") == digest
    said = run("tag", demo_copy, "team/app:1.1", "stable", "--json")
    assert said.plan["already"]


def test_one_that_is_moved(run: Run, demo_copy: Path) -> None:
    old, digest = digest_of(run, demo_copy, "latest"), digest_of(run, demo_copy, "1.1")
    run("tag", demo_copy, "team/app:1.1", "latest", "--yes").failed(4, f"names {old} already", "--force")
    said = run("tag", demo_copy, "team/app:1.1", "latest", "--force")
    assert said.code == 4 and "say --yes" in said.err
    said = run("tag", demo_copy, "team/app:1.1", "latest", "--force", "--yes", "--json")
    assert (said.json["plan"]["was"], said.json["plan"]["digest"]) == (old, digest)
    assert digest_of(run, demo_copy, "latest") == digest
    (listed,) = run("trash", "list", demo_copy, "--json").json["runs"]
    assert (listed["run"], listed["links"]) == (said.report["run"], 1)
    assert run("trash", "restore", demo_copy, "--run", said.report["run"], "--yes").code == 0
    assert digest_of(run, demo_copy, "latest") == old


def test_words(run: Run, demo_copy: Path, tmp_path: Path) -> None:
    run("tag", demo_copy, "team/app:1.1").failed(2, "the new tag")
    run("tag", demo_copy, "team/app", "new").failed(2, "is no image")
    run("tag", demo_copy, "team/app:1.1", "not/a/tag").failed(2, "is not a tag")
    run("tag", demo_copy, "team/app:nothing", "new").failed(1, "no tag team/app:nothing")
    config = tmp_path / "config.yml"
    config.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {demo_copy}\n")
    assert run("tag", "--registry-config", config, "team/app:1.1", "new").code == 0
