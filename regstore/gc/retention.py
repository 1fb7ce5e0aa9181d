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
from typing import Final

from regstore.errors import InputError
from regstore.gc.policy import Pattern, Policy, Rule
from regstore.inventory.inventory import Inventory
from regstore.manifest import EdgeKind
from regstore.reference import DIGEST_TAG_RE

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


class Retention:
    """One policy on one inventory, at `now`, with `grace`, both in microseconds."""

    def __init__(self, inventory: Inventory, policy: Policy, *, now: int, grace: int) -> None:
        self._inventory = inventory
        self._policy = policy
        self._now = now
        self._cutoff = now - grace
        inventory.execute(
            "create table if not exists main.config_created (digest blob not null, time bigint, state varchar not null)"
        )
        inventory.execute(
            "create table if not exists main.migrate_record"
            " (repository varchar, tag varchar, digest blob, time bigint, set_by bigint)"
        )

    def sort(self) -> None:
        """gc_tag_rule(repository, name, target, mtime, rule, own_time, own_by, fate): what names alone decide."""
        rules = self._policy.rules
        rule = _case(rules, lambda rule: f"{_any(rule.repositories, 'repo')} and {_any(rule.tags, 'name')}")
        protect = " or ".join(
            [
                _any(self._policy.protect, "name"),
                *(f"{_any(rule.repositories, 'repo')} and {_any(rule.protect, 'name')}" for rule in rules),
            ]
        )
        kept = _by_rule(rules, lambda rule: _any(rule.keep, "name"))
        meant = _by_rule(
            rules, lambda rule: _any(rule.drop, "name") if rule.drop else "true" if rule.takes else "false"
        )
        self._execute(
            f"""
            create or replace table gc_tag_rule as
            with named as (
                select t.repository, t.name, t.target, t.mtime, r.name as repo
                from tag t join repository r on r.id = t.repository
            ),
            ruled as (select *, {rule} as rule from named)
            select u.repository, u.name, u.target, u.mtime, u.rule,
                coalesce(m.time, u.mtime) as own_time,
                case when m.time is null then 'link' else 'record' end as own_by,
                case
                    when {protect} then '{Fate.PROTECTED}'
                    when regexp_full_match(u.name, {_literal(DIGEST_TAG_RE)}) then '{Fate.NAMES_DIGEST}'
                    when rule is null then '{Fate.NO_RULE}'
                    when u.target is null then '{Fate.DAMAGED}'
                    when {kept} then '{Fate.KEPT}'
                    when not {meant} then '{Fate.NOT_MEANT}'
                end as fate
            from ruled u
            left join (
                select repository, tag, digest, max(time) as time, min(set_by) as set_by
                from main.migrate_record group by all
            ) m on m.repository = u.repo and m.tag = u.name and m.digest = u.target and u.mtime <= m.set_by
            """
        )

    def configs(self) -> list[tuple[bytes, int | None]]:
        """(digest, size where it is known) of the configs whose `created` the rules ask for, and is not known."""
        if not self._policy.needs_created:
            return []
        self._find_images()
        return self._inventory.all(
            """
            select i.config, any_value(b.size) from gc_tag_image i left join blob b on b.digest = i.config
            where i.config not in (select digest from main.config_created) group by i.config
            """
        )

    def decide(self) -> None:
        """gc_tag_fate."""
        rules = self._policy.rules
        by_created = _by_rule(rules, lambda rule: str(rule.newest_by == "created" and rule.needs_time).lower())
        newest = _by_rule(rules, lambda rule: f"place <= {rule.keep_newest}" if rule.keep_newest else "false")
        younger = _by_rule(
            rules,
            lambda rule: (
                "false" if rule.keep_younger_than is None else f"time >= {self._now - rule.keep_younger_than}"
            ),
        )
        if self._policy.needs_created:
            self._find_images()
        else:
            self._execute("create or replace temp table gc_tag_image (digest blob, config blob)")
        self._execute(
            f"""
            create or replace table gc_tag_fate as
            with made as (
                select i.digest, bool_or(coalesce(c.state, 'unreadable') = 'unreadable') as unknown,
                    max(c.time) filter (c.time between {_NO_TIME_BEFORE} and {self._now + _AHEAD}) as time
                from gc_tag_image i left join main.config_created c on c.digest = i.config
                group by i.digest
            ),
            timed as (
                select t.*, {by_created} as by_created, m.time as made,
                    by_created and coalesce(m.unknown, false) as unknown
                from gc_tag_rule t left join made m on m.digest = t.target
            ),
            known as (
                select repository, name, target, mtime, rule,
                    case when fate is null and unknown then '{Fate.UNKNOWN_TIME}' else fate end as fate,
                    case when by_created and made is not null then made else own_time end as time,
                    case when by_created and made is not null then 'created' else own_by end as time_by
                from timed
            ),
            placed as (
                select * replace (case when fate is null then time end as time,
                        case when fate is null then time_by end as time_by),
                    case when fate is null then row_number() over (
                        partition by repository, rule, fate is null order by time desc, mtime desc, name desc
                    ) end as place
                from known
            )
            select * replace (case
                    when fate is not null then fate
                    when {newest} then '{Fate.NEWEST}'
                    when {younger} then '{Fate.YOUNGER}'
                    when mtime >= {self._cutoff} then '{Fate.GRACE}'
                    else '{Fate.GOES}'
                end as fate)
            from placed
            """
        )

    def _find_images(self) -> None:
        """gc_tag_image(digest, config): the configs of each tag's image, or of all images of its index."""
        by_created = _by_rule(
            self._policy.rules, lambda rule: str(rule.newest_by == "created" and rule.needs_time).lower()
        )
        self._execute(
            f"""
            create or replace temp table gc_tag_image as
            with recursive below(digest, part) as (
                select distinct target, target from gc_tag_rule where fate is null and {by_created}
                union
                select b.digest, e.target from below b join edge e on e.source = b.part
                where e.kind = {int(EdgeKind.MANIFEST)}
            )
            select distinct b.digest, e.target as config from below b join edge e on e.source = b.part
            where e.kind = {int(EdgeKind.CONFIG)}
            """
        )

    def _execute(self, sql: str) -> None:
        import duckdb

        try:
            self._inventory.execute(sql)
        except duckdb.InvalidInputException as error:  # RE2 knows less than Python's re, and how much it tells late
            source = self._policy.source or "the options"
            raise InputError(f"a pattern of {source} is not one that RE2 understands: {error}") from error


def _any(patterns: Sequence[Pattern], column: str) -> str:
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
