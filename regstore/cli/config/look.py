"""An option of a command as configuration knows it: `--keep-last` of `backup prune` is `keep_last` in a file, and
`REGSTORE_BACKUP_PRUNE_KEEP_LAST` in the environment."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from typer.models import ArgumentInfo, OptionInfo

from regstore.cli.later import Later

Kind = Literal["flag", "number", "text", "path"]

#: Two names of one command: what is said of one holds for the other.
ALIASES: Final = {"restore": "backup restore"}
PREFIX: Final = "REGSTORE_"


@dataclass(frozen=True, kw_only=True)
class Look:
    """name: Click's parameter. word: its key in a file. shown: as help has it; off: the flag that says no. many: is
    a list. parse: of its text, where it has a parser of its own. default: in words, where it has such a parser."""

    name: str
    word: str
    shown: str
    off: str | None
    argument: bool
    kind: Kind
    many: bool
    parse: Callable[[str], Any] | None
    default: Any


def looks_of(function: Callable[..., None]) -> tuple[Look, ...]:
    """Of a command (`command.command`), in the order of its help."""
    return tuple(
        _look(parameter, get_args(parameter.annotation)[0], mark)
        for parameter in inspect.signature(function).parameters.values()
        if get_origin(parameter.annotation) is Annotated
        for mark in get_args(parameter.annotation)[1:]
        if isinstance(mark, OptionInfo | ArgumentInfo)
    )


def _look(parameter: inspect.Parameter, kind: Any, mark: Any) -> Look:
    argument = isinstance(mark, ArgumentInfo)
    # What stands first in an Annotated option is its default to Typer, which knows better later.
    decls = [each for each in (mark.default, *(mark.param_decls or ())) if isinstance(each, str)]
    shown, _, off = next((each for each in decls if each.startswith("--")), "").partition("/")
    word = shown.removeprefix("--").replace("-", "_") or parameter.name
    if argument:
        metavar = mark.metavar or parameter.name.upper()
        word = metavar.lower() if metavar.isidentifier() else parameter.name
        shown = metavar
    bare = _bare(kind)
    many = get_origin(bare) is list
    return Look(
        name=parameter.name,
        word=word,
        shown=shown or "--" + parameter.name.replace("_", "-"),
        off=off or None,
        argument=argument,
        kind=_kind(get_args(bare)[0] if many else bare, mark.parser),
        many=many,
        parse=mark.parser,
        default=None if parameter.default is inspect.Parameter.empty else parameter.default,
    )


def _bare(kind: Any) -> Any:
    """Without `| None`."""
    if get_origin(kind) in (Union, types.UnionType):
        return next(each for each in get_args(kind) if each is not type(None))
    return kind


def _kind(bare: Any, parser: object) -> Kind:
    if parser is None and bare is bool:
        return "flag"
    if parser is None and bare is int:
        return "number"
    if isinstance(bare, type) and issubclass(bare, Path) and not issubclass(bare, Enum):
        return "path"
    return "text"


# -- commands


def every_command() -> dict[str, Later]:
    """By the words that call it: `gc`, `backup create`."""
    from regstore.cli.app import COMMANDS, GROUPS

    found = dict(COMMANDS)
    for group, (_, commands) in GROUPS.items():
        found |= {f"{group} {name}": each for name, each in commands.items()}
    return found


def names_of(command: str) -> tuple[str, ...]:
    """The command's own name, and others that it has."""
    others = [one for one, other in ALIASES.items() if other == command]
    return (command, *others, *([ALIASES[command]] if command in ALIASES else []))


def variable(command: str, word: str = "") -> str:
    """`REGSTORE_BACKUP_PRUNE_KEEP_LAST`; without a word the beginning of all of the command's; without a command
    `REGSTORE_REGION`, which is for all."""
    parts = [*command.split(), word] if command else [word]
    return PREFIX + "_".join(parts).replace("-", "_").upper()
