"""Makes a function a command: Typer is shown its options one by one, and the function gets them in groups.

A group is a frozen dataclass. Each of its fields is annotated for Typer, and named as its option is, so that a field,
the command's parameter, and whatever else may once say an option (Click reads a `default_map` and the environment by
the parameters' names) have one name. A group is declared once and means the same in every command that takes it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Final, TypeVar, get_origin, get_type_hints, overload

import typer
from typer.models import ArgumentInfo

from regstore.cli import underway
from regstore.cli.completing import completed
from regstore.cli.conduct import conduct, name_of
from regstore.cli.helping import in_section
from regstore.cli.no_effect import without_effect
from regstore.cli.outcome import Result
from regstore.cli.output import emit_warning
from regstore.cli.telling import Telling

T = TypeVar("T")

_SAID: Final = "said"
#: What Typer gives to every command.
_CONTEXT: Final = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


def said(text: str, parse: Callable[[str], T]) -> T:
    """A field's default in the words of the command line, as the help shows it. `parse` is the parser of its option."""
    default: T = field(default_factory=functools.partial(parse, text), metadata={_SAID: text})
    return default


Function = Callable[..., "Result | int | None"]


@overload
def command(function: Function) -> Callable[..., None]: ...


@overload
def command(*, answers: bool = False, as_json: bool = True) -> Callable[[Function], Callable[..., None]]: ...


def command(
    function: Function | None = None, *, answers: bool = False, as_json: bool = True
) -> Callable[..., None] | Callable[[Function], Callable[..., None]]:
    """Make the function a command. It gives back a `Result`, or the exit code alone; what all commands do alike, with
    their errors and their results, does `conduct`.

    answers: what it prints is what was asked for, so -q leaves it. as_json: it has --json.

    A parameter that is annotated with a dataclass is a group: its fields become arguments and options of the command.
    Any other is annotated for Typer itself. The help has them in the order of the parameters; but the options of the
    first, where that is a group and says what the command works on, stand last.
    """
    if function is None:
        return lambda function: _made(function, answers, as_json)
    return _made(function, answers, as_json)


def _made(function: Function, answers: bool, as_json: bool) -> Callable[..., None]:
    signature = inspect.signature(function, eval_str=True)
    parts = [_part(parameter) for parameter in signature.parameters.values()]
    common = [each for each in _options_of(Telling) if as_json or each.name != "as_json"]
    first = parts[0].parameters if parts else ()
    last = [each for each in first if parts[0].group is not None and not _is_argument(each)]
    shown = [each for each in first if each not in last]
    shown += [each for part in parts[1:] for each in part.parameters] + last + common
    shown = [completed(each) for each in shown]

    def run(context: typer.Context, **given: Any) -> None:
        underway.begin(function.__name__)

        def work() -> Result | int | None:
            for sentence in without_effect(function.__name__, given):
                emit_warning(sentence)
            return function(**{part.name: part.value(given) for part in parts})

        conduct(
            work,
            Telling(**{each.name: given[each.name] for each in common}),
            command=name_of(context),
            store=given.get("store"),
            answers=answers,
            monitored=given.get("step") is None,  # of a job, which tells of its own end
        )

    run.__name__ = function.__name__
    run.__doc__ = function.__doc__
    run.__module__ = function.__module__
    # All that Typer asks for.
    run.__signature__ = inspect.Signature([_CONTEXT, *shown])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (_CONTEXT, *shown)}
    return run


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A parameter of the function, and what Typer is shown for it."""

    name: str
    group: type[Any] | None
    parameters: tuple[inspect.Parameter, ...]

    def value(self, given: dict[str, Any]) -> Any:
        if self.group is None:
            return given[self.name]
        return self.group(**{parameter.name: given[parameter.name] for parameter in self.parameters})


def _part(parameter: inspect.Parameter) -> _Part:
    annotation = parameter.annotation
    if not (isinstance(annotation, type) and is_dataclass(annotation)):
        if isinstance(parameter.default, Field):
            raise TypeError(f"{parameter.name}: `said` is for the fields of groups")
        own = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        return _Part(name=parameter.name, group=None, parameters=(own,))
    return _Part(name=parameter.name, group=annotation, parameters=_options_of(annotation))


@functools.cache
def _options_of(group: type[Any]) -> tuple[inspect.Parameter, ...]:
    hints = get_type_hints(group, include_extras=True)
    return tuple(
        in_section(
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=each.metadata.get(
                    _SAID, inspect.Parameter.empty if each.default is MISSING else each.default
                ),
                annotation=hints[each.name],
            ),
            group,
        )
        for each in fields(group)
    )


def _is_argument(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    return get_origin(annotation) is Annotated and any(
        isinstance(each, ArgumentInfo) for each in annotation.__metadata__
    )
