"""Values of options that typer does not know: durations, shares and times."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import typer

from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.proving.read_data import ReadData


def parse_duration(text: str) -> int:
    """`24h`, `90m`, `7d`, `0s`: microseconds."""
    from regstore.gc import policy

    try:
        return policy.parse_duration(text)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error


def parse_share(text: str) -> float:
    """`50%`: 0.5."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
    if match is None or float(match[1]) > 100:
        raise typer.BadParameter(f"{text!r} is not a share such as 50%")
    return float(match[1]) / 100


def parse_time(text: str) -> int:
    """`2026-01-31T12:00Z`, ISO 8601, UTC where it names no zone: microseconds since 1970."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a time such as 2026-01-31T12:00Z") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000_000)


def parse_read_data(text: str) -> ReadData:
    """`all`, `5%`, `3/7`, `10G`."""
    from regstore.proving.read_data import ReadData

    try:
        return ReadData.parse(text)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
