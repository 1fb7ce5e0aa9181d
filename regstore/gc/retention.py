"""Retention rules applied to an inventory: gc_tag_fate, what becomes of every tag and why. SQL only, no I/O, no clock.

    gc_tag_fate(repository, name, target, mtime, rule, fate, time, time_by, place)

`fate` is a `Fate`; rule the position of the rule that is about the tag, null where none is; time (µs) what "newest"
and "younger" went by, and time_by where it is from: 'link', 'record' (when it was set where migrate found it, as long
as its link was not written again since) or 'created'; place its place among the tags that the rule counts, 1 the
newest. All three null where no time mattered.

`created` times stand in main.config_created(digest, time, state), which `gc.created` fills: state 'ok', 'none' (the
config says no time, then the tag's own counts) or 'unreadable'. Where one is unreadable, or was not read, no time is
known: the tag stays, and takes nobody's place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from regstore.errors import InputError
from regstore.gc.policy import Pattern, Policy, Rule
from regstore.inventory.inventory import Inventory
from regstore.inventory.statements import Statements
from regstore.manifest import EdgeKind

if TYPE_CHECKING:
    import duckdb

_HOUR: Final = 3600 * 1_000_000
#: Reproducible builds write 1970 or 1980 where they mean no time.
_NO_TIME_BEFORE: Final = 347_155_200_000_000  # 1981-01-01
#: A time further ahead than this is no time that an image can have been made.
_AHEAD: Final = 24 * _HOUR


class Fate(StrEnum):
    GOES = "goes"
    NO_RULE = "no rule"
    NAMES_DIGEST = "names a digest"
    PROTECTED = "protected"
    DAMAGED = "damaged"
    KEPT = "kept"  # by a pattern
    NOT_MEANT = "not meant"  # the rule takes none, or none of its patterns
    UNKNOWN_TIME = "unknown time"
    NEWEST = "newest"
    YOUNGER = "younger"
    GRACE = "grace"


_SQL: Final = Statements(
    "regstore.gc",
    "retention.sql",
    manifest=str(int(EdgeKind.MANIFEST)),
    config=str(int(EdgeKind.CONFIG)),
    **{fate.name.lower(): fate for fate in Fate},
)


def choose_tags(inventory: Inventory, policy: Policy, *, now: int, grace: int) -> None:
    """gc_tag_fate; and gc_dropped_tag(repository, name, rule), those that go, with the name of the rule."""
    retention = Retention(inventory, policy, now=now, grace=grace)
    retention.sort()
    retention.decide()


def make_times(inventory: Inventory) -> None:
    """main.config_created and main.migrate_record, empty, where they are not there."""
    _SQL.run(inventory, "times")


class Retention:
    """One policy on one inventory, at `now`, with `grace`, both in microseconds."""

    def __init__(self, inventory: Inventory, policy: Policy, *, now: int, grace: int) -> None:
        self._inventory = inventory
        self._policy = policy
        self._now = now
        self._cutoff = now - grace
        self._by_created = _by_rule(
            policy.rules, lambda rule: str(rule.newest_by == "created" and rule.needs_time).lower()
        )
        make_times(inventory)

    def sort(self) -> None:
        """gc_tag_rule(repository, name, target, mtime, rule, own_time, own_by, fate): what names alone decide."""
        rules = self._policy.rules
        rule = _case(rules, lambda rule: f"{any_of(rule.repositories, 'repo')} and {any_of(rule.tags, 'name')}")
        protect = " or ".join(
            [
                any_of(self._policy.protect, "name"),
                *(f"{any_of(rule.repositories, 'repo')} and {any_of(rule.protect, 'name')}" for rule in rules),
            ]
        )
        kept = _by_rule(rules, lambda rule: any_of(rule.keep, "name"))
        meant = _by_rule(
            rules, lambda rule: any_of(rule.drop, "name") if rule.drop else "true" if rule.takes else "false"
        )
        self._run("sort", rule=rule, is_protected=protect, is_kept=kept, is_meant=meant)

    def configs(self) -> list[tuple[bytes, int | None]]:
        """(digest, size where it is known) of the configs whose `created` the rules ask for, and is not known."""
        if not self._policy.needs_created:
            return []
        self._run("images", by_created=self._by_created)
        return self._run("configs").fetchall()

    def decide(self) -> None:
        """gc_tag_fate and gc_dropped_tag."""
        rules = self._policy.rules
        newest = _by_rule(rules, lambda rule: f"place <= {rule.keep_newest}" if rule.keep_newest else "false")
        younger = _by_rule(
            rules,
            lambda rule: (
                "false" if rule.keep_younger_than is None else f"time >= {self._now - rule.keep_younger_than}"
            ),
        )
        if self._policy.needs_created:
            self._run("images", by_created=self._by_created)
        else:
            self._run("no_images")
        self._run("decide", by_created=self._by_created, is_newest=newest, is_younger=younger)
        self._run("dropped")

    def _run(self, section: str, **fragments: str) -> duckdb.DuckDBPyConnection:
        import duckdb

        given = {
            "cutoff": self._cutoff,
            "earliest": _NO_TIME_BEFORE,
            "latest": self._now + _AHEAD,
            "labels": [rule.name for rule in self._policy.rules],
        }
        try:
            return _SQL.run(self._inventory, section, given, **fragments)
        except duckdb.InvalidInputException as error:  # RE2 knows less than Python's re, and how much it tells late
            source = self._policy.source or "the options"
            raise InputError(f"a pattern of {source} is not one that RE2 understands: {error}") from error


def any_of(patterns: Sequence[Pattern], column: str) -> str:
    """SQL: whether one of the patterns matches the column's whole text."""
    if not patterns:
        return "false"
    alternatives = " or ".join(
        "true" if pattern.text == "**" else f"regexp_full_match({column}, {_literal(pattern.regex)})"
        for pattern in patterns
    )
    return f"({alternatives})"


def _case(rules: Sequence[Rule], condition: Callable[[Rule], str]) -> str:
    """SQL: the position of the first rule whose condition holds, else null."""
    whens = " ".join(f"when {condition(rule)} then {number}" for number, rule in enumerate(rules))
    return f"case {whens} end" if whens else "null::integer"


def _by_rule(rules: Sequence[Rule], condition: Callable[[Rule], str]) -> str:
    """SQL: the condition of the rule that stands in the column `rule`."""
    whens = " ".join(f"when {number} then {condition(rule)}" for number, rule in enumerate(rules))
    return f"(case rule {whens} else false end)" if whens else "false"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
