"""How many examples Hypothesis tries: some in everyday runs, few with --fast, many with --slow, as many as wanted with
--examples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import pytest

_factor: int | Fraction = 1
_wanted: int | None = None
_is_same = False


def set_factor(factor: int | Fraction, wanted: int | None = None, *, is_same: bool = False) -> None:
    """Before the tests are collected: the number is settled when a test is defined. wanted: of every test, whatever
    the factor. is_same: in every run."""
    global _factor, _wanted, _is_same
    _factor, _wanted, _is_same = factor, wanted, is_same


def any_seed() -> int:
    """For what is made at random: another one in each run, but in those of CI."""
    return 12345 if _is_same else random.randrange(2**32)


def examples(number: int) -> int:
    """`number` in everyday runs."""
    return max(1, int(number * _factor)) if _wanted is None else _wanted


def points(total: int, few: int, many: int | None = None) -> list[int]:
    """Of the numbers 1 to `total`: `few` of them, evenly, the last one included; with --slow `many`, or every one."""
    wanted = min(total, few if _factor <= 1 else total if many is None else many)
    return sorted(total - number * total // wanted for number in range(wanted))


def crossed(
    names: str, *values: Mapping[str, Any] | Sequence[Any], meeting: int = 2, indirect: Sequence[str] = ()
) -> pytest.MarkDecorator:
    """A mark that parametrizes: with --slow by every combination of the values; else by some, in which any `meeting`
    values of different names meet at least once: 2 for those that may depend on each other, 1 for those that do not.
    A mapping gives its values, by the words that stand in a test's id."""
    named = [
        list(some.items()) if isinstance(some, Mapping) else [(_word(one), one) for one in some] for some in values
    ]
    cases = list(product(*(range(len(some)) for some in named)))
    if _factor <= 1:
        cases = _meeting(cases, meeting)
    chosen = [[named[place][number] for place, number in enumerate(case)] for case in cases]
    return pytest.mark.parametrize(
        [name.strip() for name in names.split(",")],
        [pytest.param(*(value for _, value in case), id="-".join(word for word, _ in case)) for case in chosen],
        indirect=indirect,
    )


def _word(value: Any) -> str:
    return str(value.__name__ if isinstance(value, Callable | type) else value)  # type: ignore[arg-type]


def _meeting(cases: list[tuple[int, ...]], meeting: int) -> list[tuple[int, ...]]:
    """Again and again the first of those that bring most, and of these whose values were met least."""

    def brings(case: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
        return set(combinations(enumerate(case), meeting))

    left = set().union(*map(brings, cases))
    met: Counter[tuple[int, int]] = Counter()
    chosen = []
    while left:
        best = max(
            cases, key=lambda case: (len(brings(case) & left), -sum(met[value] for value in enumerate(case)))
        )
        left -= brings(best)
        met.update(enumerate(best))
        chosen.append(best)
    return sorted(chosen)
