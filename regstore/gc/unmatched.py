"""Patterns of retention rules that match nothing in a store: most likely a mistake, and a dangerous one where the
pattern was to keep something. SQL only, no I/O. gc_tag_rule and gc_dropped_tag are made.

What a pattern is compared with: `repositories` with all names; `tags` and a rule's `protect` with the tags of its
repositories; `keep` and `drop` with the tags that the rule decides; a policy's own `protect` with all tags. Of a rule
whose repositories match nothing, that alone is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from regstore.gc.policy import Pattern, Policy, Rule
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


def find_unmatched(inventory: Inventory, policy: Policy | None) -> tuple[Unmatched, ...]:
    return () if policy is None else tuple(_Search(inventory, policy).all())


class _Search:
    def __init__(self, inventory: Inventory, policy: Policy) -> None:
        self._inventory = inventory
        self._policy = policy

    def all(self) -> Iterator[Unmatched]:
        yield from self._missing("", "protect", self._policy.protect, "true", wanted="true")
        for number, rule in enumerate(self._policy.rules):
            yield from self._of_rule(number, rule)

    def _of_rule(self, number: int, rule: Rule) -> Iterator[Unmatched]:
        inside, decided = any_of(rule.repositories, "repo"), f"rule = {number}"
        # A rule that takes nothing keeps all that it is about from those after it.
        later = "false" if rule.takes else f"rule > {number}"
        yield from self._missing(rule.name, "repositories", rule.repositories, "true", wanted=later)
        if not self._has_repository(inside):
            return
        yield from self._missing(rule.name, "tags", rule.tags, inside, wanted=f"{inside} and {later}")
        yield from self._missing(rule.name, "protect", rule.protect, inside, wanted=inside)
        yield from self._missing(rule.name, "keep", rule.keep, decided, wanted=decided)
        yield from self._missing(rule.name, "drop", rule.drop, decided, wanted="false")

    def _missing(
        self, rule: str, key: Key, patterns: tuple[Pattern, ...], among: str, *, wanted: str
    ) -> Iterator[Unmatched]:
        """among: SQL for the tags that it is compared with; wanted: for those that it was to keep, should one go."""
        for pattern in patterns:
            if pattern.text in ("*", "**"):
                continue
            if key == "repositories":
                found = self._has_repository(any_of([pattern], "repo"))
            else:
                found = self._has_tag(f"{among} and {any_of([pattern], 'name')}")
            if not found:
                yield Unmatched(
                    rule=rule,
                    key=key,
                    pattern=pattern.text,
                    source=self._policy.source,
                    wanted=self._has_tag(f"goes and {wanted}"),
                )

    def _has_repository(self, condition: str) -> bool:
        return self._has("repositories", condition)

    def _has_tag(self, condition: str) -> bool:
        return self._has("tags", condition)

    def _has(self, what: str, condition: str) -> bool:
        [(number,)] = _SQL.run(self._inventory, what, None, condition=condition).fetchall()
        return bool(number)
