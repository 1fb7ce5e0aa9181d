"""What the commands write: lines and tables for people, JSON for programs, warnings on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Final

from regstore.cli.tables import Painted
from regstore.cli.tables import table as table
from regstore.cli.voice import voice
from regstore.words import count as count
from regstore.words import counted as counted
from regstore.words import moment as moment
from regstore.words import printable as printable
from regstore.words import size as size

_SHOWN: Final = 20


def emit(text: str = "") -> None:
    """One line, or several, of the report, on stdout. With --json and with -q nothing."""
    if voice().prints(problem=False):
        _print(text)


def emit_problem(text: str) -> None:
    """A line of the report that -q leaves: what is wrong, or was left out."""
    if voice().prints(problem=True):
        _print(text)


def _print(text: str) -> None:
    print(text if isinstance(text, Painted) else printable(text))


def emit_error(text: str) -> None:
    """`regstore: text` on stderr, as one line. With --json, too: that is about stdout."""
    voice().log("error", "problem", text)


def emit_warning(text: str) -> None:
    """The same, of what may be a mistake: -q leaves it."""
    voice().log("warning", "warning", text)


def emit_note(text: str) -> None:
    """The same, of what is no problem: -q leaves it out."""
    voice().log("info", "note", text)


def emit_json(document: Mapping[str, Any]) -> None:
    """One JSON object on stdout, keys sorted, as `plain` makes it."""
    print(encoded(document))


def encoded(document: Mapping[str, Any]) -> str:
    import orjson

    options = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_DATACLASS
    return orjson.dumps(document, default=_plain, option=options).decode()


def plain(value: object) -> dict[str, Any]:
    """The fields of a dataclass of ours, for JSON: times (`words.Moment`) as ISO 8601, UTC. What it holds is left to
    `emit_json`, which does the same with it, and writes digests, platforms and paths as their text."""
    times = _times(type(value))  # type: ignore[arg-type]
    shown = {each.name: getattr(value, each.name) for each in fields(value)}  # type: ignore[arg-type]
    return shown | {name: iso(shown[name]) for name in times}


def iso(microseconds: int | None) -> str | None:
    """A time for JSON; None where there is none, or none that can be written so."""
    text = "-" if microseconds is None else moment(microseconds)
    return None if text == "-" else text


@cache
def _times(kind: type[Any]) -> tuple[str, ...]:
    """The fields of a dataclass that are times."""
    return tuple(each.name for each in fields(kind) if "Moment" in str(each.type).split(" "))


def _plain(value: object) -> object:
    from regstore.digest import Digest
    from regstore.manifest import Platform

    if is_dataclass(value) and not isinstance(value, (Digest, Platform)):
        return plain(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def emit_yaml(document: Mapping[str, Any]) -> None:
    """As a configuration file has it, in its own order."""
    from regstore.storage import registry_yaml

    emit(registry_yaml.dump([dict(document)]).rstrip())


def blobs(number: int, total: int) -> str:
    """`3 blobs (1.2 MiB)`."""
    return f"{counted(number, 'blob')} ({size(total)})"


def some(lines: Sequence[str], more: str) -> Iterator[str]:
    """The first of many lines. Where there are others, `more` ends them, with their number in place of `{}`."""
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield more.format(count(len(lines) - _SHOWN))


def emit_some(lines: Sequence[str], more: str) -> None:
    """`some`, on stdout."""
    for line in some(lines, more):
        emit(line)


def emit_rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout of the first of many rows, and how many more there are; nothing of none."""
    if rows:
        emit(table(headings, rows[:_SHOWN]))
    if len(rows) > _SHOWN:
        emit(f"… and {count(len(rows) - _SHOWN)} more (--json names them all)")


def warn_some(lines: Sequence[str], more: str = "… and {} more (--json names them all)") -> None:
    """`some`, as warnings on stderr."""
    for line in some(lines, more):
        emit_error(printable(line))
