"""Tables, and the colours of a terminal: none in a pipe, with NO_COLOR, or where the terminal has none."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from typing import Final

from regstore.words import printable

_DIGEST: Final = re.compile(r"\b(sha256|sha384|sha512):([0-9a-f]{12})[0-9a-f]{52,}")
#: A column is not cut below so many characters.
_LEAST: Final = 6
_STYLES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
#: What is coloured wherever it is a whole cell, or the state of a line.
_WORDS: Final = {
    "ok": "green",
    "fail": "red",
    "damaged": "red",
    "failed": "red",
    "denied": "red",
    "goes": "yellow",
    "forget": "yellow",
    "warn": "yellow",
    "missing": "yellow",
    "skip": "dim",
}


class Painted(str):
    """Text that may be printed as it is: nothing in it is from outside but what `printable` has made. What is put
    before it or after it is made so, too."""

    __slots__ = ()

    def __add__(self, other: str) -> Painted:
        return Painted(str(self) + (other if isinstance(other, Painted) else printable(other)))

    def __radd__(self, other: str) -> Painted:
        return Painted(printable(other) + str(self))


def is_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except ValueError:  # closed
        return False


def has_colours() -> bool:
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in (None, "", "dumb")


def paint(text: str, style: str) -> Painted:
    shown = printable(text)
    return Painted(f"\x1b[{_STYLES[style]}m{shown}\x1b[0m" if has_colours() else shown)


def state(word: str, width: int = 0) -> Painted:
    """A word such as ok, warn or fail in its colour, filled up to this width."""
    style = _WORDS.get(word.strip())
    return Painted((paint(word, style) if style else printable(word)) + " " * (width - len(word)))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> Painted:
    """Aligned text: one line a row, two spaces between columns. On a terminal it is as wide as that at most: digests
    get their short form, then the widest columns are cut.

    right: the positions of columns that are aligned to the right (numbers), and never cut.
    """
    lines = [list(headings), *(list(map(printable, row)) for row in rows)]
    if is_terminal():
        lines = _fitted(lines, right, shutil.get_terminal_size().columns)
    widths = _widths(lines)

    def render(line: Sequence[str], *, heading: bool) -> str:
        cells = []
        for column, (cell, width) in enumerate(zip(line, widths, strict=True)):
            style = "bold" if heading else _WORDS.get(cell)
            shown = paint(cell, style) if style and cell else cell
            fill = " " * (width - len(cell))
            cells.append(fill + shown if column in right else shown + fill)
        return "  ".join(cells).rstrip()

    return Painted("\n".join(render(line, heading=number == 0) for number, line in enumerate(lines)))


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*lines, strict=True)]


def _fitted(lines: list[list[str]], right: Sequence[int], room: int) -> list[list[str]]:
    room -= 2 * (len(lines[0]) - 1)
    if sum(_widths(lines)) <= room:
        return lines
    lines = [[_DIGEST.sub(r"\1:\2", cell) for cell in line] for line in lines]
    widths = _widths(lines)
    while (over := sum(widths) - room) > 0:
        column = max((each for each in range(len(widths)) if each not in right), key=widths.__getitem__, default=-1)
        if column < 0 or widths[column] <= _LEAST:
            break
        others = sorted((width for each, width in enumerate(widths) if each not in right), reverse=True)
        down_to = others[1] if len(others) > 1 and others[1] < others[0] else others[0] - 1
        widths[column] = max(widths[column] - over, down_to, _LEAST)
    return [[_cut(cell, width) for cell, width in zip(line, widths, strict=True)] for line in lines]


def _cut(cell: str, width: int) -> str:
    """Its beginning and its end: what tells names apart is often there."""
    if len(cell) <= width:
        return cell
    end = (width - 1) // 3
    return f"{cell[: width - 1 - end]}…{cell[len(cell) - end :] if end else ''}"
