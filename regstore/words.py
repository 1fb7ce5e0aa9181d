"""Numbers, sizes, times, odd text and misspelled names as people read them, on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Final

#: A time that is shown, or goes into JSON, as `moment` says it.
Moment = Annotated[int, "microseconds since 1970, UTC"]

#: Names that a suggestion has at most.
_SUGGESTED: Final = 3
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


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


def meant(word: str, among: Collection[str]) -> str:
    """`; did you mean …?` with what there is that looks like the word; "" where nothing does."""
    import difflib

    close = difflib.get_close_matches(word, among, n=_SUGGESTED, cutoff=0.6)
    last = word.rpartition("/")[2]
    close += [name for name in sorted(among) if name.rpartition("/")[2] == last and name not in close]
    return f"; did you mean {' or '.join(map(printable, close[:_SUGGESTED]))}?" if close else ""
