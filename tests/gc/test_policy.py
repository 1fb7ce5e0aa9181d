"""Retention rules as text: patterns, TOML, and errors that say where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regstore.digest import Digest
from regstore.errors import InputError
from regstore.gc import policy as module
from regstore.gc.policy import BrokenScope, Pattern, Policy, Rule, parse_duration
from regstore.inventory.inventory import Inventory

SECOND = 1_000_000
DAY = 86_400 * SECOND


def test_the_example_of_the_documentation() -> None:
    assert module.__doc__ is not None
    text = module.__doc__.split("# policy.toml")[1].split("The first rule that")[0]
    policy = Policy.parse("\n".join(line.strip() for line in text.splitlines()))
    assert policy.delete_untagged
    assert [rule.name for rule in policy.rules] == ["pull requests", "archive", "everything else"]
    first, archive, last = policy.rules
    assert first.keep_younger_than == 14 * DAY
    assert [str(pattern) for pattern in first.repositories] == ["team/**", "sandbox/*"]
    assert not archive.takes
    assert (last.keep_newest, last.newest_by) == (10, "created")


def test_every_key_of_a_rule_is_documented() -> None:
    assert module.__doc__ is not None
    documented = module.__doc__.split("Keys\nof a rule:")[1].split("A tag goes only")[0]
    keys = [line.split()[0] for line in documented.splitlines() if line.startswith("    ") and line[4] != " "]
    assert keys and set(keys) == set(Rule.__dataclass_fields__)


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("**", "a a/b a/b/c", ""),
        ("*", "a a-b", "a/b"),
        ("team/*", "team/app", "team team/app/x other/app"),
        ("team/**", "team/app team/app/x", "team teams/app"),
        ("**/cache", "cache a/cache a/b/cache", "a/cache/x mycache"),
        ("team/**/cache", "team/cache team/a/b/cache", "teamcache team/a/xcache"),
        ("te?m/[ab]*", "team/a term/bx", "team/c te/m/a"),
        ("[!a]*", "b bc", "a ab"),
        ("a.b", "a.b", "axb"),
        ("a+b", "a+b", "aab"),
        ("a**b", "ab a/x/b", "a/x"),
    ],
)
def test_globs_of_repositories(glob: str, matching: str, other: str) -> None:
    pattern = Pattern.repository(glob)
    assert [name for name in matching.split() if not pattern.matches(name)] == []
    assert [name for name in other.split() if pattern.matches(name)] == []


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("*", "latest v1.0 _x", ""),
        ("pr-*", "pr- pr-1", "xpr-1 pr"),
        ("v1.?", "v1.0", "v1x0 v1.10"),
        ("/v[0-9.]+/", "v1 v1.2", "v1-rc xv1"),
        ("/(?i)RC|beta/", "rc Rc beta", "rc1"),
        ("/a|b/", "a b", "ab"),
    ],
)
def test_patterns_of_tags(text: str, matching: str, other: str) -> None:
    pattern = Pattern.tag(text)
    assert [tag for tag in matching.split() if not pattern.matches(tag)] == []
    assert [tag for tag in other.split() if pattern.matches(tag)] == []


@pytest.fixture(scope="module")
def inventory() -> Iterator[Inventory]:
    with Inventory() as inventory:
        yield inventory


_alphabet = st.text(st.sampled_from("ab*?[]!-./\\^+ '{}()|$1"), max_size=8)


@settings(deadline=None, max_examples=50)
@given(texts=st.lists(_alphabet, min_size=1, max_size=20), names=st.lists(_alphabet, min_size=1, max_size=20))
def test_sql_understands_globs_as_python_does(inventory: Inventory, texts: list[str], names: list[str]) -> None:
    for text in texts:
        for parse in Pattern.repository, Pattern.tag:
            if parse is Pattern.tag and text.startswith("/"):
                continue
            try:
                pattern = parse(text)
            except InputError:
                continue
            found = inventory.all(
                "select name, regexp_full_match(name, $2) from (select unnest($1) as name)",
                [names, pattern.regex],
            )
            for name, matched in found:
                assert matched == pattern.matches(name), (text, name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", ["p.toml", "TOML"]),
        ("rules = []", ["p.toml", "'rules'", "no such key", "rule"]),
        ("rule = 3", ["p.toml", "[[rule]]"]),
        ("[rule]\nkeep_newest = 1", ["p.toml", "[[rule]]"]),
        ("delete_untagged = 1", ["p.toml", "'delete_untagged'", "true or false"]),
        ("protect = []", ["p.toml", "'protect'", "pattern"]),
        ("protect = ['']", ["p.toml", "'protect'"]),
        ("[[rule]]\n[[rule]]\nname = 'x'\nkeep = 5", ["p.toml", "rule 2 (x)", "'keep'"]),
        ("[[rule]]\nkeep_newest = 0", ["rule 1", "'keep_newest'", "from 1"]),
        ("[[rule]]\nkeep_newest = true", ["rule 1", "'keep_newest'"]),
        ("[[rule]]\nkeep_newest = '3'", ["rule 1", "'keep_newest'"]),
        ("[[rule]]\nkeep_younger_than = '3 moons'", ["rule 1", "'keep_younger_than'", "7d"]),
        ("[[rule]]\nkeep_younger_than = 3", ["rule 1", "'keep_younger_than'"]),
        ("[[rule]]\nnewest_by = 'push'", ["rule 1", "'newest_by'", "created"]),
        ("[[rule]]\nnewest = 3", ["rule 1", "'newest'", "keep_newest"]),
        ("[[rule]]\ndrop = ['/(/']", ["rule 1", "'drop'", "regular expression"]),
        ("[[rule]]\ndrop = ['/(?=a)b/']", ["rule 1", "'drop'", "look-around"]),
        ("[[rule]]\ndrop = ['/(a)\\1/']", ["rule 1", "'drop'", "back-reference"]),
        ("[[rule]]\ndrop = ['a/b']", ["rule 1", "'drop'", "pattern of tags"]),
        ("[[rule]]\nrepositories = ['/a']", ["rule 1", "'repositories'"]),
        ("[[rule]]\nrepositories = ['a[']", ["rule 1", "'repositories'", "close"]),
        ("[[rule]]\nname = 'x'\n[[rule]]\nname = 'x'", ["p.toml", "two rules", "'x'"]),
    ],
)
def test_errors_name_file_rule_and_key(text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        Policy.parse(text, source="p.toml")
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.toml"):
        Policy.load(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe4'")
    with pytest.raises(InputError, match=r"latin\.toml"):
        Policy.load(tmp_path / "latin.toml")


def test_durations() -> None:
    assert [parse_duration(text) for text in ("0s", "90m", "1.5h", "2 w")] == [
        0,
        90 * 60 * SECOND,
        5400 * SECOND,
        14 * DAY,
    ]
    for text in ("", "5", "-1d", "1y", "1d2h"):
        with pytest.raises(InputError):
            parse_duration(text)


def test_scopes_of_broken_revisions() -> None:
    digest = Digest.of(b"x")
    assert BrokenScope.parse("all") == BrokenScope()
    assert BrokenScope.parse("team/app") == BrokenScope("team/app")
    assert BrokenScope.parse(f"all@{digest}") == BrokenScope("all", digest)
    for text in ("all", "team/app", f"team/app@{digest}"):
        assert str(BrokenScope.parse(text)) == text
    for text in ("", "*", "Team", "team/app:1", "team/app@", "team/app@sha256:12", "team/**"):
        with pytest.raises(InputError):
            BrokenScope.parse(text)
