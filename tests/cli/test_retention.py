"""`regstore gc` with retention rules, broken revisions, --explain and --why, on the demo's registry."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from regstore.demo_registry import CORRUPT_REPOSITORY
from tests.cli.conftest import Run, Said


@pytest.fixture
def registry(demo_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(demo_registry, tmp_path / "registry"))


@pytest.fixture
def gc(run: Run, registry: Path) -> Run:
    def gc(*arguments: object) -> Said:
        return run("gc", registry, *arguments)

    return gc


def tags_of(run: Run, registry: Path, name: str) -> set[str]:
    return {tag["tag"] for tag in run("tags", registry, name, "--json", "-q").json["tags"]}


def keys(registry: Path) -> dict[str, bytes]:
    return {
        path.relative_to(registry).as_posix(): path.read_bytes() for path in registry.rglob("*") if path.is_file()
    }


def test_a_dry_run_shows_tag_and_rule(gc: Run, registry: Path) -> None:
    before = keys(registry)
    said = gc("-n", "--keep-newest", 1)
    assert said.code == 3  # the corrupt repository
    lines = [line.split() for line in said.out.splitlines()]
    assert ["RULE", "NEWEST", "BY", "TAGS", "TO", "REMOVE"] in lines
    gone = {line[0]: line[1] for line in lines if line and line[0].startswith("team/")}
    assert {tag for tag, rule in gone.items() if rule == "options"} == {"team/app:1.0", "team/app:1.1"}
    assert "tag's own time" in said.out
    assert "only with --delete-untagged" in said.out
    plan = gc("-n", "--keep-newest", 1, "--newest-by", "created", "--json").plan
    assert plan["tags"]["dead"] == 2
    assert {(tag["repository"], tag["tag"], tag["rule"]) for tag in plan["dropped_tags"]} == {
        ("team/app", "1.0", "options"),
        ("team/app", "1.1", "options"),
    }
    assert {tag["time_by"] for tag in plan["dropped_tags"]} == {"created"}
    assert plan["rules"][0]["dropped"] == 2
    assert keys(registry) == before


def test_every_tag_that_goes_is_shown(gc: Run, registry: Path) -> None:
    tags = registry / "docker/registry/v2/repositories/team/worker/_manifests/tags"
    for number in range(30):
        shutil.copytree(tags / "stable", tags / f"pr-{number}")
    said = gc("-n", "--drop-tag", "pr-*")
    assert said.out.count("team/worker:pr-") == 30
    assert len(gc("-n", "--drop-tag", "pr-*", "--json").plan["dropped_tags"]) == 30


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--keep-newest", 1], {"latest"}),
        (["--keep-newest", 1, "--protect-tag", "1.?"], {"1.0", "1.1", "latest"}),
        (["--drop-tag", "1.*", "--keep-tag", "1.1"], {"1.1", "latest"}),
        (["--drop-tag", "/1[.]0|latest/"], {"1.1"}),
        (["--keep-younger-than", "30d", "--repo", "library/**"], {"1.0", "1.1", "latest"}),
        (["--keep-younger-than", "30d", "--repo", "team/**"], set()),
        (["--keep-younger-than", "1000d"], {"1.0", "1.1", "latest"}),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_options(run: Run, gc: Run, registry: Path, options: list[object], left: set[str]) -> None:
    said = gc("-y", "--offline", "--max-delete", "100%", "--delete-untagged", *options)
    assert said.code == 3, said
    if left:
        tags = {tag for tag in tags_of(run, registry, "team/app") if not tag.startswith("sha256-")}
        assert tags == left
    else:
        assert not (registry / "docker/registry/v2/repositories/team/app").exists()


def test_a_policy_file(run: Run, gc: Run, registry: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(
        """
        delete_untagged = true
        [[rule]]
        name = "releases"
        repositories = ["team/app"]
        tags = ["1.*"]
        keep_newest = 1
        """
    )
    plan = gc("-n", "--policy", policy, "--json").plan
    assert [tag["tag"] for tag in plan["dropped_tags"]] == ["1.0"]
    assert plan["blobs"]["dead"] > 1
    policy.write_text("[[rule]]\nkeep_newest = 'many'\n")
    gc("-n", "--policy", policy).failed(2, str(policy), "rule 1", "keep_newest")
    gc("-n", "--policy", policy, "--keep-newest", 3).failed(2, "--policy")
    gc("-n", "--policy", tmp_path / "absent").failed(2, "absent")


def test_a_pattern_that_matches_nothing(gc: Run, registry: Path, tmp_path: Path) -> None:
    before = keys(registry)
    taking = ["--drop-tag", "1.*"]
    said = gc("-n", *taking, "--protect-tag", "v1.*", "--drop-tag", "rc-*", "--repo", "team/**", "--repo", "taem/*")
    for words in ("--protect-tag v1.* matches no tag", "--drop-tag rc-* matches", "--repo taem/* matches no repos"):
        assert f"regstore: {words}" in said.err
    assert said.out.count("refused without --dry-run") == 1
    assert "--protect-tag v1.*" in said.out.partition("refused without --dry-run")[2]
    gc("-y", "--offline", "--json", *taking, "--keep-tag", "v1.*").failed(4, "--keep-tag v1.*", "--unmatched")
    assert {key: data for key, data in keys(registry).items() if key.startswith("docker/")} == before
    # Nothing goes from where it would have kept something.
    assert "refused" not in gc("-n", "--drop-tag", "nothing", "--protect-tag", "v1.*").out
    policy = tmp_path / "policy.toml"
    policy.write_text(
        """
        [[rule]]
        name = "archive"
        repositories = ["archive/**"]
        [[rule]]
        name = "rest"
        protect = ["latest"]
        keep_newest = 1
        """
    )
    plan = gc("-n", "--policy", policy, "--json").plan
    assert [(one["rule"], one["key"], one["wanted"]) for one in plan["unmatched_patterns"]] == [
        ("archive", "repositories", True)
    ]
    gc("-y", "--policy", policy, "--json").failed(
        4, "rule 'archive', repositories: archive/** matches no repository"
    )
    assert gc("-y", "--offline", "--policy", policy, "--unmatched").code == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep-tag", "v*"], ["--keep-newest"]),
        (["--repo", "team/**"], ["--keep-newest"]),
        (["--keep-newest", 1, "--newest-by", "push"], ["--newest-by", "created"]),
        (["--drop-tag", "/(/"], ["regular expression"]),
        (["--drop-tag", "/a{2000}/"], ["RE2"]),
        (["--drop-broken-revisions", "Team"], ["all", "repository@digest"]),
        (["--why", "sha256:12"], ["sha256 digest"]),
        (["--explain", "a@b"], ["a@b"]),
        (["--explain", "nobody"], ["nobody"]),
        (["--explain", "team/app:9"], ["team/app", "9"]),
    ],
)
def test_wrong_words(gc: Run, options: list[object], words: list[str]) -> None:
    said = gc("-n", *options)
    said.failed(said.code, *words)
    assert said.code in (1, 2)


def test_explain(gc: Run, registry: Path) -> None:
    before = keys(registry)
    said = gc("--explain", "team/app", "--explain", "team/app:1.0", "--keep-newest", 1, "--delete-untagged")
    assert said.code == 0
    app, one = said.out.split("team/app:1.0")
    rows = {line.split()[0]: line for line in app.splitlines() if line}
    assert "stays" in rows["latest"] and "place 1 of the newest 1" in rows["latest"]
    assert "goes" in rows["1.0"] and "place 3" in rows["1.0"]
    follower = next(row for tag, row in rows.items() if tag.startswith("sha256-"))
    assert "goes with sha256:" in follower
    assert one.count("goes") == 1
    explained = gc("--explain", CORRUPT_REPOSITORY, "--drop-tag", "*", "--json").json["explain"][CORRUPT_REPOSITORY]
    assert all(not tag["goes"] and "left alone" in tag["reason"] for tag in explained)
    plain = gc("--explain", "team/app", "--json").json["explain"]["team/app"]
    assert not any(tag["goes"] for tag in plain)
    assert keys(registry) == before


def digest_of(run: Run, registry: Path, reference: str) -> str:
    repository, tag = reference.split(":")
    tags: list[dict[str, Any]] = run("tags", registry, repository, "--json", "-q").json["tags"]
    return str(next(each for each in tags if each["tag"] == tag)["digest"])


def test_why(run: Run, gc: Run, registry: Path) -> None:
    before = keys(registry)
    latest, old = digest_of(run, registry, "team/app:latest"), digest_of(run, registry, "team/app:1.0")
    (kept,) = gc("--why", latest, "--json").json["why"]
    assert not kept["goes"] and kept["stored"]
    assert kept["chains"][0]["repository"] == "team/app"
    assert kept["chains"][0]["root"] == "tag latest"
    (gone,) = gc("--why", old, "--json", "--keep-newest", 1, "--delete-untagged").json["why"]
    assert gone["goes"] and not gone["chains"]
    assert "nothing keeps it" in gc("--why", old, "--keep-newest", 1, "--delete-untagged").out
    absent = "sha256:" + "0" * 64
    said = gc("--why", absent)
    assert "no such blob" in said.out and "nothing refers to it" in said.out
    assert keys(registry) == before


def test_broken_revisions_go_only_with_a_yes(run: Run, gc: Run, registry: Path) -> None:
    assert gc("-n").code == 3
    said = gc("-n", "--drop-broken-revisions", CORRUPT_REPOSITORY)
    assert said.code == 0
    assert f"{CORRUPT_REPOSITORY}@sha256:" in said.out and "is empty" in said.out
    other = gc("-n", "--drop-broken-revisions", "team/app")
    assert other.code == 3 and "nothing broken there" in other.err
    before = keys(registry)
    gc("--offline", "--drop-broken-revisions", "all", "--json").failed(4, "--yes")
    changed = {key for key, body in keys(registry).items() if before.get(key) != body}
    assert not changed and before.keys() <= keys(registry).keys()
    report = gc("-y", "--offline", "--drop-broken-revisions", "all", "--json")
    assert report.code == 0, report
    (broken,) = report.json["plan"]["broken_revisions"]
    assert broken["repository"] == CORRUPT_REPOSITORY
    assert report.report["revisions"] == 1
    assert gc("-n").code == 0
