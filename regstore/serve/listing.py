"""What a list on a page is asked for, by its address: words, order, page. The same in every list, without a script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

#: Rows of one page.
ROWS: Final = 100
_WORDS_MAX: Final = 300


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
