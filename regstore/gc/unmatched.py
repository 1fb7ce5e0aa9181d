"""Patterns of retention rules that match nothing in a store: most likely a mistake, and a dangerous one where the
pattern was to keep something. SQL only, no I/O. gc_tag_rule and gc_dropped_tag are made.

What a pattern is compared with: `repositories` with all names; `tags` and a rule's `protect` with the tags of its
repositories; `keep` and `drop` with the tags that the rule decides; a policy's own `protect` with all tags. Of a rule
whose repositories match nothing, that alone is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from regstore.gc.policy import Pattern, Policy
from regstore.gc.retention import any_of
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements

_SQL: Final = Statements("regstore.gc", "unmatched.sql")

Key = Literal["repositories", "tags", "keep", "drop", "protect"]

_OPTIONS: Final[dict[Key, str]] = {
    "repositories": "--repo",
    "keep": "--keep-tag",
    "drop": "--drop-tag",
    "protect": "--protect-tag",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """rule: its name, "" for what stands above the rules. wanted: whether it was to keep something, and tags go from
    where it would have kept them."""

    rule: str
    key: Key
    pattern: str
    source: str
    wanted: bool

    def __str__(self) -> str:
        what = "no repository" if self.key == "repositories" else "no tag"
        if not self.source:
            return f"{_OPTIONS.get(self.key, self.key)} {self.pattern} matches {what}"
        where = f"rule {self.rule!r}, " if self.rule else ""
        return f"{self.source}, {where}{self.key}: {self.pattern} matches {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Of a store, or of some repositories of it. rules: positions of those whose repositories match any. found: the
    patterns that match something, each with its rule's position (-1: above the rules) and its key; wanted: of those
    that match nothing here the ones that were to keep something, from where a tag goes."""

    rules: frozenset[int] = frozenset()
    found: frozenset[tuple[int, Key, str]] = frozenset()
    wanted: frozenset[tuple[int, Key, str]] = frozenset()


def find_unmatched(policy: Policy | None, parts: Sequence[Matches]) -> tuple[Unmatched, ...]:
    """By what was found in all parts of a store."""
    return () if policy is None else tuple(_unmatched(policy, parts))


def _unmatched(policy: Policy, parts: Sequence[Matches]) -> Iterator[Unmatched]:
    rules = frozenset[int]().union(*(part.rules for part in parts))
    for number, rule, key, patterns in _patterns(policy):
        if number >= 0 and key != "repositories" and number not in rules:
            continue
        for pattern in patterns:
            place = (number, key, pattern.text)
            if not any(place in part.found for part in parts):
                yield Unmatched(
                    rule=rule,
                    key=key,
                    pattern=pattern.text,
                    source=policy.source,
                    wanted=any(place in part.wanted for part in parts),
                )


def _patterns(policy: Policy) -> Iterator[tuple[int, str, Key, Sequence[Pattern]]]:
    """Position and name of the rule, the key, and the patterns there that say anything."""

    def some(patterns: Sequence[Pattern]) -> Sequence[Pattern]:
        return [pattern for pattern in patterns if pattern.text not in ("*", "**")]

    yield -1, "", "protect", some(policy.protect)
    for number, rule in enumerate(policy.rules):
        yield number, rule.name, "repositories", some(rule.repositories)
        yield number, rule.name, "tags", some(rule.tags)
        yield number, rule.name, "protect", some(rule.protect)
        yield number, rule.name, "keep", some(rule.keep)
        yield number, rule.name, "drop", some(rule.drop)


def find_matches(inventory: Inventory, policy: Policy) -> Matches:
    return _Search(inventory, policy).all()


class _Search:
    def __init__(self, inventory: Inventory, policy: Policy) -> None:
        self._inventory = inventory
        self._policy = policy

    def all(self) -> Matches:
        rules = frozenset(
            number
            for number, rule in enumerate(self._policy.rules)
            if self._has_repository(any_of(rule.repositories, "repo"))
        )
        found, wanted = set(), set()
        for number, _, key, patterns in _patterns(self._policy):
            if number >= 0 and key != "repositories" and number not in rules:
                continue  # then no tag is its, either
            among, kept = self._conditions(number, key)
            for pattern in patterns:
                place = (number, key, pattern.text)
                if key == "repositories":
                    is_found = self._has_repository(any_of([pattern], "repo"))
                else:
                    is_found = self._has_tag(f"{among} and {any_of([pattern], 'name')}")
                if is_found:
                    found.add(place)
                elif self._has_tag(f"goes and {kept}"):
                    wanted.add(place)
        return Matches(rules=rules, found=frozenset(found), wanted=frozenset(wanted))

    def _conditions(self, number: int, key: Key) -> tuple[str, str]:
        """SQL for the tags that a pattern is compared with, and for those that it was to keep, should one go."""
        if number < 0:
            return "true", "true"
        rule = self._policy.rules[number]
        inside, decided = any_of(rule.repositories, "repo"), f"rule = {number}"
        # A rule that takes nothing keeps all that it is about from those after it.
        later = "false" if rule.takes else f"rule > {number}"
        conditions: dict[Key, tuple[str, str]] = {
            "repositories": ("true", later),
            "tags": (inside, f"{inside} and {later}"),
            "protect": (inside, inside),
            "keep": (decided, decided),
            "drop": (decided, "false"),
        }
        return conditions[key]

    def _has_repository(self, condition: str) -> bool:
        return self._has("repositories", condition)

    def _has_tag(self, condition: str) -> bool:
        return self._has("tags", condition)

    def _has(self, what: str, condition: str) -> bool:
        [(number,)] = _SQL.run(self._inventory, what, None, condition=condition).fetchall()
        return bool(number)
