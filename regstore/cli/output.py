"""What the commands write: lines and tables for people, JSON for programs, warnings on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
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


def printable(text: str) -> str:
    """The text with control characters (a key may hold any) written as escapes, so that none reaches a terminal."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in "\n\t"
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def count(number: int) -> str:
    return f"{number:,}"


def counted(number: int, singular: str, plural: str = "") -> str:
    """`1 blob`, `1,203 blobs`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def blobs(number: int, total: int) -> str:
    """`3 blobs (1.2 MiB)`."""
    return f"{counted(number, 'blob')} ({size(total)})"


def size(number: int) -> str:
    """Bytes for people, in binary units with three digits or so; `-` where unknown (negative)."""
    if number < 0:
        return "-"
    if number < 1024:
        return f"{number} B"
    value = float(number)
    for unit in _UNITS:
        value /= 1024
        if round(value, 1) < 1024:
            return f"{value:.1f} {unit}" if round(value, 1) < 100 else f"{value:.0f} {unit}"
    return f"{value:,.0f} {_UNITS[-1]}"


def moment(microseconds: int) -> str:
    """Microseconds since 1970 as ISO 8601 in UTC, to the second; `-` outside the years 1 to 9999 (an image's config
    may say anything)."""
    from datetime import UTC, datetime, timedelta

    try:
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError:
        return "-"
    return time.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


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
