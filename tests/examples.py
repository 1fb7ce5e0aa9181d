"""How many examples Hypothesis tries: some in everyday runs, few with --fast, many with --slow, as many as wanted with
--examples."""

from __future__ import annotations

from fractions import Fraction

_factor: int | Fraction = 1
_wanted: int | None = None


def set_factor(factor: int | Fraction, wanted: int | None = None) -> None:
    """Before the tests are collected: the number is settled when a test is defined. wanted: of every test, whatever
    the factor."""
    global _factor, _wanted
    _factor, _wanted = factor, wanted


def examples(number: int) -> int:
    """`number` in everyday runs."""
    return max(1, int(number * _factor)) if _wanted is None else _wanted


def points(total: int, few: int, many: int | None = None) -> list[int]:
    """Of the numbers 1 to `total`: `few` of them, evenly, the last one included; with --slow `many`, or every one."""
    wanted = min(total, few if _factor <= 1 else total if many is None else many)
    return sorted(total - number * total // wanted for number in range(wanted))
