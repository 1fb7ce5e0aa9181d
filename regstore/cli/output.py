"""What the commands write: lines and tables for people, JSON for programs, warnings on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from regstore.words import count as count
from regstore.words import counted as counted
from regstore.words import moment as moment
from regstore.words import printable as printable
from regstore.words import size as size

_SHOWN: Final = 20


def emit(text: str = "") -> None:
    """One line, or several, on stdout."""
    print(printable(text))


def emit_error(text: str) -> None:
    """`regstore: text` on stderr, as one line."""
    print(f"regstore: {printable(' '.join(text.split()))}", file=sys.stderr)


def emit_json(document: Mapping[str, Any]) -> None:
    """One JSON object on stdout, keys sorted. Digests and other values of ours become their text."""
    import orjson

    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_DATACLASS
    print(orjson.dumps(document, default=str, option=options).decode())


def emit_yaml(document: Mapping[str, Any]) -> None:
    """As a configuration file has it, in its own order."""
    import yaml

    emit(yaml.safe_dump(dict(document), sort_keys=False, default_flow_style=False).rstrip())


def blobs(number: int, total: int) -> str:
    """`3 blobs (1.2 MiB)`."""
    return f"{counted(number, 'blob')} ({size(total)})"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Aligned plain text: one line a row, two spaces between columns.

    right: the positions of columns that are aligned to the right (numbers).
    """
    lines = [list(headings), *(list(map(printable, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]

    def render(line: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join(map(render, lines))


def some(lines: Sequence[str], more: str) -> Iterator[str]:
    """The first of many lines. Where there are others, `more` ends them, with their number in place of `{}`."""
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield more.format(count(len(lines) - _SHOWN))


def emit_some(lines: Sequence[str], more: str) -> None:
    """`some`, on stdout."""
    for line in some(lines, more):
        emit(line)


def warn_some(lines: Sequence[str], more: str = "… and {} more (--json names them all)") -> None:
    """`some`, as warnings on stderr."""
    for line in some(lines, more):
        emit_error(printable(line))
