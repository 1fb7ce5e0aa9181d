"""Groups of options become options of a command, and come back as one object."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from regstore.cli.app import COMMANDS, GROUPS
from regstore.cli.backup import BACKUP_COMMANDS
from regstore.cli.command import command, said
from regstore.cli.options import SecondStore
from regstore.cli.settings import StoreSettings
from regstore.cli.values import parse_duration, parse_share
from regstore.cli.verify import RepairStore

HOUR = 3_600_000_000


@dataclass(frozen=True, kw_only=True)
class Place:
    place: Annotated[str | None, typer.Argument(metavar="PLACE")] = None
    slow: Annotated[bool, typer.Option("--slow")] = False


@dataclass(frozen=True, kw_only=True)
class Limits:
    grace: Annotated[int, typer.Option(parser=parse_duration, metavar="DURATION")] = said("24h", parse_duration)
    share: Annotated[float, typer.Option(parser=parse_share, metavar="SHARE")] = said("50%", parse_share)


@dataclass(frozen=True, kw_only=True)
class MoreLimits(Limits):
    number: Annotated[int, typer.Option(metavar="N", min=1)] = 1


got: list[object] = []


@command
def work(place: Place, *, name: Annotated[str, typer.Argument()] = "x", limits: MoreLimits) -> int:
    """Do it."""
    got.append((place, name, limits))
    return 3


def run(*words: str) -> tuple[int, str]:
    app = typer.Typer(rich_markup_mode=None)
    app.command("work")(work)
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def test_a_command_gets_its_groups() -> None:
    got.clear()
    assert run("here", "y", "--grace", "1h", "--number", "7", "--slow") == (3, "")
    assert got == [(Place(place="here", slow=True), "y", MoreLimits(grace=HOUR, share=0.5, number=7))]


def test_a_default_is_in_the_words_of_the_command_line() -> None:
    got.clear()
    assert run() == (3, "")
    assert got == [(Place(), "x", MoreLimits())]
    assert MoreLimits().grace == 24 * HOUR
    assert MoreLimits().share == 0.5
    assert "[default: 24h]" in run("--help")[1]


def test_the_first_groups_options_stand_last() -> None:
    text = run("--help")[1]
    words = ["[PLACE]", "[name]", "--grace", "--share", "--number", "--slow", "--json", "--quiet"]
    places = [text.index(word) for word in words]
    assert places == sorted(places)


def test_options_can_be_said_in_other_ways_by_their_fields_names() -> None:
    """As the module's docstring promises to whoever reads options from a file or the environment."""
    app = typer.Typer(rich_markup_mode=None)
    other_ways = {"default_map": {"grace": "1h", "number": 7, "slow": True}, "auto_envvar_prefix": "WORK"}
    app.command("work", context_settings=other_ways)(work)
    got.clear()
    CliRunner().invoke(app, ["--number", "8"], env={"WORK_SHARE": "20%"})
    assert got == [(Place(slow=True), "x", MoreLimits(grace=HOUR, share=0.2, number=8))]


def test_two_groups_can_not_have_one_option() -> None:
    def alike(one: Limits, *, other: MoreLimits) -> None:
        pass

    def same(one: Limits, *, other: Limits) -> None:
        pass

    for wrong in (alike, same):
        with pytest.raises(ValueError, match="duplicate parameter name"):
            command(wrong)


def test_a_text_for_a_value_is_for_groups_only() -> None:
    def single(*, grace: int = said("1h", parse_duration)) -> None:
        pass

    with pytest.raises(TypeError, match="groups"):
        command(single)


# -- imported when it runs

EVERY_COMMAND = COMMANDS | {
    f"{group} {name}": each for group, (_, commands) in GROUPS.items() for name, each in commands.items()
}


@pytest.mark.parametrize("name", EVERY_COMMAND)
def test_lists_say_the_first_sentence_of_its_docstring(name: str) -> None:
    later = EVERY_COMMAND[name]
    paragraph = " ".join((later.load().__doc__ or "").split("\n\n")[0].split())
    assert later.line == paragraph.partition(". ")[0].removesuffix(".") + "."


def loaded_by(program: str, *arguments: str) -> list[str]:
    """The modules that a process has loaded when the program has run."""
    program += "\nimport sys; print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr.split()


AS_THE_PROGRAM = """
from regstore.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "own"),
    [
        (("ls", "{store}"), {"ls"}),
        (("ls", "--help"), {"ls"}),
        (("trash", "list", "{store}"), {"trash.list"}),
        (("--help",), set()),
        (("backup", "--help"), set()),
    ],
)
def test_no_other_commands_module_is_loaded(demo_registry: Path, arguments: tuple[str, ...], own: set[str]) -> None:
    loaded = loaded_by(AS_THE_PROGRAM, *(each.format(store=demo_registry) for each in arguments))
    modules = {each.place.partition(":")[0] for each in EVERY_COMMAND.values()}
    assert modules & set(loaded) == {f"regstore.cli.{each}" for each in own}
    assert "pydantic" not in loaded, "an option needs none"


@pytest.mark.long
def test_a_dry_run_of_gc_loads_nothing_of_what_it_leaves_out(demo_registry: Path) -> None:
    # Of the demo something is left alone: exit code 3.
    loaded = loaded_by(
        AS_THE_PROGRAM.replace("not end.code", "end.code in (0, 3, None)"),
        "gc",
        str(demo_registry),
        "--dry-run",
        "-q",
    )
    assert "regstore.gc.plan.summary" in loaded
    removing = ("regstore.gc.apply", "regstore.gc.begin", "regstore.gc.heal", "regstore.gc.trash")
    others = ("regstore.registry", "regstore.gc.explain", "regstore.storage.s3", "regstore.storage.memory")
    foreign = ("yaml", "botocore", "pydantic", "aiohttp")
    assert [each for each in loaded if each.startswith((*removing, *others, *foreign))] == []


@pytest.mark.long
def test_what_every_command_waits_for_is_light() -> None:
    loaded = loaded_by("import regstore.cli.app\nfor each in regstore.cli.app.COMMANDS.values(): each.load()")
    assert "regstore.cli.gc" in loaded
    assert "asyncio" not in loaded


# -- a second store

#: Not of the way to a store.
OF_THE_RUN = {"store", "registry_config", "concurrency"}
WITH_A_SECOND_STORE = {
    "migrate": COMMANDS["migrate"].load(),
    "restore": COMMANDS["restore"].load(),
    "verify": COMMANDS["verify"].load(),
    "backup create": BACKUP_COMMANDS["create"].load(),
    "backup restore": BACKUP_COMMANDS["restore"].load(),
    "backup check": BACKUP_COMMANDS["check"].load(),
}


@pytest.mark.parametrize("name", WITH_A_SECOND_STORE)
def test_a_second_store_is_reached_by_all_that_a_first_is(name: str) -> None:
    options = inspect.signature(WITH_A_SECOND_STORE[name]).parameters
    ways = {each.name for each in fields(StoreSettings)} - OF_THE_RUN
    assert ways
    assert {f"dst_{way}" for way in ways} <= set(options)


def test_what_is_not_said_of_a_second_store_is_as_of_the_first() -> None:
    first = StoreSettings(
        store="s3://one",
        registry_config=Path("config.yml"),
        endpoint_url="http://one",
        region="r1",
        profile="p1",
        path_style=True,
        ca_bundle=Path("one.pem"),
        concurrency=3,
    )
    second = replace(first, store="s3://two", registry_config=None)
    assert SecondStore().settings(first, "s3://two") == second
    said_of_it = SecondStore(
        dst_endpoint_url="http://two",
        dst_region="r2",
        dst_profile="p2",
        dst_path_style=False,
        dst_ca_bundle=Path("two.pem"),
    )
    assert said_of_it.settings(first, "s3://two") == replace(
        second, endpoint_url="http://two", region="r2", profile="p2", path_style=False, ca_bundle=Path("two.pem")
    )


def test_verify_takes_the_names_of_before_for_its_second_store() -> None:
    first = StoreSettings(store="s3://one", endpoint_url="http://one", profile="p1", region="r1")
    before = RepairStore(repair_from_endpoint_url="http://two", repair_from_profile="p2")
    assert before.settings(first, "s3://two") == StoreSettings(
        store="s3://two", endpoint_url="http://two", profile="p2", region="r1"
    )
    both = RepairStore(dst_profile="p3", repair_from_profile="p2")
    assert both.settings(first, "s3://two").profile == "p3"


def test_names_of_before_are_taken_and_not_shown(tmp_path: Path) -> None:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(COMMANDS["verify"].load())
    assert "--repair-from-" not in CliRunner().invoke(app, ["--help"]).output
    words = ["--repair-from-endpoint-url", "http://two", "--repair-from-profile", "p2", "--max-age", "1h"]
    result = CliRunner().invoke(app, [str(tmp_path), *words])
    assert result.exit_code == 2
    assert "only with --read-data" in result.output  # all of them were understood
