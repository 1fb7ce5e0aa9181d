"""What a list on a page is asked for, by its address: words, order, page. The same in every list, without a script."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from regstore.serve.kinds import types_of

#: Rows of one page.
ROWS: Final = 100
_WORDS_MAX: Final = 300


#: `>100MB`, `< 1.5 GiB`.
_SIZE: Final = re.compile(r"([<>])\s*(\d{1,6}(?:\.\d{1,3})?)\s*([kmgt]?)(i?)b?", re.ASCII | re.IGNORECASE)
#: `2026-11`, `2026-11-28`.
_DATE: Final = re.compile(r"(\d{4})-(\d\d)(?:-(\d\d))?", re.ASCII)
_ANY_SIZE: Final = 2**62


@dataclass(frozen=True, slots=True)
class Column:
    """A column that can be sorted by. sql: what it is ordered by. down: whether the largest stands first at first."""

    name: str
    heading: str
    sql: str
    down: bool = False
    number: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """path: of the page itself. column, down: the order. page: from 1."""

    path: str
    columns: tuple[Column, ...]
    words: str
    column: Column
    down: bool
    page: int
    more: Mapping[str, str]

    @property
    def order(self) -> str:
        """SQL; ties in the order of the first column."""
        direction = "desc" if self.down else "asc"
        return f"{self.column.sql} {direction} nulls last, {self.columns[0].sql}"

    @property
    def window(self) -> dict[str, int]:
        return {"limit": ROWS, "offset": (self.page - 1) * ROWS}

    def link(self, *, sort: str | None = None, page: int = 1) -> str:
        """The address of the same list in another order, or of another page of it."""
        query = dict(self.more)
        if self.words:
            query["q"] = self.words
        wanted = sort if sort is not None else ("-" if self.down else "") + self.column.name
        if wanted != _first(self.columns):
            query["sort"] = wanted
        if page > 1:
            query["page"] = str(page)
        return self.path + (f"?{urlencode(query)}" if query else "")

    def link_of(self, column: Column) -> str:
        """Sorts by the column; once more, the other way round."""
        down = not self.down if column == self.column else column.down
        return self.link(sort=("-" if down else "") + column.name)

    def sorted_by(self, column: Column) -> str:
        """For `aria-sort`."""
        return "none" if column != self.column else "descending" if self.down else "ascending"


def _first(columns: tuple[Column, ...]) -> str:
    return ("-" if columns[0].down else "") + columns[0].name


def asked(
    path: str, query: Mapping[str, str], columns: tuple[Column, ...], more: Mapping[str, str] | None = None
) -> Asked:
    """From an address; what can't be understood is as if it were not there. more: what else belongs to the address."""
    sort = query.get("sort", _first(columns))
    column = next((each for each in columns if each.name == sort.removeprefix("-")), columns[0])
    page = query.get("page", "1")
    number = int(page) if page.isascii() and page.isdigit() and len(page) < 8 else 1
    return Asked(
        path=path,
        columns=columns,
        words=query.get("q", "")[:_WORDS_MAX].strip(),
        column=column,
        down=sort.startswith("-"),
        page=max(number, 1),
        more={name: value for name, value in (more or {}).items() if value},
    )


def tag_filter(words: str) -> dict[str, Any]:
    """What a list of tags is filtered by, as parameters of its query: a size (`>100MB`), or a month or day (`2026-11`),
    a type (`multi-platform`) or a part of the name, whichever fits."""
    smallest, largest, text = 0, _ANY_SIZE, words
    if match := _SIZE.fullmatch(words):
        unit = (1024 if match[4] else 1000) ** " kmgt".index(match[3].lower() or " ")
        bound = int(float(match[2]) * unit)
        smallest, largest = (bound + 1, _ANY_SIZE) if match[1] == ">" else (0, bound - 1)
        text = ""
    since, until = _span(text)
    return {
        "words": text,
        "types": types_of(text),
        "since": since,
        "until": until,
        "smallest": smallest,
        "largest": largest,
    }


def _span(text: str) -> tuple[int, int]:
    """The beginning and end of a month or day in UTC, in microseconds; nothing lies between where it is neither."""
    match = _DATE.fullmatch(text)
    if match is None:
        return 1, 0
    try:
        begin = datetime(int(match[1]), int(match[2]), int(match[3] or 1), tzinfo=UTC)
        end = begin + timedelta(days=1) if match[3] else (begin + timedelta(days=32)).replace(day=1)
    except (ValueError, OverflowError):
        return 1, 0
    return int(begin.timestamp()) * 1_000_000, int(end.timestamp()) * 1_000_000
