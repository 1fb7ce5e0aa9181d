"""A command as Click runs it, with the values that its command line leaves to the environment and to the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperGroup

from regstore.cli.config.current import Current, holding, load, refuse_problems
from regstore.cli.helping import Sections
from regstore.cli.output import emit_error
from regstore.errors import InputError

if TYPE_CHECKING:
    from regstore.cli.config.model import Configuration, Step

#: Click's, which typer has for itself.
_UsageError: Final[type[Any]] = typer.BadParameter.__mro__[1]
_TOLD: Final = "regstore.told"
#: They are about none of the stores that a file names, and `init` is at work where it has written one for others.
_OF_NO_STORE: Final = frozenset({"demo", "init"})
_SOURCES: Final = "regstore.sources"


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a command need not look for. get: whether references are got; otherwise no command is run for one."""

    configuration: Configuration | None
    step: Step | None = None
    get: bool = True


def _refusal(message: str, ctx: Any) -> Any:
    """As of words that can't be understood; but its usage would not help, for the command line is not what is wrong."""
    refusal = _UsageError(message, ctx)
    refusal.show = lambda file=None: emit_error(message)
    return refusal


class Configured(Sections):
    """The real command, once it is imported."""

    #: While it runs.
    _current = Current()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell completes; an option whose value is still to come would end the parsing
            return super().parse_args(ctx, args[:-1] if args and args[-1].startswith("-") else args)
        words, named = self._without_config(args)
        refused: InputError | None = None
        try:
            self._configure(ctx, words, named)
        except InputError as error:
            if not set(ctx.help_option_names) & set(words):
                raise _refusal(str(error), ctx) from error
            refused = error
        try:
            rest = super().parse_args(ctx, words)  # which ends by itself where help is asked for
        except typer.BadParameter as error:
            source = ctx.meta.get(_SOURCES, {}).get(getattr(error.param, "name", ""))
            if source is not None:
                error.message = f"{error.message} (as {source} says)"
            raise
        if refused is not None:
            raise _refusal(str(refused), ctx) from refused
        return rest

    def invoke(self, ctx: Any) -> Any:
        with holding(self._current):
            return super().invoke(ctx)

    def _configure(self, ctx: Any, words: list[str], named: str | None) -> None:
        assert self.callback is not None
        environ = dict(os.environ)
        command = " ".join(ctx.command_path.split()[1:])
        told: Told | None = ctx.meta.pop(_TOLD, None)
        if told is None:
            found = load(named or ctx.find_root().params.get("config"), environ, look=command not in _OF_NO_STORE)
            if not command.startswith("config "):
                refuse_problems(found)
            told = Told(configuration=found)
        opts, _, _ = self.make_parser(ctx).parse_args(args=list(words))
        said = {name for name, value in opts.items() if value not in (None, ())}
        self._current = Current(configuration=told.configuration, said=frozenset(said))
        if told.configuration is None and not any(name.startswith("REGSTORE_") for name in environ):
            return
        from regstore.cli.config.ambient import OF_THE_END
        from regstore.cli.config.look import looks_of
        from regstore.cli.config.sources import Elsewhere, given_elsewhere

        step = told.step
        if command == "run" and told.configuration is not None and opts.get("name") in told.configuration.jobs:
            step = told.configuration.jobs[opts["name"]].own
        elsewhere = Elsewhere(environ=environ, configuration=told.configuration, step=step)
        found_elsewhere = given_elsewhere(command, looks_of(self.callback), elsewhere, said)
        if command == "run" and "step" in said:  # a part of a job, whose end is told of once
            found_elsewhere = {name: each for name, each in found_elsewhere.items() if name not in OF_THE_END}
        if told.step is not None:
            said |= {name for name, given in found_elsewhere.items() if given.source == told.step.where}
        around = {name: given.source for name, given in found_elsewhere.items() if given.source in environ}
        self._current = Current(configuration=told.configuration, said=frozenset(said), around=around)
        ctx.default_map = {
            name: given.got(environ).value
            for name, given in found_elsewhere.items()
            if told.get or not given.runs_a_command
        }
        ctx.meta[_SOURCES] = {name: given.source for name, given in found_elsewhere.items()}

    def _without_config(self, args: Sequence[str]) -> tuple[list[str], str | None]:
        """`--config FILE` may also stand after the command, unless that has such an option of its own."""
        words = list(args)
        if any("--config" in param.opts for param in self.params):
            return words, None
        for place, word in enumerate(words):
            if word == "--":
                break
            if word.startswith("--config="):
                del words[place]
                return words, word.partition("=")[2]
            if word == "--config" and place + 1 < len(words):
                named = words[place + 1]
                del words[place : place + 2]
                return words, named
        return words, None


def context_of(command: str, told: Told, words: Sequence[str] = ()) -> Any:
    """The context of a command with these words, which `context.command` runs. InputError where a value can't be
    understood."""
    from regstore.cli.config.look import every_command

    *groups, name = command.split()
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name, cls=Configured)(every_command()[command].load())
    real = typer.main.get_command(alone)
    parent = typer.Context(TyperGroup(), info_name="regstore")
    for word in groups:
        parent = typer.Context(TyperGroup(), info_name=word, parent=parent)
    parent.meta[_TOLD] = told
    if told.step is None and not told.get:  # only looked at: what it can't do without is somebody else's to say
        words = [*words, *("x" for each in real.params if each.required and each.param_type_name == "argument")]
    try:
        return real.make_context(name, list(words), parent)
    except _UsageError as error:
        raise InputError(error.format_message()) from error
