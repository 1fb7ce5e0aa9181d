"""How many examples Hypothesis tries: few in everyday runs, many with --slow."""

from __future__ import annotations

_factor = 1


def set_factor(factor: int) -> None:
    """Before the tests are collected: the number is settled when a test is defined."""
    global _factor
    _factor = factor


def examples(number: int) -> int:
    """`number` in everyday runs."""
    return number * _factor
