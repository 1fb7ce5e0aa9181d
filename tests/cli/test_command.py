"""Groups of options become options of a command, and come back as one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from regstore.cli.command import command, said
from regstore.cli.options import Json
from regstore.cli.values import parse_duration, parse_share

HOUR = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class Place:
    place: Annotated[str | None, typer.Argument(metavar="PLACE")] = None
    quiet: Annotated[bool, typer.Option("--quiet")] = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    grace: Annotated[int, typer.Option(parser=parse_duration, metavar="DURATION")] = said("24h", parse_duration)
    share: Annotated[float, typer.Option(parser=parse_share, metavar="SHARE")] = said("50%", parse_share)


@dataclass(frozen=True, kw_only=True)
class MoreLimits(Limits):
    number: Annotated[int, typer.Option(metavar="N", min=1)] = 1


got: list[object] = []


@command
def work(
    place: Place, *, name: Annotated[str, typer.Argument()] = "x", limits: MoreLimits, as_json: Json = False
) -> int:
    """Do it."""
    got.append((place, name, limits, as_json))
    return 3


def run(*words: str) -> tuple[int, str]:
    app = typer.Typer(rich_markup_mode=None)
    app.command("work")(work)
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def test_a_command_gets_its_groups() -> None:
    got.clear()
    assert run("here", "y", "--grace", "1h", "--number", "7", "--json", "--quiet") == (3, "")
    assert got == [(Place(place="here", quiet=True), "y", MoreLimits(grace=HOUR, share=0.5, number=7), True)]


def test_a_default_is_in_the_words_of_the_command_line() -> None:
    got.clear()
    assert run() == (3, "")
    assert got == [(Place(), "x", MoreLimits(), False)]
    assert MoreLimits().grace == 24 * HOUR
    assert MoreLimits().share == 0.5
    assert "[default: 24h]" in run("--help")[1]


def test_the_first_groups_options_stand_last() -> None:
    text = run("--help")[1]
    words = ["[PLACE]", "[name]", "--grace", "--share", "--number", "--json", "--quiet"]
    places = [text.index(word) for word in words]
    assert places == sorted(places)


def test_two_groups_can_not_have_one_option() -> None:
    def twice(one: Limits, *, other: MoreLimits) -> None:
        pass

    with pytest.raises(ValueError, match="duplicate parameter name"):
        command(twice)


def test_a_text_for_a_value_is_for_groups_only() -> None:
    def single(*, grace: int = said("1h", parse_duration)) -> None:
        pass

    with pytest.raises(TypeError, match="groups"):
        command(single)
