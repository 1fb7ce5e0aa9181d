"""Why tags stay or go, read from a plan's tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from regstore.errors import NameUnknown, TagUnknown
from regstore.gc.plan import GcOptions
from regstore.gc.policy import Policy
from regstore.gc.retention import Fate
from regstore.inventory.inventory import Inventory, digest_text
from regstore.inventory.statements import Statements
from regstore.reference import subject_of_tag
from regstore.words import Moment

_SQL: Final = Statements("regstore.gc", "explain.sql")

_DAY: Final = 24 * 3600 * 1_000_000
_TIME_BY: Final = {"link": "set", "record": "set where it was migrated from", "created": "made"}


@dataclass(frozen=True, kw_only=True)
class DroppedTag:
    """A tag that a rule takes. time in microseconds, what its age was judged by; None where no age mattered."""

    repository: str
    tag: str
    digest: str
    rule: str
    time: Moment | None
    time_by: str | None


@dataclass(frozen=True, kw_only=True)
class TagReason:
    """digest: None where the tag's link is damaged. reason: a clause."""

    tag: str
    digest: str | None
    goes: bool
    reason: str


def iter_dropped(inventory: Inventory) -> Iterator[DroppedTag]:
    """By repository and name; of each repository the newest first."""
    if not inventory.count("gc_dropped_tag"):
        return
    cursor = inventory.connection.cursor()
    rows = cursor.execute(_SQL.text("dropped"))
    while batch := rows.fetchmany(10_000):
        for repository, tag, target, rule, time, time_by in batch:
            yield DroppedTag(
                repository=repository, tag=tag, digest=digest_text(target), rule=rule, time=time, time_by=time_by
            )
    cursor.close()


def explain_tags(
    inventory: Inventory, options: GcOptions, repository: str, tag: str | None = None
) -> list[TagReason]:
    """Of each tag of a repository, or of one, whether it stays and why. The plan must have been made.

    NameUnknown, TagUnknown where the inventory has none such.
    """
    found = _SQL.run(inventory, "repository", {"repository": repository}).fetchall()
    if not found:
        raise NameUnknown(f"no repository {repository}")
    (number,) = found[0]
    protected = [reason for (reason,) in _SQL.run(inventory, "protected", {"number": number}).fetchall()]
    policy = options.policy or Policy()
    rows = _SQL.run(inventory, "tags", {"number": number, "tag": tag}).fetchall()
    if tag is not None and not rows:
        raise TagUnknown(f"{repository} has no tag {tag}")
    reasons = []
    for name, target, goes, broken, *fate in rows:
        if goes and broken is not None:
            reason = f"names {digest_text(broken)}, which can't be read and may go"
        elif protected:
            reason = f"the repository is left alone: {protected[0]}"
        else:
            reason = _reason(name, goes, policy, options, *fate)
        reasons.append(
            TagReason(tag=name, digest=None if target is None else digest_text(target), goes=goes, reason=reason)
        )
    return reasons


def _reason(
    tag: str,
    goes: bool,
    policy: Policy,
    options: GcOptions,
    number: int | None,
    fate: str | None,
    time: int | None,
    time_by: str | None,
    place: int | None,
) -> str:
    subject = subject_of_tag(tag)
    if subject is not None and fate in (None, Fate.NAMES_DIGEST):
        return f"goes with {subject}" if goes else f"stays as long as {subject}, and is never counted"
    if subject is None and fate == Fate.NAMES_DIGEST:
        return "names a digest that is cut: it stays whatever becomes of that, and is never counted"
    if fate == Fate.PROTECTED:
        return "its name is protected"
    if fate is None:
        return "no rule says otherwise"
    if fate == Fate.NO_RULE or number is None:
        return "no rule is about it"
    rule = policy.rules[number]
    when = "" if time is None or time_by is None else f"{_TIME_BY[time_by]} {_moment(time)}"
    match fate:
        case Fate.DAMAGED:
            said = "its link is damaged"
        case Fate.KEPT:
            said = f"keeps {', '.join(map(str, rule.keep))}"
        case Fate.NOT_MEANT:
            said = f"takes only {', '.join(map(str, rule.drop))}" if rule.drop else "takes none"
        case Fate.UNKNOWN_TIME:
            said = "when its image was made can't be read"
        case Fate.NEWEST:
            said = f"place {place:,} of the newest {rule.keep_newest:,} that stay, {when}"
        case Fate.YOUNGER:
            said = f"{when}, younger than {_days(rule.keep_younger_than)}"
        case Fate.GRACE:
            said = f"would take it, but its link is younger than the grace of {_days(options.grace)}"
        case _:
            said = _taken(rule.keep_newest, rule.keep_younger_than, [str(one) for one in rule.drop], place, when)
    return f"rule {rule.name!r}: {said}"


def _taken(newest: int | None, younger: int | None, drop: list[str], place: Any, when: str) -> str:
    parts = [f"drops {', '.join(drop)}"] if drop else []
    if newest is not None:
        parts.append(f"place {place:,}, where the newest {newest:,} stay")
    if younger is not None:
        parts.append(f"older than {_days(younger)}")
    if newest is not None or younger is not None:
        parts.append(when)
    return ", ".join(part for part in parts if part)


def _moment(time: int) -> str:
    try:
        return datetime.fromtimestamp(time / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "at a time that no calendar has"


def _days(duration: int | None) -> str:
    if duration is None:
        return "-"
    if duration % _DAY == 0 and duration:
        return f"{duration // _DAY:,}d"
    return f"{duration / 3_600_000_000:,.4g}h"
