"""Names as they are typed: sorted, shortened, and misspelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from regstore.cli import naming
from regstore.digest import Digest
from regstore.errors import InputError
from tests.cli.conftest import Run


def test_tags_without_those_that_name_a_digest_unless_asked(run: Run, demo_registry: Path) -> None:
    said = run("tags", demo_registry, "team/app").out
    assert [line.split()[0] for line in said.splitlines()] == ["TAG", "1.0", "1.1", "latest", "(1"]
    assert said.endswith("(1 more tag names a digest, as of signatures: --all)\n")
    assert "sha256-" in run("tags", demo_registry, "team/app", "--all").out
    assert len(run("tags", demo_registry, "team/app", "--json").json["tags"]) == 4


def test_sorting(run: Run, demo_registry: Path) -> None:
    def order(word: str) -> list[str]:
        rows = run("tags", demo_registry, "team/app", "--sort", word, "--json").json["tags"]
        if word == "date":
            times = [row["created"] or "" for row in rows]
            assert times == sorted(times, reverse=True)
        if word == "size":
            sizes = [row["total_size"] for row in rows]
            assert sizes == sorted(sizes, reverse=True)
        return [row["tag"] for row in rows]

    assert sorted(order("date")) == sorted(order("size")) == sorted(order("version")) == order("name")
    run("tags", demo_registry, "team/app", "--sort", "colour").failed(2, "name, date, size, version")
    tags = ["2.0", "1.10", "latest", "1.9", "v1.9.1", "1.0", "1.0-rc2", "1.0-rc10"]
    assert sorted(tags, key=naming.version_key) == [
        *("1.0-rc2", "1.0-rc10", "1.0", "1.9", "v1.9.1", "1.10", "2.0", "latest")
    ]


def test_a_part_of_a_store(run: Run, demo_registry: Path) -> None:
    assert run("ls", demo_registry, "team/").out.split() == ["team/app", "team/worker"]
    assert "begins with nothing" in run("ls", demo_registry, "nothing").err
    every = {one["name"]: one for one in run("du", demo_registry, "--json").json["repositories"]}
    (one,) = run("du", demo_registry, "team/app", "--json").json["repositories"]
    assert one == every["team/app"]
    below = run("du", demo_registry, "team/", "--sort", "name", "--json").json["repositories"]
    assert [one["name"] for one in below] == ["team/app", "team/worker"]
    run("du", demo_registry, "taem/app").failed(1, "no repository taem/app", "did you mean team/app?")


def test_short_digests_wherever_a_digest_is(run: Run, demo_copy: Path, tmp_path: Path) -> None:
    whole = run("tags", demo_copy, "team/app", "--json").json["tags"][0]["digest"]
    short = whole[:19]
    assert run("inspect", demo_copy, f"team/app@{short}", "--json").json["digest"] == whole
    assert f"{whole}\n" in run("gc", demo_copy, "--why", short, "--cache-dir", tmp_path).out
    assert run("tag", demo_copy, f"team/app@{short}", "short", "--json").json["plan"]["digest"] == whole
    broken = run("gc", demo_copy, "-n", "--drop-broken-revisions", f"team/app@{short}", "--cache-dir", tmp_path)
    assert f"--drop-broken-revisions team/app@{whole}: nothing broken there" in broken.err
    removed = run("rm", demo_copy, f"team/app@{short}", "--yes", "--settle", "0s")
    assert removed.code == 0, removed
    nothing = run("trash", "restore", demo_copy, "--repo", "team/ap", "--yes")
    nothing.failed(2, "took nothing of team/ap, but of team/app")
    run("trash", "restore", demo_copy, "--digest", f"sha256:{'0' * 64}", "--yes").failed(
        2, "took nothing of sha256:0"
    )
    assert run("trash", "restore", demo_copy, "--digest", short, "--yes").code == 0
    assert run("inspect", demo_copy, f"team/app@{short}").code == 0
    run("inspect", demo_copy, "team/app@sha256:0123").failed(2, "no digest in team/app", "begins with sha256:0123")


def test_a_short_digest_of_two_is_refused() -> None:
    two = [Digest("sha256", f"{'ab' * 31}{end}") for end in ("00", "01")]
    assert naming.the_one(f"sha256:{'ab' * 31}00"[:71], two, "here") == two[0]
    with pytest.raises(InputError, match=r"is the beginning of sha256:abab\S+00, sha256:abab\S+01 in here"):
        naming.the_one("sha256:abab", [*two, two[0]], "here")
    assert not naming.is_short(str(two[0]))
    assert not naming.is_short("sha256:abc")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["tags", "STORE", "team/ap"], "team/app"),
        (["tags", "STORE", "app"], "team/app"),
        (["inspect", "STORE", "teem/worker"], "team/worker"),
        (["inspect", "STORE", "team/app:latst"], "latest"),
        (["rm", "STORE", "team/app:latst", "--yes"], "latest"),
        (["untag", "STORE", "team/wroker:stable", "--yes"], "team/worker"),
        (["tag", "STORE", "team/app:latst", "new"], "latest"),
        (["gc", "STORE", "--explain", "team/app:latst"], "latest"),
        (["migrate", "STORE", "NEW", "--create", "--repo", "team/ap"], "team/app"),
        (["migrate", "STORE", "NEW", "--create", "--rename", "team/ap=b"], "team/app"),
        (["backup", "create", "STORE", "NEW", "--create", "--tag", "latst"], "latest"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_did_you_mean(run: Run, demo_copy: Path, tmp_path: Path, words: list[str], meant: str) -> None:
    said = run(*[{"STORE": demo_copy, "NEW": tmp_path / "new"}.get(word, word) for word in words])
    assert said.code in (1, 2)
    assert f"did you mean {meant}" in said.err, said
