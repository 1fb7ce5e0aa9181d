"""The values that a command's options have from elsewhere than its command line, and who said each.

An option that the command line does not say has the value of the first of these that says it: the step of a job; the
environment, by the variable of this command and then by the one of all; the file, by `[options.COMMAND]` and then by
`[options]`. What nobody says has its default. A step comes before the environment, for whoever starts the job names
it: it speaks with the voice of the command line. So does a store that is named there (`current`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, Final

from regstore.cli.config.ambient import ELSEWHERE, NOT_OF_ALL, OF_THE_END, SHARED, is_ambient, refuse_unless_careful
from regstore.cli.config.look import Look, names_of, variable
from regstore.cli.config.model import Configuration, Step, suggestion
from regstore.cli.config.place import VARIABLE
from regstore.cli.config.reference import Reference, as_written, reference_of
from regstore.errors import InputError

#: What is a store, or a backup, and may so be the name of one.
STORES: Final = frozenset({"store", "backup", "dst", "repair_from"})
_YES: Final = ("1", "true", "yes", "on", "y", "t")
_NO: Final = ("0", "false", "no", "off", "n", "f")
#: What Kubernetes sets for every service of a name such as regstore-serve.
_OF_A_SERVICE: Final = re.compile(r"(?:SERVICE_HOST|SERVICE_PORT(?:_.*)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_.*)?)?)")


@dataclass(frozen=True, kw_only=True)
class Given:
    """value: as the command line would give it: text, a list of texts, or whether a flag is set; or a Reference, which
    is still to be got. source: who said it."""

    value: Any
    source: str

    @property
    def runs_a_command(self) -> bool:
        return isinstance(self.value, Reference) and self.value.kind == "command"

    def got(self, environ: Mapping[str, str]) -> Given:
        """With a value that is one. InputError where a reference has none."""
        if not isinstance(self.value, Reference):
            return self
        try:
            return replace(self, value=self.value.get(environ))
        except InputError as error:
            raise InputError(f"{self.source}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """All that may speak besides the command line."""

    environ: Mapping[str, str]
    configuration: Configuration | None = None
    step: Step | None = None

    @property
    def is_part(self) -> bool:
        """Of a job, whose end is told of once."""
        return self.step is not None and self.step.number > 0


def given_elsewhere(
    command: str, looks: Iterable[Look], elsewhere: Elsewhere, said: Set[str] = frozenset()
) -> dict[str, Given]:
    """By the parameters' names. said: those that the command line has. InputError where anything is said that is no
    option, can't be understood, or may not be said there, whether or not it would count."""
    known = {look.word: look for look in looks if look.word != "help"}
    options = {word: look for word, look in known.items() if not look.argument}
    layers = [
        *_step(elsewhere, known),
        *_environment(command, options, elsewhere.environ),
        *_file(command, options, elsewhere.configuration),
    ]
    found: dict[str, Given] = {}
    for layer in layers:
        for word, given in layer.items():
            ends = word in OF_THE_END and layer is not layers[0] and elsewhere.is_part
            if known[word].name not in said and not ends:
                found.setdefault(known[word].name, given)
    return found


# -- the step of a job


def _step(elsewhere: Elsewhere, known: Mapping[str, Look]) -> list[dict[str, Given]]:
    step, configuration = elsewhere.step, elsewhere.configuration
    if step is None or configuration is None:
        return []
    if "restart_command" in step.options and not configuration.place.may_run_commands:
        raise InputError(
            f"{step.where}: restart_command is not run, for the file was only found in the current folder: name it "
            "with --config"
        )
    return [_table(step.options, known, step.where, configuration)]


# -- the environment


def _environment(command: str, options: Mapping[str, Look], environ: Mapping[str, str]) -> list[dict[str, Given]]:
    own: dict[str, Given] = {}
    shared: dict[str, Given] = {}
    beginnings = tuple(variable(each) for each in names_of(command))
    for name in sorted(environ):
        beginning = next((each for each in beginnings if name.startswith(each)), None)
        if beginning is None or not environ[name]:
            continue
        word = name.removeprefix(beginning).lower()
        if word not in options:
            if _OF_A_SERVICE.fullmatch(name.removeprefix(beginning)):
                continue
            close = suggestion(word, filter(is_ambient, options))
            close = close.replace("did you mean ", f"did you mean {beginning}") if "?" in close else ""
            raise InputError(f"{name} is no option of {command}{_upper(close)}")
        own[word] = _of_variable(options[word], name, environ[name])
    for word in sorted(options.keys() - ELSEWHERE):
        name = variable("", word)
        if environ.get(name) and name != VARIABLE:
            if word not in SHARED:
                _refuse_without_command(command, options[word], name, environ[name])
            shared[word] = _of_variable(options[word], name, environ[name])
    return [own, shared]


def _refuse_without_command(command: str, look: Look, name: str, value: str) -> None:
    """Who says REGSTORE_DRY_RUN believes that it counts."""
    refuse_unless_careful(look, value, name)
    raise InputError(f"{name} is not for all commands: for this one it is {variable(command, look.word)}")


def _upper(text: str) -> str:
    """`…?` with the variable's name in capitals."""
    head, mark, tail = text.partition("REGSTORE_")
    return head + (mark + tail).upper()


def _of_variable(look: Look, name: str, text: str) -> Given:
    refuse_unless_careful(look, text, name)
    value: Any = text
    if look.kind == "flag":
        if text.strip().lower() not in _YES + _NO:
            raise InputError(f"{name} is 1 or 0 (or true, false, yes, no, on, off), not {text!r}")
        value = text.strip().lower() in _YES
    elif look.many:
        value = text.split()
    return Given(value=value, source=name)


def strange_variables(commands: Mapping[str, Mapping[str, Look]], environ: Mapping[str, str]) -> list[str]:
    """Variables that begin as ours and say nothing to any command, a sentence each. Commands: their options by word."""
    known = {VARIABLE, "REGSTORE_DEBUG", "REGSTORE_S3_TRANSPORT", *(variable("", word) for word in SHARED)}
    for command, options in commands.items():
        known |= {variable(name, word) for name in names_of(command) for word in options}
    names = [variable(name) for command in commands for name in names_of(command)]
    strange = []
    for name in sorted(environ):
        if not name.startswith("REGSTORE_") or name in known:
            continue
        rests = [name.removeprefix(each) for each in ("REGSTORE_", *names) if name.startswith(each)]
        if any(_OF_A_SERVICE.fullmatch(each) for each in rests):
            continue
        strange.append(f"{name} is no option of any command{suggestion(name, known)}")
    return strange


# -- the file


def _file(command: str, options: Mapping[str, Look], configuration: Configuration | None) -> list[dict[str, Given]]:
    if configuration is None:
        return []
    found = []
    for name in (*names_of(command), ""):
        section = f"[options.{name.replace(' ', '.')}]" if name else "[options]"
        table = configuration.options.get(name, {})
        if not name:
            table = {word: value for word, value in table.items() if word in options}
        where = f"{section} of {configuration.place.path}"
        for word in options.keys() & table.keys():
            if word in OF_THE_END:
                raise InputError(f"{configuration.place.path}: {section} {word} {NOT_OF_ALL}")
            if not is_ambient(word):
                refuse_unless_careful(options[word], None, f"{configuration.place.path}: {section} {word}")
        values = _table(table, options, where, configuration)
        for word, given in values.items():
            refuse_unless_careful(options[word], given.value, f"{configuration.place.path}: {section} {word}")
        found.append(values)
    return found


def _table(
    table: Mapping[str, Any], known: Mapping[str, Look], where: str, configuration: Configuration
) -> dict[str, Given]:
    """The values of a section, by word; references are left as they are."""
    found = {}
    for word, value in table.items():
        section, _, _ = where.rpartition(" of ")
        at = f"{configuration.place.path}: {section} {word}"
        if word not in known:
            raise InputError(f"{at}: no such option{suggestion(word, known)}")
        try:
            found[word] = Given(value=_of_toml(known[word], value, configuration), source=where)
        except InputError as error:
            raise InputError(f"{at} {error}") from error
    return found


def _of_toml(look: Look, value: Any, configuration: Configuration) -> Any:
    if look.many:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            raise InputError(f"is text or a list of texts, not {as_written(value)}")
        if not texts:
            raise InputError("is an empty list, which would be as if nothing were said: leave it out")
        return texts
    if look.kind == "flag":
        if not isinstance(value, bool):
            raise InputError(f"is true or false, not {as_written(value)}")
        return value
    if look.kind == "number":
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"is a whole number, not {as_written(value)}")
        return str(value)
    place = configuration.place
    if isinstance(value, dict) and look.kind == "text":
        return reference_of(value, place.folder, may_run=place.may_run_commands)
    if not isinstance(value, str):
        like = f", such as {look.default!r}" if look.parse is not None and look.default else ""
        raise InputError(f"is text{like}, not {as_written(value)}")
    if look.word in STORES:
        return _store(value, configuration)
    if look.word == "policy" and value in configuration.policies:
        return f"@{value}"
    return str(place.folder / value) if look.kind == "path" else value


def _store(value: str, configuration: Configuration) -> str:
    if value in configuration.stores:
        return f"@{value}"
    if "/" in value:
        return value if "://" in value else str(configuration.place.folder / value)
    raise InputError(
        f"names no store of the file{suggestion(value, configuration.stores)} (an address or a folder has a / in it)"
    )
